"""Why a call fails: typed errors made from any provider's exceptions, with no key in them."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from json import JSONDecodeError
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from langchain_core.messages import AIMessage

from ..outside import text_of, visible, writable
from .error_kinds import (
    BROAD,
    CONNECTION,
    IN_WORDS,
    NARROW,
    NO_CREDIT,
    OF_LANGCHAIN,
    ErrorKind,
    matching,
)
from .keys import scrub

_NETWORK = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ETIMEDOUT, errno.ECONNRESET}
)
#: Below 500: a conflict, a failed dependency (Bedrock), too early; no capacity (Groq), cancelled
#: (Google).
_OF_THE_SERVER = (409, 424, 425, 498, 499)
_NO_WORDS = re.compile(r"Error code: \d+")


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
        code: the error's own code, such as 429 or `rate_limit_exceeded`; None = it has none.
        partial: the message before it, with the usage that is billed; None = nothing.
        type: its name beside a numeric code, such as `insufficient_quota`.
    """

    def __init__(
        self, message: str, code: object = None, partial: AIMessage | None = None, kind: str = ""
    ) -> None:
        super().__init__(message)
        self.code, self.partial, self.type = code, partial, kind


class CutReplyError(BrokenReplyError):
    """A reply that broke off before its end: a lost connection, as far as a client can see."""


@dataclass(frozen=True)
class ReplyError:
    """Why a call failed, in a form that can be stored and shown; keys are taken out."""

    kind: ErrorKind
    message: str

    def __post_init__(self) -> None:
        """Remove characters that no file can hold or no terminal should get."""
        object.__setattr__(self, "message", visible(writable(self.message)))


def classify(
    error: BaseException, secrets: Sequence[str] = (), address: str | None = None
) -> ReplyError:
    """Turn an exception of any provider's client into a typed error, without secrets in it.

    The clients share no base class. LangChain's shared exceptions have a clear meaning. For
    others, this reads the status, the code, and the words in the names of their classes.

    Args:
        error: the exception.
        secrets: the key and other known secrets.
        address: of the endpoint, to be named if the exception does not know the request.
    """
    causes = chain(error := innermost(error))
    kind = _kind(causes)
    message = said(error)
    if kind in ("connection", "not_found"):
        where = next(filter(None, map(address_of, causes)), None) or plain_address(address or "")
        message += f" ({where})" if where and where not in message else ""
    return ReplyError(kind, scrub(f"{type(error).__name__}: {message}", *secrets)[:500])


def _kind(causes: Sequence[BaseException]) -> ErrorKind:
    names = [c.__name__ for e in causes for c in type(e).__mro__]
    joined = " ".join(names)
    status, words = told(causes[0])
    if kind := matching(words, NARROW) or matching(joined, NARROW):
        return kind
    kind = next((OF_LANGCHAIN[n] for n in names if n in OF_LANGCHAIN), None)
    if kind or status is not None:
        kind = kind or _status_kind(status or 0)
        text = f"{words} {said(causes[0])}"
        if kind == "rate_limited" and matching(text, NO_CREDIT):
            return "auth"
        vague = kind == "bad_request" or status == 403
        return (vague and matching(text, IN_WORDS)) or kind
    if kind := matching(words, BROAD):
        return kind
    if "NoRecord" in joined:
        return "no_record"
    if "Timeout" in joined:
        return "timeout"
    if re.search(CONNECTION, joined):
        return "connection"
    if _names_an_error(causes[0]):  # of a server that failed, and does not say how
        return matching(str(causes[0]), (*IN_WORDS, *BROAD)) or "server_error"
    if any(isinstance(e, JSONDecodeError) and is_cut(e) and e.doc for e in causes):
        return "connection"
    if _no_generation(causes[0]):
        return "empty"
    if re.search(r"ValueError|ValidationError|AttributeError|TypeError|KeyError", joined):
        return "malformed"
    if isinstance(causes[-1], OSError) and causes[-1].errno in _NETWORK:
        return "connection"
    # Some clients raise an error of their own while they handle the one that says what happened.
    context = causes[-1].__context__
    return "other" if context is None else _kind(chain(context))


def said(error: BaseException) -> str:
    """Return the words of an exception; if a connection was lost, with the system's message."""
    words, root = text_of(error), text_of(chain(error)[-1])
    body = attribute(error, "body")
    if body and _NO_WORDS.fullmatch(words):  # xAI's error is a text, which openai leaves out
        words += f" - {body}"
    named = body.get("error", body) if isinstance(body, dict) else body
    words = ": ".join([words, *(w for w in words_handed_on(named) if w not in words)])
    if re.search(CONNECTION, type(error).__name__) and root not in words:
        return f"{words.rstrip('.')}: {root}"
    return words


