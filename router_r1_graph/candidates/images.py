"""The images of a conversation: passed on unchanged to models that take images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage

from ..errors import QuestionError
from ..outside import writable

#: OpenAI's form, that of its Responses API, and LangChain's or Anthropic's.
_IMAGES = ("image_url", "input_image", "image")

IMAGE_ALONE = "Answer what the image asks. If it asks nothing, say what it shows."
"""The question for a message that is only an image: no model can be asked an empty text."""


def text_asked(message: AnyMessage) -> str:
    """Return the question in a message; "" = none."""
    text = writable(str(message.text)).strip()
    return text or (IMAGE_ALONE if images_in(message) else "")


def images_asked(message: AnyMessage) -> list[dict[str, Any]]:
    """Return the image parts of a question.

    Raises:
        QuestionError: it has a part that is neither text nor an image.
    """
    for part in message.content if isinstance(message.content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else "text"
        if kind not in ("text", *_IMAGES):
            raise QuestionError(
                f"the question has a part of type {kind!r}; only text and images can be asked"
            )
    return list(images_in(message))


def images_in(message: AnyMessage) -> tuple[dict[str, Any], ...]:
    """Return the image parts of a message."""
    parts = message.content if isinstance(message.content, list) else ()
    found = (p for p in parts if isinstance(p, dict) and p.get("type") in _IMAGES)
    return tuple(_plain(part) for part in found)


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    """Return an image in OpenAI's form, if it is a bare address as Mistral has it."""
    if isinstance(url := part.get("image_url"), str):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": url, **detail}}
    return part


def with_images(text: str, images: Iterable[dict[str, Any]]) -> HumanMessage:
    """Return a human message of a text and images; without images its content is the text."""
    parts = list(images)
    return HumanMessage([{"type": "text", "text": text}, *parts] if parts else text)


def without_images(message: AnyMessage) -> AnyMessage:
    """Return a message for a model that takes no images: `[image]` replaces each of them."""
    if not (images := images_in(message)):
        return message
    text = "\n".join([*filter(None, [str(message.text)]), *["[image]"] * len(images)])
    return message.model_copy(update={"content": text})
