"""The supported part of OpenAI's responses API: its request and its response.

Nothing is stored: each request brings its conversation along, as with `store: false`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Annotated, Any, ClassVar

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from pydantic import AfterValidator, BeforeValidator, Field

from .messages import to_messages
from .refused import RefusedError
from .request import Asked, TokenLimit, bill, called, reasoning_tokens

#: Why a response is incomplete, by the finish reason.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def _items_of(given: object) -> object:
    if isinstance(given, str):
        return [{"role": "user", "content": given}] if given else []
    return given


def _with_format(text: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(text.get("format"), dict | None):
        raise ValueError("its format is an object, such as {'type': 'text'}")
    return text


class ResponsesRequest(Asked):
    """The body of a request to /v1/responses."""

    input: Annotated[
        list[dict[str, Any]],
        Field(min_length=1),
        BeforeValidator(_items_of, json_schema_input_type=str | list[dict[str, Any]]),
    ]
    instructions: str | None = None
    max_output_tokens: TokenLimit = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: Annotated[dict[str, Any], AfterValidator(_with_format)] | None = None
    metadata: dict[str, Any] | None = None

    only: ClassVar = {
        **{"previous_response_id": (), "conversation": (), "prompt": ()},
        **{"background": (False,), "top_logprobs": (0,)},
    }
    called: ClassVar = {
        "response_format: json_schema.": "text.format: ",
        "response_format": "text.format",
    }

    def conversation(self, *, images: bool) -> list[BaseMessage]:
        """Return the instructions and the input as LangChain's messages."""
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        told: list[dict[str, Any]] = []
        for number, item in enumerate(self.input):
            message = _as_chat(item, f"input.{number}")
            if message and told and told[-1].get("tool_calls") and "tool_calls" in message:
                told[-1]["tool_calls"] += message["tool_calls"]  # of one turn
            elif message:
                told.append(message)
        told_as = to_messages(told, "input", images=images)
        return [*to_messages(system, "instructions"), *told_as]

    def limits(self) -> dict[str, Any]:
        """Return where the answer is cut off."""
        return {"stop": None, "max_tokens": self.max_output_tokens}

    def form(self) -> dict[str, Any]:
        """Return the requested tools and format."""
        asked: dict[str, Any] = {}
        if self.tools:
            tools = [_as_chat_tool(tool) for tool in self.tools]
            asked |= {"tools": tools, "parallel_tool_calls": self.parallel_tool_calls}
        if self.tools or self.tool_choice not in ("auto", "none"):
            asked |= {"tool_choice": self.tool_choice}
        match (self.text or {}).get("format"):
            case {"type": "json_schema", **schema}:
                asked |= {"response_format": {"type": "json_schema", "json_schema": schema}}
            case dict() as other:
                asked |= {"response_format": other}
        return {name: value for name, value in asked.items() if value is not None}

    def response(self, message: AIMessage) -> dict[str, Any]:
        """Return OpenAI's response object."""
        return self._response(_id("resp"), _id("msg"), message)

    def _response(self, id_: str, item: str, message: AIMessage | None) -> dict[str, Any]:
        """Return the response object; without a message, it is in progress."""
        finish = message and message.response_metadata["finish_reason"]
        cut = _INCOMPLETE.get(finish or "")
        status = "in_progress" if message is None else "incomplete" if cut else "completed"
        return {
            "id": id_,
            "object": "response",
            "created_at": int(time.time()),
            "status": status,
            "error": None,
            "incomplete_details": {"reason": cut} if cut else None,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "model": self.model,
            "output": [] if message is None else _items(item, message, status),
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": None,
            "text": {"format": {"type": "text"}, **(self.text or {})},
            "tool_choice": self.tool_choice or "auto",
            "tools": [{"strict": None, **tool} for tool in self.tools or ()],
            "top_p": None,
            "truncation": "disabled",
            "metadata": self.metadata or {},
            "usage": None if message is None else _usage(message),
            **({} if message is None else {"router_r1": bill(message)}),
        }

    async def events(self, pieces: AsyncIterable[AIMessageChunk]) -> AsyncIterator[str]:
        """Yield the events of a response."""
        id_, item = _id("resp"), _id("msg")
        sent = 0

        def event(kind: str, **data: Any) -> str:
            nonlocal sent
            sent += 1
            told = {"type": kind, "sequence_number": sent - 1, **data}
            return f"event: {kind}\ndata: {json.dumps(told)}\n\n"

        at = {"item_id": item, "output_index": 0, "content_index": 0}
        begun = self._response(id_, item, None)
        yield event("response.created", response=begun)
        yield event("response.in_progress", response=begun)
        texts: list[str] = []
        try:
            async for piece in pieces:
                if piece.text and not texts:
                    empty = {**_item(item, "", "in_progress"), "content": []}
                    yield event("response.output_item.added", output_index=0, item=empty)
                    yield event("response.content_part.added", **at, part=_part(""))
                if piece.text:
                    texts.append(str(piece.text))
                    delta = {"delta": str(piece.text), "logprobs": []}
                    yield event("response.output_text.delta", **at, **delta)
        except RefusedError as error:
            failed = {"code": "server_error", "message": error.error["message"]}
            broken = {**begun, "status": "failed", "error": failed}
            yield event("response.failed", response=broken)
            return
        text = "".join(texts)
        whole = piece.model_copy(update={"content": text})
        response = self._response(id_, item, whole)
        for number, made in enumerate(response["output"]):
            if made["type"] == "message" and text:
                yield event("response.output_text.done", **at, text=text, logprobs=[])
                yield event("response.content_part.done", **at, part=_part(text))
            else:
                begun_item = {**made, "status": "in_progress"}
                emptied: dict[str, Any] = (
                    {"arguments": ""} if "arguments" in made else {"content": []}
                )
                begun_item |= emptied
                yield event("response.output_item.added", output_index=number, item=begun_item)
            if made["type"] == "function_call":
                call, args = {"item_id": made["id"], "output_index": number}, made["arguments"]
                yield event("response.function_call_arguments.delta", **call, delta=args)
                name = made["name"]
                yield event(
                    "response.function_call_arguments.done", **call, arguments=args, name=name
                )
            yield event("response.output_item.done", output_index=number, item=made)
        yield event(f"response.{response['status']}", response=response)


