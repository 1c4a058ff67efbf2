"""OpenAI's messages as LangChain's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.messages.tool import invalid_tool_call
from pydantic import ValidationError

from ..candidates.returned import THOUGHTS
from .refused import RefusedError

#: Parts of a message's content that are texts, with the key of the text.
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_IMAGES = ("image_url", "input_image")
#: The roles of OpenAI's messages; LangChain knows more of them, such as one that deletes others.
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_MOST_PARTS = 4096
"""Messages, and parts of their contents, of one request."""
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError)


def to_messages(
    messages: Iterable[Mapping[str, Any]], param: str = "messages", *, images: bool = False
) -> list[BaseMessage]:
    """Return messages of OpenAI's API as LangChain's.

    Args:
        messages: messages of the chat completions API, as they came.
        param: the field that they come from, for errors.
        images: whether a candidate takes images.

    Raises:
        RefusedError: a message has no role or content that can be read; the error says where.
    """
    messages = list(messages)
    contents = (message.get("content") for message in messages)
    parts = sum(len(content) if isinstance(content, list) else 1 for content in contents)
    if parts > _MOST_PARTS:
        raise RefusedError(400, f"{parts} messages and parts; at most {_MOST_PARTS}", param=param)
    return [
        _message(message, f"{param}.{number}", images) for number, message in enumerate(messages)
    ]


def _message(message: Mapping[str, Any], where: str, images: bool) -> BaseMessage:
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        why = f"the role is one of {', '.join(_ROLES)}, not {role!r:.60}"
        raise RefusedError(400, why, param=where)
    if isinstance(content, list):
        said = [part for part in content if not _is_thought(part)]
        content = [_part(part, f"{where}.content", images) for part in said]
    elif role == "assistant":
        content = content or ""  # there is none beside tool calls
    if role in ("user", "system", "developer") and isinstance(content, Mapping):
        raise RefusedError(400, "the content is a text, or a list of parts", param=where)
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise RefusedError(400, "tool_call_id is missing", param=where)
    calls: list[Any] = []
    wrong: list[Any] = []
    told = message.get("tool_calls") or []
    if not isinstance(told, list):
        raise RefusedError(400, "tool_calls are a list", param=where)
    for call in told:
        (wrong if _is_broken(call) else calls).append(call)
    plain = {k: v for k, v in message.items() if k not in ("content", "tool_calls")}
    if content is not None or "content" in message:
        plain["content"] = content
    if calls:
        plain["tool_calls"] = calls
    try:
        (read,) = convert_to_messages([plain])
        if isinstance(read, AIMessage):
            read.invalid_tool_calls += [
                invalid_tool_call(
                    name=call["function"].get("name"),
                    args=call["function"]["arguments"],
                    id=call.get("id"),
                    error="not a JSON object",
                )
                for call in wrong
            ]
    except _UNREADABLE as error:
        raise RefusedError(400, _why(error), param=where) from None
    return read


def _why(error: Exception) -> str:
    """Return in a line what is wrong with a message, with the name of the field if there is one."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{first['loc'][0]}: {first['msg']}"
    if isinstance(error, KeyError):
        return f"a tool call has no {error.args[0]!r}"
    if isinstance(error, TypeError | AttributeError):  # LangChain's words are about Python
        told = "an object with an id and a function, which has a name and arguments"
        return f"a field has the wrong type; a tool call is {told}"
    return str(error).partition("\n")[0]


def _is_broken(call: Any) -> bool:
    """Return whether the arguments of a tool call are a text that is no JSON object."""
    function = call.get("function") if isinstance(call, Mapping) else None
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    if not isinstance(arguments, str):
        return False
    try:
        return not isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return True


def _is_thought(part: Any) -> bool:
    return isinstance(part, Mapping) and str(part.get("type")) in THOUGHTS


def _part(part: Any, where: str, images: bool) -> dict[str, Any]:
    """Return one part of a message's content."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str | None):
        raise RefusedError(400, f"the type of a part is a text, not {kind!r:.60}", param=where)
    text = part.get(_TEXTS[kind]) if kind in _TEXTS else None
    if isinstance(text, str):
        return {"type": "text", "text": text}
    if kind in _TEXTS:
        raise RefusedError(400, f"a part of type {kind!r} has no text", param=where)
    if kind in _IMAGES and images:
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else image
        if not isinstance(url, str):
            raise RefusedError(400, f"a part of type {kind!r} has no image_url", param=where)
        detail = (image if isinstance(image, Mapping) else part).get("detail")
        asked = {"detail": detail} if isinstance(detail, str) else {}
        return {"type": "image_url", "image_url": {"url": url, **asked}}
    if kind in _IMAGES:
        why = "no candidate here takes images: only parts of type 'text' can be read"
    else:
        what = f"of type {str(kind)[:50]!r}" if kind else "without a type"
        readable = "texts ('text', 'input_text') and images ('image_url', 'input_image')"
        why = f"a part {what} cannot be read: only {readable} can"
    raise RefusedError(400, why, param=where, code="unsupported_content")
