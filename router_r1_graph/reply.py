"""One call to a chat model and what came back: tokens, USD, seconds, and a typed error.

This is the only layer that retries and the only one that keeps time, for candidates and controllers
alike. A failure is a `Reply` with an error, never an exception.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphBubbleUp

from . import spans
from .candidates import Candidate, ModelSettings
from .failures import (
    LONGEST_RETRY_AFTER_SECONDS,
    TRANSIENT,
    ReplyError,
    classify,
    hide,
    hide_within,
    wait_seconds,
)

logger = logging.getLogger(__name__)

ChatModel = Runnable[Any, Any]
"""A LangChain chat model, or a runnable around one (`with_retry`, `init_chat_model`, ...)."""

RECORDED_SECONDS = "recorded_seconds"
"""In a message's response metadata: how long the call took when it was really made."""
NO_TOKENS = "no_tokens"
"""In a message's response metadata: no model wrote it, so there are none to estimate."""


@dataclass(frozen=True)
class Reply:
    """What came back from one call, after all retries.

    `cost_usd` is what the provider reported, else tokens at list prices. `attempts` counts requests
    sent; all but the last failed. `seconds` is wall time over all attempts and the waits between,
    or what a recorded reply took.
    """

    text: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    attempts: int = 1
    error: ReplyError | None = None
    message: AIMessage | None = field(default=None, repr=False, compare=False)
    """The model's message, where one came back: native tool calls, token ids."""

    @property
    def ok(self) -> bool:
        """Whether the text can be used."""
        return self.error is None or self.error.kind == "missing_usage"


def bill(candidate: str, reply: Reply) -> tuple[str, dict[str, Any]]:
    """Return a reply as a tool's content (the text, or the error) and artifact (a plain dict)."""
    error = reply.error
    return reply.text if reply.ok else f"error: {error.message if error else ''}", {
        "candidate": candidate,
        "ok": reply.ok,
        "error": {"kind": error.kind, "message": error.message} if error else None,
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        "reasoning_tokens": reply.reasoning_tokens,
        "cost_usd": reply.cost_usd,
        "seconds": reply.seconds,
        "attempts": reply.attempts,
        "cached": False,
    }


@dataclass(frozen=True)
class _Invoke:
    timeout: float


@dataclass(frozen=True)
class _Wait:
    seconds: float


_Steps = Generator[_Invoke | _Wait, Any, Reply]


def ask(
    model: ChatModel,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    *,
    seconds_left: float | None = None,
    config: RunnableConfig | None = None,
    **kwargs: Any,
) -> Reply:
    """Ask a chat model once, with retries after transient failures.

    Args:
        model: the chat model; its own retries should be off.
        messages: the prompt.
        settings: prices, `timeout_seconds` of one attempt, `max_retries`.
        seconds_left: bound on all attempts and waits together; None for no bound.
        config: callbacks, tags and metadata for tracing.
        **kwargs: passed to the model (`stop=`, ...).
    """
    steps = _attempts(messages, settings, seconds_left)
    config = _traced(messages, settings, config)
    outcome: Any = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if isinstance(step, _Wait):
            time.sleep(step.seconds)
            continue
        outcome = _in_time(step.timeout, model, messages, config, kwargs)


async def aask(
    model: ChatModel,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    *,
    seconds_left: float | None = None,
    config: RunnableConfig | None = None,
    **kwargs: Any,
) -> Reply:
    """Ask as `ask` does, without blocking the event loop."""
    steps = _attempts(messages, settings, seconds_left)
    config = _traced(messages, settings, config)
    outcome: Any = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if isinstance(step, _Wait):
            await asyncio.sleep(step.seconds)
            continue
        try:
            async with asyncio.timeout(step.timeout):
                outcome = await model.ainvoke(messages, config, **kwargs)
        except GraphBubbleUp:  # an interrupt, not a failure
            raise
        except TimeoutError as error:
            outcome = error if str(error) else TimeoutError(_too_slow(step.timeout))
        except Exception as error:
            outcome = error


def _attempts(
    messages: Sequence[AnyMessage], settings: ModelSettings, seconds_left: float | None
) -> _Steps:
    """Decide what to do next: the logic of `ask` and `aask` without their input and output."""
    start = time.perf_counter()
    secret = os.environ.get(settings.key_variable or "", "")
    error = ReplyError("timeout", "no time was left to ask")
    attempt = 0
    while True:
        elapsed = time.perf_counter() - start
        left = float("inf") if seconds_left is None else seconds_left - elapsed
        if left <= 0:
            break
        attempt += 1
        outcome = yield _Invoke(min(settings.timeout_seconds, left))
        if isinstance(outcome, AIMessage):
            reply = _read(outcome, messages, settings, time.perf_counter() - start, attempt)
            # A key that a careless server echoes goes to no checkpoint and no other provider.
            return _without(secret, reply)
        if not isinstance(outcome, BaseException):
            outcome = TypeError(f"expected an AIMessage, got {type(outcome).__name__}")
        error = classify(outcome, secret)
        wait = wait_seconds(outcome, attempt)
        left -= time.perf_counter() - start - elapsed
        if error.kind not in TRANSIENT or attempt > settings.max_retries:
            break
        if wait >= left or wait > LONGEST_RETRY_AFTER_SECONDS:
            break
        yield _Wait(wait)
    return Reply(seconds=time.perf_counter() - start, attempts=attempt, error=error)


