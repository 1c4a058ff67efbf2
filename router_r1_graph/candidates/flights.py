"""Calls in progress in this process: identical calls are made once, and the others wait."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from .apart import running_loop
from .stored import StoredReply


@dataclass(eq=False)
class Flight:
    """A call in progress. Its future gives the reply, or None if there is no usable one."""

    ends_at: float
    """When it is over at the latest, by `time.monotonic`: an event loop may have stopped for
    good."""
    future: Future[StoredReply | None] = field(default_factory=Future)
    reply: StoredReply | None = None
    """The reply, as soon as it is there."""
    failed: bool = False
    """Whether the call failed, rather than being cancelled by all that wanted it."""
    loop: asyncio.AbstractEventLoop | None = None
    """The event loop that makes the call; None = a thread does."""

    @property
    def seconds_left(self) -> float:
        """The longest that it can take from now on."""
        if self.loop and self.loop.is_closed():
            return 0.0
        return max(0.0, self.ends_at - time.monotonic())


class Flights:
    """The calls under way, by key; for any number of threads and event loops."""

    def __init__(self) -> None:
        self._by_key: dict[str, Flight] = {}
        self._lock = threading.Lock()

    def join(self, key: str, seconds: float) -> tuple[Flight, bool]:
        """Return the flight of a call, and whether it is the caller's own: a new one.

        Args:
            key: of the call.
            seconds: the longest that a new one takes.
        """
        with self._lock:
            flight = self._by_key.get(key)
            if flight and flight.seconds_left and not flight.future.done():
                return flight, False
            flight = Flight(time.monotonic() + seconds, loop=running_loop())
            self._by_key[key] = flight
            return flight, True

    def land(self, key: str, flight: Flight) -> None:
        """End one's own flight; each waiting caller gets the reply, or makes the call."""
        with self._lock:
            if self._by_key.get(key) is flight:
                del self._by_key[key]
        flight.future.set_result(flight.reply)
