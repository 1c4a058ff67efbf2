"""The teacher of the warm start: it can split a question and read descriptors, but does not choose.

It teaches skills that a pretrained model has already: the format, the next sub-question, the
candidates that fit it, copying, writing the cost weight down. The candidate is drawn from good and
bad habits in equal parts, and whether to continue is drawn as well. The cost weight changes neither
draw, so that good choices are learned from reward alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from langchain_core.messages import AIMessage

from router_r1_graph import Candidate, CandidatePool, RuleController, Trace, View
from router_r1_graph.answers import is_abstention, short_answer
from router_r1_graph.protocol import Call, Turn
from router_r1_graph.simulation import (
    Ask,
    Between,
    Compare,
    Decomposed,
    Same,
    Structure,
    World,
    YesNo,
    known_world,
    next_steps,
    phrase,
    read,
    read_question,
    relation_domain,
)
from router_r1_graph.simulation.structure import Term, folded, number_in

Habit = Callable[[random.Random, Sequence[Candidate], Sequence[Candidate]], Candidate]

#: Each gets the candidates that fit and all of them; equal parts of good and bad.
HABITS: Mapping[str, Habit] = {
    "cheapest that fits": lambda rng, fit, all_: min(fit, key=lambda c: c.price_usd_per_mtok),
    "most expensive that fits": lambda rng, fit, all_: max(fit, key=lambda c: c.price_usd_per_mtok),
    "any that fits": lambda rng, fit, all_: rng.choice(fit),
    "any at all": lambda rng, fit, all_: rng.choice(all_),
}


def fits(candidate: Candidate, domain: str) -> bool:
    """Return whether a candidate's descriptor says that it knows about a domain."""
    return candidate.benchmarks.get(domain, 0.0) >= 0.5 or domain in candidate.strengths


class TeacherController(RuleController):
    """Writes turns for a policy to imitate; all of its draws follow from seed and question.

    Args:
        seed: another one gives other traces of the same questions.
        give_up: how often it gives up instead of asking, at any turn.
        give_up_after: the same, if the sub-question was asked before in vain.
        steady: how often a question keeps one habit throughout; else each call draws its own.
            If none did, traces of several calls would rarely be all cheap or all expensive.
    """

    name = "teacher"

    def __init__(
        self,
        seed: int = 0,
        *,
        give_up: float = 0.03,
        give_up_after: float = 0.2,
        steady: float = 0.5,
    ) -> None:
        self.seed = seed
        self.give_up = give_up
        self.give_up_after = give_up_after
        self.steady = steady

    def turn(self, view: View) -> Turn:
        """Ask the next sub-questions with thoughts, or answer."""
        structure = read(_world_of(view.pool), view.question)
        if structure is None:
            raise ValueError(f"the teacher cannot read {view.question!r}")
        known: dict[Ask | YesNo, str] = {}
        replies: dict[str, str] = {}
        asked: dict[str, set[str]] = {}
        for call in view.replies:
            if not call.ok:
                continue
            asked.setdefault(call.query, set()).add(call.candidate)
            if is_abstention(call.reply):
                continue
            replies[call.query] = short_answer(call.reply)
            step = read_question(call.query)
            if isinstance(step, Ask | YesNo):
                known[step] = replies[call.query]
        steps: Sequence[Ask | YesNo | Decomposed] | str
        if isinstance(structure, Decomposed):
            steps = _next_parts(structure, replies)
        else:
            steps = next_steps_of(structure, known)
        if isinstance(steps, str):
            return Turn((_reason(structure, known, steps),), answer=steps)
        if view.must_answer:
            return Turn(("Not known.",), answer="unknown")
        of_question = random.Random(f"{self.seed}/{view.question}")
        steady = of_question.choice(list(HABITS)) if of_question.random() < self.steady else None
        of_turn = random.Random(f"{self.seed}/{view.question}/{len(view.scratchpad)}")
        given_up = of_turn.random() < self.give_up
        thoughts, calls = [], []
        if isinstance(structure, Compare):  # read while the question is near
            thoughts.append(_wanted(structure))
        for place, step in enumerate(steps[: view.context.max_calls_per_round]):
            query, domain = _query(step)
            rng = random.Random(f"{self.seed}/{view.question}/{len(view.scratchpad)}/{place}")
            before = asked.get(query, set())
            candidates = [c for c in view.pool.candidates if c.name not in before]
            candidates = candidates or list(view.pool.candidates)
            known_by = [c for c in view.pool.candidates if fits(c, domain)]
            # As the prompt shows them.
            known_by.sort(key=lambda c: ("all" in c.score_levels, c.price_usd_per_mtok))
            fit = [c for c in known_by if c in candidates] or candidates
            chosen = HABITS[steady or rng.choice(list(HABITS))](rng, fit, candidates)
            given_up |= bool(before) and rng.random() < self.give_up_after
            named = [
                f"{c.name} asked" if c.name in before else _descriptor(c, domain) for c in known_by
            ]
            thoughts.append(f"{domain}: {', '.join(named)}")
            calls.append(Call(chosen.name, query))
        # Last, so that it is next to the choices that depend on it: a candidate, or none.
        thought = ". ".join(thoughts) + _aloud(view.context.cost_weight)
        if given_up:
            return Turn((thought,), answer="unknown")
        return Turn((thought,), tuple(calls))


