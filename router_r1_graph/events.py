"""The events that a run emits in LangGraph's `stream_mode="custom"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from typing_extensions import TypedDict

from .budget import Left
from .state import RouteCall


class RouteStart(TypedDict):
    """A call is made."""

    type: Literal["route_start"]
    id: str
    """The id of the call. Together with the round, it is unique among the calls that run at
    once."""
    round: int
    candidate: str
    query: str


class RouteEnd(TypedDict):
    """A call came back, or was refused."""

    type: Literal["route_end"]
    id: str
    round: int
    candidate: str
    query: str
    ok: bool
    cost_usd: float
    seconds: float
    stored: bool
    """Whether the reply came out of the reply store."""


class BudgetLeft(TypedDict):
    """The budget left before each turn of the controller, and at the end; None = no limit."""

    type: Literal["budget"]
    rounds: int
    usd: float | None
    seconds: float | None


def route_start(call: RouteCall, candidate: str) -> RouteStart:
    """Return the event of a call that is made."""
    return {
        "type": "route_start",
        "id": call["id"],
        "round": call["round"],
        "candidate": candidate,
        "query": call["query"],
    }


def route_end(call: RouteCall, bill: Mapping[str, Any]) -> RouteEnd:
    """Return the event of a call that came back, from its artifact."""
    return {
        "type": "route_end",
        "id": call["id"],
        "round": call["round"],
        "candidate": bill["candidate"],
        "query": call["query"],
        "ok": bill["ok"],
        "cost_usd": bill["cost_usd"],
        "seconds": bill["seconds"],
        "stored": bill["stored"],
    }


def budget(left: Left) -> BudgetLeft:
    """Return the event of the budget that is left."""
    return {"type": "budget", "rounds": left.rounds, "usd": left.usd, "seconds": left.seconds}
