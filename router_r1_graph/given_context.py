"""The knobs that the runtime passes to a run; they override those that the run has already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from .context import RouterContext, knobs
from .errors import ConfigError, did_you_mean


class GivenContext(RouterContext):
    """A dict of knobs as LangGraph reads it: they override the knobs that the run has already.

    LangGraph makes one of a dict that is passed as `context=` to the router itself. A dict that is
    passed to a parent graph stays a dict, and the router reads only its key `router_r1`.

    Raises:
        ConfigError: a key names no knob, or a knob is out of range.
    """

    def __init__(self, **given: Any) -> None:
        if isinstance(own := given.get("router_r1"), Mapping):
            given = dict(own)  # a context that a parent graph would take too
        elif isinstance(own, RouterContext):
            given = own.to_state()
        for name in given:
            if name not in knobs():
                raise ConfigError(
                    f"context: unknown key {name!r}{did_you_mean(str(name), knobs())}; allowed: "
                    + ", ".join(knobs())
                )
        super().__init__(**given)
        object.__setattr__(self, "_given", dict(given))

    @property
    def given(self) -> Mapping[str, Any]:
        """The knobs that the dict names."""
        return cast("Mapping[str, Any]", self.__dict__["_given"])


def resolve_context(context: object, known: RouterContext) -> RouterContext:
    """Return the knobs of a run from what the runtime passes.

    A `RouterContext` is taken as it is. A dict of knobs overrides the known ones. LangGraph passes
    None on a bare invoke. Inside a parent graph it passes the parent's context. The router
    reads only its key or field `router_r1`: a `RouterContext` or a dict.

    Args:
        context: the context that the runtime passes.
        known: the knobs that the run has already; at its start, the graph's defaults.

    Raises:
        ConfigError: a dict of knobs has an unknown key, or a knob is out of range.
    """
    if isinstance(context, GivenContext):
        return replace(known, **context.given)
    if isinstance(context, RouterContext):
        return context
    if context is None:
        return known
    if isinstance(context, Mapping):
        own = context.get("router_r1")
    else:
        own = getattr(context, "router_r1", None)
    if own is None or isinstance(own, RouterContext):
        return resolve_context(own, known)
    if isinstance(own, Mapping):
        return resolve_context(GivenContext(**cast("Mapping[str, Any]", own)), known)
    raise ConfigError(
        f"context: router_r1 is a RouterContext or a dict of knobs, not {type(own).__name__}"
    )
