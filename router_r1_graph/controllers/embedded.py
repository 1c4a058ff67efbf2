"""Controllers that know the embedded world: `keyword`, and `oracle`, the upper bound.

The only part of the router that imports the simulation.
"""

from __future__ import annotations

import re

from ..answers import is_abstention, short_answer
from ..call_records import CallRecord
from ..candidates import Candidate, CandidatePool
from ..errors import ControllerError
from ..protocol import Call, Turn
from ..simulation import (
    EVERY_KIND,
    Ask,
    Plan,
    Question,
    World,
    best_plan,
    generate,
    known_world,
    next_steps,
    phrase,
    read,
    read_question,
    relation_domain,
    true_answer,
)
from .controller import View
from .rules import UNKNOWN, RuleController


def _replies(view: View) -> list[CallRecord]:
    """Return the usable replies so far; one that says "I do not know" is not usable."""
    return [call for call in view.replies if call.ok and not is_abstention(call.reply)]


def _answer(view: View, why: str, *, to_it_all: bool = False) -> Turn:
    """Answer by the last reply, which in full style is the answer if it is one to the question."""
    replies = _replies(view)
    last = replies[-1].reply.strip() if replies else ""
    text = last if to_it_all and view.answer_style == "full" else short_answer(last)
    return Turn(thoughts=(why,), answer=text or UNKNOWN)


class KeywordController(RuleController):
    """Splits a question of the embedded world; asks the cheapest candidates whose strengths fit.

    Any other question goes whole to the candidate whose strengths share most words with it. If a
    candidate abstains, the next one that fits is asked.
    """

    name = "keyword"

    def __init__(self) -> None:
        read_question("")  # loads what it reads by, outside of any event loop

    def turn(self, view: View) -> Turn:
        """Ask the next open sub-questions, or answer."""
        world = _world(view.pool)
        structure = read_question(view.question, world)
        if structure is None:
            if _replies(view) or view.must_answer:
                return _answer(view, "The reply is the answer.", to_it_all=True)
            return self._ask(view, [(view.question, _words(view.question))])
        known: dict[Ask, str] = {}
        for call in _replies(view):
            asked = read_question(call.query, world)
            if isinstance(asked, Ask):
                known[asked] = short_answer(call.reply)
        steps = next_steps(structure, known)
        if isinstance(steps, str):
            return Turn(("Everything needed is known.",), answer=steps)
        if view.must_answer:
            return _answer(view, "Not everything is known; the last reply is the best guess.")
        return self._ask(view, [(phrase(s), {relation_domain(s.relation)}) for s in steps])

    def _ask(self, view: View, queries: list[tuple[str, set[str]]]) -> Turn:
        thoughts, calls = [], []
        for query, subjects in queries:
            asked = {call.candidate for call in view.replies if call.query == query}
            ranked = sorted(
                (c for c in view.pool.candidates if c.name not in asked),
                key=lambda c: _order(c, subjects),
            )
            if ranked:
                shared = ", ".join(sorted(_shared(ranked[0], subjects)))
                why = f"fits {shared} at the best price" if shared else "is left to ask"
                thoughts.append(f"{ranked[0].name} {why}.")
                calls.append(Call(ranked[0].name, query))
        if not calls:
            return _answer(view, "Everybody has been asked.")
        return Turn((" ".join(dict.fromkeys(thoughts)),), tuple(calls))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{3,}", text.casefold()))


def _shared(candidate: Candidate, subjects: set[str]) -> set[str]:
    return {word for strength in candidate.strengths for word in _words(strength)} & subjects


def _order(candidate: Candidate, subjects: set[str]) -> tuple[int, float, float]:
    """Order candidates: those whose strengths fit best by price, the others by score and price."""
    shared = len(_shared(candidate, subjects))
    scores = [score for name, score in candidate.benchmarks.items() if _words(name) & subjects]
    return -shared, 0.0 if shared else -max(scores, default=0.0), candidate.price_usd_per_mtok


class OracleController(RuleController):
    """Knows the embedded world: the best reachable answer at its least cost. An upper bound.

    Only facts that candidates really know count. A question with which no candidate can help is
    answered "unknown", at no cost.

    Args:
        world: the true facts; None = the world that the pool's candidates know.
    """

    name = "oracle"

    def __init__(self, world: World | None = None) -> None:
        self._given = world

    def plan(self, view: View) -> Plan:
        """Return the cheapest calls that lead to the right answer within the rounds of the run."""
        world = self._given or world_of(view.pool)
        structure = read(world, view.question)
        truth = true_answer(world, structure) if structure else None
        return best_plan(
            view.question,
            [truth] if truth else [],
            view.pool.candidates,
            world,
            max_rounds=view.context.max_rounds,
            max_calls=view.context.max_calls_per_round,
        )

    def turn(self, view: View) -> Turn:
        """Make the remaining calls of the plan; answer once all have come back."""
        plan = self.plan(view)
        have = {(call.candidate, call.query) for call in _replies(view)}
        for calls in plan.rounds:
            missing = [call for call in calls if call not in have]
            if missing and view.must_answer:
                return Turn(("The plan could not be followed.",), answer=UNKNOWN)
            if missing:
                return Turn(("This is the cheapest way.",), tuple(Call(*c) for c in missing))
        return Turn(("The plan is done.",), answer=plan.answer or UNKNOWN)


def demo_questions(count: int, seed: int, choice: str = "known") -> list[Question]:
    """Return test questions about the embedded world, with their gold answers.

    Args:
        count: how many.
        seed: the seed of the draw.
        choice: WORDINGS or WORDINGS:KINDS, as `generate` takes them; the kinds with "+" between
            them, in equal parts, or "every" for a mix of all. The usual kinds if none are named.

    Raises:
        ConfigError: there are no such wordings or kinds, or too few such questions.
    """
    wordings, _, kinds = choice.partition(":")
    mix = EVERY_KIND if kinds == "every" else dict.fromkeys(kinds.split("+"), 1.0)
    return generate(
        World.embedded(),
        split="test",
        n=count,
        seed=seed,
        wordings=wordings,  # type: ignore[arg-type]  # checked there, like the kinds
        kinds=mix if kinds else None,  # type: ignore[arg-type]
    )


def _world(pool: CandidatePool) -> World | None:
    """Return the world for reading questions to a pool; None = the embedded one."""
    try:
        return world_of(pool)
    except ControllerError:
        return None


def world_of(pool: CandidatePool) -> World:
    """Return the world that a pool of simulated candidates knows.

    Raises:
        ControllerError: a candidate is real, or they know different worlds.
    """
    others = [c.name for c in pool.candidates if c.provider != "simulated"]
    if others:
        raise ControllerError(
            f"oracle: works with simulated candidates only, not {', '.join(others)}"
        )
    facts = {str(c.options.get("facts") or "") for c in pool.candidates}
    if len(facts) > 1:
        raise ControllerError(
            f"oracle: the candidates of {pool.name!r} know different facts: {sorted(facts)}"
        )
    return known_world(facts.pop() or None)
