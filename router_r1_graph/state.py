"""The input of a run, its state and its output.

State holds built-in types and LangChain messages only, so that a strict checkpoint serializer gives
back the same values. Objects (models, tools) are bound when the graph is built. The knobs arrive in
the context and are in the state from the first step on, so that a resumed run keeps them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, cast

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.utils import convert_to_messages
from langgraph.channels import EphemeralValue
from langgraph.graph.message import Messages, add_messages
from langgraph.managed import RemainingSteps
from typing_extensions import TypedDict

from .budget import Left, left
from .candidates import CandidatePool
from .candidates.images import images_asked, text_asked, with_images
from .candidates.reply import writable_message
from .context import RouterContext, as_context
from .errors import QuestionError
from .ledger import Ledger
from .outside import writable


class _Text(EphemeralValue[str]):
    """A text that every checkpointer can hold, and that is cleared after the next step."""

    def update(self, values: Sequence[str]) -> bool:
        """Take a text as it comes from outside."""
        return super().update([writable(v) if isinstance(v, str) else v for v in values])


class RouterInput(TypedDict, total=False):
    """A question, or a conversation whose last human message is the question."""

    question: Annotated[str, _Text(str)]
    """Cleared after the first step, so that a later question on the thread never meets an old
    one."""
    messages: Annotated[list[AnyMessage], add_messages]


class Setup(TypedDict, total=False):
    """The setup of a run; together with the rest of the state, enough for a `Trace`."""

    started_at: float
    """When the run began, in seconds since the epoch."""
    context: dict[str, Any]
    """The settings, as `RouterContext.to_state` returns them."""
    controller: str
    """The name of the controller."""
    protocol_version: int
    """The version of the tag language that the controller wrote."""
    pool: dict[str, Any]
    """The candidates with their descriptors, without the settings that reach them."""


def written(old: list[AnyMessage], new: Messages) -> list[AnyMessage]:
    """Add to a scratchpad, or replace messages that a person edited; they need no ids.

    A human message is a question: with it, the scratchpad begins anew. A reply replaces the one to
    the same call, and a turn the one that it follows. Messages may be JSON, as for `add_messages`.
    """
    given = convert_to_messages(new if isinstance(new, list) else [new])
    added = [writable_message(message) for message in given]
    messages = [] if added and isinstance(added[0], HumanMessage) else list(old)
    places = {_key(message): place for place, message in enumerate(messages)}
    for message in added:
        key = _key(message)
        place = places.get(key) if key[1] else None
        if place is None:
            place = len(messages)
            if messages and isinstance(message, AIMessage) and isinstance(messages[-1], AIMessage):
                place -= 1
                places.pop(_key(messages[-1]), None)
        messages[place : place + 1] = [cast("AnyMessage", message)]
        places[key] = place
    return messages


def _key(message: BaseMessage) -> tuple[bool, str | None]:
    """Return what a message and the one that replaces it share; without an id, none does."""
    if isinstance(message, ToolMessage):
        return True, message.tool_call_id
    return False, message.id


class RouterOutput(TypedDict, total=False):
    """The output of a run; a parent graph takes the keys that it shares, usually `messages`."""

    messages: Annotated[list[AnyMessage], add_messages]
    answer: str
    """The answer; "" if there is none."""
    stop_reason: str
    """Why the run ended: a value of `StopReason`."""
    error: str
    """Why the controller failed, or no candidate replied and there is no answer; else ""."""
    round: int
    """How many rounds of calls there were; 0 = the controller answered at once."""
    ledger: Ledger
    """The bill of the run."""
    scratchpad: Annotated[list[AnyMessage], written]
    """The question, then this run's turns (`AIMessage`) and observations (`ToolMessage`)."""
    router_r1: Setup
    """The setup of the run."""


class RouterState(RouterInput, RouterOutput, total=False):
    """The whole state of a run."""

    ending: str
    """The stop reason as soon as it is known; `stop_reason` is set when the run has ended."""
    replies: Annotated[list[AnyMessage], written]
    """The replies of the round under way, until aggregate folds them in."""
    remaining_steps: RemainingSteps


class Fallback(TypedDict):
    """The call that is made where the candidate of a `RouteCall` cannot be reached."""

    tool: str
    background: str
    images: NotRequired[list[dict[str, Any]]]


class RouteCall(TypedDict):
    """The payload of one `Send` to the route node."""

    id: str
    tool: str
    query: str
    background: str
    """The text that the candidate sees besides the query; "" = nothing."""
    images: NotRequired[list[dict[str, Any]]]
    """The images of the question, for a candidate that takes them."""
    fallback: NotRequired[Fallback]
    """Where there is one, and the budget allows both."""
    worst_case_usd: float | None
    """None = unknown: the candidate has no price."""
    needs_approval: bool
    """Whether a person has to approve the call."""
    most_usd: float | None
    """The most that the call may cost if the person edits it; None = no limit."""
    max_reply_tokens: int
    """The most tokens of the reply that the controller sees."""
    round: int
    """The round of the call, from 1."""
    ends_at: float | None
    """When the run has to end, in seconds since the epoch; None = no deadline."""


def setup_of(state: RouterState) -> Setup:
    """Return the setup of the run; a checkpoint of version 0.1 has none."""
    setup = state.get("router_r1") or {}
    return setup if "started_at" in setup else {"started_at": time.time(), **setup}


def knobs_of(
    state: RouterState, given: object, defaults: RouterContext, pool: CandidatePool
) -> RouterContext:
    """Return the knobs of a run: its own, overridden by those that it is resumed with.

    Args:
        state: the state of the run.
        given: the context that the runtime passes.
        defaults: the knobs that the graph was built with.
        pool: the candidates.

    Raises:
        ConfigError: those that it is resumed with cannot be used.
    """
    stored = setup_of(state).get("context")
    known = RouterContext.from_state(stored) if stored else defaults
    context = as_context(given, known, parents=True)
    if context is not known:
        context.check(pool)
    return context


def left_of(state: RouterState, ledger: Ledger, round_: int, context: RouterContext) -> Left:
    """Return the rest of a run's budget after this many rounds and this bill."""
    return left(ledger, round_, context, setup_of(state)["started_at"])


def question_of(
    question: object, messages: Sequence[AnyMessage], pool: CandidatePool
) -> HumanMessage:
    """Return the question with its images: the `question`, else the last human message.

    Raises:
        QuestionError: neither says or shows anything, or there is an image that no candidate takes.
    """
    if not isinstance(question, str):
        raise QuestionError(f"the question is a text, not {question!r:.80}")
    text, images = writable(question).strip(), []
    last = next((m for m in reversed(messages) if isinstance(m, HumanMessage)), None)
    if last and text in ("", text_asked(last)):
        text, images = text_asked(last), images_asked(last)
    if not text:
        if last:
            why = "the last message of role 'user' has no text"
        elif messages:
            why = "there has to be a message of role 'user'"
        else:
            why = "neither 'question' nor 'messages' has one"
        raise QuestionError(f"there is no question: {why}")
    if images and not pool.taking_images():
        raise QuestionError(
            f"the question has an image, and no candidate of the pool {pool.name!r} takes images; "
            "set image_inputs: true for those that do"
        )
    return with_images(text, images)
