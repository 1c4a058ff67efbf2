"""Parameters that a model refuses: learned from its first refusal, and not sent again.

Reasoning models refuse `temperature`, `stop` or `max_tokens`, some servers `stream_options` or a
stream, strict chat templates a system message. A provider says so with status 400, each in its own
words, and costs nothing by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from ..outside import text_of

SYSTEM = "system"
"""In the place of a parameter: messages of the role system."""
STREAM = "stream"
WHOLE = "whole"
"""In the place of a parameter: a reply without a stream."""
ZERO = "temperature 0"
"""In the place of a parameter: the temperature of the most likely reply; a low one is sent."""
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")
"""The two names of the one limit: a model that refuses one may take the other."""
OF_RESPONSES = "max_output_tokens"
"""The limit's one name in OpenAI's Responses API."""

_STATUS = (400, 404, 422)
_NEEDED = frozenset({"model", "messages", "input", "tools", "functions", STREAM})
#: What the router sends of itself, and every model can do without.
_OURS = frozenset({"temperature", "stop", "stream_options", "tool_choice", STREAM})
#: What a message names for no other reason.
_NAMED = frozenset({"tool_choice", "parallel_tool_calls", "stream_options"})
_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter", "extra_forbidden")
_REFUSES = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|extra_forbidden|extra (?:inputs|fields)"
    r"|deprecated|disallowed|removed|cannot find field|\bonly\b|\binstead\b|\bomit"
    r"|\bmust be (?:1\b(?!\.\d)|unset|absent)"
    r"|(?:\bnot\b|n't\b|\bcannot\b|\bno longer\b)[^.]{0,60}?"
    r"\b(?:support|permit|allow|accept|appl|recogni|avail|specified"
    r"|(?:set|used)\b(?! to\b| \w+ than| above))",
    re.I,
)
_SYSTEM = r"(?:system|developer) (?:role|message|prompt|instruction)s?\b"
_NO_SYSTEM = re.compile(
    rf"{_SYSTEM}[^.]{{0,60}}(?:not|n't|un)[^.]{{0,20}}(?:support|allow|enable|recogni)"
    rf"|(?:not|n't) (?:support|allow|accept)[^.]{{0,20}}{_SYSTEM}"
    r"|support\w*[^.]{0,20}['\"`]system['\"`]|roles must alternate|only user[^.]{0,30}roles"
    r"|(?:unknown|invalid|unexpected|unsupported) (?:variant|role)\W{1,4}(?:system|developer)\b"
    r"|\brole\W{1,4}(?:system|developer)\W{1,4}[^.]{0,20}\b(?:not|n't|invalid|unsupported)",
    re.I,
)
_ABOVE_ZERO = re.compile(
    r"temperature.{0,120}?(?:strictly positive|greater than 0\b(?!\.\d)|>\s*0\b(?!\.\d)"
    r"|\(0(?:\.0+)?\s*,)",
    re.I | re.S,
)
_ONLY_STREAMS = re.compile(
    r"\b(?:only|must|requires?|needs?|enable)\b[^.]{0,40}\bstream(?!_)"
    r"|\bstream(?:ing|ed)?\b[^.]{0,30}\b(?:only|must|required)\b",
    re.I,
)
#: Parameters that providers have other words for.
_WORDS = {STREAM: "stream(?:ing)?", "stop": "stop(?:_?sequences)?"}
_refused: dict[tuple[str, str], set[str]] = {}


def refused_by(address: str | None, model: str) -> set[str]:
    """Return the parameters that a model has refused in this process; add those refused now.

    Args:
        address: of the endpoint; None = OpenAI's.
        model: the provider's name of the model.
    """
    return _refused.setdefault((address or "", model), set())


def refused_in(error: BaseException, sent: Collection[str], *, system: bool = False) -> str | None:
    """Return the parameter that a provider refuses, by its exception; None = it names none.

    Args:
        error: the exception of the provider's client.
        sent: the names of the parameters that were sent; `ZERO` for a temperature of 0, too.
        system: whether there was a message of the role system.
    """
    body = getattr(error, "body", None)
    words = text_of(error)
    text = f"{words} {json.dumps(body, default=str) if isinstance(body, dict | list | str) else ''}"
    if system and _NO_SYSTEM.search(text):
        return SYSTEM
    status = getattr(error, "status_code", None)
    if status is not None and status not in _STATUS:
        return None
    if STREAM not in sent and _ONLY_STREAMS.search(text):
        return WHOLE
    if ZERO in sent and _ABOVE_ZERO.search(text):
        return ZERO
    sent = set(sent) - {ZERO}
    if not isinstance(body, dict):
        body = {}
    param = str(_first(error, body, "param") or "").rpartition(".")[2]
    if param in sent and param not in _NEEDED - {STREAM}:
        code = str(_first(error, body, "code") or "")
        if param in _OURS or code in _CODES or _REFUSES.search(text):
            return param
    return named_in(text, sent)


def _first(error: BaseException, body: dict[str, Any], name: str) -> Any:
    return getattr(error, name, None) or body.get(name)


def named_in(text: str, sent: Collection[str]) -> str | None:
    """Return the parameter that a message refuses: the first of those sent that it names.

    Example:
        >>> named_in("Argument not supported on this model: stop", ["stop", "temperature"])
        'stop'
    """
    if not _REFUSES.search(text):
        sent = _NAMED.intersection(sent)
    places = {}
    for name in sent:
        word = _WORDS.get(name) or re.escape(name).replace("_", "_?")  # topP is top_p
        if name not in _NEEDED - {STREAM} and (
            at := re.search(rf"(?<!\w){word}(?!\w)", text, re.I)
        ):
            places[name] = at.start()
    return min(places, key=places.__getitem__, default=None)
