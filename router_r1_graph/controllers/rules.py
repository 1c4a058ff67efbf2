"""Controllers that are rules: plain code, free of charge; a policy is compared with them.

`constant`, `cheapest` and `random` ask one candidate the whole question. `cascade` and `vote` ask
several. They are for real questions, where replies are recorded for whole questions only.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path

from langchain_core.runnables import RunnableConfig

from ..answers import bare_answer, normalize_answer
from ..answers.statements import HEDGE
from ..candidates import Candidate, CandidatePool, as_pool
from ..candidates.in_time import apart_if_long, in_a_thread
from ..candidates.reply import Reply
from ..candidates.thoughts import enclosed
from ..errors import ControllerError
from ..invalid import show
from ..protocol import Call, Turn, parse, render
from .choice import Choice
from .controller import View

UNKNOWN = "unknown"
"""The answer of a rule when no candidate gave one."""


class RuleController(ABC):
    """A controller that is a pure function of its `View`, and costs nothing.

    Subclass it and write `turn`; it supplies the rest.
    """

    name = "rule"
    reads_cost_weight = False
    """Whether the cost weight changes its decisions; read by evaluations, to ask nothing twice."""

    @abstractmethod
    def turn(self, view: View) -> Turn | str:
        """Return the next turn, as a `Turn` or as text in tags."""

    def caution(self, cost_weight: float) -> str:
        """Return why not to rely on it at this cost weight; "" = no reason is known."""
        return ""

    def worst_case_usd(self, view: View) -> float:
        """Return 0: a rule costs nothing."""
        return 0.0

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn."""
        turn = self.turn(view)
        return Reply(text=turn if isinstance(turn, str) else render(turn))

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn; in a thread only where a deadline bounds it, or the question is long."""
        if view.left.seconds is None:
            return await apart_if_long(len(view.question), lambda: self.decide(view, config))
        return await in_a_thread(lambda: self.decide(view, config))


def replies_by_candidate(view: View) -> dict[str, str]:
    """Return each candidate's reply to the question so far; "" for one that failed."""
    return {call.candidate: call.reply if call.ok else "" for call in view.replies}


def answer_in(reply: str, view: View) -> str:
    """Return the answer that a rule hands on: the whole reply, or in short style the bare answer.

    "" = the reply declines to answer.
    """
    bare = bare_answer(reply)
    if not bare or view.answer_style != "full":
        return bare
    # A reasoning model may mark its answer so (Hunyuan); else the user may have asked for tags.
    thought = any(call.reply == reply and call.thoughts for call in view.replies)
    return (enclosed(reply, "<answer>", "</answer>") if thought else reply).strip()


class OneCallController(RuleController):
    """Asks one candidate the whole question and repeats the answer in its reply."""

    @abstractmethod
    def choose(self, view: View) -> Candidate:
        """Return the candidate to ask."""

    def turn(self, view: View) -> Turn:
        """Ask in the first round, answer in the second."""
        if view.scratchpad or view.must_answer:
            answers = [answer_in(reply, view) for reply in replies_by_candidate(view).values()]
            why = "The reply is the answer." if any(answers) else "No reply holds an answer."
            return Turn((why,), answer=next(iter(answers), "") or UNKNOWN)
        return self.asking(self.choose(view), view)

    @staticmethod
    def asking(candidate: Candidate, view: View) -> Turn:
        """Return the turn that asks a candidate the whole question."""
        return Turn((f"Ask {candidate.name}.",), (Call(candidate.name, view.question),))


class ConstantController(OneCallController):
    """Always asks the same candidate.

    Raises:
        ControllerError: the pool has no such candidate.
        PoolError: the pool cannot be used.
    """

    def __init__(self, candidate: str, pool: CandidatePool | str | Path) -> None:
        pool = as_pool(pool)
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
        return view.pool.by_price[0]

    def weigh(self, view: View, reply: Reply) -> tuple[Choice, ...]:
        """Return the prices."""
        return _prices(view, reply)