def told(error: BaseException) -> tuple[int | None, str]:
    """Return the status of an exception or one of its causes, and its words that name a kind.

    The status is between 400 and 599, or None. The words are codes such as `insufficient_quota`.
    """
    facts = [fact for e in chain(error) for fact in _facts(e)]
    statuses = (int(f) for f in facts if isinstance(f, int) or (f.isascii() and f.isdigit()))
    words = " ".join(f for f in facts if isinstance(f, str) and not f.isdigit())
    return next((s for s in statuses if 400 <= s <= 599), None), words


def _facts(error: BaseException) -> Iterator[int | str]:
    """Yield statuses and codes from all places where clients keep them."""
    response, first = attribute(error, "response"), (error.args or (None,))[0]
    reports = [attribute(error, name) for name in ("body", "details")]
    for thing in (error, response, *reports, first):
        inside = thing.get("error", thing.get("Error", thing)) if isinstance(thing, dict) else thing
        for one in (inside, *handed_on(inside)):
            for name in ("status_code", "code", "status", "type", "Code", "__type"):
                fact = one.get(name) if isinstance(one, dict) else attribute(one, name)
                if callable(fact) and not isinstance(fact, type):  # of gRPC
                    with suppress(Exception):
                        fact = fact()
                fact = fact.name if isinstance(fact, Enum) and not isinstance(fact, int) else fact
                if isinstance(fact, int | str) and not isinstance(fact, bool):
                    yield fact
    if isinstance(response, dict):  # of AWS
        yield int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def handed_on(named: object) -> list[dict[str, Any]]:
    """Return the error objects in one of OpenRouter's: its `metadata`, and the provider's own.

    Args:
        named: the error object; any other value holds none.
    """
    metadata = _metadata(named)
    found = [{"type": metadata.get("error_type")}] if metadata else []
    raw = metadata.get("raw")
    if isinstance(raw, str):
        with suppress(ValueError, RecursionError):
            raw = json.loads(raw, strict=False)
    if isinstance(raw, list):  # Google's
        raw = next(iter(raw), None)
    if isinstance(raw, dict):
        own = raw.get("error")
        found.append(own if isinstance(own, dict) else raw)
    return found


def words_handed_on(named: object) -> list[str]:
    """Return the provider that failed behind OpenRouter, and its message, or all that it sent."""
    metadata = _metadata(named)
    own = next((one["message"] for one in handed_on(named) if one.get("message")), None)
    words = (metadata.get("provider_name"), own or metadata.get("raw"))
    return [str(word) for word in words if word]  # whole: half of a key would not be found in it


def _metadata(named: object) -> dict[str, Any]:
    metadata = named.get("metadata") if isinstance(named, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def attribute(thing: object, name: str) -> Any:
    """Return an attribute of an exception or object of any client; None if there is none."""
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


def address_of(error: BaseException) -> str | None:
    """Return the address of the request that an exception is about, without keys in it."""
    url = attribute(attribute(error, "request"), "url")
    return plain_address(str(url)) if url else None


def plain_address(url: str) -> str:
    """Return an address without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def innermost(error: BaseException) -> BaseException:
    """Return the first exception in a group, since it names the cause; any other as it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _names_an_error(error: BaseException) -> bool:
    """Return whether a reply of status 200 named an error, read by our client or another."""
    if isinstance(error, BrokenReplyError) or type(error).__name__ == "APIError":
        return True
    return bool(attribute(error, "status_code") == -1)  # Ollama's word for none


def is_cut(error: JSONDecodeError) -> bool:
    """Return whether a JSON text cannot be read because its end is missing."""
    if not hasattr(error, "doc"):  # without its text, since that may hold a key
        return False
    text = error.doc.strip()
    return error.pos >= len(text) or (text[0] in "{[" and text[-1] not in "}]")


def _no_generation(error: BaseException) -> bool:
    """Return whether LangChain found no choice in a model's reply, streamed or whole."""
    words = "No (generation|data received)"
    if isinstance(error, NoChoiceError) or re.search(words, text_of(error)):
        return True
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    where = frame.tb_frame.f_globals.get("__name__", "") if frame else ""
    return isinstance(error, IndexError) and where.startswith("langchain_core.")


def _status_kind(status: int) -> ErrorKind:
    if status in (401, 402, 403):
        return "auth"
    if status in (404, 405, 410):
        return "not_found"
    if status == 429:
        return "rate_limited"
    if status == 408:
        return "timeout"
    return "server_error" if status >= 500 or status in _OF_THE_SERVER else "bad_request"


def is_of_a_dead_loop(error: BaseException) -> bool:
    """Return whether a connection of a closed event loop was used: its reply cannot be read."""
    return any(isinstance(e, RuntimeError) and "loop is closed" in text_of(e) for e in chain(error))
