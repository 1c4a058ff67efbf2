"""The router's part of an agent's state, and how attempts at once at a step write it."""

from __future__ import annotations

from typing import Annotated, NotRequired

from langchain.agents.middleware.types import AgentState, OmitFromInput, PrivateStateAttr
from langgraph.channels import UntrackedValue

from ..ledger import Ledger
from .agent_bill import AgentBill, PaidSoFar
from .prefixes import Prefix


class RoutedAgentState(AgentState):  # type: ignore[misc]  # langchain is optional: Any to mypy
    """The middleware's part of an agent's state."""

    # Another middleware may try a step several times at once, and each attempt writes all three.
    router_r1: NotRequired[  # type: ignore[valid-type]
        Annotated[AgentBill, OmitFromInput, merged_bills]
    ]
    router_r1_prefixes: NotRequired[  # type: ignore[valid-type]
        Annotated[dict[str, Prefix], PrivateStateAttr, merged_prefixes]
    ]
    # The same object in all steps of a run, and in no checkpoint.
    router_r1_paid: NotRequired[  # type: ignore[valid-type]
        Annotated[PaidSoFar, UntrackedValue(PaidSoFar, guard=False), PrivateStateAttr]
    ]


def merged_bills(known: AgentBill, new: AgentBill) -> AgentBill:
    """Return one bill of two: the later one of a run has all that the earlier one has.

    Attempts at one step that another middleware made at once come in any order. A bill of another
    run replaces the known one.
    """
    if not known or known["started_at"] != new["started_at"]:
        return new
    return {
        **new,
        "ledger": max(new["ledger"], known["ledger"], key=_turns),
        "steps": max(new["steps"], known["steps"], key=len),
        "stop_reason": new["stop_reason"] or known["stop_reason"],
    }


def merged_prefixes(known: dict[str, Prefix], new: dict[str, Prefix]) -> dict[str, Prefix]:
    """Return what each candidate has read last."""
    latest = dict(known)
    for name, prefix in new.items():
        if name not in latest or latest[name]["at"] <= prefix["at"]:
            latest[name] = prefix
    return latest


def _turns(ledger: Ledger) -> int:
    """Return how many calls and turns are on a ledger: it only ever grows."""
    return sum(line["calls"] for line in (ledger["controller"], *ledger["candidates"].values()))
