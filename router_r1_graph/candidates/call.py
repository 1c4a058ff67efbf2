"""One call to a chat model: retries, time, and a failure as a value.

This is the only layer that retries and limits time, for candidates and controllers
alike. A failure is a `Reply` with an error, never an exception.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp

from .._compat import ambient
from ..langsmith import runs
from . import limits
from .candidate import Candidate
from .failures import (
    LONGEST_RETRY_AFTER_SECONDS,
    TRANSIENT,
    ReplyError,
    classify,
    hide,
    hide_within,
    wait_seconds,
)
from .once import Once
from .reply import ChatModel, Reply, cost_of, read_reply, reported_usd, tokens_of
from .settings import ModelSettings
from .steps import Await, Invoke, Steps, Wait, aresult_of, result_of
from .store import ReplyStore
from .stored import key_of


def ask(
    model: ChatModel,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    *,
    seconds_left: float | None = None,
    config: RunnableConfig | None = None,
    store: ReplyStore | None = None,
    **kwargs: Any,
) -> Reply:
    """Ask a chat model once, with retries after transient failures.

    Args:
        model: the chat model; its own retries should be off.
        messages: the prompt.
        settings: prices, `timeout_seconds` of one attempt, `max_retries`.
        seconds_left: bound on all attempts and waits together; None for no bound.
        config: callbacks, tags and metadata for tracing.
        store: where an earlier reply to the same call may be, and a new one is kept; None = the
            call is made in any case. The model must be the one that `settings` describe.
        **kwargs: passed to the model (`stop=`, ...).
    """
    steps = _steps(model, messages, settings, seconds_left, store, kwargs, blocking=True)
    config = _traced(messages, settings, config)
    outcome: Any = None
    with closing(steps):
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            match step:
                case Wait():
                    time.sleep(step.seconds)
                    outcome = None
                case Await():
                    outcome = result_of(step)
                case Invoke():
                    outcome = _in_time(step.timeout, model, messages, config, kwargs)


async def aask(
    model: ChatModel,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    *,
    seconds_left: float | None = None,
    config: RunnableConfig | None = None,
    store: ReplyStore | None = None,
    **kwargs: Any,
) -> Reply:
    """Ask as `ask` does, without blocking the event loop."""
    steps = _steps(model, messages, settings, seconds_left, store, kwargs, blocking=False)
    config = _traced(messages, settings, config)
    outcome: Any = None
    with closing(steps):
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            match step:
                case Wait():
                    await asyncio.sleep(step.seconds)
                    outcome = None
                case Await():
                    outcome = await aresult_of(step)
                case Invoke():
                    outcome = await _ain_time(step.timeout, model, messages, config, kwargs)


def _steps(
    model: ChatModel,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    seconds_left: float | None,
    store: ReplyStore | None,
    kwargs: dict[str, Any],
    *,
    blocking: bool,
) -> Steps:
    """Return what `ask` and `aask` do: the call, or a look into the store and at most one call."""
    make = partial(_attempts, messages, settings)
    key = store and key_of(model, messages, settings, kwargs, every=store.every)
    if not (store and key):
        return make(seconds_left)
    return Once(store, key, messages, settings, make, blocking).steps(seconds_left)


def _attempts(
    messages: Sequence[AnyMessage], settings: ModelSettings, seconds_left: float | None
) -> Steps:
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
        if (wait := limits.reserve(settings)) >= left:
            error = ReplyError("rate_limited", f"its own limit: {wait:.1f} s to wait")
            break
        if wait:
            yield Wait(wait)
            left -= wait
        attempt += 1
        outcome = yield Invoke(min(settings.timeout_seconds, left))
        if isinstance(outcome, AIMessage):
            reply = read_reply(outcome, messages, settings, time.perf_counter() - start, attempt)
            limits.spend(settings, reply.input_tokens + reply.output_tokens)
            # A key that a careless server echoes must reach no checkpoint and no other provider.
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
        yield Wait(wait)
    return Reply(seconds=time.perf_counter() - start, attempts=attempt, error=error)


def _without(secret: str, reply: Reply) -> Reply:
    """Return the reply with a secret taken out of its text, tool calls and extras."""
    message = reply.message
    if not secret or message is None or secret not in str(message):
        return reply
    parts = ("content", "tool_calls", "invalid_tool_calls", "additional_kwargs")
    hidden = {part: hide_within(getattr(message, part), secret) for part in parts}
    return replace(reply, text=hide(reply.text, secret), message=message.model_copy(update=hidden))


async def _ain_time(
    seconds: float,
    model: ChatModel,
    messages: Sequence[AnyMessage],
    config: RunnableConfig | None,
    kwargs: dict[str, Any],
) -> Any:
    """Invoke, and return the message or the exception."""
    try:
        with ambient(config):
            async with asyncio.timeout(seconds):
                return await model.ainvoke(messages, config, **kwargs)
    except GraphBubbleUp:  # an interrupt, not a failure
        raise
    except TimeoutError as error:
        return error if str(error) else TimeoutError(_too_slow(seconds))
    except Exception as error:
        return error


def _in_time(
    timeout: float,
    model: ChatModel,
    messages: Sequence[AnyMessage],
    config: RunnableConfig | None,
    kwargs: dict[str, Any],
) -> Any:
    """Invoke in a thread, and leave it at the time-out: no client's own one covers every hang."""
    outcome: list[Any] = []

    def target() -> None:
        try:
            with ambient(config):
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


def _traced(
    messages: Sequence[AnyMessage], settings: ModelSettings, config: RunnableConfig | None
) -> RunnableConfig | None:
    """Return the config under which LangSmith shows the call as it is billed."""

    def usage(message: AIMessage) -> runs.Usage:
        input_tokens, output_tokens, _, _ = tokens_of(message, messages)
        cost_usd = cost_of(message, settings, input_tokens, output_tokens)
        tokens = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        }
        if not settings.priced and reported_usd(message) is None:
            return tokens  # LangSmith may know the price
        # A provider reports one sum: split it in the proportion of the list prices.
        whole = settings.cost_usd(input_tokens, output_tokens)
        part = settings.cost_usd(input_tokens, 0) / whole if whole else 0.0
        paid_in = cost_usd * part
        costs = {"input_cost": paid_in, "output_cost": cost_usd - paid_in, "total_cost": cost_usd}
        return {**tokens, **costs}

    name = settings.name if isinstance(settings, Candidate) else "controller"
    return runs.model_call(config, name, usage)
