"""The cost of an evaluation: an estimate before, and what a purse has to cover meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..candidates import Candidate, CandidatePool
from ..candidates.usage import estimate_tokens
from ..controllers import Controller
from ..controllers.learned import LearnedController
from ..controllers.rules import (
    CascadeController,
    ConstantController,
    OneCallController,
    VoteController,
)
from ..ledger import total
from ..trace import Trace
from ..words import counted, usd
from .loop import AskItem, Item
from .purse import Purse

_TOKENS_OF_A_REPLY = 100
"""The assumed tokens of a reply."""
_CALLS = 2
"""The assumed number of calls of a controller that writes its own queries."""


def within(purse: Purse, ask: AskItem, worst_usd: Callable[[Item], float]) -> AskItem:
    """Return a function that asks only if the purse covers the worst case; else there is no trace.

    Args:
        purse: shared by all that is asked.
        ask: the function that asks.
        worst_usd: the worst case of a question; if another one has cost more, that counts.
    """
    highest = 0.0

    async def ask_if_paid(item: Item) -> Sequence[Trace]:
        nonlocal highest
        held = max(highest, worst_usd(item))
        paid = uncertain = 0.0
        if not await purse.hold(held):
            return []
        try:
            traces = await ask(item)
            bills = [total(trace.ledger) for trace in traces]
            paid = sum(bill["cost_usd"] for bill in bills)
            uncertain = sum(bill.get("uncertain_usd", 0.0) for bill in bills)
            highest = max(highest, paid + uncertain)
        finally:
            purse.settle(held, paid, uncertain)
        return traces

    return ask_if_paid


def worst_case(
    controller: Controller, pool: CandidatePool, *, candidates_asked: bool
) -> Callable[[Item], float]:
    """Return the most that a controller's run may cost, as far as that is known beforehand.

    A controller that writes queries is assumed to ask every candidate once.

    Args:
        controller: the controller.
        pool: its candidates.
        candidates_asked: whether every candidate has replied to the whole question, in the store.
    """
    single = _single(controller, pool)
    if candidates_asked and asks_whole_questions(controller) and not single:
        return lambda item: 0.0
    candidates = [single] if single else pool.candidates

    def worst(item: Item) -> float:
        usd = sum(c.worst_case_usd(item.question) for c in candidates)
        limit = item.context.budget_usd
        return usd if limit is None else min(usd, limit)

    return worst


def asks_whole_questions(controller: Controller) -> bool:
    """Whether all its queries are the question itself, as those of the single candidates are."""
    return isinstance(
        controller, (OneCallController, LearnedController, CascadeController, VoteController)
    )


@dataclass(frozen=True)
class Estimate:
    """The expected cost of an evaluation, by list prices.

    Attributes:
        runs: the number of questions that are asked, of all controllers together.
        usd: about their cost; a call that several controllers make counts once.
        most_usd: the most that the single candidates can cost.
        unpriced: candidates without a price, which count nothing.
    """

    runs: int
    usd: float
    most_usd: float
    unpriced: tuple[str, ...]

    def __str__(self) -> str:
        text = f"estimate: {counted(self.runs, 'run')}, about {usd(self.usd)}"
        if self.most_usd:
            text += f" (the single candidates at most {usd(self.most_usd)})"
        if self.unpriced:
            text += f"; no price is known of {', '.join(self.unpriced)}"
        return text


def estimate(
    runs: Iterable[tuple[Controller, Sequence[str]]], pool: CandidatePool, *, once: bool
) -> Estimate:
    """Return about the cost of runs, before the first call.

    The estimate assumes 100 tokens a reply, and 2 calls of a controller that writes queries. The
    cost of a chat model as the controller is not known.

    Args:
        runs: controllers, and the remaining questions for each.
        pool: the candidates.
        once: whether the same call of several controllers is paid once.
    """
    asked = [(*_share(controller, pool), controller, questions) for controller, questions in runs]
    about = most = 0.0
    paid: set[tuple[str, str]] = set()
    for candidates, calls, controller, questions in sorted(asked, key=lambda run: -run[1]):
        whole = asks_whole_questions(controller)
        for question in questions:
            for candidate in candidates:
                call = candidate.name, question
                if not (whole and once and call in paid):
                    about += calls * _guess_usd(candidate, question)
                if whole and calls == 1:
                    paid.add(call)
                if _single(controller, pool):
                    most += candidate.worst_case_usd(question)
    unpriced = tuple(c.name for c in pool.candidates if not c.priced)
    return Estimate(sum(len(run[3]) for run in asked), about, most, unpriced)


def _share(controller: Controller, pool: CandidatePool) -> tuple[Sequence[Candidate], float]:
    """Return the candidates that may be asked about a question, and the mean calls of each."""
    if single := _single(controller, pool):
        return [single], 1.0
    if isinstance(controller, VoteController):
        return pool.candidates, 1.0
    calls = 1 if asks_whole_questions(controller) else _CALLS
    return pool.candidates, min(1.0, calls / len(pool.candidates))


def _single(controller: Controller, pool: CandidatePool) -> Candidate | None:
    """Return the candidate that a controller always asks; None = it depends."""
    return pool.find(controller.candidate) if isinstance(controller, ConstantController) else None


def _guess_usd(candidate: Candidate, question: str) -> float:
    tokens = estimate_tokens(candidate.system_prompt + question)
    return candidate.cost_usd(tokens, min(_TOKENS_OF_A_REPLY, candidate.max_tokens))
