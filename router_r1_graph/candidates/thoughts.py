"""The thoughts of a reasoning model, set apart from what it says."""

from __future__ import annotations

from langchain_core.messages import AIMessage

_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
)
_QUOTES = "`'\""


def apart(text: str) -> tuple[str, str]:
    """Return the thoughts that a text begins with, and what follows them.

    Thoughts without an opening tag are thoughts too: many chat templates write it themselves. An
    opening tag that is never closed makes all of it thoughts. A tag in quotation marks is text.

    Example:
        >>> apart("<think>Lyon? No.</think> Paris")
        ('Lyon? No.', 'Paris')
        >>> apart("Lyon? No.</think> Paris")
        ('Lyon? No.', 'Paris')
    """
    thoughts: list[str] = []
    rest = text
    while (split := _opened(rest) or _unopened(rest)) is not None:
        thoughts.append(split[0].strip())
        rest = split[1].strip()
    return "\n\n".join(filter(None, thoughts)), rest


def _opened(text: str) -> tuple[str, str] | None:
    stripped = text.lstrip()
    for opening, closing in _TAGS:
        if stripped[: len(opening)].lower() == opening.lower():
            thought, _, rest = stripped[len(opening) :].partition(closing)
            return thought, rest
    return None


def _unopened(text: str) -> tuple[str, str] | None:
    for opening, closing in _TAGS:
        thought, closed, rest = text.partition(closing)
        quoted = thought[-1:] in _QUOTES and rest[:1] in _QUOTES
        if closed and opening not in thought and not (thought and rest and quoted):
            return thought, rest
    return None


def reasoning_of(message: AIMessage) -> str:
    """Return the thoughts that a provider reports apart from the text; "" = none."""
    found = [message.additional_kwargs.get("reasoning_content")]
    for block in message.content if isinstance(message.content, list) else ():
        if isinstance(block, dict) and block.get("type") in ("thinking", "reasoning"):
            found.append(block.get("thinking") or block.get("reasoning"))
    return "\n\n".join(thought for thought in found if isinstance(thought, str) and thought)
