"""The budget of a run: the rest of it, the calls that it allows, and the reasons to end a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

from .context import RouterContext
from .ledger import Ledger, most_paid_usd, total
from .words import usd


class StopReason(StrEnum):
    """Why a run ended. In every case but the first, the answer is made from what was known."""

    ANSWERED = "answered"
    """The controller answered of its own accord."""
    ROUND_LIMIT = "round_limit"
    """All rounds were used; the controller was made to answer."""
    BUDGET_USD = "budget_usd"
    """A call or the controller itself could have cost more than was left."""
    DEADLINE = "deadline"
    """The seconds were used up."""
    INVALID = "invalid"
    """Even when made to answer, the controller wrote nothing that can be read."""
    NO_REPLY = "no_reply"
    """Every call failed, so nobody replied, and the controller knows no answer of its own."""
    CONTROLLER_ERROR = "controller_error"
    """The controller could not be reached or failed."""


@dataclass(frozen=True)
class Left:
    """The budget that is left; None = no limit."""

    rounds: int
    """Rounds of calls, at least 0; at 0 the controller has to answer."""
    usd: float | None = None
    """USD; below 0 if more was spent than allowed."""
    seconds: float | None = None
    """Seconds; below 0 after the deadline."""

    def describe(self) -> str:
        """Return the budget in words, for the prompt and after each round."""
        parts = [f"{self.rounds} round{'s' * (self.rounds != 1)}"]
        if self.usd is not None:
            parts.append(usd(max(0.0, self.usd), exact=True))
        if self.seconds is not None:
            parts.append(f"{max(0.0, self.seconds):.1f} s")
        return ", ".join(parts) + ("" if self.rounds else "; answer now")


# LangGraph's recursion limit must not end a run. Of the remaining steps (1 at the last one), a call
# needs think, route, aggregate, think and answer; another round needs the aggregate before them. A
# summary needs this aggregate, route, aggregate, think and answer.
_STEPS_TO_CALL, _STEPS_TO_GO_ON, _STEPS_TO_SUMMARIZE = 5, 6, 5


def may_call(steps: int | None) -> bool:
    """Return whether LangGraph's remaining steps are enough for a call; None = not known."""
    return steps is None or steps >= _STEPS_TO_CALL


def may_summarize(steps: int | None) -> bool:
    """Return whether LangGraph's remaining steps are enough for a summary; None = not known."""
    return steps is None or steps >= _STEPS_TO_SUMMARIZE


def ending_of_turn(left: Left, worst_case_usd: float) -> StopReason | None:
    """Return why the controller may not be asked again; None where it may.

    Args:
        left: the rest of the budget.
        worst_case_usd: the most that its turn can cost.
    """
    if left.seconds is not None and left.seconds <= 0:
        return StopReason.DEADLINE
    if left.usd is not None and worst_case_usd > max(left.usd, 0):
        return StopReason.BUDGET_USD
    return None


def ending_of_round(left: Left, steps: int | None) -> StopReason | None:
    """Return why no further round may follow; None where one may.

    Args:
        left: the rest of the budget.
        steps: LangGraph's remaining steps; None = not known.
    """
    if left.seconds is not None and left.seconds <= 0:
        return StopReason.DEADLINE
    if left.usd is not None and left.usd < 0:
        return StopReason.BUDGET_USD
    if left.rounds == 0 or (steps is not None and steps < _STEPS_TO_GO_ON):
        return StopReason.ROUND_LIMIT
    return None


def left(ledger: Ledger, round_: int, context: RouterContext, started_at: float) -> Left:
    """Return the rest of the budget.

    A stored reply counts with the cost and time of the original call, so the course of a run never
    depends on the store. Seconds are wall-clock time, or the time on the ledger if that is longer:
    a recorded reply, too, counts with its recorded time. An attempt that may have been billed
    counts with the most that it can have cost.
    """
    usd = seconds = None
    if context.budget_usd is not None:
        totals = total(ledger)
        usd = context.budget_usd - most_paid_usd(totals) - totals["saved_usd"]
    if context.deadline_seconds is not None:
        spent = max(time.time() - started_at, ledger["seconds"])
        seconds = context.deadline_seconds - spent
    return Left(max(0, context.max_rounds - round_), usd, seconds)
