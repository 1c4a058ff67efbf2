"""The cheapest way to a right answer, found by really asking every simulated candidate.

A lower bound for every controller, and a teacher. Lucky guesses do not count: an answer must rest
on facts that the candidate knows. Only the candidates' cost is counted, not the controller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from ..candidates import Candidate
from .decomposed import Decomposed
from .file_reading import read
from .grammar import phrase
from .mind import reply_text_and_tokens
from .structure import Ask, Between, Both, Compare, Same, Structure, Term, YesNo, folded, parts
from .world import World, true_answer

_Call = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """Calls (candidate name, query) by round, and their result."""

    rounds: tuple[tuple[_Call, ...], ...]
    answer: str
    cost_usd: float
    reachable: bool


UNREACHABLE = Plan((), "", 0.0, False)


def best_plan(
    question: Structure | Decomposed | str,
    gold: Sequence[str],
    candidates: Sequence[Candidate],
    world: World,
    *,
    max_rounds: int | None = None,
    max_calls: int | None = None,
) -> Plan:
    """Return the cheapest plan that ends in a right answer.

    Ways considered: one candidate asked the whole question (as it is worded), and every way to cut
    it into parts, each asked of the cheapest candidate that gets it right. A part may hold several
    hops.

    Args:
        question: A structure, a question of a decomposed file, or a text to read.
        gold: Right answers.
        candidates: Simulated ones.
        world: The true facts.
        max_rounds: Longer plans do not count; None = any length.
        max_calls: The most calls of a round; more of them take another one. None = any number.

    Returns:
        A plan; `reachable=False`, without rounds, answer and cost, when there is none.
    """
    structure = read(world, question) if isinstance(question, str) else question
    if structure is None:
        return UNREACHABLE
    search = _Search(candidates, world)
    right = {folded(answer) for answer in gold}
    if isinstance(structure, Decomposed):
        plans = [search.ask(structure.question, right), search.in_parts(structure)]
    else:
        wording = question if isinstance(question, str) else phrase(structure)
        plans = [search.ask(wording, right), *search.parts(structure)]
    found = [
        plan
        for plan in (_with_rounds_of(max_calls, plan) for plan in plans)
        if plan.reachable
        and folded(plan.answer) in right
        and (max_rounds is None or len(plan.rounds) <= max_rounds)
    ]
    return min(found, key=_rank, default=UNREACHABLE)


def _with_rounds_of(max_calls: int | None, plan: Plan) -> Plan:
    if max_calls is None:
        return plan
    rounds = (
        calls[start : start + max_calls]
        for calls in plan.rounds
        for start in range(0, len(calls), max_calls)
    )
    return replace(plan, rounds=tuple(rounds))


def _rank(plan: Plan) -> tuple[float, int, int]:
    """Cheaper first; ties go to fewer rounds, then to fewer calls."""
    return (round(plan.cost_usd, 12), len(plan.rounds), sum(map(len, plan.rounds)))


@dataclass(frozen=True)
class _Search:
    candidates: Sequence[Candidate]
    world: World

    def ask(self, query: str, right: set[str]) -> Plan:
        """Return the plan of one call: the cheapest candidate that replies right."""
        plans = []
        for candidate in self.candidates:
            reply = reply_text_and_tokens(candidate, query)
            if reply.knows and not reply.cut and reply.answer and folded(reply.answer) in right:
                cost = candidate.cost_usd(reply.input_tokens, reply.output_tokens)
                plans.append(Plan((((candidate.name, query),),), reply.answer, cost, True))
        return min(plans, key=_rank, default=UNREACHABLE)

    def parts(self, structure: Structure) -> list[Plan]:
        """Return plans that ask a question in parts."""
        if isinstance(structure, Ask):
            return [self.chain(structure)]
        answer = true_answer(self.world, structure) or ""
        if isinstance(structure, YesNo):
            ask, inner = structure.ask, self.term(structure.ask.subject)
            last_hop = YesNo(Ask(ask.relation, inner.answer), structure.value)
            return [replace(self.chain(ask), answer=answer), self._then(inner, last_hop)]
        asked = parts(structure)
        sides = [self.term(ask.subject) for ask in asked]
        if isinstance(structure, Compare):
            # The names of the sides count, too: one of them is the answer.
            each = [self._named(structure.relation, side) for side in sides]
        else:
            # Only the objects count, so a side can be asked about in one call.
            each = [self.chain(ask) for ask in asked]
        return [
            _beside(each, answer),
            self._then(_beside(sides, answer), _about(structure, [side.answer for side in sides])),
        ]

    def term(self, term: Term) -> Plan:
        """Return the cheapest way to learn a term; a name costs nothing."""
        return Plan((), term, 0.0, True) if isinstance(term, str) else self.chain(term)

    def chain(self, ask: Ask) -> Plan:
        """Return the cheapest way to the answer of an ask, cut at any of its hops or nowhere."""
        right = true_answer(self.world, ask)
        if right is None:
            return UNREACHABLE
        plans = []
        outer: list[str] = []
        part: Term = ask
        # Learn the subject of a hop first, then ask for that hop and all outer ones in one call.
        while isinstance(part, Ask):
            outer.append(part.relation)
            part = part.subject
            start = self.term(part)
            if start.reachable:
                query = _nested(outer, start.answer)
                plans.append(_after(start, self.ask(phrase(query), {folded(right)})))
        return min((plan for plan in plans if plan.reachable), key=_rank, default=UNREACHABLE)

    def decomposed(self, asked: Decomposed) -> Plan:
        """Return the cheapest way to the answer of a question of a file: as it is, or in parts."""
        plans = [self.ask(asked.question, {folded(asked.answer)})]
        if asked.parts:
            plans.append(self.in_parts(asked))
        return min((plan for plan in plans if plan.reachable), key=_rank, default=UNREACHABLE)

    def in_parts(self, asked: Decomposed) -> Plan:
        """Return the cheapest way over the sub-questions, in their rounds."""
        plan = Plan((), "", 0.0, bool(asked.parts))
        for round_ in asked.rounds():
            plan = _after(plan, _beside([self.decomposed(part) for part in round_], ""))
        return replace(plan, answer=asked.answer) if plan.reachable else UNREACHABLE

    def _named(self, relation: str, side: Plan) -> Plan:
        """Return the plan that learns what a side is, and then its object."""
        return _after(side, self.chain(Ask(relation, side.answer))) if side.reachable else side

    def _then(self, start: Plan, question: Structure) -> Plan:
        """Return the plan that goes on with one more call, once `start` is known."""
        answer = true_answer(self.world, question) if start.reachable else None
        if answer is None:
            return UNREACHABLE
        return _after(start, self.ask(phrase(question), {folded(answer)}))


def _nested(relations: Sequence[str], subject: str) -> Ask:
    """Return the ask with these relations, outermost first."""
    inner = subject if len(relations) == 1 else _nested(relations[1:], subject)
    return Ask(relations[0], inner)


def _after(first: Plan, second: Plan) -> Plan:
    if not (first.reachable and second.reachable):
        return UNREACHABLE
    return Plan(first.rounds + second.rounds, second.answer, first.cost_usd + second.cost_usd, True)


def _beside(plans: Sequence[Plan], answer: str) -> Plan:
    """Return the plans at once, round by round, with what follows from them as the answer."""
    if not all(plan.reachable for plan in plans):
        return UNREACHABLE
    rounds = tuple(
        tuple(dict.fromkeys(call for calls in at_once for call in calls))
        for at_once in zip_longest(*(plan.rounds for plan in plans), fillvalue=())
    )
    return Plan(rounds, answer, sum(plan.cost_usd for plan in plans), True)


def _about(structure: Structure, subjects: Sequence[str]) -> Structure:
    """Return a question of several parts with these plain subjects for the terms of its parts."""
    match structure:
        case Compare():
            return replace(structure, sides=tuple(subjects))
        case Same(relation):
            return Same(relation, subjects[0], subjects[1])
        case Between(first, second) | Both(first, second):
            first, second = (
                replace(first, subject=subjects[0]),
                replace(second, subject=subjects[1]),
            )
            return replace(structure, first=first, second=second)
        case _:
            return structure
