"""Why a call fails: typed errors made from any provider's exceptions, with no key in them."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any, Literal

ErrorKind = Literal[
    "auth",  # 401, 402, 403: the key is missing, wrong, or has no access or credit
    "not_found",  # 404: no such model or address
    "bad_request",  # any other 4xx
    "rate_limited",  # 429
    "server_error",  # 5xx
    "timeout",  # no answer in time
    "connection",  # refused, reset, or cut
    "malformed",  # the answer is not what the API promises
    "empty",  # no choices, or no text
    "no_record",  # a recorded candidate was never asked this
    "refused",  # a person did not approve of the call
    "missing_usage",  # usable text, but no token counts: they are estimated
    "context_length",  # more tokens than the controller can read
    "bug",  # the controller's own code raised; the message says where
    "other",
]
#: Errors that may go away by themselves, and are retried.
TRANSIENT: frozenset[ErrorKind] = frozenset(
    {"rate_limited", "server_error", "timeout", "connection"}
)
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 8.0
LONGEST_RETRY_AFTER_SECONDS = 60.0


class NoChoiceError(ValueError):
    """A server's reply holds no choice."""


@dataclass(frozen=True)
class ReplyError:
    """Why a call failed, in a form that can be stored and shown; keys are taken out."""

    kind: ErrorKind
    message: str


def classify(error: BaseException, secret: str = "") -> ReplyError:
    """Turn an exception of any provider's client into a typed error, without secrets in it.

    The clients share no base class, so this reads what they have in common: a `status_code`, and
    the words in the names of their classes.
    """
    error = innermost(error)
    message = scrub(f"{type(error).__name__}: {error}", secret)[:500]
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return ReplyError(_status_kind(status), message)
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 8:
        chain.append(cause)
        cause = cause.__cause__
    names = " ".join(c.__name__ for e in chain for c in type(e).__mro__)
    kind: ErrorKind = "other"
    if "NoRecord" in names:
        kind = "no_record"
    elif "Timeout" in names:
        kind = "timeout"
    elif re.search(r"Connect|TransportError|ProtocolError|ReadError", names):
        kind = "connection"
    elif _no_generation(error):
        kind = "empty"
    elif re.search(r"ValueError|ValidationError|AttributeError|TypeError|KeyError", names):
        kind = "malformed"
    return ReplyError(kind, message)


def innermost(error: BaseException) -> BaseException:
    """Return the first exception in a group, which says what went wrong; another as it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _no_generation(error: BaseException) -> bool:
    """Return whether LangChain found no choice in a model's reply, streamed or whole."""
    if isinstance(error, NoChoiceError) or "No generation" in str(error):
        return True
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    where = frame.tb_frame.f_globals.get("__name__", "") if frame else ""
    return isinstance(error, IndexError) and where.startswith("langchain_core.")


def _status_kind(status: int) -> ErrorKind:
    if status in (401, 402, 403):
        return "auth"
    if status == 404:
        return "not_found"
    if status == 429:
        return "rate_limited"
    if status == 408:
        return "timeout"
    return "server_error" if status >= 500 else "bad_request"


def scrub(text: str, secret: str = "") -> str:
    """Take a known secret, and whatever looks like a key, out of a text."""
    text = hide(text, secret)
    return re.sub(r"\b(sk-|Bearer\s+)[\w.+/=-]{6,}", r"\1***", text)


def hide_within(value: Any, secret: str) -> Any:
    """Take a known secret out of every text in nested lists and dicts."""
    if isinstance(value, str):
        return hide(value, secret)
    if isinstance(value, list):
        return [hide_within(item, secret) for item in value]
    if isinstance(value, dict):
        return {hide(str(key), secret): hide_within(item, secret) for key, item in value.items()}
    return value


def hide(text: str, secret: str) -> str:
    """Take a known secret out of a text; anything shorter than 6 characters is not one."""
    secret = secret.strip()
    return text.replace(secret, "***") if len(secret) >= 6 else text


def wait_seconds(error: BaseException, attempt: int) -> float:
    """Return the wait before the next attempt: Retry-After, else exponential with jitter."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, TypeError, ValueError):
        longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1))
        return longest * random.uniform(0.5, 1)
