"""Controllers that are rules: the controls that a learned policy has to beat, and the oracle."""

from __future__ import annotations

import random
import re
from abc import abstractmethod

from langchain_core.messages import ToolMessage

from ..answers import bare_answer
from ..candidates import Candidate, CandidatePool
from ..errors import ControllerError
from ..protocol import Call, Turn
from ..simulation import (
    Ask,
    Plan,
    World,
    best_plan,
    is_abstention,
    known_world,
    next_steps,
    parse,
    phrase,
    relation_domain,
    short_answer,
    true_answer,
)
from ..state import View
from .scripted import RuleController

UNKNOWN = "unknown"
"""What a rule answers when nobody gave it an answer."""


def replies_by_candidate(view: View) -> dict[str, str]:
    """Return what each candidate replied to the question so far; "" for one that failed."""
    return {
        message.artifact["candidate"]: message.artifact["reply"] if message.artifact["ok"] else ""
        for message in view.scratchpad
        if isinstance(message, ToolMessage) and message.artifact
    }


def _replies(view: View) -> list[ToolMessage]:
    """Return the usable replies so far; a candidate that says it does not know is not one."""
    return [
        message
        for message in view.scratchpad
        if isinstance(message, ToolMessage)
        and message.artifact
        and message.artifact["ok"]
        and not is_abstention(message.artifact["reply"])
    ]


def _answer(view: View, why: str) -> Turn:
    replies = _replies(view)
    text = short_answer(replies[-1].artifact["reply"]) if replies else ""
    return Turn(thoughts=(why,), answer=text or UNKNOWN)


class OneCallController(RuleController):
    """Asks one candidate the whole question and repeats the answer in its reply."""

    @abstractmethod
    def choose(self, view: View) -> Candidate:
        """Return the candidate to ask."""

    def turn(self, view: View) -> Turn:
        """Ask in the first round, answer in the second."""
        if view.scratchpad or view.must_answer:
            answers = [bare_answer(reply) for reply in replies_by_candidate(view).values()]
            return Turn(("The reply is the answer.",), answer=next(iter(answers), "") or UNKNOWN)
        candidate = self.choose(view)
        return Turn((f"Ask {candidate.name}.",), (Call(candidate.name, view.question),))


class ConstantController(OneCallController):
    """Always asks the same candidate.

    Raises:
        ControllerError: the pool has no such candidate.
    """

    def __init__(self, candidate: str, pool: CandidatePool) -> None:
        if pool.find(candidate) is None:
            raise ControllerError(f"constant: {pool.unknown(candidate)}")
        self.candidate = candidate
        self.name = f"constant:{candidate}"

    def choose(self, view: View) -> Candidate:
        """Return the one candidate."""
        candidate = view.pool.find(self.candidate)
        if candidate is None:
            raise ControllerError(f"constant: {view.pool.unknown(self.candidate)}")
        return candidate


class CheapestController(OneCallController):
    """Always asks the candidate with the lowest prices."""

    name = "cheapest"

    def choose(self, view: View) -> Candidate:
        """Return the cheapest candidate."""
        return min(view.pool.candidates, key=lambda c: c.price_usd_per_mtok)


class RandomController(OneCallController):
    """Asks a candidate drawn by seed and question: the same question, the same candidate.

    The run's own seed (`RouterContext.seed`) is mixed in.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.name = f"random:{seed}" if seed else "random"

    def choose(self, view: View) -> Candidate:
        """Return a candidate, each with the same probability."""
        draw = random.Random(f"{self.seed}/{view.context.seed}/{view.question}")
        return draw.choice(view.pool.candidates)


class KeywordController(RuleController):
    """Splits a question of the embedded world and asks whoever's strengths fit, at the best price.

    Any other question is asked whole, of the candidate whose strengths share most words with it. A
    candidate that abstains is followed by the next that fits.
    """

    name = "keyword"

    def turn(self, view: View) -> Turn:
        """Ask the next open sub-questions, or answer."""
        structure = parse(view.question)
        if structure is None:
            if _replies(view) or view.must_answer:
                return _answer(view, "The reply is the answer.")
            return self._ask(view, [(view.question, _words(view.question))])
        known: dict[Ask, str] = {}
        for message in _replies(view):
            asked = parse(message.artifact["query"])
            if isinstance(asked, Ask):
                known[asked] = short_answer(message.artifact["reply"])
        steps = next_steps(structure, known)
        if isinstance(steps, str):
            return Turn(("Everything needed is known.",), answer=steps)
        if view.must_answer:
            return _answer(view, "Not everything is known; the last reply is the best guess.")
        return self._ask(view, [(phrase(s), {relation_domain(s.relation)}) for s in steps])

    def _ask(self, view: View, queries: list[tuple[str, set[str]]]) -> Turn:
        thoughts, calls = [], []
        for query, subjects in queries:
            asked = {
                m.artifact["candidate"]
                for m in view.scratchpad
                if isinstance(m, ToolMessage) and m.artifact and m.artifact["query"] == query
            }
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

    Only what candidates really know counts, so a question that no candidate can help with is
    answered "unknown", for nothing.

    Args:
        world: what is true; None = the world that the pool's candidates know.
    """

    name = "oracle"

    def __init__(self, world: World | None = None) -> None:
        self._given = world

    def plan(self, view: View) -> Plan:
        """Return the cheapest calls that lead to the right answer in the rounds of the run."""
        world = self._given or world_of(view.pool)
        structure = parse(view.question)
        truth = true_answer(world, structure) if structure else None
        rounds = view.context.max_rounds
        gold = [truth] if truth else []
        return best_plan(view.question, gold, view.pool.candidates, world, max_rounds=rounds)

    def turn(self, view: View) -> Turn:
        """Make the calls of the plan that are still to be made; answer once all have come back."""
        plan = self.plan(view)
        have = {(m.artifact["candidate"], m.artifact["query"]) for m in _replies(view)}
        for calls in plan.rounds:
            missing = [call for call in calls if call not in have]
            if missing and view.must_answer:
                return Turn(("The plan could not be followed.",), answer=UNKNOWN)
            if missing:
                return Turn(("This is the cheapest way.",), tuple(Call(*c) for c in missing))
        return Turn(("The plan is done.",), answer=plan.answer or UNKNOWN)


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