def _without(secret: str, reply: Reply) -> Reply:
    """Return the reply with a secret taken out of its text, tool calls and extras."""
    message = reply.message
    if not secret or message is None or secret not in str(message):
        return reply
    parts = ("content", "tool_calls", "invalid_tool_calls", "additional_kwargs")
    hidden = {part: hide_within(getattr(message, part), secret) for part in parts}
    return replace(reply, text=hide(reply.text, secret), message=message.model_copy(update=hidden))


def _in_time(
    timeout: float,
    model: ChatModel,
    messages: Sequence[AnyMessage],
    config: RunnableConfig | None,
    kwargs: dict[str, Any],
) -> Any:
    """Invoke in a thread and give up on it in time: no client's own time-out covers every hang."""
    outcome: list[Any] = []

    def target() -> None:
        try:
            outcome.append(model.invoke(messages, config, **kwargs))
        except Exception as error:
            outcome.append(error)

    run = contextvars.copy_context().run  # callbacks and the tracing parent travel in the context
    thread = threading.Thread(target=run, args=(target,), daemon=True)
    thread.start()
    thread.join(min(timeout, threading.TIMEOUT_MAX))
    if outcome and isinstance(outcome[0], GraphBubbleUp):  # an interrupt, not a failure
        raise outcome[0]
    return outcome[0] if outcome else TimeoutError(_too_slow(timeout))


def _too_slow(timeout: float) -> str:
    return f"no reply within {timeout:.3g} s"


def _read(
    message: AIMessage,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    seconds: float,
    attempts: int,
) -> Reply:
    """Read text, usage and cost from a message."""
    text = writable(str(message.text))
    error = None
    input_tokens, output_tokens, reasoning, estimated = _tokens(message, messages)
    if estimated:
        error = ReplyError("missing_usage", "the endpoint reported no usage; tokens are estimated")
    if not text.strip() and not message.tool_calls:
        error = ReplyError("empty", "the reply has no text")
    if output_tokens > settings.max_tokens:
        logger.warning(
            "%s wrote %d tokens, more than its limit of %d: a budget in USD cannot bound it",
            settings.model,
            output_tokens,
            settings.max_tokens,
        )
    return Reply(
        text=text,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning,
        cost_usd=_cost_usd(message, settings, input_tokens, output_tokens),
        seconds=message.response_metadata.get(RECORDED_SECONDS, seconds),
        attempts=attempts,
        error=error,
        message=message,
    )


def _tokens(message: AIMessage, messages: Sequence[AnyMessage]) -> tuple[int, int, int, bool]:
    """Return tokens in, out and of reasoning, and whether they are estimates."""
    if message.response_metadata.get(NO_TOKENS):
        return 0, 0, 0, False
    usage = message.usage_metadata
    if usage and (usage["input_tokens"] or usage["output_tokens"]):
        reasoning = _count(usage.get("output_token_details", {}).get("reasoning", 0))
        return _count(usage["input_tokens"]), _count(usage["output_tokens"]), reasoning, False
    asked = sum(estimate_tokens(str(m.text)) for m in messages)
    return asked, estimate_tokens(writable(str(message.text))), 0, True


def _cost_usd(
    message: AIMessage, settings: ModelSettings, input_tokens: int, output_tokens: int
) -> float:
    reported = reported_usd(message)
    return settings.cost_usd(input_tokens, output_tokens) if reported is None else reported


def _traced(
    messages: Sequence[AnyMessage], settings: ModelSettings, config: RunnableConfig | None
) -> RunnableConfig | None:
    """Return the config under which LangSmith shows the call as it is billed."""

    def usage(message: AIMessage) -> spans.Usage:
        input_tokens, output_tokens, _, _ = _tokens(message, messages)
        cost_usd = _cost_usd(message, settings, input_tokens, output_tokens)
        tokens = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        }
        if not settings.priced and reported_usd(message) is None:
            return tokens  # LangSmith may know the price
        # A price that a provider reports is one sum: split as the list prices are.
        whole = settings.cost_usd(input_tokens, output_tokens)
        part = settings.cost_usd(input_tokens, 0) / whole if whole else 0.0
        paid_in = cost_usd * part
        costs = {"input_cost": paid_in, "output_cost": cost_usd - paid_in, "total_cost": cost_usd}
        return {**tokens, **costs}

    name = settings.name if isinstance(settings, Candidate) else "controller"
    return spans.model_call(config, name, usage)


def reported_usd(message: AIMessage) -> float | None:
    """Return what the provider says the call cost; None where it says nothing that is a price."""
    cost = (message.response_metadata.get("token_usage") or {}).get("cost")
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        return None
    return float(cost) if 0 <= cost <= sys.float_info.max else None


def _count(tokens: int) -> int:
    """Keep a count that an endpoint made up from breaking the bill."""
    return min(max(0, tokens), 10**12)


def writable(text: str) -> str:
    """Replace lone surrogates: legal in JSON, but no checkpoint or file can hold one."""
    return text.encode(errors="replace").decode()


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a text has: 4 bytes each."""
    return -(-len(text.encode(errors="replace")) // 4)
