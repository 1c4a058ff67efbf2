"""The tags of the protocol in a text: found, escaped and unescaped.

A question or a reply may be megabytes of tags, or of what looks like one, and the server answers
others meanwhile. So no function is called, and no pattern tried, at each `<` or `&`.
"""

from __future__ import annotations

import re

_NAMES = "think|search|information|answer"
TAG = re.compile(rf"<(/?)({_NAMES})>")
_TAGS = tuple(f"<{slash}{name}>" for name in _NAMES.split("|") for slash in ("", "/"))
_FORMS = tuple((tag, f"&lt;{tag[1:]}", f"&amp;lt;{tag[1:]}") for tag in _TAGS)
"""Each tag as it is, escaped once, and escaped twice."""
_ESCAPED_AGAIN = re.compile(rf"&amp;(?=(?:amp;)*+lt;/?(?:{_NAMES})>)")
"""The first `&amp;` of a tag that was escaped more than once."""


def found(text: str) -> list[tuple[int, str]]:
    """Return where each tag begins, and the tag, in order.

    Example:
        >>> found("<think> 1 < 2 </think>")
        [(0, '<think>'), (14, '</think>')]
    """
    places = []
    for tag in _TAGS if "<" in text else ():
        at = text.find(tag)
        while at >= 0:
            places.append((at, tag))
            at = text.find(tag, at + len(tag))
    return sorted(places)


def escape(text: str) -> str:
    """Make every tag in a text plain text: `<think>` becomes `&lt;think>`.

    What looks like an escaped tag is escaped once more, so that `unescape` is the exact inverse.
    """
    if "&" in text:
        text = _ESCAPED_AGAIN.sub("&amp;amp;", text)
        for _, once, twice in _FORMS:
            text = text.replace(once, twice)
    if "<" in text:
        for tag, once, _ in _FORMS:
            text = text.replace(tag, once)
    return text


def unescape(text: str) -> str:
    """Undo `escape` exactly."""
    if "&" in text:
        for tag, once, _ in _FORMS:
            text = text.replace(once, tag)
        text = _ESCAPED_AGAIN.sub("&", text)
    return text
