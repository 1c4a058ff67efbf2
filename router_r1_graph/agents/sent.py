"""What a step of an agent sends to whoever answers it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from ..candidates.images import images_in


@dataclass(frozen=True)
class SentStep:
    """The messages and tools of a step."""

    messages: list[AnyMessage]
    """The system's first, if it has one."""
    tools: str
    """Their schemas as JSON."""
    text: str
    """All of it as text, without images."""
    images: int
    """How many there are."""

    @classmethod
    def of(cls, request: Any) -> SentStep:
        """Return what LangChain's `ModelRequest` sends."""
        messages = [
            *([request.system_message] if request.system_message else []),
            *request.messages,
        ]
        tools = json.dumps([_schema(tool) for tool in request.tools], default=str)
        return cls(messages, tools, tools + text_sent(messages), images_sent(messages))


def text_sent(messages: Iterable[AnyMessage]) -> str:
    """Return the text that messages send: their own and their calls, but no image."""
    return "".join(f"{m.text}{getattr(m, 'tool_calls', None) or ''}" for m in messages)


def images_sent(messages: Iterable[AnyMessage]) -> int:
    """Return how many images messages send."""
    return sum(len(images_in(message)) for message in messages)


def _schema(tool: Any) -> dict[str, Any]:
    """Return a tool as a provider reads it; one that is a provider's own is a dict already."""
    return tool if isinstance(tool, dict) else convert_to_openai_tool(tool)
