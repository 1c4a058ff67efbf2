"""Chat models and pools that tests ask: nothing is mocked, these are LangChain chat models."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from router_r1_graph import CandidatePool, ReplyError
from router_r1_graph.candidates import ModelSettings
from router_r1_graph.candidates.reply import Reply
from router_r1_graph.controllers.controller import View

NEVER = 3600.0
"""Seconds of a delay that no test waits for."""


class FakeChat(BaseChatModel):
    """Replies with `text` (or what a function of the query says), `delay` seconds later.

    `queries` is what it was asked, in order. An exception as text is raised.
    """

    text: Any = "Paris"
    delay: float = 0.0
    input_tokens: int = 10
    output_tokens: int = 5
    usage: bool = True
    queries: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> ChatResult:
        self.queries.append(str(messages[-1].text))
        time.sleep(self.delay)
        return self._result(str(messages[-1].text))

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> ChatResult:
        self.queries.append(str(messages[-1].text))
        await asyncio.sleep(self.delay)
        return self._result(str(messages[-1].text))

    def _result(self, query: str) -> ChatResult:
        text = self.text(query) if callable(self.text) else self.text
        if isinstance(text, Exception):
            raise text
        usage = UsageMetadata(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            total_tokens=self.input_tokens + self.output_tokens,
        )
        message = AIMessage(text, usage_metadata=usage if self.usage else None)
        return ChatResult(generations=[ChatGeneration(message=message)])


def fake_chat_model(settings: ModelSettings) -> FakeChat:
    """Build what `provider: fakes:fake_chat_model` names; `options` are fields of FakeChat."""
    return FakeChat(**settings.options)


class OllamaChat(FakeChat):
    """Behaves as `ChatOllama`: only the last line of a stream says whose it is, and that it ended.

    It takes a temperature when it is made, and none with a call. `seen`: those it was asked with.
    """

    __module__ = "langchain_ollama.chat_models"
    temperature: float | None = None
    seen: list[float | None] = Field(default_factory=list)
    halves: int = 0
    """So many replies break off before the last line."""

    def _generate(self, messages: list[BaseMessage], *_: Any, **kwargs: Any) -> ChatResult:
        if "temperature" in kwargs:
            raise TypeError("Client.chat() got an unexpected keyword argument 'temperature'")
        self.seen.append(self.temperature)
        result = super()._generate(messages)
        if len(self.queries) > self.halves:
            ended = {"model_provider": "ollama", "done": True}
            result.generations[0].message.response_metadata = ended
        return result

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **kwargs: Any) -> ChatResult:
        return self._generate(messages, **kwargs)


def ollama_chat_model(settings: ModelSettings) -> OllamaChat:
    """Build what `provider: fakes:ollama_chat_model` names."""
    return OllamaChat(temperature=settings.temperature, **settings.options)


def not_a_chat_model(settings: ModelSettings) -> str:
    """Build what no provider may build."""
    return f"a text, for {settings.model}"


def broken_factory(settings: ModelSettings) -> FakeChat:
    """Fail to build anything."""
    raise RuntimeError("no model today")


class MeetingChat(FakeChat):
    """Replies only when everybody who shares its barrier has been asked: calls in flight at once.

    Give it a `threading.Barrier` for sync runs and an `asyncio.Barrier` for async ones.
    """

    barrier: Any

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> ChatResult:
        barrier: threading.Barrier = self.barrier
        barrier.wait(timeout=100)
        return super()._generate(messages)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> ChatResult:
        barrier: asyncio.Barrier = self.barrier
        async with asyncio.timeout(100):
            await barrier.wait()
        return await super()._agenerate(messages)


class TypingChat(FakeChat):
    """Writes its texts one after the other, in pieces; before the piece `wait`, for `go`."""

    texts: list[list[str]]
    wait: str = ""
    go: threading.Event = Field(default_factory=threading.Event)
    given_up: threading.Event = Field(default_factory=threading.Event)

    def bind_tools(self, tools: Any, **_: Any) -> TypingChat:
        return self

    def _result(self, query: str) -> ChatResult:
        self.text = "".join(self.texts.pop(0))
        return super()._result(query)

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[ChatGenerationChunk]:
        for piece in self.texts.pop(0):
            if piece == self.wait:
                assert self.go.wait(100)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for piece in self.texts.pop(0):
            try:
                if piece == self.wait:
                    await asyncio.to_thread(self.go.wait, 100)
            except asyncio.CancelledError:
                self.given_up.set()
                self.go.set()  # for the thread
                raise
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                await run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk


class PaidController:
    """Writes a script as ScriptedController does, and costs `usd` and `seconds` a turn.

    A `ReplyError` in the script is a turn that failed.
    """

    name = "paid"

    def __init__(
        self, script: Sequence[str | ReplyError], *, usd: float = 0.0, seconds: float = 0.0
    ) -> None:
        self.script, self.usd, self.seconds = script, usd, seconds
        self.views: list[View] = []

    def worst_case_usd(self, view: View) -> float:
        return self.usd

    def decide(self, view: View, config: Any = None) -> Reply:
        self.views.append(view)
        done = sum(isinstance(message, AIMessage) for message in view.scratchpad)
        turn = self.script[min(done, len(self.script) - 1)]
        text, error = ("", turn) if isinstance(turn, ReplyError) else (turn, None)
        return Reply(text, cost_usd=self.usd, seconds=self.seconds, output_tokens=7, error=error)

    async def adecide(self, view: View, config: Any = None) -> Reply:
        return self.decide(view, config)


def make_pool(*candidates: Mapping[str, Any] | str, **top: Any) -> CandidatePool:
    """Return a pool of these records; a string is a candidate's name.

    Prices are 1 USD per million tokens in, 2 out, where a record does not say otherwise.
    """
    defaults = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0, "max_tokens": 100}
    records = [{"name": c} if isinstance(c, str) else c for c in candidates or ("Ada", "Bob")]
    return CandidatePool.model_validate(
        {"candidates": [{**defaults, "max_retries": 0, **record} for record in records], **top}
    )


def search(*calls: str) -> str:
    """Write a turn that makes these calls, each `Candidate: query`."""
    return "<think> ask </think>" + "".join(f"<search> {call} </search>" for call in calls)


def answer(text: str = "42") -> str:
    """Write a turn that answers."""
    return f"<think> done </think><answer> {text} </answer>"


def models(pool: CandidatePool, **given: Any) -> dict[str, Any]:
    """Return a chat model for each candidate of a pool: the given one, else one that says Paris."""
    return {c.name: given.get(c.name) or FakeChat() for c in pool.candidates}
