"""The supported part of OpenAI's chat completions API: requests, errors, responses."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_messages
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ..chat_router import KNOBS
from ..context import RouterContext, knobs
from ..errors import ConfigError, ControllerError, did_you_mean

MODEL = "router-r1"

#: OpenAI's fields that do not change the answer; clients send them to every server.
_IGNORED = {
    *("frequency_penalty", "logit_bias", "metadata", "parallel_tool_calls", "presence_penalty"),
    *("prompt_cache_key", "reasoning_effort", "safety_identifier", "service_tier", "store"),
    *("top_p", "user", "verbosity"),
}


class RefusedError(Exception):
    """A request that is refused, with an error in the form of OpenAI's API."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        text = f"{param}: {message}" if param and param not in message else message
        self.error = {"message": text, "type": kind, "param": param, "code": code}
        self.headers = dict(headers or {})


class StreamOptions(BaseModel):
    """The additional content of a stream."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


if TYPE_CHECKING:
    _WithKnobs = BaseModel
else:  # one field for each knob, checked by `RouterContext`
    _WithKnobs = create_model(
        "_WithKnobs",
        __module__=__name__,
        **{name: (Any, Field(None, description=knobs()[name][1].help)) for name in KNOBS},
    )


class ChatRequest(_WithKnobs):
    """The body of a request: OpenAI's fields, and the knobs of `RouterContext`.

    A knob that is missing or null keeps the server's value. `RouterContext` checks the knobs.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None

    def options(self) -> dict[str, Any]:
        """Return what the chat model is called with: the given knobs and limits.

        Raises:
            RefusedError: a knob is out of range.
        """
        given = {name: getattr(self, name) for name in KNOBS if getattr(self, name) is not None}
        for name, value in given.items():
            try:
                RouterContext(**{name: value})
            except ConfigError as error:
                raise RefusedError(400, str(error), param=name) from None
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        max_tokens = self.max_completion_tokens or self.max_tokens
        return {**given, "stop": stop, "max_tokens": max_tokens}

    def conversation(self) -> list[BaseMessage]:
        """Return the messages as LangChain's.

        Raises:
            RefusedError: a message has no role or content that can be read.
        """
        messages: list[BaseMessage] = []
        for number, message in enumerate(self.messages):
            content = message.get("content")
            for part in content if isinstance(content, list) else []:
                if not isinstance(part, Mapping) or part.get("type") != "text":
                    why = "only parts of type 'text' can be read"
                    raise RefusedError(400, why, param=f"messages.{number}.content")
            try:
                messages += convert_to_messages([message])
            except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
                why = str(error).partition("\n")[0]
                raise RefusedError(400, why, param=f"messages.{number}") from None
        return messages


def read_request(data: object) -> ChatRequest:
    """Check the body of a request.

    Raises:
        RefusedError: it holds what is not allowed; the error names the field.
    """
    if not isinstance(data, dict):
        raise RefusedError(400, f"the body is a JSON object, not {type(data).__name__}")
    try:
        asked = ChatRequest.model_validate({k: v for k, v in data.items() if k not in _IGNORED})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = ".".join(str(part) for part in first["loc"])
        why = first["msg"]
        if first["type"] == "extra_forbidden":
            allowed = ChatRequest.model_fields
            why = f"unknown field{did_you_mean(param, allowed)}; allowed: {', '.join(allowed)}"
        raise RefusedError(400, why, param=param) from None
    if asked.model != MODEL:
        why = f"there is no model {asked.model[:100]!r} here; there is {MODEL!r}"
        raise RefusedError(404, why, param="model", code="model_not_found")
    return asked


def _head(kind: str) -> dict[str, Any]:
    id_ = f"chatcmpl-{uuid.uuid4().hex}"
    return {"id": id_, "object": kind, "created": int(time.time()), "model": MODEL}


def _usage(message: AIMessage) -> dict[str, Any]:
    usage = message.usage_metadata
    assert usage is not None
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        # As OpenRouter reports it, so that a router can be the candidate of another one.
        "cost": message.response_metadata["cost_usd"],
    }


def _bill(message: AIMessage) -> dict[str, Any]:
    ours = ("model_name", "finish_reason")
    return {name: v for name, v in message.response_metadata.items() if name not in ours}


def completion(message: AIMessage) -> dict[str, Any]:
    """Return OpenAI's chat completion object, with the bill under `router_r1`."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": str(message.text), "refusal": None},
        "logprobs": None,
        "finish_reason": message.response_metadata["finish_reason"],
    }
    usage, bill = _usage(message), _bill(message)
    return {**_head("chat.completion"), "choices": [choice], "usage": usage, "router_r1": bill}


async def server_sent_events(
    pieces: AsyncIterable[AIMessageChunk], with_usage: bool
) -> AsyncIterator[str]:
    """Yield the server-sent events of a stream; the one that ends the answer has the bill.

    If the answer breaks off, the last event is an error in the form that OpenAI's clients read.
    """
    head = _head("chat.completion.chunk")

    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return f"data: {json.dumps({**head, 'choices': [choice], **more})}\n\n"

    yield event({"role": "assistant", "content": ""})
    try:
        async for piece in pieces:
            if piece.text:
                yield event({"content": str(piece.text)})
    except ControllerError as error:
        broken = RefusedError(502, str(error), code="controller_error")
        yield f"data: {json.dumps({'error': broken.error})}\n\n"
        return
    yield event({}, piece.response_metadata["finish_reason"], router_r1=_bill(piece))
    if with_usage:
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': _usage(piece)})}\n\n"
    yield "data: [DONE]\n\n"
