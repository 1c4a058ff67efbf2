"""One call to a chat model, and a failure as a value.

This module does what `resilience` decides, for candidates and controllers alike. A failure is a
`Reply` with an error, never an exception.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableBinding, RunnableConfig

from ..langsmith import runs
from .candidate import Candidate
from .error_kinds import TRANSIENT
from .failures import classify, is_of_a_dead_loop
from .given import ModelRequest, made_for, named
from .in_vain import IN_VAIN, paid_in_vain
from .keys import hide, hide_within
from .once import Once
from .reply import ChatModel, Reply, cost_of, read_reply
from .resilience.attempts import Attempts
from .sending import watch
from .settings import ModelSettings
from .steps import Steps, arun, run
from .store import ReplyStore
from .stored import key_of
from .usage import is_cached, reported_usd, usage_of
from .worst_case import most_usd

logger = logging.getLogger(__name__)

#: Other providers' clients keep connections of event loops that are closed; each attempt drops one.
_MOST_DEAD_CONNECTIONS = 32


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
    secrets = settings.secrets
    model, kwargs = unbound(made_for(model, config, secrets), kwargs)
    steps = _steps(model, messages, settings, secrets, seconds_left, store, kwargs, blocking=True)
    config = _traced(messages, settings, config)
    return run(steps, partial(_invoke, model, messages, settings, config, kwargs))


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
    secrets = settings.secrets
    model, kwargs = unbound(made_for(model, config, secrets), kwargs)
    steps = _steps(model, messages, settings, secrets, seconds_left, store, kwargs, blocking=False)
    config = _traced(messages, settings, config)
    return await arun(steps, partial(_ainvoke, model, messages, settings, config, kwargs))


def unbound(model: ChatModel, kwargs: dict[str, Any]) -> tuple[ChatModel, dict[str, Any]]:
    """Return a bound model (`bind_tools`) as the model and what is bound to it.

    A binding merges its config with the one around it, whose callbacks then come first: a tracer
    would read a message before its cost is written there.
    """
    bound: Any = model
    while isinstance(bound, RunnableBinding) and not (bound.config or bound.config_factories):
        bound, kwargs = bound.bound, {**bound.kwargs, **kwargs}
    return bound, kwargs


def _steps(
    model: ChatModel,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    secrets: tuple[str, ...],
    seconds_left: float | None,
    store: ReplyStore | None,
    kwargs: dict[str, Any],
    *,
    blocking: bool,
) -> Steps:
    """Return what `ask` and `aask` do: the call, or a look into the store and at most one call."""

    def read(outcome: Any, seconds: float, attempt: int) -> Reply:
        # A key that a careless server echoes must reach no checkpoint and no other provider: it is
        # taken out before a part of the text gets into an error.
        if isinstance(outcome, AIMessage):
            outcome = _without(secrets, outcome)
        return _read(outcome, messages, settings, secrets, kwargs, seconds, attempt)

    def make(left: float | None) -> Steps:
        most = partial(most_usd, messages, settings, kwargs)
        return Attempts(settings, read, float("inf") if left is None else left, most).steps()

    key = store and key_of(model, messages, settings, kwargs, every=store.every)
    if not (store and key):
        return make(seconds_left)
    return Once(store, key, messages, settings, make, blocking).steps(seconds_left)


def _read(
    outcome: Any,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    secrets: tuple[str, ...],
    kwargs: Mapping[str, Any],
    seconds: float,
    attempt: int,
) -> Reply:
    """Return what one attempt brought; of a failed one, the usage that the server reports."""
    if isinstance(outcome, AIMessage):
        try:
            reply = read_reply(outcome, messages, settings, seconds, attempt, kwargs)
        except Exception as why:  # the attempt was made, and is on the bill all the same
            logger.warning("a reply of %s cannot be read", settings.model, exc_info=why)
            unread = replace(classify(why, secrets), kind="malformed")
            return Reply(seconds=seconds, attempts=attempt, error=unread)
        if reply.error and reply.error.kind in TRANSIENT:  # half a text is no reply
            reply = replace(reply, text="", message=None)
        return reply
    if not isinstance(outcome, BaseException):
        outcome = TypeError(f"expected an AIMessage, got {type(outcome).__name__}")
    error = classify(outcome, secrets, settings.base_url)
    reply = Reply(seconds=seconds, attempts=attempt)
    if not isinstance(partial := getattr(outcome, "partial", None), AIMessage):
        return replace(reply, error=error)
    in_vain = error.kind in IN_VAIN  # of half a reply, to be asked for again, nothing is kept
    partial = paid_in_vain(partial, error) if in_vain else partial
    reply = read_reply(partial, messages, settings, seconds, attempt, kwargs)
    kept = reply.unread if in_vain else None
    return replace(reply, text="", message=None, unread=kept, error=error)


def _without(secrets: tuple[str, ...], message: AIMessage) -> AIMessage:
    """Return a message with secrets taken out of its text, tool calls and extras."""
    if not secrets or hide(written := str(message), *secrets) == written:
        return message
    parts = ("content", "tool_calls", "invalid_tool_calls", "additional_kwargs")
    hidden = {part: hide_within(getattr(message, part), *secrets) for part in parts}
    return message.model_copy(update=hidden)


def _invoke(
    model: ChatModel,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    config: RunnableConfig | None,
    kwargs: dict[str, Any],
) -> Any:
    """Invoke, again without what the model refuses."""
    watch(model)
    asked = ModelRequest(model, settings, kwargs)
    while True:
        client, own = asked.without()
        try:
            came = client.invoke(messages, asked.config(config), **own)
        except Exception as error:
            if not asked.learn(error):
                raise named(error) from error.__cause__
        else:
            return asked.read(came)


async def _ainvoke(
    model: ChatModel,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    config: RunnableConfig | None,
    kwargs: dict[str, Any],
) -> Any:
    """Invoke as `_invoke` does, again for each connection of an event loop that is closed."""
    watch(model)
    asked = ModelRequest(model, settings, kwargs)
    dead = 0
    while True:
        client, own = asked.without()
        try:
            came = await client.ainvoke(messages, asked.config(config), **own)
        except Exception as error:
            dead += is_of_a_dead_loop(error)
            again = is_of_a_dead_loop(error) and dead <= _MOST_DEAD_CONNECTIONS
            if not (again or asked.learn(error)):
                raise named(error) from error.__cause__
        else:
            return asked.read(came)


def _traced(
    messages: Sequence[AnyMessage], settings: ModelSettings, config: RunnableConfig | None
) -> RunnableConfig | None:
    """Return the config under which LangSmith shows the call as it is billed."""

    def usage(message: AIMessage) -> runs.Usage:
        counts = usage_of(message, messages)
        input_tokens, output_tokens = counts.input_tokens, counts.output_tokens
        tokens = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        }
        if not settings.priced and reported_usd(message) is None and not is_cached(message):
            return tokens  # LangSmith may know the price
        cost_usd = cost_of(message, settings, counts)
        # A provider reports one sum: split it in the proportion of the list prices.
        whole = settings.cost_usd(input_tokens, output_tokens)
        part = settings.cost_usd(input_tokens, 0) / whole if whole else 0.0
        paid_in = cost_usd * part
        costs = {"input_cost": paid_in, "output_cost": cost_usd - paid_in, "total_cost": cost_usd}
        return {**tokens, **costs}

    name = settings.name if isinstance(settings, Candidate) else "controller"
    return runs.model_call(config, name, usage)
