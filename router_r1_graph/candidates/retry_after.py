"""A server's advice on retries: none at all, or after some seconds."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from ..outside import text_of
from .failures import attribute, chain, handed_on

LONGEST_RETRY_AFTER_SECONDS = 60.0


_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
#: No number begins within another one: long ones would be read again from each of their digits.
_PART = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?) ?(d|h|ms|m|s)(?![a-z])", re.I)
_LONG = re.compile(r" ?(?:(m)illi)?(?:(d)ay|(h)(?:ou)?r|(m)in(?:ute)?|(s)ec(?:ond)?)s?\b", re.I)
#: The words of OpenAI, Groq, Gemini, Azure and others.
_WAIT = re.compile(
    r"(?:retry|try again|wait)(?: in| after| for)?:? (?:about |another |at least )?"
    rf"(?P<time>(?:{_PART.pattern}[, ]*(?:and )?)+)",
    re.I,
)
#: Where an error object says it, without case, hyphens and underscores.
_FIELDS = {"retryafter": 1.0, "retryafterseconds": 1.0, "retryafterms": 0.001, "retrydelay": 1.0}
#: Where clients keep it: most, Google, AWS.
_OBJECTS = ("body", "details", "response")
_RESET = "xratelimitreset"


def forbids_retry(error: BaseException) -> bool:
    """Return whether the server forbids a retry of the same request."""
    return _headers(error).get("x-should-retry") == "false"


def told_to_wait(error: BaseException) -> float | None:
    """Return the seconds that a server asks its clients to wait; None = it does not say.

    It says so in `retry-after-ms`, in `Retry-After` in seconds or as an HTTP date, in words, or in
    the object of the error, where the client keeps it.
    """
    headers = _headers(error)
    if (milliseconds := _float(headers.get("retry-after-ms"))) is not None:
        return max(0.0, milliseconds / 1000)
    if (seconds := _float(headers.get("retry-after"))) is not None:
        return max(0.0, seconds)
    if parts := _duration(headers.get("retry-after", "")):
        return parts
    try:
        date = parsedate_to_datetime(headers["retry-after"])
        return max(0.0, date.timestamp() - time.time())
    except (KeyError, TypeError, ValueError, OverflowError):
        told = _in_words(text_of(error))
        return told if told is not None else _in_objects(error)


def with_wait(message: str, named: object) -> str:
    """Return the message of an error with the wait that its object names elsewhere.

    Args:
        message: the message of the error.
        named: the error object, or any other value that a server sent.
    """
    seconds = None
    if not _in_words(message) and (seconds := _in_object(named, 6)) is None:
        seconds = _in_object(handed_on(named), 6)
    return message if seconds is None else f"{message} (retry after {seconds:.3f} s)"


def _in_words(text: str) -> float | None:
    text = _LONG.sub(lambda unit: "".join(filter(None, unit.groups())).lower(), text)
    if not (found := _WAIT.search(text)):
        return None
    return _duration(found["time"])


def _duration(text: str) -> float:
    """Return the seconds of a duration such as `1m2.5s`; 0 = it is none."""
    parts = _PART.findall(text)
    return sum(float(number) * _MILLISECONDS[unit.lower()] for number, unit in parts) / 1000


def _in_objects(error: BaseException) -> float | None:
    for e in chain(error):
        for thing in (*(attribute(e, name) for name in _OBJECTS), *e.args[:1]):
            if (seconds := _in_object(thing, 6)) is not None:
                return seconds
    return None


def _in_object(named: object, depth: int) -> float | None:
    if isinstance(named, list):
        named = dict(enumerate(named[:8]))
    if not isinstance(named, Mapping) or not depth:
        return None
    for name, value in named.items():
        plain = re.sub("[-_]", "", str(name).lower())
        number = _float(str(value).removesuffix("s"))
        if number is not None and plain in _FIELDS:
            return max(0.0, number * _FIELDS[plain])
        if number is not None and plain == _RESET and number > 1e9:  # of the clock, often in ms
            return max(0.0, (number / 1000 if number > 1e11 else number) - time.time())
        if (inner := _in_object(value, depth - 1)) is not None:
            return inner
    return None


def _headers(error: BaseException) -> Mapping[str, str]:
    """Return the headers of the response that an exception is about; names in lower case."""
    for e in chain(error):
        for holder in (attribute(e, "response"), e):
            if headers := attribute(holder, "headers"):
                return {str(name).lower(): str(value) for name, value in dict(headers).items()}
    return {}


def _float(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return None if math.isnan(number) else number