def at_cost_weight(trace: Trace, weight: float) -> Trace:
    """Return a trace of the teacher as it would have been at another cost weight."""
    before = f"{_aloud(trace.context.cost_weight)} </think>"
    after = f"{_aloud(weight)} </think>"
    scratchpad = tuple(
        m.model_copy(update={"content": str(m.text).replace(before, after, 1)})
        if isinstance(m, AIMessage)
        else m
        for m in trace.scratchpad
    )
    context = replace(trace.context, cost_weight=weight)
    return trace.model_copy(update={"context": context, "scratchpad": scratchpad})


def _aloud(cost_weight: float) -> str:
    return f". a {cost_weight:g}"


def _wanted(question: Compare) -> str:
    return "first" if question.least else "last"


def _descriptor(candidate: Candidate, domain: str) -> str:
    scores = candidate.score_levels
    score = scores.get(domain, scores.get("all", 0))
    return f"{candidate.name} {candidate.price_level} {score}"


def next_steps_of(
    structure: Structure, known: Mapping[Ask | YesNo, str]
) -> Sequence[Ask | YesNo] | str:
    """Return the next steps, or the answer.

    A yes/no question ends as one about a plain subject, so that the candidate that knows the fact
    compares.
    """
    if not isinstance(structure, YesNo):
        return next_steps(structure, known)
    subject = structure.ask.subject
    if isinstance(subject, Ask):
        steps = next_steps(subject, known)
        if not isinstance(steps, str):
            return steps
        subject = steps
    last = replace(structure, ask=Ask(structure.ask.relation, subject))
    return known.get(last) or [last]


def _next_parts(question: Decomposed, replies: Mapping[str, str]) -> Sequence[Decomposed] | str:
    """Return the sub-questions to ask next, or the answer.

    The answer is the last reply, if it is that of the last sub-question. Any other answer is known
    only if all replies are right.
    """
    steps = question.open_parts(replies.keys())
    if steps:
        return steps
    leaves = list(question.leaves())
    if folded(leaves[-1].answer) == folded(question.answer):
        return replies[leaves[-1].question]
    right = all(folded(replies[leaf.question]) == folded(leaf.answer) for leaf in leaves)
    return question.answer if right else "unknown"


def _query(step: Ask | YesNo | Decomposed) -> tuple[str, str]:
    """Return the query of a step, and its domain."""
    match step:
        case Decomposed():
            return step.question, step.domain
        case Ask(relation):
            return phrase(step), relation_domain(relation)
        case YesNo(ask):
            return phrase(step), relation_domain(ask.relation)


def _world_of(pool: CandidatePool) -> World:
    """Return the world that a pool's simulated candidates know; without any, the embedded one."""
    simulated = (c for c in pool.candidates if c.provider == "simulated")
    facts = next((c.options.get("facts") for c in simulated), None)
    return known_world(None if facts is None else str(facts))


def _reason(
    structure: Structure | Decomposed, known: Mapping[Ask | YesNo, str], answer: str
) -> str:
    """Return the reason for the answer, so that the answer can be read off."""

    def value(term: Term) -> str:
        return term if isinstance(term, str) else known[Ask(term.relation, value(term.subject))]

    match structure:
        case Compare(relation, sides):
            number = {name: known[Ask(relation, name)] for name in map(value, sides)}
            numbers = ", ".join(f"{name} {found}" for name, found in number.items())
            if not answer:  # they are no numbers
                return numbers
            # The ends of the order, each with its name and a word (first or last), so that the
            # wanted one can be read off by its word.
            others = [name for name in number if name != answer]
            far = (max if structure.least else min)(
                others, key=lambda name: number_in(number[name]) or 0
            )
            order = (answer, far) if structure.least else (far, answer)
            low, high = (f"{number[name]} {name}" for name in order)
            wanted = f"{_wanted(structure)} {number[answer]} {answer}"
            return f"{numbers}. first {low}, last {high}. {wanted}"
        case Same(relation, first, second):
            ours, theirs = value(Ask(relation, first)), value(Ask(relation, second))
            return f"{ours}, {theirs}: {'same' if folded(ours) == folded(theirs) else 'other'}"
        case Between(first, second):
            return f"{value(first)}, {value(second)}: {answer}"
        case _:
            return answer
