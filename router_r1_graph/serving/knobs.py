"""The knobs of a request: fields of its body, or parts of its model's name, within limits.

They may stand together under `router_r1`. A client that can send no fields of its own writes them
behind the name: `router-r1:cost=0.8,rounds=2`. A knob is called by its name, or by a word that no
other knob's name has; what may mean one, and is none, is refused: a limit that is not read costs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, create_model

from ..chat.built import KNOBS
from ..context import RouterContext, knobs
from ..errors import ConfigError, did_you_mean
from .refused import RefusedError

MODEL = "router-r1"

_NEAR_WORD, _NEAR = 0.8, 0.85
"""From these similarities on, a word and a field are misspelt; below, they may be another's."""
_LONGEST = 40
"""No setting's name is nearly as long; a longer field is not compared."""
_OTHERS = ("candidate_count", "content", "contents", "context", "conversation", "memory", "speed")
"""Fields of other APIs that are, or are near, a knob's name or a word of it."""
_BESIDE = ("max", "limit", "ms", "dollars")
"""Words that a client may put beside a limit."""

if TYPE_CHECKING:

    class WithKnobs(BaseModel):
        """What the knobs of a request are to mypy."""

        router_r1: dict[str, Any] | None = None
else:  # one field for each knob, checked by `RouterContext`
    WithKnobs = create_model(
        "WithKnobs",
        __module__=__name__,
        router_r1=(
            dict[str, Any] | None,
            Field(None, description="Settings of the run, by name; fields of their own go first."),
        ),
        **{name: (Any, Field(None, description=knobs()[name][1].help)) for name in KNOBS},
    )


def _own(knob: str) -> list[str]:
    """Return the words that call a knob; none stands behind `per`: `round` may mean the rounds."""
    return knob.partition("_per_")[0].split("_")


def knob_called(name: str) -> str | None:
    """Return the knob of this name, or the only one whose name has this word."""
    found = [knob for knob in KNOBS if name in _own(knob)]
    return name if name in KNOBS else found[0] if len(found) == 1 else None


_SHORT = sorted({word for knob in KNOBS for word in knob.split("_") if knob_called(word)})


@lru_cache
def misspelt(field: str) -> list[str]:
    """Return what a client may have meant by an unknown field; [] = the field of another server.

    It is nearly a name, or has a word that alone calls a knob: not `max_tokens`.
    """
    words = _words(field)
    whole = "_".join(words)
    if whole in _OTHERS or len(field) > _LONGEST:
        return []
    if called := knob_called(whole):
        return [called]
    if any(_spelt(word, short) for word in words for short in _SHORT) and (found := _meant(words)):
        return found
    return [name for name in (*knobs(), "router_r1") if _spelt(whole, name, _NEAR)][:1]


def _words(name: str) -> list[str]:
    """Return the words of a name: of `max-rounds` and `maxRounds` the same."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|-", "_", name).lower().split("_")


def _meant(words: list[str]) -> list[str]:
    """Return the knobs whose names have all these words: misspelt, short, or in another order."""
    if "cost" in words and len(words) > 1 and {*words} <= {"cost", "usd", *_BESIDE}:
        return ["budget_usd"]  # no weight, but an amount
    found, telling = [], [word for word in words if word not in _BESIDE] or words
    for knob in KNOBS:
        ours = knob.split("_")
        right = [word for word in telling if any(_spelt(word, one) for one in ours)]
        rest = [word for word in telling if word not in right]
        if right and all(any(_short(word, one) for one in ours) for word in rest):
            found.append(knob)
    return [knob for knob in found if set(words) <= set(_own(knob))] or found


def _spelt(word: str, right: str, near: float = _NEAR_WORD) -> bool:
    """Return whether a word is another, or near it; few people mistype a first letter."""
    if len(word) < 4 or word[0] != right[0]:
        return word == right
    pair = SequenceMatcher(a=word, b=right)  # a body may have many fields: the quick ratios first
    return pair.real_quick_ratio() >= near and pair.quick_ratio() >= near and pair.ratio() >= near


def _short(word: str, whole: str) -> bool:
    """Return whether a word is short for another: some of its letters, with the first."""
    letters = iter(whole)
    return word[:1] == whole[0] and all(letter in letters for letter in word)


def or_meant(names: list[str]) -> str:
    """Return the question whether one of these names was meant."""
    return f" (did you mean {' or '.join(map(repr, names))}?)" if names else ""


def knobs_in_name(model: str) -> dict[str, Any]:
    """Return the knobs in a model's name, such as `router-r1:cost=0.8`.

    Raises:
        RefusedError: it is no name of the router, or the part after it is no knob.
    """
    name, _, rest = model.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair.strip()]
    if name != MODEL or not all(equals for _, equals, _ in pairs):
        raise RefusedError(
            404,
            f"there is no model {model[:100]!r} here; there is {MODEL!r}, also with settings, such "
            f"as '{MODEL}:cost=0.8,rounds=2'",
            param="model",
            code="model_not_found",
        )
    found = {}
    for word, _, value in pairs:
        knob = knob_called(word.strip())
        if knob is None:
            word = word.strip()[:50]
            near = or_meant(_meant(_words(word))) or did_you_mean(word, [*KNOBS, *_SHORT])
            why = f"no setting is called {word!r}{near}; settings: {', '.join(KNOBS)}"
            raise RefusedError(400, why, param="model")
        found[knob] = _value(value.strip())
    return found


def knobs_under_key(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs under `router_r1`; null is none.

    Raises:
        RefusedError: a key is no knob of a served run, or a knob is out of range.
    """
    given = {name: value for name, value in own.items() if value is not None}
    for name in given:
        if name not in KNOBS:
            why = f"{did_you_mean(name, KNOBS)}; allowed: {', '.join(KNOBS)}"
            if name in knobs():
                why = ": no person can approve a call here"
            raise RefusedError(400, f"unknown key {name!r:.100}{why}", param="router_r1")
    try:
        return RouterContext(**given).given
    except ConfigError as error:
        raise RefusedError(400, str(error), param="router_r1") from None


def _value(text: str) -> float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given knobs; null counts as not given.

    Raises:
        RefusedError: one is out of range; the error names it.
    """
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        try:
            RouterContext(**{name: value})
        except ConfigError as error:
            raise RefusedError(400, str(error), param=name) from None
    return given


def capped(given: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs of a request within the limits that the operator of the server has set.

    Args:
        given: the knobs of the request, each checked.
        limits: the operator's values; None = no limit. `Knob.cap` says what a value allows.
    """
    within = dict(given)
    for name in given.keys() & limits.keys():
        limit = limits[name]
        match knobs()[name][1].cap:
            case "at most" if isinstance(limit, int | float):
                within[name] = min(given[name], limit)
            case "at least":
                within[name] = max(given[name], limit)
            case "fixed":
                within[name] = limit
    return within
