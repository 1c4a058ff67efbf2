"""The teacher of a pretrained policy: an outline of sub-questions, short English thoughts.

It teaches the format, the split of a question, the reading of descriptors, and the answer. The
candidates are drawn by good and bad habits: that choice is learned by reward alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from router_r1_graph import CallRecord, Candidate, RuleController, View
from router_r1_graph.answers import is_abstention, short_answer
from router_r1_graph.protocol import Call, Turn
from router_r1_graph.simulation import Question
from router_r1_graph.simulation.wording import UNCLEAR

from .outline import UNKNOWN, Line, Outline
from .subjects import subject_of
from .teacher import HABITS

_HABITS = [name for name in HABITS if name != "any at all"]
"""A thought that the descriptors just read do not matter."""


class EnglishTeacher(RuleController):
    """Writes turns for a policy to imitate; all of its draws follow from seed and question.

    Args:
        lessons: the question of a world behind each text.
        seed: another one gives other traces of the same questions.
        give_up: how often it leaves a sub-question that was asked before in vain, and asks the
            whole question in its own words; or gives up, if that is not known either. A
            sub-question that was not understood is always left.
        steady: how often a question keeps one habit throughout; else each call draws its own.
    """

    name = "teacher"

    def __init__(
        self,
        lessons: Mapping[str, Question],
        seed: int = 0,
        *,
        give_up: float = 0.25,
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
        outline = Outline(lesson)
        calls = view.replies
        last = calls[-1].round if calls else 0
        before = _replies(outline, [call for call in calls if call.round < last])
        replies = _replies(outline, calls)
        if (whole := _said(calls).get(view.question)) and not outline.as_asked:
            return Turn((f"{whole}. Done.",), answer=whole)
        thoughts = [f"#{n} {reply}." for n, reply in replies.items() if n not in before]
        if not calls:
            thoughts.append(str(outline))
        open_ = [line for line in outline.lines if line.number not in replies]
        filled = [(line, line.filled(replies)) for line in open_]
        wanted = [(line, query) for line, query in filled if query is not None]
        if not wanted:
            end = outline.answered(replies)
            return Turn((" ".join([*thoughts, *end.thoughts]),), answer=end.answer)
        if view.must_answer:
            return Turn(("Nobody knew.",), answer=UNKNOWN)
        return self._asking(view, outline, thoughts, wanted)

    def _asking(
        self, view: View, outline: Outline, thoughts: list[str], wanted: Sequence[tuple[Line, str]]
    ) -> Turn:
        """Return the turn that asks these sub-questions, or the whole question, or gives up."""
        rng = random.Random(f"{self.seed}/{view.question}/{len(view.scratchpad)}")
        of_question = random.Random(f"{self.seed}/{view.question}")
        steady = of_question.choice(_HABITS) if of_question.random() < self.steady else ""
        calls: list[Call] = []
        given_up = False
        aloud: dict[str, list[int]] = {}
        """The text about the descriptors, and its sub-questions: those of one subject share it."""

        def choose(choice: list[Candidate], query: str) -> str:
            """Add the call of one of them; return the text about them."""
            choice.sort(key=lambda c: c.price_usd_per_mtok)
            habit = HABITS[steady or rng.choice(_HABITS)]
            calls.append(Call(habit(rng, choice, choice).name, query))
            return f" Cheapest first: {', '.join(c.name for c in choice)}."

        heard = _asked(view, view.question)
        whole = [c for c in _fitting(view, *outline.domains) if c.name not in heard]
        for line, query in wanted[: view.context.max_calls_per_round]:
            asked = _asked(view, query)
            left = [c for c in view.pool.candidates if c.name not in asked]
            fit = [c for c in left if line.domain and _fits(c, line.domain)]
            if asked:
                thoughts.append(f"#{line.number} not known to {', '.join(asked)}.")
            read = _aloud(line, view, asked)
            leave = rng.random() < (1.0 if whole and _unclear(view, query) else self.give_up)
            if asked and (not fit or leave):
                given_up = True
            else:
                read += choose(fit or left, query)
            aloud.setdefault(read, []).append(line.number)
        thoughts += (f"{', '.join(f'#{n}' for n in of)} {read}" for read, of in aloud.items())
        if given_up:
            if outline.as_asked or not whole:
                return Turn((" ".join(thoughts),), answer=UNKNOWN)
            calls.clear()
            thoughts.append("The question as asked." + choose(whole, view.question))
        thoughts.append(f"Cost counts {100 * view.context.cost_weight:.0f}%.")
        return Turn((" ".join(thoughts),), tuple(calls))


def _asked(view: View, query: str) -> list[str]:
    """Return the candidates that were asked a query."""
    return [call.candidate for call in view.replies if call.query == query]


def _unclear(view: View, query: str) -> bool:
    """Return whether a query was not understood."""
    return any(call.query == query and UNCLEAR in call.reply for call in view.replies)


def _said(calls: Sequence[CallRecord]) -> dict[str, str]:
    """Return the known replies, by query."""
    return {
        call.query: short_answer(call.reply)
        for call in calls
        if call.ok and not is_abstention(call.reply)
    }


def _replies(outline: Outline, calls: Sequence[CallRecord]) -> dict[int, str]:
    """Return the known replies to an outline's lines, by their numbers."""
    said = _said(calls)
    replies: dict[int, str] = {}
    for line in outline.lines:
        query = line.filled(replies)
        if query in said:
            replies[line.number] = said[query]
    return replies


def _score(candidate: Candidate, domain: str) -> str:
    """Return a descriptor's score for a domain: `87`, `92-98`, `good`; "" = none."""
    scores = candidate.brief_scores.items()
    said = [score for subject, score in scores if subject_of(subject) == domain]
    claimed = any(subject_of(strength) == domain for strength in candidate.strengths)
    return said[0] if said else "good" if claimed else ""


def _fits(candidate: Candidate, domain: str) -> bool:
    """Return whether a candidate claims to know a domain."""
    score = _score(candidate, domain) or "0"
    return score == "good" or float(score.split("-")[0]) >= 50


def _fitting(view: View, *domains: str) -> list[Candidate]:
    """Return the candidates that claim to know all domains, cheapest first."""
    fit = [c for c in view.pool.candidates if all(_fits(c, domain) for domain in domains)]
    return sorted(fit, key=lambda c: c.price_usd_per_mtok)


def _aloud(line: Line, view: View, asked: Sequence[str]) -> str:
    """Go through the descriptors in their order, and write the score of each for a sub-question.

    A list of all is longer than a list of those that fit, but far easier for a small policy: the
    next name is the next line of the prompt, and each score is looked up in the line at hand. Those
    that fit are repeated next to the call, because the policy asked some that it had just refused.
    A domain is read once: later turns find it in their own words. Who was asked in vain is marked
    in the list of those that fit: to leave a name out while it copies is more than it can do.
    """
    fit = _fitting(view, *filter(None, [line.domain]))
    marked = ", ".join(f"{c.name} asked" if c.name in asked else c.name for c in fit)
    again = f": {marked}." if asked else "."
    if line.domain is None:
        return f"Nobody in particular{again}"
    domain = f"{line.domain[:1].upper()}{line.domain[1:]}"
    if any(f" {domain}: " in message.text for message in view.scratchpad):
        return f"{domain} again{again}"
    said = (f"{c.name} {_read(c, line.domain)}" for c in view.pool.candidates)
    return f"{domain}: {', '.join(said)}."


def _read(candidate: Candidate, domain: str) -> str:
    score = _score(candidate, domain)
    return f"{score} {candidate.brief_price}" if score else "no"
