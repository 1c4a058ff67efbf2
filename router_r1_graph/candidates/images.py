"""The images of a question: passed on, as they are, to those who take images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage

from ..errors import QuestionError

_IMAGES = ("image_url", "image")  # OpenAI's form, and LangChain's or Anthropic's


def images_of(messages: Sequence[AnyMessage]) -> list[dict[str, Any]]:
    """Return the image parts of the last human message.

    Raises:
        QuestionError: it has a part that is neither text nor an image.
    """
    last = next((m for m in reversed(messages) if isinstance(m, HumanMessage)), None)
    for part in last.content if last and isinstance(last.content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else "text"
        if kind not in ("text", *_IMAGES):
            raise QuestionError(
                f"the question has a part of type {kind!r}; only text and images can be asked"
            )
    return list(images_in(last)) if last else []


def images_in(message: AnyMessage) -> tuple[dict[str, Any], ...]:
    """Return the image parts of a message."""
    parts = message.content if isinstance(message.content, list) else ()
    return tuple(p for p in parts if isinstance(p, dict) and p.get("type") in _IMAGES)


def with_images(text: str, images: Iterable[dict[str, Any]]) -> HumanMessage:
    """Return a human message of a text and images; without images its content is the text."""
    parts = list(images)
    return HumanMessage([{"type": "text", "text": text}, *parts] if parts else text)
