"""Input from outside: the one gate that its texts and numbers pass before other code sees them.

Outside is everything that this program did not write itself: replies, errors, usage, questions,
names, the arguments of tools, headers, files. Behind the gate, every file, checkpoint and database
can hold a text, every count can be added up, and no text that people see can control their
terminal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from json import detect_encoding, loads
from typing import Annotated, Any

from pydantic import Field

MOST_TOKENS = 10**8
"""The most tokens of one call that are believed: ten times the longest context of today."""
MOST_USD = 1_000.0
"""The most USD that are believed to be the price of one call."""
MOST_OF_A_CALL = 10**6
"""The most seconds, or USD, of all attempts of a call; sockets cannot wait much longer."""
MOST_OF_A_RUN = 10**9
"""The most seconds, or USD, of all calls of a run."""
MOST_OF_A_BUDGET = 10**12
"""The most USD of a limit that is set: above all that a run can cost."""
NO_LIMIT = 2**31 - 1
"""The most seconds, calls or tokens of a limit that is set: many write this for none at all."""

# What files hold: amounts of one call, and the sums over a run.
Count = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Amount = Annotated[float, Field(ge=0, le=MOST_OF_A_CALL, allow_inf_nan=False)]
CountOfRun = Annotated[int, Field(ge=0, le=10**6 * MOST_TOKENS)]
AmountOfRun = Annotated[float, Field(ge=0, le=MOST_OF_A_RUN, allow_inf_nan=False)]

_PLAIN = frozenset({int, float, bool, type(None)})
_DEEPEST = 64
"""The deepest nesting of lists and mappings; no server or file of ours has more."""

#: What can control a terminal or the direction of a line: all but line breaks and tabs.
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u206f]"
)
_UNKNOWN = "\ufffd"
_LONGEST_NUMBER = 99
"""The digits of a whole number that are read: Python refuses thousands, and 99 are implausible."""
#: A string without an end goes on to that of the text: else it is read anew from each quote in it.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]|[^"\[\]{}]+', re.DOTALL)


def writable(text: str) -> str:
    r"""Return a text that every file, checkpoint and database can hold.

    JSON can hold half a character and a zero byte, but few other formats can. Two halves that were
    sent one after the other become their character again.

    Example:
        >>> writable("a\x00b \ud83d"), writable("\ud83d" + "\ude00") == "\N{GRINNING FACE}"
        ('a\ufffdb \ufffd', True)
    """
    if "\0" in text:
        text = text.replace("\0", _UNKNOWN)
    if text.isascii():  # a look at a flag, and true of most texts
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def writable_within(value: Any) -> Any:
    """Return nested lists and mappings with every text in them writable, the keys too.

    A writable object is returned itself, not copied: each message is checked several times.
    """
    return value if _are_writable((value,), 0) else _made_writable(value, 0)


def _are_writable(values: Iterable[Any], depth: int) -> bool:
    if depth > _DEEPEST:
        return False
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            continue
        # The exact types first: most values are of them, and to ask for a Mapping takes long.
        if kind is str or isinstance(value, str):
            if not (value.isascii() and "\0" not in value) and writable(value) is not value:
                return False
        elif kind is dict or isinstance(value, Mapping):
            if not (_are_writable(value, depth) and _are_writable(value.values(), depth + 1)):
                return False
        elif (kind is list or kind is tuple or isinstance(value, list)) and not _are_writable(
            value, depth + 1
        ):
            return False
    return True


def _made_writable(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return writable(value)
    if depth == _DEEPEST:
        return None
    if isinstance(value, list):
        return [_made_writable(item, depth + 1) for item in value]
    if type(value) is tuple:
        return tuple(_made_writable(item, depth + 1) for item in value)
    if isinstance(value, Mapping):
        return {
            writable(name) if isinstance(name, str) else name: _made_writable(item, depth + 1)
            for name, item in value.items()
        }
    return value


def read_json(data: str | bytes) -> Any:
    """Return what a JSON text from outside holds.

    Raises:
        ValueError: it is no JSON, or holds a number that is none (`NaN`, `1e999`).
        RecursionError: lists are nested too deeply.
    """
    return writable_within(loads(data, parse_constant=_finite, parse_float=_finite))


def read_reply_json(data: str | bytes) -> Any:
    """Return what a server's reply holds, which is paid: it is read if there is any way to.

    Bytes that are no text are replaced, a long number is cut, and what is nested too deeply is
    left out.

    Raises:
        ValueError: it is no JSON.
    """
    text = data if isinstance(data, str) else data.decode(detect_encoding(data), "replace")
    try:
        sent = loads(text, strict=False, parse_int=_whole)
    except RecursionError:
        sent = loads(_shallow(text), strict=False, parse_int=_whole)
    return writable_within(sent)


def _whole(written: str) -> int:
    return int(written[:_LONGEST_NUMBER])


def _shallow(text: str) -> str:
    """Return a JSON text with null in the place of what is nested too deeply."""
    depth, kept = 0, []
    for token in _TOKEN.findall(text):
        opens, closes = token in "[{", token in "]}"
        depth -= closes
        if depth < _DEEPEST or (depth == _DEEPEST and not (opens or closes)):
            kept.append(token)
        elif depth == _DEEPEST and opens:
            kept.append("null")
        depth += opens
    return "".join(kept)


def _finite(written: str) -> float:
    if not math.isfinite(value := float(written)):
        raise ValueError(f"{written[:20]} is no number of JSON")
    return value


def number(value: object, most: float = math.inf) -> float | None:
    """Return a number that is finite and not negative, also out of a text; None for all else.

    Args:
        value: a reported value of any type.
        most: the highest value that is believed.
    """
    if value is True or value is False or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:  # a number of Python's code alone
        return None
    try:
        read = float(value)
    except (OverflowError, ValueError):
        return None
    return read if 0 <= read <= most and read < math.inf else None


def count(value: object) -> int | None:
    """Return a number of tokens: whole, not negative, and plausible; None for all else.

    Example:
        >>> [count(tokens) for tokens in (7, "12", 4.0, 1.5, "1_0", -5, 10**30, True, float("nan"))]
        [7, 12, 4, None, None, None, None, None, None]
    """
    if type(value) is int:
        return value if 0 <= value <= MOST_TOKENS else None
    read = number(value, MOST_TOKENS)
    return int(read) if read is not None and read.is_integer() else None


def usd(value: object) -> float | None:
    """Return the reported price of a call; None for a price that no call has."""
    return number(value, MOST_USD)


def text_of(thing: object) -> str:
    """Return an object's text; "" where its own `__str__` fails, as that of an exception may."""
    try:
        return str(thing)
    except Exception:
        return ""


def visible(text: str) -> str:
    """Remove what could control a terminal or reverse a line, but no line breaks and tabs."""
    return CONTROL.sub("", text)


def plain_name(name: str) -> str:
    """Return a name that a terminal shows as it is.

    Raises:
        ValueError: it could control one.
    """
    if visible(name) != name:
        raise ValueError("a name has no character that controls a terminal")
    return name
