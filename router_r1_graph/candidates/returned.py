"""Data that a provider wants back with its model's tool calls: thoughts, and their signatures.

DeepSeek and Kimi refuse a conversation if its calls have lost the thoughts before them. Gemini
refuses one if its calls have lost their signatures, Anthropic one if its thoughts have lost theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

RETURNED = "returned"
"""In the additional kwargs of a message with tool calls: data that goes back with it, unchanged."""
FIELDS = ("reasoning_content", "reasoning", "reasoning_details")
"""Of a message."""
_OF_CALL = "extra_content"
"""Of a tool call: Gemini's signature."""
_CALLS = "calls"
_PARTS = "parts"
THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
"""Parts of a content: what a reasoning model thought, which its client sends back."""
_SIGNATURES = "signatures"


def returned_in(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a message, or of a piece of one, that goes back as its server sent it."""
    kept = {name: said[name] for name in FIELDS if said.get(name)}
    calls = [call for call in said.get("tool_calls") or () if isinstance(call, Mapping)]
    signed = {str(call.get("id")): call[_OF_CALL] for call in calls if call.get(_OF_CALL)}
    return {**kept, _CALLS: signed} if signed else kept


def joined(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data that goes back for two pieces of a message, one after the other."""
    both = dict(first)
    for name, value in then.items():
        before = both.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            both[name] = before | value
        elif isinstance(before, str) and isinstance(value, str):
            both[name] = before + value
        elif isinstance(before, list) and isinstance(value, list):
            both[name] = [*before, *value]
        else:
            both[name] = value
    return both


def give_back(
    payload: Iterable[dict[str, Any]], messages: Iterable[BaseMessage], refused: Iterable[str]
) -> None:
    """Add the data that goes back to the messages of a request.

    Args:
        payload: the messages as they will be sent; they are changed.
        messages: the same messages, as LangChain has them.
        refused: names of fields that the server does not take.
    """
    for sent, message in zip(payload, messages, strict=False):
        returned = message.additional_kwargs.get(RETURNED)
        if not (isinstance(returned, Mapping) and sent.get("tool_calls")):
            continue
        sent |= {name: returned[name] for name in FIELDS if name in returned.keys() - refused}
        for call in sent["tool_calls"]:
            if signed := (returned.get(_CALLS) or {}).get(call.get("id")):
                call[_OF_CALL] = signed


def returned_kwargs(message: AIMessage) -> dict[str, Any]:
    """Return the additional kwargs of a message that go back with its calls."""
    kwargs = message.additional_kwargs
    return {n: kwargs[n] for n in kwargs if n in (RETURNED, _PARTS) or _SIGNATURES in n}


def kept_of(message: AIMessage) -> dict[str, Any]:
    """Return the data that goes back with a message's calls, as another message's kwargs."""
    kept = returned_kwargs(message)
    parts = message.content if isinstance(message.content, list) else []
    blocks = [part for part in parts if isinstance(part, dict) and part.get("type") in THOUGHTS]
    return {**kept, _PARTS: blocks} if blocks else kept


def as_it_came(message: AIMessage) -> AIMessage:
    """Return a message with its kept data in the place where its client looks for it."""
    kept = kept_of(message)
    if not (blocks := kept.pop(_PARTS, None)) or not isinstance(message.content, str):
        return message
    text = [{"type": "text", "text": message.content}] if message.content else []
    return message.model_copy(update={"content": [*blocks, *text], "additional_kwargs": kept})
