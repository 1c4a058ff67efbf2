"""The reply to one call: text, tokens, USD, seconds, a typed error."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase

from ..outside import MOST_OF_A_CALL, count, number, writable, writable_within
from . import harmony
from .error_kinds import ErrorKind
from .failures import ReplyError
from .finish import broke_off, finish_of, refusal_in
from .in_vain import IN_VAIN, UNREAD, UNREAD_KIND, is_own, paid_in_vain, unmarked
from .settings import ModelSettings
from .thoughts import apart, reasoning_of
from .tool_calls import invalid_call, too_deep
from .usage import Usage, is_cached, reported_usd, usage_of
from .worst_case import learn

logger = logging.getLogger(__name__)

ChatModel = Runnable[Any, Any]
"""A LangChain chat model, or a runnable around one (`with_retry`, `init_chat_model`, ...)."""


def with_tools(model: ChatModel, tools: Sequence[Any], **options: Any) -> ChatModel | None:
    """Return a model with tools bound to it; None if it cannot call any.

    LangChain's models say so by raising NotImplementedError, and graphs have no such method.
    """
    bind = getattr(model, "bind_tools", None)
    with suppress(NotImplementedError):
        return bind and bind(tools, **options)
    return None


def comes_from(model: ChatModel, package: str) -> bool:
    """Return whether a model is a class of a package, such as `langchain_openai`, or of its kind.

    Nothing is imported for that. A runnable around a model (`with_retry`, ...) does not count.
    """
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    return any(kind.__module__.startswith(f"{package}.") for kind in type(model).__mro__)


RECORDED_SECONDS = "recorded_seconds"
"""In a message's response metadata: how long the call took when it was really made."""
_DOUBTFUL: frozenset[ErrorKind] = frozenset({"cut", "missing_usage"})
"""Errors of a reply that leave its text usable."""


@dataclass(frozen=True)
class Reply:
    """The reply to one call, after all retries.

    Tokens and `cost_usd` cover all attempts that were billed. A reported cost counts, otherwise the
    tokens at list prices. `attempts` counts requests sent; one of them at most is the reply.
    `seconds` is wall time over all attempts and the waits between them, or the recorded time of a
    recorded or stored reply.
    """

    text: str = ""
    """The text, without a reasoning model's thoughts. A controller's is a turn in the tag language;
    a reply with an error may have none."""
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    attempts: int = 1
    cached: bool = False
    """Whether it came out of LangChain's or LangGraph's cache, so that no request was sent."""
    stored: bool = False
    """Whether it came out of the reply store, free of charge."""
    saved_usd: float = 0.0
    """The cost of a stored reply at today's prices, had the call been made."""
    error: ReplyError | None = None
    thoughts: str = ""
    """The thoughts of a reasoning model; they are not in the text."""
    cached_input_tokens: int = 0
    """How many of the input tokens the provider read from its prompt cache."""
    waited_seconds: float = 0.0
    """The part of its seconds that it waited for the candidate's own limits."""
    hedges: int = 0
    """How many requests were sent a second time, before the first was answered."""
    uncertain_attempts: int = 0
    """Attempts without an answer that could be read; the provider may bill them nevertheless."""
    uncertain_usd: float = 0.0
    """The most that these cost, beside `cost_usd`: a budget counts on it."""
    message: AIMessage | None = field(default=None, repr=False, compare=False)
    """The model's message, if one came back, with native tool calls and token ids."""
    unread: AIMessage | None = field(default=None, repr=False, compare=False)
    """The usage of a reply that is paid and of no use, for the reply store."""

    def __post_init__(self) -> None:
        """Make texts writable and numbers valid, for replies from any source."""
        fields = vars(self)  # where a frozen object can still be changed
        for name in _TEXTS:
            fields[name] = writable(fields[name])
        for name in _COUNTS:
            fields[name] = count(fields[name]) or 0
        for name in _AMOUNTS:
            fields[name] = number(fields[name], MOST_OF_A_CALL) or 0.0
        if self.message is not None:
            fields["message"] = writable_message(self.message)

    @property
    def ok(self) -> bool:
        """Whether the text can be used."""
        return self.error is None or self.error.kind in _DOUBTFUL


_TEXTS = ("text", "thoughts")
_COUNTS = ("input_tokens", "output_tokens", "reasoning_tokens", "cached_input_tokens")
_AMOUNTS = ("cost_usd", "saved_usd", "uncertain_usd", "seconds", "waited_seconds")
_OF_MESSAGE = (
    *("content", "tool_calls", "invalid_tool_calls", "artifact"),
    *("additional_kwargs", "response_metadata", "id", "name", "tool_call_id"),
)
_Message = TypeVar("_Message", bound=BaseMessage)


def writable_message(message: _Message) -> _Message:
    """Return a message with texts that every checkpoint and file can hold, in its calls too.

    A call whose arguments would be cut, since they are nested too deeply, is an invalid one.
    """
    deep = [call for call in getattr(message, "tool_calls", ()) if too_deep(call["args"])]
    if isinstance(message, AIMessage) and deep:
        calls = {
            "tool_calls": [c for c in message.tool_calls if not too_deep(c["args"])],
            "invalid_tool_calls": [*message.invalid_tool_calls, *map(invalid_call, deep)],
        }
        message = message.model_copy(update=calls)
    fields = vars(message)
    names = [name for name in _OF_MESSAGE if name in fields]
    parts = [fields[name] for name in names]
    kept = writable_within(parts)
    if kept is parts:
        return message
    return message.model_copy(update=dict(zip(names, kept, strict=True)))


