"""The teacher of a pretrained policy: short English thoughts, and sub-questions of any world.

It teaches the format, which sub-question comes next, to read descriptors aloud, and how to answer.
Whom to ask, and when to give up, is drawn from good and bad habits in equal parts: that is learned
by reward alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from router_r1_graph import Candidate, RuleController, View
from router_r1_graph.answers import exact_match, is_abstention, short_answer
from router_r1_graph.protocol import Call, Turn
from router_r1_graph.simulation import (
    Ask,
    Between,
    Both,
    Compare,
    Decomposed,
    Question,
    Same,
    YesNo,
    phrase,
    relation_domain,
)
from router_r1_graph.simulation.structure import parts

from .subjects import subject_of
from .teacher import HABITS, next_steps_of

UNKNOWN = "unknown"


class Step(NamedTuple):
    """A sub-question, and who may know it."""

    query: str
    domain: str | None
    """None = nobody in particular."""


class EnglishTeacher(RuleController):
    """Writes turns for a policy to imitate; everything it draws follows from seed and question.

    Args:
        lessons: what each question asks, by its text.
        seed: another one gives other traces of the same questions.
        give_up: how often it gives up instead of asking, at any turn.
        give_up_after: the same, if the sub-question was asked before in vain.
        steady: how often a question keeps one habit throughout; else each call draws its own.
    """

    name = "teacher"

    def __init__(
        self,
        lessons: Mapping[str, Question],
        seed: int = 0,
        *,
        give_up: float = 0.02,
        give_up_after: float = 0.3,
        steady: float = 0.5,
    ) -> None:
        self.lessons = lessons
        self.seed = seed
        self.give_up = give_up
        self.give_up_after = give_up_after
        self.steady = steady

    def turn(self, view: View) -> Turn:
        """Ask the next sub-questions, or answer."""
        lesson = self.lessons[view.question]
        replies: dict[str, str] = {}
        asked: dict[str, list[str]] = {}
        for call in view.replies:
            asked.setdefault(call.query, []).append(call.candidate)
            if call.ok and not is_abstention(call.reply):
                replies[call.query] = short_answer(call.reply)
        rng = random.Random(f"{self.seed}/{view.question}/{len(view.scratchpad)}")
        found = _next(lesson, replies, rng)
        if isinstance(found, Turn):
            return found
        if view.must_answer:
            return _given_up("Nobody knew.")
        of_question = random.Random(f"{self.seed}/{view.question}")
        steady = of_question.choice(list(HABITS)) if of_question.random() < self.steady else None
        given_up = rng.random() < self.give_up
        thoughts: dict[str, None] = {}
        calls = []
        for step in found[: view.context.max_calls_per_round]:
            before = asked.get(step.query, [])
            left = [c for c in view.pool.candidates if c.name not in before]
            fit = [c for c in left if step.domain and _score(c, step.domain)]
            thoughts |= dict.fromkeys(_aloud(step, fit, before))
            habit = HABITS[steady or rng.choice(list(HABITS))]
            given_up |= not left or (bool(before) and rng.random() < self.give_up_after)
            chosen = habit(rng, fit or left or view.pool.candidates, left or view.pool.candidates)
            calls.append(Call(chosen.name, step.query))
        thought = " ".join(thoughts)
        if given_up:
            return _given_up(thought)
        weight = f"Cost counts {100 * view.context.cost_weight:.0f}%."
        return Turn((f"{thought} {weight}",), tuple(calls))


def _given_up(thought: str) -> Turn:
    return Turn((thought,), answer=UNKNOWN)


def _next(lesson: Question, replies: Mapping[str, str], rng: random.Random) -> list[Step] | Turn:
    """Return what to ask next, or the last turn."""
    structure = lesson.structure
    if lesson.kind == "stated":
        return Turn(("The question says it.",), answer=lesson.gold[0])
    if isinstance(structure, Decomposed):
        return _of_parts(structure, replies)
    if structure is None:  # nothing that a world could hold
        if lesson.text in replies:
            return Turn(("That is the reply.",), answer=replies[lesson.text])
        if rng.random() < 0.5:
            return _given_up("Nobody here can know that.")
        return [Step(lesson.text, None)]
    known = _Known(replies)
    steps = next_steps_of(structure, known)
    if not isinstance(steps, str):
        return [Step(phrase(step), _domain(step)) for step in steps]
    if not steps:
        return _given_up("That decides nothing.")
    return Turn((_reason(structure, known, steps),), answer=steps)


def _of_parts(whole: Decomposed, replies: Mapping[str, str]) -> list[Step] | Turn:
    """Go on with the sub-questions; a reply takes the place of the right answer in later ones."""
    said: dict[str, str] = {}
    leaves = list(whole.leaves())

    def as_known(text: str) -> str:
        for leaf in leaves:
            if (reply := said.get(leaf.question)) and not exact_match(reply, leaf.gold):
                text = text.replace(leaf.answer, reply)
        return text

    while open_ := whole.open_parts(said):
        queries = {leaf: as_known(leaf.question) for leaf in open_}
        missing = [
            Step(query, leaf.domain) for leaf, query in queries.items() if query not in replies
        ]
        if missing:
            return missing
        said |= {leaf.question: replies[query] for leaf, query in queries.items()}
    right = all(exact_match(said[leaf.question], leaf.gold) for leaf in leaves)
    last = leaves[-1]
    if right:
        answer = whole.answer
    elif exact_match(last.answer, whole.gold):  # a chain: whatever came last
        answer = said[last.question]
    else:
        return _given_up("That does not fit together.")
    if exact_match(last.answer, whole.gold):
        return Turn(("That is the answer.",), answer=answer)
    return Turn((", ".join(said[leaf.question] for leaf in leaves) + ".",), answer=answer)


class _Known(Mapping[Ask | YesNo, str]):
    """The replies by the structure of the queries."""

    def __init__(self, replies: Mapping[str, str]) -> None:
        self._replies = replies

    def __getitem__(self, step: Ask | YesNo) -> str:
        return self._replies[phrase(step)]

    def __iter__(self) -> Iterator[Ask | YesNo]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _domain(step: Ask | YesNo) -> str:
    return relation_domain((step if isinstance(step, Ask) else step.ask).relation)


def _score(candidate: Candidate, domain: str) -> str:
    """Return what a descriptor says of a domain, "" if it does not claim to know it."""
    for subject, score in candidate.brief_scores.items():
        if subject_of(subject) == domain and float(score.split("-")[0]) >= 50:
            return f"{subject} {score}"
    named = (name for name in candidate.strengths if subject_of(name) == domain)
    return next((f"good at {name}" for name in named), "")


def _aloud(step: Step, fit: Sequence[Candidate], before: Sequence[str]) -> Iterator[str]:
    if before:
        yield f"{' and '.join(before)} did not know."
    if step.domain is None:
        yield "A matter for nobody in particular."
    elif not fit:
        yield f"Nobody names {step.domain}."
    else:
        first = _score(fit[0], step.domain)
        subject = first.removeprefix("good at ").rstrip("0123456789-").strip()
        who = (f"{c.name} {_short(c, step.domain)}" for c in fit[:4])
        yield f"{subject[:1].upper()}{subject[1:]}: {', '.join(who)}."


def _short(candidate: Candidate, domain: str) -> str:
    score = _score(candidate, domain).split()[-1]
    said = score if score[0].isdigit() else "good"
    return f"{said} {candidate.brief_price}"


def _reason(
    structure: Ask | YesNo | Compare | Same | Between | Both, known: _Known, answer: str
) -> str:
    """Return what the answer follows from, so that it can be read off."""

    def value(term: str | Ask) -> str:
        return term if isinstance(term, str) else known[Ask(term.relation, value(term.subject))]

    if isinstance(structure, Ask):
        return "That is the answer."
    if isinstance(structure, YesNo):
        return f"The reply is {answer}."
    values = [value(part) for part in parts(structure)]
    if isinstance(structure, Compare):
        names = [value(side) for side in structure.sides]
        numbers = ", ".join(f"{n} {v}" for n, v in zip(names, values, strict=True))
        return f"{numbers}. {'Smallest' if structure.least else 'Largest'}: {answer}."
    if isinstance(structure, Between):
        low, high = sorted(values, key=lambda v: (len(v), v))
        return f"{high} - {low} = {answer}."
    if isinstance(structure, Both):
        return "Both are known."
    return f"{values[0]} and {values[1]} are {'the same' if answer == 'yes' else 'different'}."
