"""What a run tells in LangGraph's `stream_mode="custom"` while it happens."""

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
    """Of the call: it tells the calls of a run that are out at once apart, with its round."""
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


class Budget(TypedDict):
    """What is left before each turn of the controller, and at the end; None = no limit."""

    type: Literal["budget"]
    rounds: int
    usd: float | None
    seconds: float | None


def route_start(call: RouteCall, candidate: str) -> RouteStart:
    """Tell of a call that is made."""
    return {
        "type": "route_start",
        "id": call["id"],
        "round": call["round"],
        "candidate": candidate,
        "query": call["query"],
    }


def route_end(call: RouteCall, bill: Mapping[str, Any]) -> RouteEnd:
    """Tell of a call that came back, by its artifact."""
    return {
        "type": "route_end",
        "id": call["id"],
        "round": call["round"],
        "candidate": bill["candidate"],
        "query": call["query"],
        "ok": bill["ok"],
        "cost_usd": bill["cost_usd"],
        "seconds": bill["seconds"],
    }


def budget(left: Left) -> Budget:
    """Tell what is left."""
    return {"type": "budget", "rounds": left.rounds, "usd": left.usd, "seconds": left.seconds}
