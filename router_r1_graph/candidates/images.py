"""The images of a question: passed on, as they are, to those who take images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage

from ..errors import QuestionError

#: OpenAI's form, that of its Responses API, and LangChain's or Anthropic's.
_IMAGES = ("image_url", "input_image", "image")


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
    found = (p for p in parts if isinstance(p, dict) and p.get("type") in _IMAGES)
    return tuple(_plain(part) for part in found)


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    """Return an image whose address stands alone, as Mistral has it, in OpenAI's form."""
    if isinstance(url := part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": url}}
    return part


def with_images(text: str, images: Iterable[dict[str, Any]]) -> HumanMessage:
    """Return a human message of a text and images; without images its content is the text."""
    parts = list(images)
    return HumanMessage([{"type": "text", "text": text}, *parts] if parts else text)
