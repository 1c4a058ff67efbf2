"""The cheapest way to a right answer, found by really asking every simulated candidate.

A lower bound for every controller, and a teacher. Lucky guesses do not count: an answer must rest
on facts that the candidate knows. Only what candidates cost is counted, not the controller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ..candidates import Candidate
from .grammar import parse, phrase
from .mind import reply_text_and_tokens
from .questions import true_answer
from .structure import Ask, Compare, Same, Structure, Term, YesNo, folded
from .world import World

Call = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """Calls (candidate name, query) by round, and what they lead to."""

    rounds: tuple[tuple[Call, ...], ...]
    answer: str
    cost_usd: float
    reachable: bool


UNREACHABLE = Plan((), "", 0.0, False)


def best_plan(
    question: Structure | str,
    gold: Sequence[str],
    candidates: Sequence[Candidate],
    world: World,
) -> Plan:
    """Return the cheapest plan that ends in a right answer.

    Ways considered: one candidate asked the whole question (as it is worded), and every way to cut
    it into parts, each asked of the cheapest candidate that gets it right. A part may hold several
    hops.

    Args:
        question: A structure, or a text to parse.
        gold: Right answers.
        candidates: Simulated ones.
        world: What is true.

    Returns:
        A plan; `reachable=False`, without rounds, answer and cost, when there is none.
    """
    structure = parse(question) if isinstance(question, str) else question
    if structure is None:
        return UNREACHABLE
    wording = question if isinstance(question, str) else phrase(structure)
    search = _Search(candidates, world)
    right = {folded(answer) for answer in gold}
    plans = [search.ask(wording, right), *search.parts(structure)]
    found = [plan for plan in plans if plan.reachable and folded(plan.answer) in right]
    return min(found, key=_rank, default=UNREACHABLE)


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
        match structure:
            case Ask():
                return [self.chain(structure)]
            case YesNo(ask):
                plans = [self.chain(ask)]
                # The inner part first, then the yes/no question about the last hop.
                inner = self.term(ask.subject)
                plans.append(
                    self._then(inner, YesNo(Ask(ask.relation, inner.answer), structure.value))
                )
                answer = true_answer(self.world, structure) or ""
                return [plans[0] and _with_answer(plans[0], answer), plans[1]]
            case Same(relation, first, second) | Compare(relation, first, second):
                answer = true_answer(self.world, structure) or ""
                named = _beside(self.term(first), self.term(second), answer)
                if isinstance(structure, Same):
                    # Only the objects are needed, so a side can be asked in one call.
                    sides = [self.chain(Ask(relation, side)) for side in (first, second)]
                else:
                    # The sides' names are needed too: one of them is the answer.
                    sides = [self._named(relation, side) for side in (first, second)]
                plans = [_beside(sides[0], sides[1], answer)]
                ours, theirs = self.term(first).answer, self.term(second).answer
                flat: Structure = (
                    Same(relation, ours, theirs)
                    if isinstance(structure, Same)
                    else Compare(relation, ours, theirs, structure.least)
                )
                return [*plans, self._then(named, flat)]

    def term(self, term: Term) -> Plan:
        """Return the cheapest way to learn a term; a name costs nothing."""
        return Plan((), term, 0.0, True) if isinstance(term, str) else self.chain(term)

    def chain(self, ask: Ask) -> Plan:
        """Return the cheapest way to the answer of an ask, cut at any of its hops or nowhere."""
        right = true_answer(self.world, ask)
        if right is None:
            return UNREACHABLE
        plans = []
        whole: list[Ask] = [ask]
        while isinstance(inner := whole[-1].subject, Ask):
            whole.append(inner)
        # whole[k] lacks the k outer hops: learn its subject, then ask for hops 0 to k at once.
        for depth, cut in enumerate(whole):
            start = self.term(cut.subject)
            if start.reachable:
                query: Ask | str = start.answer
                for hop in reversed(whole[: depth + 1]):
                    query = Ask(hop.relation, query)
                assert isinstance(query, Ask)
                plans.append(_after(start, self.ask(phrase(query), {folded(right)})))
        return min((plan for plan in plans if plan.reachable), key=_rank, default=UNREACHABLE)

    def _named(self, relation: str, side: Term) -> Plan:
        start = self.term(side)
        return _after(start, self.chain(Ask(relation, start.answer))) if start.reachable else start

    def _then(self, start: Plan, question: Structure) -> Plan:
        """Return the plan that goes on with one more call, once `start` is known."""
        if not start.reachable:
            return UNREACHABLE
        answer = true_answer(self.world, question)
        if answer is None:
            return UNREACHABLE
        return _after(start, self.ask(phrase(question), {folded(answer)}))


def _after(first: Plan, second: Plan) -> Plan:
    if not (first.reachable and second.reachable):
        return UNREACHABLE
    return Plan(first.rounds + second.rounds, second.answer, first.cost_usd + second.cost_usd, True)


def _beside(first: Plan, second: Plan, answer: str) -> Plan:
    """Return both plans at once, round by round, with what follows from them as the answer."""
    if not (first.reachable and second.reachable):
        return UNREACHABLE
    rounds = tuple(
        tuple(dict.fromkeys((*one, *other)))
        for one, other in zip_longest(first.rounds, second.rounds, fillvalue=())
    )
    return Plan(rounds, answer, first.cost_usd + second.cost_usd, True)


def _with_answer(plan: Plan, answer: str) -> Plan:
    return Plan(plan.rounds, answer, plan.cost_usd, True) if plan.reachable else plan
