"""The errors that pydantic finds, in the terms of the file.

The author of a YAML file knows lists, mappings, texts and numbers, but neither tuples nor models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .errors import did_you_mean
from .words import plain

_MOST = 5
"""The most errors in one message."""
_LONGEST = 80
"""Characters of a value or a key."""

_SECRET = re.compile(
    r"key|secret|token$|password|credential|^(options|env|((default_|extra_)?headers)|(default|extra)_query)$",
    re.I,
)
_USER = re.compile(r"//[^/@\s]*@")
_LIKE_A_KEY = re.compile(r"\bsk-\S*|Bearer .*|password=\S*", re.I)

#: How pydantic's types of errors begin -> what is wanted instead.
_WANTED = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "dataclass": "a mapping",
    "date": "a date such as 2026-11-01",
    "path": "a path",
    "none": "nothing",
}
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("above", "gt"),
    "less_than": ("below", "lt"),
}


def masked(text: str) -> str:
    """Return a text without what looks like a key.

    Example:
        >>> masked("completions:http://x?api_key_env=sk-abc&model=m")
        'completions:http://x?api_key_env=***&model=m'
    """
    text = _USER.sub("//***@", text)
    return _LIKE_A_KEY.sub("***", re.sub(r"(?i)(key\w*=)[^&\s]+", r"\1***", text))


def show(value: object) -> str:
    """Return a value for a message; of a list or mapping, which may hold keys, only its size."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case date():
            return str(value)
        case list() | tuple() | dict():
            what = "mapping" if isinstance(value, dict) else "list"
            return f"a {what} of {len(value)}" if value else f"an empty {what}"
    if isinstance(value, str) and "://" in value:  # a secret may stand around the address
        value = re.sub(r"(//[^/?#\s]*)[/?#].*", r"\1", _USER.sub("//***@", value), flags=re.S)
    return "***" if _LIKE_A_KEY.search(str(value)) else f"{value!r:.{_LONGEST}}"


def explain(
    error: ValidationError,
    allowed: Callable[[tuple[int | str, ...]], Collection[str]] = lambda _: (),
    name: Callable[[tuple[int | str, ...]], str] = lambda _: "",
    at: str = "",
    whole: str = "",
) -> str:
    """Turn pydantic's errors into one line: of each the key, the value, and what is allowed.

    Args:
        error: pydantic's error.
        allowed: from the place of an unknown key to the keys that are known there.
        name: from a place to the words after its key.
        at: the key above all of it.
        whole: the words in place of a key, if no single key is wrong.
    """
    errors = error.errors(include_url=False)
    # To `min_length` an entry that cannot be read is a missing one: no second error for it.
    above = {e["loc"][:depth] for e in errors for depth in range(1, len(e["loc"]))}
    errors = [e for e in errors if e["loc"] not in above] or errors
    said: dict[str, None] = {}
    for one in errors:
        place = _place(one)
        key = _key((at, *place) if at else place) + name(place) or whole
        if one["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            said[_unknown(key, one["input"], place, allowed(place))] = None
        else:
            said[f"{key}: {_why(one, place)}" if key else _why(one, place)] = None
    lines = list(said)
    more = f"; and {len(lines) - _MOST} more" if len(lines) > _MOST else ""
    return "; ".join(lines[:_MOST]) + more


def _place(error: ErrorDetails) -> tuple[int | str, ...]:
    """Return where an error is, without the names of a union's members."""
    place = error["loc"]
    if "options" in place:
        return place[: place.index("options") + 2] if _of_union(place) else place
    return place


def _of_union(place: Sequence[int | str]) -> bool:
    after = place[place.index("options") + 2 :]
    return bool(after) and str(after[0]).partition("[")[0] in _PLAIN


_PLAIN = ("str", "int", "float", "bool", "none", "list", "dict")
_ANY = "a text, a number, true or false, a list or a mapping"


def _key(place: Sequence[int | str]) -> str:
    key = ""
    for part in place:
        key += f"[{part}]" if isinstance(part, int) else f"{'.' if key else ''}{_name(part)}"
    return key


def _name(part: str) -> str:
    """Return a key as it is written; in quotes if it is long, or would break the line."""
    return part if part.isprintable() and len(part) <= _LONGEST else f"{part!r:.{_LONGEST}}"


def _unknown(key: str, given: object, place: Sequence[int | str], allowed: Collection[str]) -> str:
    told = f"; allowed: {', '.join(allowed)}" if allowed else ""
    value = _value(given, place)
    return f"unknown key {key} = {value}{did_you_mean(str(place[-1]), allowed)}{told}"


def _value(given: object, place: Sequence[int | str]) -> str:
    """Return a value for a message, unless its key says that it is a secret."""
    short = isinstance(given, int | float) and abs(given) < 10**5  # True and False, too
    harmless = short or isinstance(given, date | list | tuple | dict | None)
    secret = not harmless and any(_SECRET.search(str(part)) for part in place)
    return "***" if secret else show(given)


def _why(error: ErrorDetails, place: Sequence[int | str]) -> str:
    kind, given = error["type"], error["input"]
    context: Mapping[str, Any] = error.get("ctx") or {}
    value = _value(given, place)
    if place != error["loc"]:
        return f"{_ANY} is wanted, not {value}"
    match kind:
        case "missing":
            return "is missing"
        case "literal_error" | "enum":
            allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
            near = did_you_mean(str(given), allowed) if isinstance(given, str) else ""
            return f"{_either(allowed)} is wanted, not {value}{near}"
        case "union_tag_invalid":
            allowed = re.findall(r"'([^']*)'", context["expected_tags"])
            tag = f"{context['tag']!r:.{_LONGEST}}"
            return f"{context['discriminator']}: {_either(allowed)} is wanted, not {tag}"
        case "too_short":
            return f"at least {_entries(context['min_length'])} wanted, not {value}"
        case "too_long":
            return f"at most {_entries(context['max_length'])} wanted, not {value}"
        case "string_too_short":
            least = context["min_length"]
            what = "must not be empty" if least == 1 else f"at least {least} characters are wanted"
            return what if least == 1 else f"{what}, not {value}"
        case "string_too_long":
            return f"at most {context['max_length']} characters are wanted, not {len(str(given))}"
        case "value_error" | "assertion_error":
            message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            # A model as a whole has no one value, and some messages have said it.
            single = place and not isinstance(given, list | tuple | dict | BaseModel)
            return f"{message} (value: {value})" if single and value not in message else message
        case "json_invalid":
            return f"not JSON: {context.get('error', '')}"
    if kind in _LIMITS:
        words, name = _LIMITS[kind]
        return f"must be {words} {plain(context[name], 12)}, not {value}"
    for begin in sorted(_WANTED, key=len, reverse=True):
        if kind == begin or kind.startswith(f"{begin}_"):
            return f"{_WANTED[begin]} is wanted, not {value}"
    if kind == "invalid_key":
        return "a key is a text, and this one is not"
    return f"{error['msg']} (value: {value})"


def _entries(count: int) -> str:
    return f"{count} {'entry is' if count == 1 else 'entries are'}"


def _either(allowed: Sequence[str]) -> str:
    *first, last = allowed or ["another value"]
    return f"{', '.join(first)} or {last}" if first else last
