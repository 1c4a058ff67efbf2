"""The knobs of a request: fields of its body, or parts of its model's name, within limits.

They may stand together under `router_r1`. A client that can send no fields of its own writes them
behind the name: `router-r1:cost=0.8,rounds=2`. A knob is called by its name, or by a word that no
other knob's name has.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, create_model

from ..chat.built import KNOBS
from ..context import RouterContext, knobs
from ..errors import ConfigError, did_you_mean
from .refused import RefusedError

MODEL = "router-r1"

_NEAR = 0.82
"""From this similarity on, a field is a misspelt knob; below, it may be another server's field."""

_WORDS = sorted({word for knob in KNOBS for word in knob.split("_")})

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


def knob_called(name: str) -> str | None:
    """Return the knob of this name, or the only one whose name has this word."""
    found = [knob for knob in KNOBS if name in knob.split("_")]
    return name if name in KNOBS else found[0] if len(found) == 1 else None


def misspelt_knob(field: str) -> str | None:
    """Return the knob that a client must have meant by an unknown field."""
    return knob_called(field) or next(
        iter(difflib.get_close_matches(field, KNOBS, n=1, cutoff=_NEAR)), None
    )


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
            f"there is no model {model[:100]!r} here; there is {MODEL!r}, also with knobs, such as "
            f"'{MODEL}:cost=0.8,rounds=2'",
            param="model",
            code="model_not_found",
        )
    found = {}
    for word, _, value in pairs:
        knob = knob_called(word.strip())
        if knob is None:
            word = word.strip()[:50]
            near = did_you_mean(word, [*KNOBS, *filter(knob_called, _WORDS)])
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
