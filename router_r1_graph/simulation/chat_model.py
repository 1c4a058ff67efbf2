"""A simulated candidate as a LangChain chat model: no key, no network, a real one's bill."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from ..candidates import Candidate
from . import forms
from .draw import fraction
from .file_reading import read
from .mind import MESSAGE_TOKENS, SimulatedOptions, count_tokens, options_of, reply_text_and_tokens
from .world import known_world


class SimulatedOutageError(ConnectionError):
    """A simulated candidate was drawn to fail (`fail_rate`). A retry may succeed."""


def simulated_chat_model(candidate: Candidate) -> BaseChatModel:
    """Return the chat model of a candidate with `provider: simulated`.

    Raises:
        PoolError: An option is unknown or has an impossible value.
        ConfigError: The facts file cannot be read.

    >>> ada = Candidate(name="Ada", provider="simulated", benchmarks={"literature": 1.0})
    >>> simulated_chat_model(ada).invoke("Who wrote Hamlet?").content
    'William Shakespeare'
    """
    options = options_of(candidate)
    # Now, so that a broken file is reported before a run, and no run blocks its event loop.
    read(known_world(options.facts), "")
    return SimulatedChatModel(candidate=candidate, options=options)


class SimulatedChatModel(BaseChatModel):
    """Replies to the last human message with the knowledge that the candidate's record gives it."""

    candidate: Candidate
    options: SimulatedOptions
    _calls: Iterator[int] = PrivateAttr(default_factory=itertools.count)

    @property
    def _llm_type(self) -> str:
        return "router-r1-simulated"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        # An LLM cache goes by these: in another world, the same name knows other facts.
        return {"model_name": self.candidate.model_name, "record": self.candidate.model_dump_json()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(
            ls_provider="simulated",
            ls_model_name=self.candidate.model_name,
            ls_model_type="chat",
            ls_max_tokens=self.candidate.max_tokens,
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = self._reply(messages, **kwargs)
        time.sleep(self._seconds)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = self._reply(messages, **kwargs)
        await asyncio.sleep(self._seconds)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chunks = _chunks(self._reply(messages, **kwargs))
        for chunk in chunks:
            time.sleep(self._seconds / len(chunks))
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunks = _chunks(self._reply(messages, **kwargs))
        for chunk in chunks:
            await asyncio.sleep(self._seconds / len(chunks))
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    @property
    def _seconds(self) -> float:
        return (self.candidate.latency_seconds or 0.0) if self.options.sleep else 0.0

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with tools, which it calls if it has to."""
        converted = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=converted, tool_choice=tool_choice or "auto", **kwargs)

    def _reply(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: str = "auto",
        **_: Any,
    ) -> AIMessage:
        query = next(
            (
                str(message.text)
                for message in reversed(messages)
                if isinstance(message, HumanMessage)
            ),
            "",
        )
        call = str(next(self._calls))
        if fraction("fail", self.candidate.name, query, call) < self.options.fail_rate:
            raise SimulatedOutageError(
                f"{self.candidate.name} was drawn to fail (fail_rate {self.options.fail_rate:g})"
            )
        reply = reply_text_and_tokens(self.candidate, query)
        text, output_tokens = reply.text, reply.output_tokens
        tool_calls: list[Any] = []
        if (answer := forms.told(query)) is not None:
            text, output_tokens = answer, count_tokens(answer)
        if made := forms.call(tools, tool_choice, text):
            text, output_tokens, tool_calls = "", count_tokens(str(made["args"])), [made]
        others = sum(count_tokens(str(message.text)) + MESSAGE_TOKENS for message in messages) - (
            count_tokens(query) + MESSAGE_TOKENS
        )
        input_tokens = reply.input_tokens + max(others, 0)
        return AIMessage(
            content=text,
            tool_calls=tool_calls,
            usage_metadata=UsageMetadata(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                total_tokens=input_tokens + output_tokens,
            ),
            response_metadata={
                "model_name": self.candidate.model_name,
                "finish_reason": "length" if reply.cut else "stop",
            },
        )


def _chunks(reply: AIMessage) -> list[ChatGenerationChunk]:
    """Cut a reply into words; the last one carries the usage and the metadata."""
    words = re.findall(r"\s*\S+\s*$|\s*\S+", str(reply.text)) or [""]
    messages = [AIMessageChunk(content=word) for word in words[:-1]]
    messages.append(
        AIMessageChunk(
            content=words[-1],
            tool_call_chunks=[
                tool_call_chunk(
                    name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=number
                )
                for number, call in enumerate(reply.tool_calls)
            ],
            usage_metadata=reply.usage_metadata,
            response_metadata=reply.response_metadata,
            chunk_position="last",
        )
    )
    return [ChatGenerationChunk(message=message) for message in messages]
