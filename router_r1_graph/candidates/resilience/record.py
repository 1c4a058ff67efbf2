"""The state of one endpoint, and its consequences for the next attempt: plain arithmetic.

The record is read, changed and written in one step by a store, so that threads, event loops,
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

Outcome = Literal["up", "down", "unknown"]
"""An attempt's outcome for its endpoint: it answers, it does not, or neither (429, cancelled)."""


@dataclass
class Record:
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
        """Return the record as a line of JSON."""
        return json.dumps(vars(self))

    @classmethod
    def loads(cls, text: str | bytes | None) -> Record:
        """Read a record; an unreadable one counts as empty, since a limit must not fail a call."""
        try:
            return _RECORD.validate_json(text or "{}")
        except ValueError:
            return cls()

    def breaker(self, now: float) -> Literal["closed", "open", "half_open"]:
        """Return the state of the circuit breaker."""
        if not self.open_until:
            return "closed"
        return "open" if now < self.open_until else "half_open"


_RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class Verdict:
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


def admit(record: Record, settings: Resilience, now: float, attempt: str, left: float) -> Verdict:
    """Take a place and a turn for an attempt, unless it may not begin within the seconds left."""
    seconds = settings.timeout_seconds + _LEASE_SECONDS
    probe = False
    if settings.breaker_failures and record.open_until:
        _forget(record.probes, now)
        if now < record.open_until:
            return Verdict(broken=record.open_until - now)
        if len(record.probes) >= settings.breaker_probes:
            return Verdict(broken=max(0.0, min(record.probes.values()) - now))
        probe = True
    if settings.max_concurrency:
        _forget(record.places, now)
        if len(record.places) >= settings.max_concurrency:
            return Verdict(full=True)
    wait, requests_until = 0.0, record.requests_until
    if settings.tokens_per_minute:
        wait = record.tokens_until - now - _BURST_SECONDS
    if settings.requests_per_minute:
        each = 60.0 / settings.requests_per_minute
        burst = max(_BURST_SECONDS, each) - each
        begins = max(record.requests_until, now)
        wait, requests_until = max(wait, begins - now - burst), begins + each
    if (wait := max(0.0, wait)) >= left:
        return Verdict(late=wait)
    record.requests_until = requests_until
    if settings.max_concurrency:
        record.places[attempt] = now + wait + seconds
    if probe:
        record.probes[attempt] = now + wait + seconds
    return Verdict(wait=wait, probe=probe)


def settle(
    record: Record,
    settings: Resilience,
    now: float,
    attempt: str,
    outcome: Outcome,
    tokens: int = 0,
) -> None:
    """Give an attempt's place back, and count its outcome."""
    record.places.pop(attempt, None)
    if settings.tokens_per_minute and tokens > 0:
        each = 60.0 / settings.tokens_per_minute
        record.tokens_until = max(record.tokens_until, now) + tokens * each
    if not settings.breaker_failures:
        return
    probe = record.probes.pop(attempt, None) is not None
    if record.open_until and not probe:
        return  # it began before the breaker opened, and says nothing of now
    if outcome == "up":
        record.failures, record.open_until = 0, 0.0
        record.probes.clear()
    elif outcome == "down":
        record.failures += 1
        if probe or record.failures >= settings.breaker_failures:
            record.open_until = now + settings.breaker_seconds


def give_back(record: Record, settings: Resilience) -> None:
    """Give the turn of a request back that was never sent."""
    if settings.requests_per_minute:
        record.requests_until -= 60.0 / settings.requests_per_minute


def _forget(leases: dict[str, float], now: float) -> None:
    for attempt in [a for a, until in leases.items() if until < now]:
        del leases[attempt]
