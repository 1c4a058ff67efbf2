"""The state of one endpoint, and its consequences for the next attempt: plain arithmetic.

The state is read, changed and written in one step by a store, so that threads, event loops,
processes and machines decide one after another. All moments are seconds since the epoch, 0 = never.

Rates use the generic cell rate algorithm (GCRA, of ATM networks). It keeps one moment, up to
which earlier requests use the rate up. A request waits until that moment is no more than a burst
away. Tokens
are counted when they are known, so that the next request pays for them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

from .settings import Resilience

_BURST_SECONDS = 5.0
"""The requests that a rate allows in this time may come at once."""
_LEASE_SECONDS = 5.0
"""An attempt's place is kept for this long beyond its time-out; then its process counts as dead."""
_SPARE = 1 / 16
"""The share of a limit that may look used for a moment, though it is free."""

Health = Literal["up", "down", "unknown"]
"""An attempt's outcome for its endpoint: it answers, it does not, or neither (429, cancelled)."""


@dataclass
class EndpointState:
    """The state of one endpoint."""

    requests_until: float = 0.0
    tokens_until: float = 0.0
    failures: int = 0
    """Attempts that failed one after another."""
    open_until: float = 0.0
    """When the breaker lets a probe through; 0 = it is closed."""
    probes: dict[str, float] = field(default_factory=dict)
    """Probes under way, and when each is over at the latest."""
    places: dict[str, float] = field(default_factory=dict)
    """Attempts under way, the same; kept only if their number is limited."""

    def dumps(self) -> str:
        """Return the state as a line of JSON."""
        return json.dumps(vars(self))

    @classmethod
    def loads(cls, text: str | bytes | None) -> EndpointState:
        """Read a state; an unreadable one counts as empty, since a limit must not fail a call."""
        try:
            return _STATE.validate_json(text or "{}")
        except ValueError:
            return cls()

    def breaker(self, now: float) -> Literal["closed", "open", "half_open"]:
        """Return the state of the circuit breaker."""
        if not self.open_until:
            return "closed"
        return "open" if now < self.open_until else "half_open"


_STATE = TypeAdapter(EndpointState)


@dataclass(frozen=True)
class Admittance:
    """The permission of an attempt, or the reason why it has to wait."""

    wait: float = 0.0
    """Seconds until it may begin; its turn is kept."""
    probe: bool = False
    """Whether it is a probe."""
    broken: float | None = None
    """The breaker refuses it: seconds until the next probe."""
    late: float | None = None
    """Its turn would come too late: the seconds that it would have to wait."""
    full: bool = False
    """All places are taken, by other processes."""

    @property
    def admitted(self) -> bool:
        """Whether the attempt may be made."""
        return self.broken is None and self.late is None and not self.full


def admit(
    state: EndpointState, settings: Resilience, now: float, attempt: str, left: float
) -> Admittance:
    """Take a place and a turn for an attempt, unless it may not begin within the seconds left."""
    seconds = settings.timeout_seconds + _LEASE_SECONDS
    probe = False
    if settings.breaker_failures and state.open_until:
        _forget(state.probes, now)
        if now < state.open_until:
            return Admittance(broken=state.open_until - now)
        if len(state.probes) >= settings.breaker_probes:
            return Admittance(broken=max(0.0, min(state.probes.values()) - now))
        probe = True
    if settings.max_concurrency:
        _forget(state.places, now)
        if len(state.places) >= settings.max_concurrency:
            return Admittance(full=True)
    wait, requests_until = 0.0, state.requests_until
    if settings.tokens_per_minute:
        wait = state.tokens_until - now - _BURST_SECONDS
    if settings.requests_per_minute:
        each = 60.0 / settings.requests_per_minute
        burst = max(_BURST_SECONDS, each) - each
        begins = max(state.requests_until, now)
        wait, requests_until = max(wait, begins - now - burst), begins + each
    if (wait := max(0.0, wait)) >= left:
        return Admittance(late=wait)
    state.requests_until = requests_until
    if settings.max_concurrency:
        state.places[attempt] = now + wait + seconds
    if probe:
        state.probes[attempt] = now + wait + seconds
    return Admittance(wait=wait, probe=probe)


def settle(
    state: EndpointState,
    settings: Resilience,
    now: float,
    attempt: str,
    outcome: Health,
    tokens: int = 0,
) -> None:
    """Give an attempt's place back, and count its outcome."""
    state.places.pop(attempt, None)
    if settings.tokens_per_minute and tokens > 0:
        each = 60.0 / settings.tokens_per_minute
        state.tokens_until = max(state.tokens_until, now) + tokens * each
    if not settings.breaker_failures:
        return
    probe = state.probes.pop(attempt, None) is not None
    if state.open_until and not probe:
        return  # it began before the breaker opened, and says nothing of now
    if outcome == "up":
        state.failures, state.open_until = 0, 0.0
        state.probes.clear()
    elif outcome == "down":
        state.failures += 1
        if probe or state.failures >= settings.breaker_failures:
            state.open_until = now + settings.breaker_seconds


def tell_at_once(
    state: EndpointState, settings: Resilience, now: float, outcome: Health, tokens: int
) -> bool:
    """Return whether others might decide differently if an attempt were settled a moment later.

    Args:
        state: as it was when it was last seen.
        settings: the limits.
        now: the time.
        outcome: of the attempt.
        tokens: that it used.
    """
    if outcome == "down" or state.failures or state.open_until:
        return True
    if settings.max_concurrency and len(state.places) > settings.max_concurrency * _SPARE:
        return True
    if not settings.tokens_per_minute:
        return False
    until = max(state.tokens_until, now) + tokens * 60.0 / settings.tokens_per_minute
    return until - now > _BURST_SECONDS * _SPARE


def give_back(state: EndpointState, settings: Resilience) -> None:
    """Give the turn of a request back that was never sent."""
    if settings.requests_per_minute:
        state.requests_until -= 60.0 / settings.requests_per_minute


def _forget(leases: dict[str, float], now: float) -> None:
    for attempt in [a for a, until in leases.items() if until < now]:
        del leases[attempt]
