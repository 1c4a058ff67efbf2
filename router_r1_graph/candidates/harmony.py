"""The messages in a text of gpt-oss (the harmony format): thoughts, calls, and what is said.

A server may drop the special tokens, some or all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: What stands before a message. The recipient of a call stands before the channel or behind it.
#: Numbers bound what is read twice, so that no text of a server stalls anybody.
_HEADER = re.compile(
    r"(?:<\|(?:end|call|return)\|>\s?)?"
    r"(?:(?:<\|start\|>)?assistant(?: to=(?P<first>[^\s<]{1,100}?))?(?: ?<\|channel\|>)?"
    r"|<\|channel\|>|\b(?=(?:analysis|commentary) to=functions\.))"
    r"(?P<channel>analysis|commentary|final)(?: ?to=(?P<then>[^\s<{]{1,100}))?"
    r"(?:\s?(?:<\|constrain\|>)?\s?(?:\w{0,20}\s?<\|message\|>|(?:json|code)?\s?(?={)))?"
)
#: The reply of a tool that a model has invented.
_INVENTED = re.compile(r"<\|start\|>(?!assistant)")
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
#: One of these is in every header. To find none takes a hundredth of the pattern's time.
_IN_HEADERS = ("assistant", "<|channel|>", " to=functions.")


@dataclass(frozen=True)
class _Message:
    """A message; its header begins at `start`, and a recipient of "" is none."""

    start: int
    channel: str
    recipient: str
    content: str


def next_header(text: str, start: int, end: int) -> int:
    """Return where the next header begins; the end = there is none."""
    first = next(_headers(text, start, end), None)
    return first.start() if first else end


def cut(text: str) -> tuple[list[str], str, str]:
    """Return the thoughts in a text, what is said, and its calls, written as `calls` reads them.

    Args:
        text: begins with a header, or with `analysis` and whatever a server left of one.
    """
    messages = [*_messages(f"assistant{text}" if text.startswith("analysis") else text)]
    called = [
        f"<|channel|>commentary to={m.recipient}<|message|>{m.content}<|call|>"
        for m in messages
        if m.recipient
    ]
    messages = [m for m in messages if m.content and not m.recipient]
    # Beside an answer, a commentary is none.
    is_final = any(m.channel == "final" for m in messages)
    says = ("final",) if is_final else ("commentary",)
    thoughts = [m.content for m in messages if m.channel not in says]
    return thoughts, "\n\n".join(m.content for m in messages if m.channel in says), "".join(called)


def calls(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return what stands before the calls in a text, and each one's name and arguments."""
    found = [message for message in _messages(text) if message.recipient]
    named = [(m.recipient.removeprefix("functions."), m.content) for m in found]
    return (text[: found[0].start] if found else text), named


def _messages(text: str) -> Iterator[_Message]:
    text = _INVENTED.split(text, maxsplit=1)[0]
    headers = [*_headers(text, 0, len(text))]
    for n, header in enumerate(headers):
        end = headers[n + 1].start() if n + 1 < len(headers) else len(text)
        content = text[header.end() : _without_ends(text, header.end(), end)].strip()
        yield _Message(
            header.start(), header["channel"], header["first"] or header["then"] or "", content
        )


def _headers(text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    if any(text.find(part, start, end) >= 0 for part in _IN_HEADERS):
        yield from _HEADER.finditer(text, start, end)


def _without_ends(text: str, start: int, end: int) -> int:
    """Return where a message ends without the marks and the white space behind it."""
    while end > start:
        if text[end - 1].isspace():
            end -= 1
        elif mark := next((mark for mark in _ENDS if text.endswith(mark, start, end)), ""):
            end -= len(mark)
        else:
            break
    return end
