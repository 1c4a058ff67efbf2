"""What a server says of another try: not at all, or after so many seconds."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from .failures import attribute, chain

LONGEST_RETRY_AFTER_SECONDS = 60.0


#: OpenAI's, Groq's and Gemini's words.
_WAIT = re.compile(
    r"(?:retry|try again) (?:in|after) (?:(?P<minutes>\d+)m ?)?(?P<number>\d+(?:\.\d+)?) ?"
    r"(?P<unit>ms|s(?:ec(?:ond)?s?)?)\b",
    re.I,
)


def forbids_retry(error: BaseException) -> bool:
    """Return whether the server says that the same is not to be asked again."""
    return _headers(error).get("x-should-retry") == "false"


def told_to_wait(error: BaseException) -> float | None:
    """Return the seconds that a server wants one to wait; None = it does not say.

    It says so in `retry-after-ms`, in `Retry-After` in seconds or as an HTTP date, or in words.
    """
    headers = _headers(error)
    if (milliseconds := _float(headers.get("retry-after-ms"))) is not None:
        return max(0.0, milliseconds / 1000)
    if (seconds := _float(headers.get("retry-after"))) is not None:
        return max(0.0, seconds)
    try:
        date = parsedate_to_datetime(headers["retry-after"])
        return max(0.0, date.timestamp() - time.time())
    except (KeyError, TypeError, ValueError, OverflowError):
        if not (words := _WAIT.search(str(error))):
            return None
        number = float(words["number"])
        seconds = number / 1000 if words["unit"].lower() == "ms" else number
        return 60.0 * float(words["minutes"] or 0) + seconds


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
