"""The bill of one run of an agent, as its state has it."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from ..ledger import Ledger


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
    error: str


class PaidSoFar(TypedDict):
    """What a run has paid so far; it is changed in place."""

    ledger: Ledger


class AgentBill(TypedDict):
    """The bill of one run of an agent, in its state as `router_r1`: plain dicts.

    `steps` are those whose message came into the conversation. The `ledger` has all calls, those
    that another middleware repeated or threw away, too.
    """

    ledger: Ledger
    steps: list[DecidedStep]
    stop_reason: str
    """`answered`, `budget_usd` or `deadline`; "" while it runs."""
    started_at: float
    context: dict[str, Any]
    """The settings, as `RouterContext.to_state` returns them."""
