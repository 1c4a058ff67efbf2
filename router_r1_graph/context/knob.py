"""A knob of a run, which pages and errors call a setting: its help, its range, and who named it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from inspect import signature
from typing import Any, Literal, TypeVar

from ..errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Knob:
    """The help text of a knob, and its allowed range.

    Attributes:
        help: one or two sentences, for `--help` and the docs.
        low: the least value of a number.
        high: the greatest value of a number, which always has one: so all can be added and stored.
        cap: the values that a server's operator, by setting one, allows clients: at most it, at
            least it, nothing else, or anything.
    """

    help: str
    low: float = 0
    high: float = 0
    cap: Literal["at most", "at least", "fixed", "free"] = "at most"

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Describe the knob to Studio and to clients of the LangGraph server."""
        schema: dict[str, Any] = handler(core_schema)
        for one in schema.get("anyOf", [schema]):
            if one.get("type") in ("integer", "number"):
                one |= {"minimum": self.low, "maximum": self.high}
        return {**schema, "description": self.help}

    def nearest(self, value: Any) -> Any:
        """Return the value in the range that is nearest to a number; anything else as it is."""
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            return value
        return type(value)(min(max(value, self.low), self.high))

    def check(self, name: str, kind: type, value: object) -> None:
        """Check the value of a knob of numbers.

        Args:
            name: the name of the knob.
            kind: int or float.
            value: what is given.

        Raises:
            ConfigError: it is of another type, or out of range; the message names the knob.
        """
        if (
            isinstance(value, bool)
            or not isinstance(value, int if kind is int else int | float)
            or not self.low <= value <= self.high
        ):
            what = "a whole number" if kind is int else "a number"
            limits = f"of at least {self.low} and at most {self.high}"
            raise ConfigError(f"{name} is {what} {limits}, not {value!r:.80}")


def require(says: str, value: object, allowed: tuple[str, ...]) -> None:
    """Check the value of a knob of words.

    Args:
        says: what it can be, for the error.
        value: what is given.
        allowed: the words.

    Raises:
        ConfigError: it is none of them.
    """
    if value not in allowed:
        raise ConfigError(f"{says}, not {value!r}{did_you_mean(str(value), allowed)}")


def in_range(given: Mapping[str, Any], knobs: Mapping[str, tuple[Any, Knob]]) -> dict[str, Any]:
    """Return settings that were written down, each number of these knobs within today's range."""
    return {
        name: knobs[name][1].nearest(value) if name in knobs else value
        for name, value in given.items()
    }


_Class = TypeVar("_Class", bound=type)


def knows_what_it_names(
    under_key: Callable[[object], dict[str, Any]],
) -> Callable[[_Class], _Class]:
    """Let a context remember which knobs its maker named; the others may be a graph's own.

    LangGraph makes a context of any dict that is passed to a graph with this schema. So a name that
    is no knob is explained, and under `router_r1` stands what a parent graph would be given too.

    Args:
        under_key: returns the knobs that stand under `router_r1`.
    """

    def decorated(cls: _Class) -> _Class:
        made = cls.__init__  # type: ignore[misc]

        @wraps(made)
        def init(self: Any, *args: Any, **given: Any) -> None:
            if "router_r1" in given:
                given = under_key(given["router_r1"])
            named = named_by(made, args, given)
            made(self, *args, **given)
            object.__setattr__(self, "_named", named)

        cls.__init__ = init  # type: ignore[misc]
        return cls

    return decorated


def named_by(init: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the arguments that a call of an `__init__` gives.

    Args:
        init: the `__init__` of a context.
        args: the arguments by place, without `self`.
        given: those by name.

    Raises:
        ConfigError: there is no such name.
    """
    known, any_name = _arguments(init)
    for name in () if any_name else given:
        if name not in known:
            near = did_you_mean(str(name), known)
            allowed = ", ".join(known)
            raise ConfigError(f"context: unknown key {name!r}{near}; allowed: {allowed}")
    return (*known[: len(args)], *given)


@lru_cache
def _arguments(init: Any) -> tuple[tuple[str, ...], bool]:
    """Return the names of the arguments of an `__init__`, and whether it takes any other name."""
    _, *arguments = signature(init).parameters.values()
    any_name = any(a.kind is a.VAR_KEYWORD for a in arguments)
    return tuple(
        a.name for a in arguments if a.kind not in (a.VAR_KEYWORD, a.VAR_POSITIONAL)
    ), any_name