def text_alone(reply: Reply) -> Reply:
    """Return a candidate's reply without its thoughts in the text.

    Thoughts alone are no reply. Nor is a call of a tool, since a candidate gets no tools.
    """
    if reply.ok and not reply.text.strip():
        calls = "the reply has no text, only calls of tools"
        return replace(reply, error=ReplyError("empty", calls))
    thoughts, text = apart(reply.text)
    said, called = harmony.calls(text)
    text = said.strip() if called else text
    reported = reasoning_of(reply.message) if reply.message else ""
    if not (thoughts or reported) and text == reply.text:
        return reply
    error = reply.error
    if reply.ok and not text:
        only = "calls of tools" if called else "reasoning"
        error = ReplyError("empty", f"the reply has no text, only {only}")
    thoughts = "\n\n".join(filter(None, (reported, thoughts)))
    return replace(reply, text=text, thoughts=thoughts, error=error)


def read_reply(
    message: AIMessage,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    seconds: float,
    attempts: int,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Reply:
    """Read text, usage, cost, and any error or doubt from a message.

    Args:
        message: the model's.
        messages: the prompt.
        settings: prices and limits.
        seconds: how long the call took.
        attempts: requests sent so far.
        options: sent with the prompt (`tools`, ...).
    """
    message = writable_message(message)
    text, usage = str(message.text), usage_of(message, messages)
    if is_cached(message):
        seen = _doubt(message, text, replace(usage, estimated=()), settings)
        return Reply(text=text, attempts=0, cached=True, error=seen, message=message)
    if usage.output_tokens > settings.max_tokens:
        logger.warning(
            "%s wrote %d tokens, more than its limit of %d",
            settings.model,
            usage.output_tokens,
            settings.max_tokens,
        )
    cost_usd = cost_of(message, settings, usage)
    error = _doubt(message, text, usage, settings)
    unread = UNREAD in message.response_metadata
    paid = (usage.input_tokens + usage.output_tokens or cost_usd) and not usage.estimated
    in_vain = error is not None and error.kind in IN_VAIN and paid
    own = is_own(message)
    learn(cost_usd, messages, settings, options)
    return Reply(
        text=text,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cost_usd=cost_usd,
        seconds=number(message.response_metadata.get(RECORDED_SECONDS, seconds)) or 0.0,
        attempts=attempts,
        error=error,
        message=unmarked(message) if own else None,
        unread=paid_in_vain(message, error, own=own) if error and (unread or in_vain) else None,
    )


def _doubt(
    message: AIMessage, text: str, usage: Usage, settings: ModelSettings
) -> ReplyError | None:
    """Return why a reply cannot be used, or is doubtful."""
    if unread := message.response_metadata.get(UNREAD):
        named = message.response_metadata.get(UNREAD_KIND)
        kinds: Iterator[ErrorKind] = (one for one in IN_VAIN if one == named)
        return ReplyError(next(kinds, "malformed"), str(unread))
    finish = finish_of(message)
    if finish == "error":
        return ReplyError("server_error", "the model stopped because of an error (finish reason)")
    if finish == "refusal":
        said = refusal_in(message) or text.strip() or "no reason is given"
        return ReplyError("declined", f"the model refused: {said}"[:500])
    if not (text.strip() or message.tool_calls or message.invalid_tool_calls):
        if finish == "content_filter":
            return ReplyError("declined", "the reply has no text: a content filter stopped it")
        thoughts = usage.reasoning_tokens or message.additional_kwargs.get("reasoning_content")
        only = ", only reasoning" if thoughts else ""
        if finish == "length":
            only += f": its limit of {settings.max_tokens} tokens ended it (set max_tokens)"
        return ReplyError("empty", f"the reply has no text{only}")
    if broke_off(message):
        return ReplyError("connection", "the stream ended before the reply did")
    doubts = []
    if finish == "length":
        doubts.append(f"the reply is cut: its limit of {settings.max_tokens} tokens ended it")
    elif finish == "content_filter":
        doubts.append("the reply is cut: a content filter ended it")
    if usage.estimated:
        counts = "usage" if len(usage.estimated) == 2 else f"count of {usage.estimated[0]} tokens"
        doubts.append(f"the endpoint reported no {counts}; tokens are estimated")
    if usage.impossible:
        doubts.append(f"the endpoint reported the impossible: {', '.join(usage.impossible)}"[:300])
    kind: ErrorKind = "missing_usage" if finish == "stop" else "cut"
    return ReplyError(kind, "; ".join(doubts)) if doubts else None


def cost_of(message: AIMessage, settings: ModelSettings, usage: Usage) -> float:
    """Return the USD of a call: the provider's report, otherwise the tokens at list prices."""
    if is_cached(message):
        return 0.0
    if (reported := reported_usd(message)) is not None:
        return reported
    return settings.cost_usd(
        usage.input_tokens,
        usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
