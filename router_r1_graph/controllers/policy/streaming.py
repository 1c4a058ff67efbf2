"""Streams a policy's turn to LangGraph's `stream_mode="messages"` while it is sampled.

LangGraph receives tokens through callbacks that chat models call. A policy is no chat model, so it
calls them itself. It calls only those that stream, so that a tracer does not record a call twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from langchain_core.callbacks import BaseCallbackManager, CallbackManager, CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig

from ..._compat import wants_tokens

Listener = Callable[[Sequence[int]], None]
"""Receives a turn's ids so far, after each sampled one."""


@dataclass
class Increments:
    """The new parts of a growing text: whole characters only, and no space at its ends."""

    told: str = ""

    def of(self, text: str) -> str:
        """Return the text since the last call; "" while a character is not complete."""
        # A character of several tokens reads as U+FFFD until its last token has arrived.
        return self.rest(text.rstrip("\N{REPLACEMENT CHARACTER}").strip())

    def rest(self, text: str) -> str:
        """Return the part of the whole text that was not returned yet."""
        if not text.startswith(self.told):
            return ""
        new, self.told = text[len(self.told) :], text
        return new


class TurnStream:
    """One turn as the run of a chat model: a start, its text piece by piece, an end."""

    def __init__(self, run: CallbackManagerForLLMRun, decode: Callable[[Sequence[int]], str]):
        self._run = run
        self._decode = decode
        self._increments = Increments()
        self.id = f"run-{run.run_id}"

    def listener(self, loop: asyncio.AbstractEventLoop | None = None) -> Listener:
        """Return a function that receives the turn's ids.

        Args:
            loop: the event loop of the callbacks, if the sampler runs in another thread.
        """

        def heard(ids: Sequence[int]) -> None:
            text = self._increments.of(self._decode(ids))
            if loop is None:
                self.tell(text)
            elif text:
                loop.call_soon_threadsafe(self.tell, text)

        return heard

    def tell(self, text: str) -> None:
        """Emit more text."""
        if text:
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=text, id=self.id))
            self._run.on_llm_new_token(text, chunk=chunk)

    def end(self, text: str) -> None:
        """Emit the rest of the turn's text, and end the stream."""
        self.tell(self._increments.rest(text))
        message = AIMessage(text, id=self.id)
        self._run.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]))

    def fail(self, error: BaseException) -> None:
        """End the stream with an error."""
        self._run.on_llm_error(error)


@contextmanager
def turn_stream(
    config: RunnableConfig | None, decode: Callable[[Sequence[int]], str], name: str, question: str
) -> Iterator[TurnStream | None]:
    """Begin a turn's stream; None if no callback streams, which costs nothing.

    Args:
        config: the think node's; its callbacks decide whether to stream.
        decode: from sampled ids to the turn's text.
        name: the controller's name.
        question: the question of the turn.
    """
    config = config or {}
    callbacks = config.get("callbacks")
    known = callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or []
    handlers = [handler for handler in known if wants_tokens(handler)]
    if not handlers:
        yield None
        return
    manager = CallbackManager.configure(
        callbacks,
        inheritable_tags=config.get("tags"),
        inheritable_metadata=config.get("metadata"),
    )
    manager.set_handlers(handlers)
    (run,) = manager.on_chat_model_start({}, [[HumanMessage(question)]], name=name)
    stream = TurnStream(run, decode)
    try:
        yield stream
    except BaseException as error:
        stream.fail(error)
        raise
