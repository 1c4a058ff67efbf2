"""The bill of one run of an agent, as its state has it."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from ..ledger import Ledger
from .prefixes import Prefix


class DecidedStep(TypedDict):
    """One step of an agent: the candidate that answered it, and the price.

    `candidate` is "" if no candidate did: another middleware wrote the message, or had a model of
    its own write it. `chosen` is the controller's choice; "" if it made none that can be used. In
    this case, and if the chosen one failed or was too expensive, another candidate answered.
    `error` says why the controller made no choice, such as a bug of its own, or why the choice was
    read out of a turn without a call; "" = it made one.
    """

    candidate: str
    chosen: str
    cost_usd: float
    """USD of the calls of the last candidate that was asked. The ledger also has the controller's
    turn, and candidates that failed before."""
    error: str


class PaidSoFar(TypedDict):
    """What a run has paid so far; it is changed in place.

    LangGraph is given it by each attempt at a step, and may write it as JSON: plain data only.
    """

    ledger: Ledger
    held: dict[str, float]
    """The most that each call under way can cost, in USD."""
    steps: list[DecidedStep]
    """Those of the bill: LangChain keeps only the last attempt's change of the state."""
    prefixes: dict[str, Prefix]


class AgentBill(TypedDict):
    """The bill of one run of an agent, in its state as `router_r1`: plain dicts.

    `steps` has one entry for each step that was answered: if another middleware asked several
    times, the last attempt that was. The `ledger` has all calls, those that another middleware
    repeated or threw away, too.
    """

    ledger: Ledger
    steps: list[DecidedStep]
    stop_reason: str
    """`answered`, `budget_usd` or `deadline`; "" while it runs."""
    started_at: float
    """When the run began by the wall clock, in seconds since the epoch."""
    context: dict[str, Any]
    """The settings, as `RouterContext.to_state` returns them."""


def paid_from(ledger: Ledger) -> PaidSoFar:
    """Return what a run that begins, or is resumed, has paid: what is on its bill."""
    return {"ledger": ledger, "held": {}, "steps": [], "prefixes": {}}
