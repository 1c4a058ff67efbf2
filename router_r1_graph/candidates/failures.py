"""Why a call fails: typed errors made from any provider's exceptions, with no key in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from langchain_core.messages import AIMessage

from ..outside import visible, writable
from .keys import scrub

ErrorKind = Literal[
    "auth",  # 401, 402, 403: the key is missing, wrong, or has no access or credit
    "not_found",  # 404: no such model or address
    "bad_request",  # any other 4xx
    "rate_limited",  # 429
    "server_error",  # 5xx, 409, 425
    "timeout",  # no answer in time
    "connection",  # refused, reset, or cut
    "malformed",  # the answer is not what the API promises
    "empty",  # no choices, or no text
    "declined",  # the model refused, or a content filter stopped it
    "no_record",  # a recorded candidate was never asked this
    "refused",  # a person did not approve of the call
    "circuit_open",  # it failed again and again, and is left alone for a while
    "cut",  # usable text that is not whole: its limit, or a content filter, ended it
    "missing_usage",  # usable text, but no counts or cost that can be: they are estimated
    "context_length",  # more tokens than the model or the controller can read
    "bug",  # the controller's own code raised; the message says where
    "other",
]
#: Errors that may go away by themselves, and are retried.
TRANSIENT: frozenset[ErrorKind] = frozenset(
    {"rate_limited", "server_error", "timeout", "connection"}
)

#: LangChain's shared exceptions, by name: earlier releases lack some.
_OF_LANGCHAIN: Mapping[str, ErrorKind] = {
    "ContextOverflowError": "context_length",
    "ModelRefusalError": "declined",
    "ModelAuthenticationError": "auth",
    "ModelPermissionDeniedError": "auth",
    "ModelNotFoundError": "not_found",
    "ModelRateLimitError": "rate_limited",
    "ModelTimeoutError": "timeout",
    "ModelConnectionError": "connection",
    "ModelAPIError": "server_error",
    "ModelInvalidRequestError": "bad_request",
}
#: What the codes of providers have in common. A status of 429 or 400 may mean the first three.
_NARROW: tuple[tuple[ErrorKind, str], ...] = (
    (
        "auth",
        r"insufficient_(user_)?(quota|credit|balance|fund)|exceeded_current_quota|out_of_credit"
        r"|arrear|billing_|access_terminated|(spending|usage)_limit",
    ),
    ("context_length", r"context_?(length|window)|prompt_too_long|string_above_max"),
    ("declined", r"content_?(filter|policy)|responsible_?ai|moderation|guardrail|refusal"),
)
_BROAD: tuple[tuple[ErrorKind, str], ...] = (
    *_NARROW,
    (
        "rate_limited",
        r"rate_?limit|too_?many_?requests|throttl|resource_?exhausted|quota|slow_down",
    ),
    ("timeout", r"time_?out|timed_out|deadline_?exceeded"),
    ("auth", r"authenticat|authoriz|api_?key|permission|forbidden|access_?denied|payment"),
    ("not_found", r"not_?found|does_not_exist"),
    ("server_error", r"overload|unavailable|internal|server|api_error|gateway|upstream|abort"),
    ("bad_request", r"invalid|unsupported|bad_?request|validation|unprocessable"),
)
_NO_WORDS = re.compile(r"Error code: \d+")
_CONNECTION = (
    r"CutReply|Connect|TransportError|ProtocolError|ReadError|WriteError|NetworkError|ProxyError|SSLError|"
    r"Disconnected|IncompleteRead|ChunkedEncoding|ClosedResource|BrokenResource|gaierror"
)


class NoChoiceError(ValueError):
    """A server's reply holds no choice.

    Attributes:
        partial: a message with the usage that is billed nevertheless; None = none.
    """

    def __init__(self, message: str, partial: AIMessage | None = None) -> None:
        super().__init__(message)
        self.partial = partial


class BrokenReplyError(Exception):
    """A reply of status 200 that names an error.

    Attributes:
        code: the error's own code, such as 429 or `rate_limit_exceeded`; None = it names none.
        partial: what came before it, with the usage that is billed; None = nothing.
    """

    def __init__(self, message: str, code: object = None, partial: AIMessage | None = None) -> None:
        super().__init__(message)
        self.code, self.partial = code, partial


class CutReplyError(BrokenReplyError):
    """A reply that broke off before its end: a lost connection, as far as a client can see."""


@dataclass(frozen=True)
class ReplyError:
    """Why a call failed, in a form that can be stored and shown; keys are taken out."""

    kind: ErrorKind
    message: str

    def __post_init__(self) -> None:
        """Take out what no file can hold and no terminal should get: a server may have said it."""
        object.__setattr__(self, "message", visible(writable(self.message)))


def classify(
    error: BaseException, secrets: Sequence[str] = (), address: str | None = None
) -> ReplyError:
    """Turn an exception of any provider's client into a typed error, without secrets in it.

    The clients share no base class. LangChain's shared exceptions say what they mean; of others
    this reads the status, the code, and the words in the names of their classes.

    Args:
        error: the exception.
        secrets: the key and others that are known.
        address: of the endpoint, to be named if the exception does not know the request.
    """
    error = innermost(error)
    causes = chain(error)
    kind = _kind(causes)
    message = said(error)
    if kind in ("connection", "not_found"):
        where = next(filter(None, map(address_of, causes)), None) or _plain(address or "")
        message += f" ({where})" if where and where not in message else ""
    return ReplyError(kind, scrub(f"{type(error).__name__}: {message}", *secrets)[:500])


def _kind(causes: Sequence[BaseException]) -> ErrorKind:
    names = [c.__name__ for e in causes for c in type(e).__mro__]
    joined = " ".join(names)
    status, words = told(causes[0])
    if kind := _matching(words, _NARROW):
        return kind
    if kind := next((_OF_LANGCHAIN[n] for n in names if n in _OF_LANGCHAIN), None):
        return kind
    if status is not None:
        return _status_kind(status)
    if kind := _matching(words, _BROAD):
        return kind
    if "NoRecord" in joined:
        return "no_record"
    if "Timeout" in joined:
        return "timeout"
    if re.search(_CONNECTION, joined):
        return "connection"
    if isinstance(causes[0], BrokenReplyError):  # of a server that failed, and does not say how
        return _matching(str(causes[0]), _BROAD) or "server_error"
    if _no_generation(causes[0]):
        return "empty"
    if re.search(r"ValueError|ValidationError|AttributeError|TypeError|KeyError", joined):
        return "malformed"
    return "other"


def said(error: BaseException) -> str:
    """Return the words of an exception; if a connection was lost, with what the system said."""
    words, root = str(error), chain(error)[-1]
    body = attribute(error, "body")
    if body and _NO_WORDS.fullmatch(words):  # xAI's error is a text, which openai leaves out
        words += f" - {body}"
    if re.search(_CONNECTION, type(error).__name__) and str(root) not in words:
        return f"{words.rstrip('.')}: {root}"
    return words


def told(error: BaseException) -> tuple[int | None, str]:
    """Return the status that an exception or one of its causes tells, and its words for a kind.

    The status is between 400 and 599, or None. The words are codes such as `insufficient_quota`.
    """
    facts = [fact for e in chain(error) for fact in _facts(e)]
    statuses = (int(f) for f in facts if isinstance(f, int) or (f.isascii() and f.isdigit()))
    words = " ".join(f for f in facts if isinstance(f, str) and not f.isdigit())
    return next((s for s in statuses if 400 <= s <= 599), None), words


def _facts(error: BaseException) -> Iterator[int | str]:
    """Yield statuses and codes from wherever a client keeps them."""
    response, first = attribute(error, "response"), (error.args or (None,))[0]
    reports = [attribute(error, name) for name in ("body", "details")]
    for thing in (error, response, *reports, first):
        inside = thing.get("error", thing.get("Error", thing)) if isinstance(thing, dict) else thing
        for name in ("status_code", "code", "status", "type", "Code"):
            fact = inside.get(name) if isinstance(inside, dict) else attribute(inside, name)
            if callable(fact) and not isinstance(fact, type):  # of gRPC
                with suppress(Exception):
                    fact = fact()
            fact = fact.name if isinstance(fact, Enum) and not isinstance(fact, int) else fact
            if isinstance(fact, int | str) and not isinstance(fact, bool):
                yield fact
    if isinstance(response, dict):  # of AWS
        yield int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def attribute(thing: object, name: str) -> Any:
    """Return an attribute of anything a client raised; None where there is none."""
    try:
        return getattr(thing, name, None)
    except Exception:  # httpx raises where no request is known
        return None


def chain(error: BaseException) -> list[BaseException]:
    """Return an exception and its causes, the innermost last."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(causes) < 8:
        causes.append(cause)
        cause = cause.__cause__
    return causes


def _matching(words: str, table: tuple[tuple[ErrorKind, str], ...]) -> ErrorKind | None:
    words = re.sub(r"[ -]", "_", words.lower())
    return next((kind for kind, pattern in table if re.search(pattern, words)), None)


def address_of(error: BaseException) -> str | None:
    """Return the address of the request that an exception is about, without keys in it."""
    url = attribute(attribute(error, "request"), "url")
    return _plain(str(url)) if url else None


def _plain(url: str) -> str:
    """Return an address without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


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
    return "server_error" if status >= 500 or status in (409, 425) else "bad_request"


def is_of_a_dead_loop(error: BaseException) -> bool:
    """Return whether a connection of a closed event loop was used, whose reply nobody can read."""
    return any(isinstance(e, RuntimeError) and "loop is closed" in str(e) for e in chain(error))
