"""The thoughts of a reasoning model, set apart from what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage

#: Most; Seed; Mistral; Kimi; Cohere; OpenThinker; Gemma.
_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<unused94>thought", "<unused95>"),
)
#: Words in the place of tags, where a text begins with them: Granite, Apriel.
_WORDS = (
    ("Here is my thought process:", "Here is my response:"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
)
#: gpt-oss, also where a server has dropped its special tokens.
_HARMONY = re.compile(
    r"\A\s*(?:<\|start\|>assistant)?(?:<\|channel\|>)?analysis(?:<\|message\|>)?(?P<thought>.*?)"
    r"(?:<\|end\|>)?(?:<\|start\|>)?assistant(?:<\|channel\|>)?final(?:<\|message\|>)?(?P<rest>.*)\Z"
    r"|\A\s*<\|channel\|>(?:analysis<\|message\|>(?P<only>.*)|final<\|message\|>(?P<said>.*))\Z",
    re.S,
)
#: Around what follows the thoughts: Cohere, OpenThinker, gpt-oss, Apriel; and marks of a
#: turn, which belong to the chat template, and which servers with another template let through.
_SAID = re.compile(
    r"\A\s*<\|(?:START_RESPONSE|begin_of_solution|im_start\|>assistant"
    r"|start_header_id\|>assistant<\|end_header_id)(?:\|>|\b)\s*"
    r"|(?<=[^\s`'\"])\s*(?:<\|(?:END_RESPONSE|end_of_solution|return)\|>|\[END FINAL RESPONSE\]"
    r"|(?:<\|(?:im_end|eot_id|eom_id|end|endoftext|end_of_text|end_of_turn)\|>|</s>|<end_of_turn>"
    r"|<\uff5cend\u2581of\u2581sentence\uff5c>)\s*)+\Z"
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
    rest = _SAID.sub("", text)
    while (split := _harmony(rest) or _opened(rest) or _unopened(rest)) is not None:
        thoughts.append(split[0].strip())
        rest = _SAID.sub("", split[1].strip())
    return "\n\n".join(filter(None, thoughts)), rest


def _harmony(text: str) -> tuple[str, str] | None:
    if not (found := _HARMONY.match(text)):
        return None
    return found["thought"] or found["only"] or "", found["rest"] or found["said"] or ""


def _opened(text: str) -> tuple[str, str] | None:
    stripped = text.lstrip()
    for opening, closing in _TAGS + _WORDS:
        if stripped[: len(opening)].lower() == opening.lower():
            return _parted(stripped[len(opening) :], closing)[::2]
    return None


def _unopened(text: str) -> tuple[str, str] | None:
    for opening, closing in _TAGS:
        thought, closed, rest = _parted(text, closing)
        quoted = thought[-1:] in _QUOTES and rest[:1] in _QUOTES
        if closed and opening not in thought and not (thought and rest and quoted):
            return thought, rest
    return None


def _parted(text: str, mark: str) -> tuple[str, str, str]:
    """Part a text at a mark, whatever the case of its letters."""
    before = re.split(re.escape(mark), text, maxsplit=1, flags=re.I)[0]
    end = len(before) + len(mark)
    return before, text[len(before) : end], text[end:]


def reasoning_of(message: AIMessage) -> str:
    """Return the thoughts that a provider reports apart from the text; "" = none."""
    return reported(message.additional_kwargs) or reported({"content": message.content})


def reported(said: Mapping[str, Any]) -> str:
    """Return the thoughts beside the text of a message, as a provider sends it; "" = none.

    Providers have them in a field of their own, or in parts of the content.
    """
    for name in ("reasoning_content", "reasoning", "thinking", "reasoning_text"):
        if isinstance(thoughts := said.get(name), str) and thoughts:
            return thoughts
    places = (said.get("reasoning_details"), said.get("content"))
    return "\n\n".join(thought for parts in places for thought in _in_parts(parts))


def _in_parts(parts: object) -> Iterator[str]:
    for part in parts if isinstance(parts, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("thinking", "reasoning", "reasoning.text", "reasoning.summary"):
            continue
        names = ("thinking", "reasoning", "text", "summary")
        thought = next((part[name] for name in names if part.get(name)), "")
        if isinstance(thought, list):  # Mistral, OpenAI's Responses API
            thought = "".join(str(p.get("text") or "") for p in thought if isinstance(p, dict))
        if isinstance(thought, str) and thought:
            yield thought
