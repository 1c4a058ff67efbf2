"""The endpoint of a candidate: admits attempts, and counts their outcomes."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

from ..error_kinds import ErrorKind
from ..failures import ReplyError
from ..settings import ModelSettings
from ..steps import Await, Wait
from .counts import count
from .endpoint_state import (
    Admittance,
    EndpointState,
    Health,
    admit,
    give_back,
    settle,
    tell_at_once,
)
from .gate import Gate
from .settings import Resilience
from .store import Store
from .stores import open_store

_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.02, 0.25
"""Seconds between two tries to get a place that another process holds."""
_DOWN: frozenset[ErrorKind] = frozenset({"server_error", "timeout", "connection"})

Pauses = Generator[Await | Wait, Any, "Permit | ReplyError"]


@dataclass
class Permit:
    """Permission for one attempt; it is settled when the attempt is over, with any outcome."""

    endpoint: Endpoint | None
    """None = nothing limits the candidate."""
    id: str = ""
    waited: float = 0.0
    """Seconds that it waited for its limits."""

    def settle(self, outcome: Health, tokens: int = 0) -> None:
        """Give the place back, and count the attempt's outcome for the endpoint."""
        if self.endpoint:
            self.endpoint.settle(self.id, outcome, tokens)
            self.endpoint = None


FREE = Permit(None)


@dataclass(eq=False)
class Endpoint:
    """The shared state of all calls to one model of one endpoint with one key."""

    settings: ModelSettings
    key: str
    store: Store
    gate: Gate | None
    known: EndpointState = field(default_factory=EndpointState)
    """As it was when this process last saw it."""

    def enter(self, who: str, left: float) -> Pauses:
        """Wait for leave to make an attempt, for at most the seconds left.

        Returns:
            The permit, or why there is none.
        """
        start = time.monotonic()
        if self._sure_to_be_open():  # before it queues up behind calls that hang
            return _broken(who, self.known.open_until - time.time())
        if self.gate and (turn := self.gate.enter()):
            given = False
            try:
                given = yield Await(turn, None if left == float("inf") else left)
            finally:
                if not given:
                    self.gate.give_up(turn)
            if not given:
                return _late(f"all {self.settings.max_concurrency} places were taken")
        entered = False
        try:
            permit = yield from self._admitted(who, start, left)
            entered = isinstance(permit, Permit)
            return permit
        finally:
            if self.gate and not entered:
                self.gate.leave()

    def enter_at_once(self) -> Pauses:
        """Return a permit for an attempt that neither waits nor probes, or why there is none."""
        if self._sure_to_be_open() or (self.gate and not self.gate.enter_at_once()):
            return ReplyError("rate_limited", "no place is free")
        entered = False
        id_ = _new_id()
        try:
            verdict = yield from self._ask(id_, 1e-9)
            entered = verdict.admitted and not verdict.probe
            if verdict.probe:
                self.store.post(self.key, partial(_undo, self.settings, id_))
            return Permit(self, id_) if entered else ReplyError("rate_limited", "no place is free")
        finally:
            if self.gate and not entered:
                self.gate.leave()

    def settle(self, id_: str, outcome: Health, tokens: int) -> None:
        """Settle a permit."""
        if self.gate:
            self.gate.leave()
        settings = self.settings
        if settings.max_concurrency or settings.breaker_failures or settings.tokens_per_minute:
            now = time.time()

            def change(state: EndpointState) -> None:
                settle(state, settings, now, id_, outcome, tokens)
                self.known = state

            urgent = tell_at_once(self.known, settings, now, outcome, tokens)
            self.store.post(self.key, change, urgent=urgent)

    def _admitted(self, who: str, start: float, left: float) -> Pauses:
        id_, look = _new_id(), _LOOK_SECONDS
        while True:
            now_left = left - (time.monotonic() - start)
            verdict = yield from self._ask(id_, now_left)
            if verdict.broken is not None:
                return _broken(who, verdict.broken)
            if verdict.late is not None:
                return _late(f"{verdict.late:.1f} s to wait")
            if not verdict.full:
                break
            if look >= now_left:
                return _late(f"all {self.settings.max_concurrency} places were taken")
            yield Wait(look)
            look = min(1.5 * look, _LONGEST_LOOK_SECONDS)
        if verdict.wait:
            begun = False
            try:
                yield Wait(verdict.wait)
                begun = True
            finally:
                if not begun:
                    self.store.post(self.key, partial(_undo, self.settings, id_))
        if verdict.probe:
            count(who, "probes")
        waited = time.monotonic() - start
        return Permit(self, id_, waited if waited > 0.001 else 0.0)

    def _ask(self, id_: str, left: float) -> Generator[Await | Wait, Any, Admittance]:
        said: list[Admittance] = []

        def change(state: EndpointState) -> Admittance:
            said[:] = [admit(state, self.settings, time.time(), id_, left)]
            self.known = state
            return said[0]

        def undo(state: EndpointState) -> None:
            if said and said[0].admitted:
                _undo(self.settings, id_, state)

        answered = False
        try:
            verdict = yield from self.store.update(self.key, change)
            answered = True
            return verdict
        finally:
            if not answered:  # the call is cancelled while the store may be admitting it
                self.store.post(self.key, undo)

    def _sure_to_be_open(self) -> bool:
        return bool(
            self.settings.breaker_failures
            and self.known.open_until
            and time.time() < self.known.open_until
        )


