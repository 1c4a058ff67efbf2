"""What a run is told, what it remembers and what it hands back.

State holds built-in types and LangChain messages only, so that a strict checkpoint serializer gives
back what went in. Objects (models, tools) are bound when the graph is built; knobs travel in a
frozen context.
"""

from __future__ import annotations

import operator
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from langgraph.graph.message import add_messages
from langgraph.managed import RemainingSteps
from typing_extensions import TypedDict

from .candidates import CandidatePool
from .context import RouterContext
from .ledger import Ledger, total


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
    CONTROLLER_ERROR = "controller_error"
    """The controller could not be reached or failed."""


class RouterInput(TypedDict, total=False):
    """A question, or a conversation whose last human message is the question."""

    question: Annotated[str, EphemeralValue(str)]
    """Forgotten after the first step: a later question on the thread never meets an old one."""
    messages: Annotated[list[AnyMessage], add_messages]


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


class RouterState(RouterInput, RouterOutput, total=False):
    """Everything a run remembers."""

    started_at: float
    """When the run began, in seconds since the epoch."""
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
    """Whether a person has to approve of it; decided once, so that a resumed run that forgets its
    context asks all the same."""
    round: int
    """Of the call, from 1."""
    ends_at: float | None
    """When the run has to end, in seconds since the epoch; None = no deadline."""


@dataclass(frozen=True)
class Left:
    """What of the budget is left; None = no limit."""

    rounds: int
    usd: float | None = None
    seconds: float | None = None

    def describe(self) -> str:
        """Return the budget in words, for the prompt and after each round."""
        parts = [f"{self.rounds} round{'s' * (self.rounds != 1)}"]
        if self.usd is not None:
            parts.append(f"${max(0.0, self.usd):.6f}")
        if self.seconds is not None:
            parts.append(f"{max(0.0, self.seconds):.1f} s")
        return ", ".join(parts) + ("" if self.rounds else "; answer now")


@dataclass(frozen=True)
class View:
    """What a controller is asked to decide on."""

    question: str
    pool: CandidatePool
    context: RouterContext
    left: Left
    conversation: tuple[AnyMessage, ...] = ()
    """What was said in the parent graph before the question."""
    scratchpad: tuple[AnyMessage, ...] = ()
    """This question's turns (`AIMessage`) and observations (`ToolMessage`) so far."""

    @property
    def budget(self) -> Left:
        """The budget that the prompt names: the whole one, so that the prompt stays as it was.

        What is left of it stands after each round's observations.
        """
        if not self.scratchpad:
            return self.left
        context = self.context
        return Left(context.max_rounds, context.budget_usd, context.deadline_seconds)

    @property
    def must_answer(self) -> bool:
        """Whether no call will be made any more."""
        return self.left.rounds == 0


def left(ledger: Ledger, round_: int, context: RouterContext, started_at: float) -> Left:
    """Return what is left of the budget.

    Seconds are of the clock on the wall, or of the ledger where that says more: a recorded reply
    takes the time that it took.
    """
    usd = seconds = None
    if context.budget_usd is not None:
        usd = context.budget_usd - total(ledger)["cost_usd"]
    if context.deadline_seconds is not None:
        spent = max(time.time() - started_at, ledger["seconds"])
        seconds = context.deadline_seconds - spent
    return Left(max(0, context.max_rounds - round_), usd, seconds)
