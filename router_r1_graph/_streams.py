"""The content of LangGraph's streams of messages during a run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from ._compat import has_own_stream, heard, listeners, mark_streamed, stream_part, unhear

_Part = TypeVar("_Part")


def in_silence(config: RunnableConfig) -> RunnableConfig:
    """Keep a node out of streams of messages: its output and, by the new config, its calls.

    Without this function, a chat UI shows the turns and the replies of candidates.
    """
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        for listener in listeners(config):
            unhear(listener, callbacks.parent_run_id)  # the node's run
    return unheard(config)


def unheard(config: RunnableConfig) -> RunnableConfig:
    """Keep the calls that are made with a config out of streams of messages."""
    callbacks, listening = config.get("callbacks"), listeners(config)
    if not (listening and isinstance(callbacks, BaseCallbackManager)):
        return config
    callbacks = callbacks.copy()
    for held in (callbacks.handlers, callbacks.inheritable_handlers):
        held[:] = [handler for handler in held if handler not in listening]
    return {**config, "callbacks": callbacks}


@contextmanager
def apart() -> Iterator[None]:
    """Run a graph without the callbacks of the node that runs it.

    LangGraph adds the callbacks of the node to those that a graph is given. Without this function,
    a stream that shows subgraphs has a chat model's answer and, as messages like it, the steps
    inside the chat model.
    """
    around = var_child_runnable_config.get()
    token = var_child_runnable_config.set(unheard(around) if around else around)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def each_apart(parts: Iterator[_Part]) -> Iterator[_Part]:
    """Yield what a graph streams, and run it `apart`."""
    while True:
        with apart():
            try:
                part = next(parts)
            except StopIteration:
                return
        yield part


async def aeach_apart(parts: AsyncIterator[_Part]) -> AsyncIterator[_Part]:
    """Yield what a graph streams, and run it `apart`."""
    while True:
        with apart():
            try:
                part = await anext(parts)
            except StopAsyncIteration:
                return
        yield part


def hide(config: RunnableConfig, messages: Sequence[BaseMessage]) -> None:
    """Keep messages out of streams of messages; called from the node that returns them.

    LangGraph streams every message of a node's output, whatever its key is. Without this function,
    a parent graph's stream shows the scratchpad.
    """
    for listener in listeners(config):
        for message in messages:
            message.id = message.id or str(uuid4())  # as LangGraph does with one that it streams
            mark_streamed(listener, message.id)


def hand_up(config: RunnableConfig, message: BaseMessage, *, alone: bool) -> None:
    """Leave a subgraph's message to the parent's stream; called from the node that returns it.

    LangGraph streams a message once, in a stream that may show subgraphs: as that of the subgraph.
    In version v3 each graph has a stream of its own, and without this the parent's stays empty.

    Args:
        config: the node's.
        message: the message that the node returns.
        alone: whether the subgraph shows nothing of its own; else its own stream has it, too.
    """
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager) or callbacks.parent_run_id is None:
        return
    for listener in listeners(config):
        namespace, metadata = heard(listener, callbacks.parent_run_id) or ((), {})
        if not namespace or not (alone or has_own_stream(listener)):
            continue
        if alone or stream_part(listener, (namespace, "messages", (message, metadata))):
            unhear(listener, callbacks.parent_run_id)