def _as_chat(item: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """Return an item of the input as a message of the chat completions API; None = it is empty.

    Raises:
        RefusedError: it is of a kind that cannot be read.
    """
    match item.get("type") or "message":
        case "message":
            return {"role": item.get("role"), "content": item.get("content")}
        case "function_call":
            if not all(isinstance(item.get(f), str) for f in ("call_id", "name", "arguments")):
                why = "a function_call needs a call_id, a name and arguments: three texts"
                raise RefusedError(400, why, param=where)
            call = {"name": item.get("name"), "arguments": item.get("arguments")}
            told = {"id": item.get("call_id"), "type": "function", "function": call}
            return {"role": "assistant", "content": "", "tool_calls": [told]}
        case "function_call_output":
            if not isinstance(item.get("call_id"), str):
                raise RefusedError(400, "call_id is missing", param=where)
            output = item.get("output")
            return {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}
        case "reasoning":
            return None
        case kind:
            why = f"an item of type {str(kind)[:50]!r} cannot be read"
            raise RefusedError(400, why, param=where)


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def _item(id_: str, text: str, status: str) -> dict[str, Any]:
    head = {"id": id_, "type": "message", "role": "assistant", "status": status}
    return {**head, "content": [_part(text)]}


def _items(id_: str, message: AIMessage, status: str) -> list[dict[str, Any]]:
    """Return the output: the text, then the calls of tools."""
    calls = [
        {
            "id": f"fc_{number}{id_.removeprefix('msg')}",
            "type": "function_call",
            "status": "completed",
            "call_id": call["id"],
            "name": call["name"],
            "arguments": call["arguments"],
        }
        for number, call in enumerate(called(message))
    ]
    said = [_item(id_, str(message.text), status)] if message.text or not calls else []
    return [*said, *calls]


def _as_chat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool as the chat completions API has it."""
    if tool.get("type") != "function" or "function" in tool:
        return dict(tool)
    function = {k: v for k, v in tool.items() if k != "type" and v is not None}
    return {"type": "function", "function": function}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(message: AIMessage) -> dict[str, Any]:
    usage = message.usage_metadata
    assert usage is not None
    return {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens(message)},
        "total_tokens": usage["total_tokens"],
        "cost": message.response_metadata["cost_usd"],
    }
