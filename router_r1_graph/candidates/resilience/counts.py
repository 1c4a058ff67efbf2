"""Counts of the layer's events in this process, by candidate, for /metrics and `pool check`."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal

Event = Literal["retries", "hedges", "probes", "fallbacks", "refused_by_breaker", "wait_seconds"]
_counts: Counter[tuple[str, Event]] = Counter()
_lock = threading.Lock()


def count(who: str, event: Event, amount: float = 1) -> None:
    """Count an event of a candidate."""
    with _lock:
        _counts[who, event] += amount  # type: ignore[assignment] # seconds are no whole number


def counted(who: str, event: Event) -> float:
    """Return how often something happened to a candidate since the process began."""
    return _counts[who, event]
