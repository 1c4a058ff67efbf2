"""What a run is told, what it remembers and what it hands back.

State holds built-in types and LangChain messages only, so that a strict checkpoint serializer gives
back what went in. Objects (models, tools) are bound when the graph is built. The knobs come in a
context, and stand in the state from the first step on: a run that is resumed keeps them.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from langgraph.graph.message import add_messages
from langgraph.managed import RemainingSteps
from typing_extensions import TypedDict

from .ledger import Ledger


class RouterInput(TypedDict, total=False):
    """A question, or a conversation whose last human message is the question."""

    question: Annotated[str, EphemeralValue(str)]
    """Forgotten after the first step: a later question on the thread never meets an old one."""
    messages: Annotated[list[AnyMessage], add_messages]


class Setup(TypedDict, total=False):
    """What a run was made with; enough, with the rest of the state, for a `Trace`."""

    started_at: float
    """When the run began, in seconds since the epoch."""
    context: dict[str, Any]
    """The knobs, as `RouterContext.to_state` says them."""
    controller: str
    """The name of the controller."""
    protocol_version: int
    """Of the tag language that the controller wrote."""
    pool: dict[str, Any]
    """The candidates with their descriptors, and no way to reach them."""


class RouterOutput(TypedDict, total=False):
    """What a run hands back; a parent graph takes the keys it shares, usually `messages`."""

    messages: Annotated[list[AnyMessage], add_messages]
    answer: str
    stop_reason: str
    error: str
    """Why the controller failed (stop reason `controller_error`), else ""."""
    round: int
    ledger: Ledger
    scratchpad: Annotated[list[AnyMessage], operator.add]
    """The question, then this run's turns (`AIMessage`) and observations (`ToolMessage`)."""
    router_r1: Setup
    """What the run was made with."""


class RouterState(RouterInput, RouterOutput, total=False):
    """Everything a run remembers."""

    ending: str
    """The stop reason from when it is known; `stop_reason` is set when the run has ended."""
    replies: Annotated[list[AnyMessage], operator.add]
    """The replies of the round under way, until aggregate folds them in."""
    remaining_steps: RemainingSteps


class RouteCall(TypedDict):
    """What one `Send` to the route node carries."""

    id: str
    tool: str
    query: str
    background: str
    """What the candidate is told beside the query; "" = nothing."""
    worst_case_usd: float | None
    """None = nobody knows: the candidate has no price."""
    needs_approval: bool
    """Whether a person has to approve of it."""
    max_reply_tokens: int
    """Of the reply, so many tokens reach the controller."""
    round: int
    """Of the call, from 1."""
    ends_at: float | None
    """When the run has to end, in seconds since the epoch; None = no deadline."""
