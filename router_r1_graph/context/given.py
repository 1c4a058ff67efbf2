"""The one function that reads the knobs of a run, wherever a caller may give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .beside import say_unread
from .run_context import RouterContext, knobs_in

Knobs = RouterContext | Mapping[str, Any]
"""The settings of a run, as they are given: a `RouterContext`, or a dict of those to change."""
_DEFAULT = RouterContext()


def as_context(
    given: object, known: RouterContext = _DEFAULT, *, parents: bool = False
) -> RouterContext:
    """Return the knobs of a run: the given ones over those that are known.

    A `RouterContext` or a dict overrides the knobs that it names, and None overrides none. Under
    the key `router_r1`, a dict may hold the same settings as for a parent graph: then the rest of
    the dict is the parent's own.

    Args:
        given: the context that a caller gives, or that the runtime passes.
        known: the knobs that the run has already; at its start, the graph's defaults.
        parents: whether it is a parent graph's context: any dict or object with fields. Ours is
            only what stands there under the key or field `router_r1`.

    Raises:
        ConfigError: it is something else; or a key names no knob, or a knob is out of range.
    """
    if given is None:
        return known
    if isinstance(given, Mapping):
        if parents:
            if given.get("router_r1") is None:
                say_unread(given)
            given = {"router_r1": given.get("router_r1")}
    elif hasattr(given, "router_r1"):
        given = {"router_r1": given.router_r1}
    elif parents and not isinstance(given, RouterContext | str | bytes | int | float | Sequence):
        return known
    if not isinstance(given, RouterContext):
        if not (named := knobs_in(given)):
            return known
        given = RouterContext(**named)
    return given.over(known)
