"""A knob of a run, which pages and errors call a setting: its help, and the range of its value."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Literal

from .errors import ConfigError

_MOST = sys.float_info.max
"""A whole number above it can be compared with a float, but not added to one."""


@dataclass(frozen=True)
class Knob:
    """The help text of a knob, and its allowed range.

    Attributes:
        help: one or two sentences, for `--help` and the docs.
        low: the least value.
        high: the greatest value. Infinity itself is never allowed.
        cap: the values that a server's operator, by setting one, allows clients: at most it, at
            least it, nothing else, or anything.
    """

    help: str
    low: float = 0
    high: float = math.inf
    cap: Literal["at most", "at least", "fixed", "free"] = "at most"

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Describe the knob to Studio and to clients of the LangGraph server."""
        schema: dict[str, Any] = handler(core_schema)
        limits = {"minimum": self.low, "maximum": self.high}
        for one in schema.get("anyOf", [schema]):
            if one.get("type") in ("integer", "number"):
                one |= {name: limit for name, limit in limits.items() if math.isfinite(limit)}
        return {**schema, "description": self.help}

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
            or value == math.inf
            or (kind is float and value > _MOST)
        ):
            what = "a whole number" if kind is int else "a number"
            top = "" if self.high == math.inf else f" and at most {self.high}"
            limits = f" of at least {self.low}{top}" if math.isfinite(self.low) else ""
            raise ConfigError(f"{name} is {what}{limits}, not {value!r}")
