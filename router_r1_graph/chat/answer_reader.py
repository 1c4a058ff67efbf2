"""The answer in a turn that is still being written; each character is read once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..tags import TAG, unescape

# What may still become a tag, or an escaped one, begins at the last of these characters.
_BEGUN = re.compile(r"[<&][\w;/]*")
_LONGEST_TAG = len("</information>")
_LONGEST_HELD = 1000
"""Characters that are held back: the beginning of a tag that was escaped often, or white space."""


@dataclass
class AnswerReader:
    """Reads the answer of one turn piece by piece.

    Only thoughts may come before the answer. Only the end of the turn shows whether it is one: the
    turn may be cut short, or continue with other tags.

    Example:
        >>> reader = AnswerReader()
        >>> reader.read("<think> Everything is known. </think> <ans"), reader.read("wer> The riv")
        ('', 'The riv')
    """

    _at: Literal["start", "thought", "before", "answer", "end"] = "start"
    _held: str = ""
    _begun: bool = False
    """Whether the answer has a first character."""

    def read(self, piece: str) -> str:
        """Take the next piece of the turn; return the new part of the answer."""
        text, self._held = self._held + piece, ""
        if self._at == "start":
            text = text.lstrip()
            if "<think>".startswith(text[: len("<think>")]) and len(text) < len("<think>"):
                self._held = text
                return ""
            self._at = "thought" if text.startswith("<think>") else "before"
        start = 0
        while self._at in ("thought", "before"):
            match = TAG.search(text, start)
            if match is None:
                self._held = text[max(start, len(text) - _LONGEST_TAG) :]
                return ""
            start = match.end()
            if self._at == "thought":  # an answer that is only thought of is none
                self._at = "before" if match[0] == "</think>" else "thought"
            elif match[0] not in ("<think>", "</think>"):
                self._at = "answer" if match[0] == "<answer>" else "end"
        return self._read_answer(text[start:]) if self._at == "answer" else ""

    def _read_answer(self, text: str) -> str:
        text = text if self._begun else text.lstrip()
        if match := TAG.search(text):
            self._at = "end"
            ready = text[: match.start()].rstrip()
        else:
            last = max(text.rfind("<"), text.rfind("&"))
            held = last >= 0 and _BEGUN.fullmatch(text, last)
            ready = (text[:last] if held else text).rstrip()
            if len(text) - len(ready) > _LONGEST_HELD:
                ready = text
            self._held = text[len(ready) :]
        self._begun = self._begun or bool(ready)
        return unescape(ready)