class RandomController(OneCallController):
    """Asks a candidate drawn by seed and question: the same question, the same candidate.

    The run's own seed (`RouterContext.seed`) is mixed in.

    Args:
        seed: any whole number; other seeds draw other candidates.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.name = f"random:{seed}" if seed else "random"

    def choose(self, view: View) -> Candidate:
        """Return a candidate, each with the same probability."""
        draw = random.Random(f"{self.seed}/{view.context.seed}/{view.question}")
        return draw.choice(view.pool.candidates)

    def probabilities(self, view: View, call: Call) -> dict[str, float]:
        """Return the same probability for each candidate."""
        candidates = view.pool.candidates
        return {c.name: 1 / len(candidates) for c in candidates}

    def weigh(self, view: View, reply: Reply) -> tuple[Choice, ...]:
        """Return the same probability for each candidate."""
        each = (self.probabilities(view, call) for call in parse(reply.text).calls)
        return tuple(Choice("probability", shares) for shares in each)


# What LLMs write when they guess, or want to be asked differently. Of 3,000 replies of six LLMs to
# NQ questions (shared/data/nq_r1pool), 153 are doubtful by `is_doubtful`. 19% of these contain a
# gold answer, and 43% of the others do.
_DOUBTS = re.compile(
    r"\b(?:not|n't) (?:\w+ )?(?:sure|certain|aware|able to)\b"
    r"|\b(?:do not|don't|does not|doesn't|without) (?:have|more)\b"
    r"|\b(?:more|enough|insufficient) (?:\w+ )?(?:information|context|details?)\b"
    r"|\b(?:could|can) you (?:please )?(?:provide|specify|clarify)|\bunable to\b|\bas an AI\b"
    r"|\bI(?:'m| am) sorry\b|\bbest guess\b|\bpossibly\b|\bperhaps\b",
    re.IGNORECASE,
)


def is_doubtful(reply: str) -> bool:
    """Return whether a reply gives no answer, or a doubtful one.

    Example:
        >>> is_doubtful("I'm not entirely sure, but it may be Paris.")
        True
    """
    return not bare_answer(reply) or any(p.search(reply) for p in (HEDGE, _DOUBTS))


def _each(reply: Reply, choice: Choice) -> tuple[Choice, ...]:
    """Return the same choice for each call of a turn."""
    return tuple(choice for _ in parse(reply.text).calls)


def _prices(view: View, reply: Reply) -> tuple[Choice, ...]:
    prices = {c.name: c.price_usd_per_mtok for c in view.pool.candidates}
    return _each(reply, Choice("usd_per_mtok", prices))


class CascadeController(RuleController):
    """Asks the cheapest candidate, then the next in price while replies fail or are doubtful.

    The first undoubted answer is taken. If there is none, the answer of the most expensive
    candidate that gave one is taken.
    """

    name = "cascade"

    def turn(self, view: View) -> Turn:
        """Ask the next candidate, or answer."""
        replies = replies_by_candidate(view)
        sure = [reply for reply in replies.values() if not is_doubtful(reply)]
        if sure:
            return Turn(("This reply is sure.",), answer=answer_in(sure[-1], view))
        left = [c for c in view.pool.by_price if c.name not in replies]
        if left and not view.must_answer:
            why = "That is no sure answer; the next in price" if replies else "The cheapest first"
            return Turn((f"{why}: {left[0].name}.",), (Call(left[0].name, view.question),))
        answers = [answer for reply in replies.values() if (answer := answer_in(reply, view))]
        return Turn(("Nobody is sure.",), answer=answers[-1] if answers else UNKNOWN)

    def weigh(self, view: View, reply: Reply) -> tuple[Choice, ...]:
        """Return the prices: the order in which candidates are asked."""
        return _prices(view, reply)


class VoteController(RuleController):
    """Asks several candidates at once, and takes the answer that most of them give.

    Answers are compared as exact match compares them. In a tie, the answer of the more expensive
    candidate wins; at equal prices, that of the earlier one in the pool. A candidate that fails or
    declines does not vote.

    Args:
        voters: how many of the cheapest candidates are asked, at least 1; None = all. If they are
            more than a round allows, they are asked in several rounds.

    Raises:
        ControllerError: `voters` is no whole number from 1.
    """

    def __init__(self, voters: int | None = None) -> None:
        if voters is not None and (type(voters) is not int or voters < 1):
            raise ControllerError(
                f"vote: the voters are a whole number from 1, or None for all, not {show(voters)}"
            )
        self.voters = voters
        self.name = f"vote:{voters}" if voters else "vote"

    def turn(self, view: View) -> Turn:
        """Ask the candidates that have not voted, or count the votes."""
        replies = replies_by_candidate(view)
        voters = view.pool.by_price[: self.voters]
        left = [c.name for c in voters if c.name not in replies]
        if left and not view.must_answer:
            names = left[: view.context.max_calls_per_round]
            calls = tuple(Call(name, view.question) for name in names)
            return Turn((f"Ask {', '.join(names)}.",), calls)
        # Sorting keeps the pool's order among equal prices, and max takes the first of the most.
        expensive_first = sorted(voters, key=lambda c: -c.price_usd_per_mtok)
        given = [r for c in expensive_first if bare_answer(r := replies.get(c.name, ""))]
        votes = Counter(normalize_answer(bare_answer(reply)) for reply in given)
        best = max(given, key=lambda r: votes[normalize_answer(bare_answer(r))], default=None)
        answer = UNKNOWN if best is None else answer_in(best, view)
        return Turn(
            (f"{max(votes.values(), default=0)} of {len(voters)} say this.",), answer=answer
        )
