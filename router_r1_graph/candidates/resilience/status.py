"""The status of an endpoint: for people and for monitoring."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from ..settings import ModelSettings
from .endpoint import endpoint_of


@dataclass(frozen=True)
class Status:
    """The limits on calls to an endpoint now, in all processes that share its store."""

    breaker: Literal["closed", "open", "half_open"] = "closed"
    open_seconds: float = 0.0
    """Seconds until the breaker lets a probe through."""
    under_way: int = 0
    """Attempts that hold a place; counted only where places are limited."""
    waiting: int = 0
    """Calls of this process that wait for a place."""
    wait_seconds: float = 0.0
    """Seconds by which requests and tokens a minute are used up: 5 s of them may come at once."""

    def describe(self, settings: ModelSettings) -> str:
        """Return it in words; "" = nothing limits the candidate."""
        parts = []
        if settings.breaker_failures:
            opened = f" for {self.open_seconds:.0f} s" if self.breaker == "open" else ""
            parts.append(f"breaker {self.breaker.replace('_', '-')}{opened}")
        if settings.max_concurrency:
            parts.append(f"{self.under_way} of {settings.max_concurrency} places taken")
        if settings.requests_per_minute or settings.tokens_per_minute:
            parts.append(f"rate used up for {self.wait_seconds:.1f} s")
        return ", ".join(parts)


def status_of(settings: ModelSettings) -> Status:
    """Return the status of a candidate's or controller's endpoint. This may take a while.

    Raises:
        ConfigError: its store cannot be used.
        OSError: its store cannot be reached.
    """
    endpoint = endpoint_of(settings)
    if endpoint is None:
        return Status()
    state, now = endpoint.store.read(endpoint.key), time.time()
    return Status(
        breaker=state.breaker(now) if settings.breaker_failures else "closed",
        open_seconds=max(0.0, state.open_until - now),
        under_way=sum(until >= now for until in state.places.values()),
        waiting=endpoint.gate.waiting if endpoint.gate else 0,
        wait_seconds=max(0.0, state.requests_until - now, state.tokens_until - now),
    )
