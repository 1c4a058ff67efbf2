"""The messages of a chat model controller, as strict chat templates want them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage

from .. import protocol
from ..candidates.images import images_in, without_images
from ..candidates.thoughts import apart

_FOR_THE_ANSWER = "The answer to the user has to follow these instructions:\n\n"


def system_message(instructions: str) -> list[AnyMessage]:
    """Return the system messages' wishes for the answer as one message; none for ""."""
    return [SystemMessage(_FOR_THE_ANSWER + instructions)] if instructions else []


def said_before(conversation: Iterable[AnyMessage], *, images: bool) -> list[AnyMessage]:
    """Return a conversation as texts, with its images if the model takes images."""
    told: list[AnyMessage] = []
    for message in conversation:
        if isinstance(message, AIMessage):
            told.append(AIMessage(str(message.text)))
        elif images and (pictures := images_in(message)):
            told.append(HumanMessage([*_parts(str(message.text)), *pictures]))
        else:
            told.append(HumanMessage(str(without_images(message).text)))
    return told


def as_text(scratchpad: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Return the turns as assistant messages and each round's observations as one user message."""
    messages: list[AnyMessage] = []
    observed: list[ToolMessage] = []
    for message in scratchpad:
        if isinstance(message, ToolMessage):
            observed.append(message)
            continue
        if observed:
            messages.append(HumanMessage(protocol.render_observations(observed)))
            observed = []
        messages.append(AIMessage(str(message.text)))
    if observed:
        messages.append(HumanMessage(protocol.render_observations(observed)))
    return messages


def alternating(messages: Iterable[AnyMessage]) -> list[AnyMessage]:
    """Return messages with alternating roles, none of them empty.

    Two of one role become one. A message with tool calls, and the replies to it, stay as they are.
    """
    fitted: list[AnyMessage] = []
    for message in messages:
        is_call = isinstance(message, ToolMessage) or _calls(message)
        if not (is_call or message.text.strip() or images_in(message)):
            continue
        last = fitted[-1] if fitted else None
        if last is None or is_call or _calls(last) or last.type != message.type:
            fitted.append(message)
        else:
            both: Any = (
                f"{last.content}\n\n{message.content}"
                if isinstance(last.content, str) and isinstance(message.content, str)
                else [*_parts(last.content), *_parts(message.content)]
            )
            fitted[-1] = last.model_copy(update={"content": both})
    return fitted


def _calls(message: AnyMessage) -> bool:
    return isinstance(message, AIMessage) and bool(message.tool_calls or message.invalid_tool_calls)


def _parts(content: str | list[Any]) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content.strip() else []


#: An answer in a box within its tags (GLM's vision models).
_BOXED = re.compile(
    r"(<answer>\s{0,9})<\|begin_of_box\|>((?:(?!<\|).)*)<\|end_of_box\|>(?=\s{0,9}(?:</answer>|\Z))",
    re.S,
)


def with_plain_thoughts(text: str) -> str:
    """Return a turn in tags whose tags in its thoughts are text, and whose answer has no box.

    A reasoning model may write tags in its thoughts, too; and many chat templates write the opening
    tag of its thoughts themselves.
    """
    text = _BOXED.sub(r"\1\2", text)
    opened = text.lstrip().startswith("<think>")
    thoughts, rest = apart(text)
    if not ((opened and "</think>" in text) or protocol.tags(rest)):
        return text
    if not thoughts or (opened and not protocol.tags(thoughts)):
        return text
    return protocol.render(protocol.Turn((thoughts,))) + "\n" + rest