_MACHINE = uuid.uuid4().hex[:8]
_numbers = itertools.count()


def _new_id() -> str:
    """Return the id of an attempt, unique among all processes and machines."""
    return f"{_MACHINE}.{os.getpid()}.{next(_numbers)}"


def _undo(settings: ModelSettings, id_: str, state: EndpointState) -> None:
    """Take an admission back whose request was never sent."""
    settle(state, settings, time.time(), id_, "unknown")
    give_back(state, settings)


def _late(why: str) -> ReplyError:
    return ReplyError("rate_limited", f"its own limit: {why}")


def _broken(who: str, seconds: float) -> ReplyError:
    count(who, "refused_by_breaker")
    return ReplyError(
        "circuit_open",
        f"it failed again and again, and is left alone for another {max(0.0, seconds):.0f} s "
        "(circuit breaker)",
    )


def outcome_of(error: ReplyError | None, *, whole_time: bool) -> Health:
    """Return the outcome of an attempt for its endpoint.

    Args:
        error: of the attempt; None = it succeeded.
        whole_time: whether it had all of its time-out; a deadline may have cut it short.
    """
    if error is None or error.kind not in (*_DOWN, "rate_limited"):
        return "up"  # it answers, even if it refuses
    if error.kind == "rate_limited" or (error.kind == "timeout" and not whole_time):
        return "unknown"
    return "down"


def endpoint_of(settings: ModelSettings) -> Endpoint | None:
    """Return the endpoint of a candidate or a controller; None = nothing limits it.

    Raises:
        ConfigError: its store cannot be used.
    """
    if not settings.limited:
        return None
    model = settings.model or getattr(settings, "name", "")
    of = f"{settings.provider}\n{settings.base_url}\n{settings.key_variable}\n{model}"
    known = (of, settings.limits_store, _limits(settings))
    endpoint = _endpoints.get(known)
    if endpoint is None:
        key = hashlib.sha256(of.encode()).hexdigest()[:32]  # no address stands in a store
        gate = Gate(settings.max_concurrency) if settings.max_concurrency else None
        made = Endpoint(settings, key, open_store(settings.limits_store), gate)
        endpoint = _endpoints.setdefault(known, made)
    return endpoint


_limits = attrgetter(
    *sorted(set(Resilience.model_fields) - {"limits_store", "max_retries", "retry_on"})
)
_endpoints: dict[tuple[object, ...], Endpoint] = {}
