"""A policy's turn, told to LangGraph's `stream_mode="messages"` while it is sampled.

LangGraph hears of tokens through callbacks that chat models call. A policy is no chat model, so it
calls them itself, and only those that stream: a tracer is not told of a call twice.
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
"""Told a turn's ids so far, after each one that was sampled."""


@dataclass
class Increments:
    """What is new in a text that grows: whole characters only, and no space at its ends."""

    told: str = ""

    def of(self, text: str) -> str:
        """Return what was added since the last call; "" while a character is not complete."""
        # Half of a character in several tokens reads as U+FFFD until the rest of it comes.
        return self.rest(text.rstrip("\N{REPLACEMENT CHARACTER}").strip())

    def rest(self, text: str) -> str:
        """Return what is left to tell of the whole text."""
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
        """Return who hears of the turn's ids.

        Args:
            loop: where the callbacks live, if the sampler runs in a thread beside it.
        """

        def heard(ids: Sequence[int]) -> None:
            text = self._increments.of(self._decode(ids))
            if loop is None:
                self.tell(text)
            elif text:
                loop.call_soon_threadsafe(self.tell, text)

        return heard

    def tell(self, text: str) -> None:
        """Tell whoever streams of more text."""
        if text:
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=text, id=self.id))
            self._run.on_llm_new_token(text, chunk=chunk)

    def end(self, text: str) -> None:
        """Tell what is left of the turn's text, and that it is whole."""
        self.tell(self._increments.rest(text))
        message = AIMessage(text, id=self.id)
        self._run.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]))

    def fail(self, error: BaseException) -> None:
        """Tell that there will be no more."""
        self._run.on_llm_error(error)


@contextmanager
def turn_stream(
    config: RunnableConfig | None, decode: Callable[[Sequence[int]], str], name: str, question: str
) -> Iterator[TurnStream | None]:
    """Begin a turn's stream; None where nobody streams, which costs nothing.

    Args:
        config: the think node's; its callbacks say who streams.
        decode: from sampled ids to the turn's text.
        name: of the controller.
        question: what the turn is about.
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
