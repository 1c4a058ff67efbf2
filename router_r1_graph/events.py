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
    """USD of all attempts at this candidate that were billed; 0 if the reply was stored."""
    seconds: float
    """Seconds over all attempts and the waits between them. Cost and seconds of a candidate that
    this one stood in for are not in these two."""
    stored: bool
    """Whether the reply came out of the reply store."""


class BudgetLeft(TypedDict):
    """The budget left before each turn of the controller, and at the end; None = no limit."""

    type: Literal["budget"]
    rounds: int
    """Rounds of calls, at least 0."""
    usd: float | None
    """USD; below 0 if more was spent than allowed."""
    seconds: float | None
    """Seconds; below 0 after the deadline."""


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
