"""One call to a chat model and what came back: tokens, USD, seconds, and a typed error.

This is the only layer that retries and the only one that keeps time, for candidates and controllers
alike. A failure is a `Reply` with an error, never an exception.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import re
import sys
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphBubbleUp

from .candidates import ModelSettings

ChatModel = Runnable[Any, Any]
"""A LangChain chat model, or a runnable around one (`with_retry`, `init_chat_model`, ...)."""

ErrorKind = Literal[
    "auth",  # 401, 403: the key is missing, wrong, or has no access
    "not_found",  # 404: no such model or address
    "bad_request",  # any other 4xx
    "rate_limited",  # 429
    "server_error",  # 5xx
    "timeout",  # no answer in time
    "connection",  # refused, reset, or cut
    "malformed",  # the answer is not what the API promises
    "empty",  # no choices, or no text
    "missing_usage",  # usable text, but no token counts: they are estimated
    "other",
]
_TRANSIENT: frozenset[ErrorKind] = frozenset(
    {"rate_limited", "server_error", "timeout", "connection"}
)
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 8.0
_LONGEST_RETRY_AFTER_SECONDS = 60.0


@dataclass(frozen=True)
class ReplyError:
    """Why a call failed, in a form that can be stored and shown; keys are taken out."""

    kind: ErrorKind
    message: str


@dataclass(frozen=True)
class Reply:
    """What came back from one call, after all retries.

    `cost_usd` is what the provider reported, else tokens at list prices. `attempts` counts requests
    sent; all but the last failed. `seconds` is wall time over all attempts and the waits between.
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
            return replace(reply, text=hide(reply.text, secret))
        if not isinstance(outcome, BaseException):
            outcome = TypeError(f"expected an AIMessage, got {type(outcome).__name__}")
        error = classify(outcome, secret)
        wait = _wait_seconds(outcome, attempt)
        left -= time.perf_counter() - start - elapsed
        if error.kind not in _TRANSIENT or attempt > settings.max_retries:
            break
        if wait >= left or wait > _LONGEST_RETRY_AFTER_SECONDS:
            break
        yield _Wait(wait)
    return Reply(seconds=time.perf_counter() - start, attempts=attempt, error=error)


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
    return outcome[0] if outcome else TimeoutError(f"no reply within {timeout:g} s")


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
    usage = message.usage_metadata
    if usage and (usage["input_tokens"] or usage["output_tokens"]):
        input_tokens, output_tokens = _count(usage["input_tokens"]), _count(usage["output_tokens"])
        reasoning = _count(usage.get("output_token_details", {}).get("reasoning", 0))
    else:
        input_tokens = sum(estimate_tokens(str(m.text)) for m in messages)
        output_tokens, reasoning = estimate_tokens(text), 0
        error = ReplyError("missing_usage", "the endpoint reported no usage; tokens are estimated")
    if not text.strip() and not message.tool_calls:
        error = ReplyError("empty", "the reply has no text")
    cost_usd = _reported_usd(message)
    if cost_usd is None:
        cost_usd = settings.cost_usd(input_tokens, output_tokens)
    return Reply(
        text=text,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning,
        cost_usd=cost_usd,
        seconds=seconds,
        attempts=attempts,
        error=error,
        message=message,
    )


def _reported_usd(message: AIMessage) -> float | None:
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


def classify(error: BaseException, secret: str = "") -> ReplyError:
    """Turn an exception of any provider's client into a typed error, without secrets in it.

    The clients share no base class, so this reads what they have in common: a `status_code`, and
    the words in the names of their classes.
    """
    message = scrub(f"{type(error).__name__}: {error}", secret)[:500]
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return ReplyError(_status_kind(status), message)
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 8:
        chain.append(cause)
        cause = cause.__cause__
    names = " ".join(c.__name__ for e in chain for c in type(e).__mro__)
    kind: ErrorKind = "other"
    if "Timeout" in names:
        kind = "timeout"
    elif re.search(r"Connect|TransportError|ProtocolError|ReadError", names):
        kind = "connection"
    elif isinstance(error, IndexError) or "No generation" in str(error):  # of LangChain's streams
        kind = "empty"
    elif re.search(r"ValueError|ValidationError|AttributeError|TypeError|KeyError", names):
        kind = "malformed"
    return ReplyError(kind, message)


def _status_kind(status: int) -> ErrorKind:
    if status in (401, 403):
        return "auth"
    if status == 404:
        return "not_found"
    if status == 429:
        return "rate_limited"
    if status == 408:
        return "timeout"
    return "server_error" if status >= 500 else "bad_request"


def scrub(text: str, secret: str = "") -> str:
    """Take a known secret, and whatever looks like a key, out of a text."""
    text = hide(text, secret)
    return re.sub(r"\b(sk-|Bearer\s+)[\w.+/=-]{6,}", r"\1***", text)


def hide(text: str, secret: str) -> str:
    """Take a known secret out of a text; what is shorter than 6 characters is not one."""
    secret = secret.strip()
    return text.replace(secret, "***") if len(secret) >= 6 else text


def _wait_seconds(error: BaseException, attempt: int) -> float:
    """Return the wait before the next attempt: Retry-After, else exponential with jitter."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, TypeError, ValueError):
        longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1))
        return longest * random.uniform(0.5, 1)
