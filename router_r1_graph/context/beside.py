"""What stands beside the key `router_r1` in a parent's context, though it looks like ours."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

logger = logging.getLogger(__name__)

_LIMITS = ("budget_usd", "deadline_seconds")
"""The settings that bound what a run costs."""
_said: set[str] = set()


def say_unread(context: Mapping[str, Any]) -> None:
    """Log, once in a process, each limit beside the key, and a key that is nearly `router_r1`.

    They may be the parent's own, so they are no error. A field of an object is declared by the
    parent, and nothing is said of it.

    Args:
        context: the context of a parent graph or an agent, which has no `router_r1`.
    """
    for name, value in context.items():
        if name in _said or value is None:
            continue
        if name in _LIMITS:
            ours = f'{{"{name}": {value!r}}}'
        elif isinstance(value, Mapping) and get_close_matches(
            str(name).casefold(), ["router_r1"], cutoff=0.82
        ):
            ours = "{...}"
        else:
            continue
        _said.add(name)
        logger.warning(
            "the context of a run has the key %r, which the router does not read: settings for the "
            'router are given as context={"router_r1": %s}',
            name,
            ours,
        )
