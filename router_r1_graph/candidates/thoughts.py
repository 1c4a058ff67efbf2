"""The thoughts of a reasoning model, separated from its reply."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage

from . import harmony

#: In lower case, as the text is read: most; Seed; Mistral; Kimi; Cohere; OpenThinker; Gemma.
_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[think]", "[/think]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|start_thinking|>", "<|end_thinking|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<unused94>thought", "<unused95>"),
)
#: Words in the place of tags, in lower case too, where a text begins with them: Granite, Apriel.
_WORDS = (
    ("here is my thought process:", "here is my response:"),
    ("here are my reasoning steps:", "[begin final response]"),
)
#: Before what follows the thoughts: Cohere, OpenThinker, and the beginning of a turn.
_SAYS = re.compile(
    r"\s*(?P<mark><\|(?:START_RESPONSE|begin_of_solution|im_start\|>assistant"
    r"|start_header_id\|>assistant<\|end_header_id)(?:\|>|\b)\s*)?"
)
#: Behind it: Cohere, OpenThinker, gpt-oss, Apriel; and marks of a turn's end, which belong to the
#: chat template, and which servers with another template let through.
_ENDS = (
    *("<|END_RESPONSE|>", "<|end_of_solution|>", "<|return|>", "[END FINAL RESPONSE]"),
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"),
    *("<|end_of_turn|>", "</s>", "<end_of_turn>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
)
#: Around what is said: GLM's vision models; Granite and ERNIE, behind thoughts.
_BOX = ("<|begin_of_box|>", "<|end_of_box|>")
_RESPONSE = ("<response>", "</response>")
_QUOTES = "`'\""
_LOWER = {ord(letter): ord(letter.lower()) for letter in string.ascii_uppercase}


def apart(text: str) -> tuple[str, str]:
    """Return the thoughts at the beginning of a text, and the rest.

    Thoughts without an opening tag are thoughts too: many chat templates write it themselves. An
    opening tag that is never closed makes all of it thoughts. A tag in quotation marks is text.
    Calls of gpt-oss stand behind what it says, with their marks. Marks around all that follows go.

    The time grows linearly with the text, even for a hostile one.

    Example:
        >>> apart("<think>Lyon? No.</think> Paris")
        ('Lyon? No.', 'Paris')
        >>> apart("Lyon? No.</think> Paris")
        ('Lyon? No.', 'Paris')
    """
    thinking = _Thinking(text)
    thoughts: list[str] = []
    start, says = thinking.says(0)
    whole = text[start if says else 0 : thinking.end]
    while True:
        if thinking.is_harmony(start):
            own, said, calls = harmony.cut(text[start : thinking.end])
            inner, said = apart(said)  # once: no header is left in it
            said = enclosed(said, *_RESPONSE)
            rest = "\n".join(filter(None, (said, calls)))
            return "\n\n".join(filter(None, (*thoughts, *own, inner))), rest
        if (found := thinking.next(start)) is None:
            break
        thought, after = found
        thoughts.append(text[thought].strip())
        start, _ = thinking.says(after)
    rest = text[start : thinking.end].strip() if thoughts else whole
    if thoughts:  # else a user may have asked for it
        rest = enclosed(rest, *_RESPONSE)
    return "\n\n".join(filter(None, thoughts)), unboxed(rest)


def unboxed(text: str) -> str:
    """Return a text without the box that encloses all of it (GLM's vision models)."""
    return enclosed(text, *_BOX)


def enclosed(text: str, opening: str, closing: str) -> str:
    """Return what two marks enclose, where they enclose all of a text; else the text."""
    inside = text.strip()
    if not (inside.startswith(opening) and inside.endswith(closing)):
        return text
    inside = inside[len(opening) : -len(closing)]
    return text if opening in inside or closing in inside else inside.strip()


class _Thinking:
    """A text that is read once, from its beginning on: places are indices into it.

    Attributes:
        end: the end of the text, without the marks after it.
    """

    def __init__(self, text: str) -> None:
        self.end = _end(text)
        self._text = text
        self._lower = text.translate(_LOWER)  # as long as the text
        self._places: dict[str, int] = {}
        self._header = -1

    def says(self, start: int) -> tuple[int, bool]:
        """Return where the reply begins from a place on, and whether a mark introduced it."""
        found = _SAYS.match(self._text, start, self.end)
        assert found is not None  # it matches nothing, too
        return found.end(), found["mark"] is not None

    def is_harmony(self, start: int) -> bool:
        """Return whether a message of gpt-oss begins at a place.

        Where a server has dropped its marks, another one has to follow: else it is a text.
        """
        bare = self._text.startswith("analysis", start, self.end)
        if self._header < start + bare:
            self._header = harmony.next_header(self._text, start + bare, self.end)
        return self._header < self.end if bare else self._header == start < self.end

    def next(self, start: int) -> tuple[slice, int] | None:
        """Return the thought that begins at a place, and where it is over; None = there is none."""
        return self._opened(start) or self._unopened(start)

    def _opened(self, start: int) -> tuple[slice, int] | None:
        for opening, closing in _TAGS + _WORDS:
            if self._lower.startswith(opening, start, self.end):
                begun = start + len(opening)
                closed = self._place(closing, begun)
                return slice(begun, closed), min(closed + len(closing), self.end)
        return None

    def _unopened(self, start: int) -> tuple[slice, int] | None:
        for opening, closing in _TAGS:
            closed = self._place(closing, start)
            after = closed + len(closing)
            if closed == self.end or self._place(opening, start) < closed:
                continue
            inside = start < closed and after < self.end
            if not (inside and {self._text[closed - 1], self._text[after]} <= set(_QUOTES)):
                return slice(start, closed), after
        return None

    def _place(self, mark: str, start: int) -> int:
        """Return the next place of a mark, in any case of the text; the end = nowhere.

        It is looked for again only from places behind the last one.
        """
        if self._places.get(mark, -1) < start:
            place = self._lower.find(mark, start, self.end)
            self._places[mark] = self.end if place < 0 else place
        return self._places[mark]


def _end(text: str) -> int:
    """Return where a text ends without marks; one that is quoted, or alone, is text."""
    end = first = _stripped(text, len(text))
    while mark := next((mark for mark in _ENDS if text.endswith(mark, 0, end)), ""):
        first, end = end, _stripped(text, end - len(mark))
    if end == first:
        return len(text)
    return first if end == 0 or text[end - 1] in _QUOTES else end


def _stripped(text: str, end: int) -> int:
    """Return where a text that ends at a place ends without white space."""
    while end and text[end - 1].isspace():
        end -= 1
    return end


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
