"""The teacher of a pretrained policy: a plan of sub-questions, short English thoughts.

It teaches the format, how a question is split, to read descriptors aloud, and how to answer. Whom
to ask is drawn from good and bad habits: that is learned by reward alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from router_r1_graph import CallRecord, Candidate, RuleController, View
from router_r1_graph.answers import is_abstention, short_answer
from router_r1_graph.protocol import Call, Turn
from router_r1_graph.simulation import Question

from .plans import UNKNOWN, Line, Plan
from .subjects import subject_of
from .teacher import HABITS

_MOST_READ = 4
"""Candidates that a thought reads aloud."""
_WEIGHTS = (3, 3, 3, 1)
"""How often each of `HABITS` is drawn."""


class EnglishTeacher(RuleController):
    """Writes turns for a policy to imitate; everything it draws follows from seed and question.

    Args:
        lessons: what each question asks, by its text.
        seed: another one gives other traces of the same questions.
        give_up: how often it gives up where a sub-question was asked before in vain.
        steady: how often a question keeps one habit throughout; else each call draws its own.
    """

    name = "teacher"

    def __init__(
        self,
        lessons: Mapping[str, Question],
        seed: int = 0,
        *,
        give_up: float = 0.15,
        steady: float = 0.5,
    ) -> None:
        self.lessons = {
            text.strip(): lesson for text, lesson in lessons.items()
        }  # as the graph does
        self.seed = seed
        self.give_up = give_up
        self.steady = steady

    def turn(self, view: View) -> Turn:
        """Ask the next sub-questions, or answer."""
        lesson = self.lessons[view.question]
        if lesson.kind == "stated":
            return Turn(("The question says it.",), answer=lesson.gold[0])
        plan = Plan(lesson)
        calls = view.replies
        last = calls[-1].round if calls else 0
        before = _replies(plan, [call for call in calls if call.round < last])
        replies = _replies(plan, calls)
        thoughts = [f"#{n} {reply}." for n, reply in replies.items() if n not in before]
        if not calls:
            thoughts.append(str(plan))
        open_ = [(line, line.filled(replies)) for line in plan.lines if line.number not in replies]
        wanted = [(line, query) for line, query in open_ if query is not None]
        if not wanted:
            end = plan.answered(replies)
            return Turn((" ".join([*thoughts, *end.thoughts]),), answer=end.answer)
        if view.must_answer:
            return Turn(("Nobody knew.",), answer=UNKNOWN)
        return self._asking(view, thoughts, wanted)

    def _asking(self, view: View, thoughts: list[str], wanted: Sequence[tuple[Line, str]]) -> Turn:
        """Return the turn that asks these sub-questions, or gives up."""
        rng = random.Random(f"{self.seed}/{view.question}/{len(view.scratchpad)}")
        of_question = random.Random(f"{self.seed}/{view.question}")
        steady = _habit(of_question) if of_question.random() < self.steady else ""
        calls, given_up = [], False
        for line, query in wanted[: view.context.max_calls_per_round]:
            asked = [call.candidate for call in view.replies if call.query == query]
            left = [c for c in view.pool.candidates if c.name not in asked]
            fit = [c for c in left if line.domain and _score(c, line.domain)]
            thoughts += _aloud(line, fit, asked)
            given_up |= bool(asked) and (not fit or rng.random() < self.give_up)
            habit = HABITS[steady or _habit(rng)]
            everyone = left or view.pool.candidates
            calls.append(Call(habit(rng, fit or everyone, everyone).name, query))
        if not given_up:
            thoughts.append(f"Cost counts {100 * view.context.cost_weight:.0f}%.")
        thought = " ".join(dict.fromkeys(thoughts))
        return Turn((thought,), answer=UNKNOWN) if given_up else Turn((thought,), tuple(calls))


def _habit(rng: random.Random) -> str:
    """Draw a habit; most calls go to candidates that claim to know."""
    return rng.choices(list(HABITS), weights=_WEIGHTS)[0]


def _replies(plan: Plan, calls: Sequence[CallRecord]) -> dict[int, str]:
    """Return what is known of a plan's lines, by their numbers."""
    said = {
        call.query: short_answer(call.reply)
        for call in calls
        if call.ok and not is_abstention(call.reply)
    }
    replies: dict[int, str] = {}
    for line in plan.lines:
        query = line.filled(replies)
        if query in said:
            replies[line.number] = said[query]
    return replies


def _score(candidate: Candidate, domain: str) -> str:
    """Return what a descriptor says of a domain, "" if it does not claim to know it."""
    for subject, score in candidate.brief_scores.items():
        if subject_of(subject) == domain and float(score.split("-")[0]) >= 50:
            return f"{subject} {score}"
    named = (name for name in candidate.strengths if subject_of(name) == domain)
    return next((f"good at {name}" for name in named), "")


def _aloud(line: Line, fit: Sequence[Candidate], asked: Sequence[str]) -> Iterator[str]:
    """Say of a sub-question who failed at it last, and who may know it."""
    if asked:
        yield f"{asked[-1]} did not know."
    if line.domain is None:
        yield "Nobody in particular."
    elif not fit:
        yield f"Nobody{' else' if asked else ''} names {line.domain}."
    else:
        first = _score(fit[0], line.domain)
        subject = first.removeprefix("good at ").rstrip("0123456789-").strip()
        who = (f"{c.name} {_short(c, line.domain)}" for c in fit[:_MOST_READ])
        yield f"{subject[:1].upper()}{subject[1:]}: {', '.join(who)}."


def _short(candidate: Candidate, domain: str) -> str:
    score = _score(candidate, domain).split()[-1]
    said = score if score[0].isdigit() else "good"
    return f"{said} {candidate.brief_price}"
