"""The supported part of OpenAI's chat completions API: its request and its response."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Annotated, Any, ClassVar

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from .messages import to_messages
from .refused import RefusedError
from .request import Asked, TokenLimit, bill, called, reasoning_tokens


class StreamOptions(BaseModel):
    """The additional content of a stream."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = None


def _texts(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


class ChatRequest(Asked):
    """The body of a request to /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    stream_options: StreamOptions | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None,
        BeforeValidator(_texts, json_schema_input_type=str | list[str] | None),
    ] = None
    max_tokens: TokenLimit = None
    max_completion_tokens: TokenLimit = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None

    only: ClassVar = {
        **{"n": (1,), "best_of": (1,), "echo": (False,), "suffix": ("",)},
        **{"logprobs": (False,), "top_logprobs": (0,), "prompt_logprobs": (0,)},
        **{"modalities": (["text"],), "audio": (), "web_search_options": ()},
        **{"functions": ([],), "function_call": ("none", "auto")},
    }

    def conversation(self, *, images: bool) -> list[BaseMessage]:
        """Return the messages as LangChain's."""
        return to_messages(self.messages, images=images)

    def limits(self) -> dict[str, Any]:
        """Return where the answer is cut off."""
        return {"stop": self.stop, "max_tokens": self.max_completion_tokens or self.max_tokens}

    def form(self) -> dict[str, Any]:
        """Return the requested tools and format."""
        asked: dict[str, Any] = {"tools": self.tools, "response_format": self.response_format}
        if self.tools or self.tool_choice not in ("auto", "none"):
            asked |= {"tool_choice": self.tool_choice}
        if self.tools:
            asked |= {"parallel_tool_calls": self.parallel_tool_calls}
        return {name: value for name, value in asked.items() if value not in (None, [], {})}

    def response(self, message: AIMessage) -> dict[str, Any]:
        """Return OpenAI's chat completion object."""
        said: dict[str, Any] = {"role": "assistant", "content": str(message.text), "refusal": None}
        if calls := called(message):
            said |= {"content": said["content"] or None}
            said |= {"tool_calls": [_call(call) for call in calls]}
        choice = {
            "index": 0,
            "message": said,
            "logprobs": None,
            "finish_reason": message.response_metadata["finish_reason"],
        }
        head = self._head("chat.completion")
        return {**head, "choices": [choice], "usage": _usage(message), "router_r1": bill(message)}

    async def events(self, pieces: AsyncIterable[AIMessageChunk]) -> AsyncIterator[str]:
        """Yield chat completion chunks."""
        head = self._head("chat.completion.chunk")
        with_usage = bool(self.stream_options and self.stream_options.include_usage)
        if with_usage:
            head["usage"] = None  # OpenAI's chunks have it, all but the last as null

        def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return _event({**head, "choices": [choice], **more})

        yield event({"role": "assistant", "content": ""})
        try:
            async for piece in pieces:
                if piece.text:
                    yield event({"content": str(piece.text)})
                if calls := called(piece):
                    told = [{"index": number, **_call(call)} for number, call in enumerate(calls)]
                    yield event({"tool_calls": told})
        except RefusedError as broken:
            yield _event({"error": broken.error})
            return
        yield event({}, piece.response_metadata["finish_reason"], router_r1=bill(piece))
        if with_usage:
            yield _event({**head, "choices": [], "usage": _usage(piece)})
        yield "data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        id_ = f"chatcmpl-{uuid.uuid4().hex}"
        return {"id": id_, "object": kind, "created": int(time.time()), "model": self.model}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _call(call: Mapping[str, str | None]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["id"], "type": "function", "function": function}


def _usage(message: AIMessage) -> dict[str, Any]:
    usage = message.usage_metadata
    assert usage is not None
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens(message)},
        # As OpenRouter reports it, so that a router can be the candidate of another one.
        "cost": message.response_metadata["cost_usd"],
    }
