"""A store of the states of endpoints: it changes one of them in one step.

A store that fails stops no call: a warning is logged once, and for some seconds this process uses
its own memory. No store blocks an event loop: slow work happens in the store's thread.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..steps import Await
from .endpoint_state import EndpointState

logger = logging.getLogger(__name__)
T = TypeVar("T")
Change = Callable[[EndpointState], T]
"""Changes a state in place, and returns the result for the caller."""

PATIENCE_SECONDS = 2.0
"""Seconds that a store may take for one step."""
HOLD_SECONDS = 0.25
"""The longest time for which a change is held back."""
_MOST_HELD = 16
"""Changes of one state that are held back at once."""
_PAUSE_SECONDS = 5.0
"""Seconds for which a store that failed is not used."""


class Store(ABC):
    """States by key, for any number of threads and event loops."""

    @abstractmethod
    def update(self, key: str, change: Change[T]) -> Generator[Await, Any, T]:
        """Change a state alone; the caller has to wait for the steps."""

    @abstractmethod
    def post(self, key: str, change: Change[Any], *, urgent: bool = True) -> None:
        """Change a state, and do not wait until it is done.

        Args:
            key: of the state.
            change: of the state.
            urgent: whether others may be waiting for it; else it may be made `HOLD_SECONDS` later.
        """

    @abstractmethod
    def read(self, key: str) -> EndpointState:
        """Return a state, for people to look at; this may take a while."""

    @abstractmethod
    def flush(self) -> None:
        """Make all changes now that are held back; this may take a while."""


class MemoryStore(Store):
    """States of this process."""

    def __init__(self) -> None:
        self._states: dict[str, EndpointState] = {}
        self._lock = threading.Lock()

    def change(self, key: str, change: Change[T]) -> T:
        """Change a state."""
        with self._lock:
            state = self._states.get(key)
            if state is None:
                state = self._states[key] = EndpointState()
            return change(state)

    def update(self, key: str, change: Change[T]) -> Generator[Await, Any, T]:
        """Change a state at once."""
        yield from ()  # nothing to wait for
        return self.change(key, change)

    def post(self, key: str, change: Change[Any], *, urgent: bool = True) -> None:
        """Change a state at once."""
        self.change(key, change)

    def read(self, key: str) -> EndpointState:
        """Return a copy of a state."""
        return self.change(key, copy.deepcopy)

    def flush(self) -> None:
        """Do nothing: no change is held back."""


@dataclass
class Held:
    """Changes of one state that are held back, from the first to the last."""

    changes: list[Change[Any]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def then(self, last: Change[T]) -> Change[T]:
        """Return them and another one as a single change, with the result of the last."""

        def change(state: EndpointState) -> T:
            for one in self.changes:
                one(state)
            return last(state)

        return change


def _nothing(_: EndpointState) -> None:
    pass


class SharedStore(Store):
    """States that several processes share; if the store fails, memory replaces it.

    Args:
        where: the store's name in warnings.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._pid = 0
        self._after_fork()

    def _start(self) -> None:
        self._memory = MemoryStore()
        self._thread = ThreadPoolExecutor(1, "router-r1-limits")
        self._failed_at = -_PAUSE_SECONDS
        self._warned = False
        self._lock = threading.Lock()
        self._queued = 0
        self._held: dict[str, Held] = {}
        # States whose held changes no step took along in time, and when the last one was settled:
        # a thread that wakes up for a change costs more than a step.
        self._alone: dict[str, float] = {}
        self._timed = False

    @abstractmethod
    def _now_or_later(self, key: str, change: Change[T]) -> T:
        """Change a state at once, or raise `LaterError` if that may take longer."""

    @abstractmethod
    def _change(self, key: str, change: Change[T]) -> T:
        """Change a state, in the store's thread."""

    def update(self, key: str, change: Change[T]) -> Generator[Await, Any, T]:
        """Change a state; if the store fails, use this process's own memory."""
        self._after_fork()
        if time.monotonic() < self._alone.get(key, -HOLD_SECONDS) + HOLD_SECONDS:
            self._alone.pop(key, None)
        together = self._with_held(key, change)
        if time.monotonic() < self._failed_at + _PAUSE_SECONDS:
            return self._memory.change(key, together)
        try:
            return self._now_or_later(key, together)
        except LaterError:
            future = self._submit(key, together)
        except Exception as error:  # any error of a client: it must not fail a call
            return self._instead(key, together, error)
        done = yield Await(future, 2 * PATIENCE_SECONDS)
        return done[0] if done else self._memory.change(key, change)

    def post(self, key: str, change: Change[Any], *, urgent: bool = True) -> None:
        """Change a state: at once, in the store's thread, or together with its next change."""
        self._after_fork()
        if not urgent and self._hold(key, change):
            return
        change = self._with_held(key, change)
        try:
            if self._queued:  # it may take back what is still to be done
                raise LaterError
            self._now_or_later(key, change)
        except Exception:
            self._submit(key, change)

    def read(self, key: str) -> EndpointState:
        """Return a state.

        Raises:
            OSError: the store cannot be reached.
        """
        self._after_fork()
        if key in self._held:
            self._submit(key, self._with_held(key, _nothing))
        try:
            return self._thread.submit(self._change, key, copy.deepcopy).result()
        except Exception as error:
            raise OSError(f"{self.where}: {type(error).__name__}: {error}") from None

    def _hold(self, key: str, change: Change[Any]) -> bool:
        """Keep a change for the next step of its state, whose time hardly depends on its changes.

        Returns:
            Whether it is kept; it is not if it may take back what is still to be done, if the next
            step is not likely to come in time, or if nothing would make it then.
        """
        with self._lock:
            if key in self._alone:
                self._alone[key] = time.monotonic()
                return False
            if self._queued or not threading.main_thread().is_alive():
                return False
            if not self._timed:
                try:
                    threading.Thread(target=self._release, name="router-r1-limits-held").start()
                except RuntimeError:  # the system has no more threads
                    return False
                self._timed = True
            changes = self._held.setdefault(key, Held()).changes
            if len(changes) >= _MOST_HELD:
                return False
            changes.append(change)
            return True

    def _release(self) -> None:
        """Make the changes that no other step has taken along, in time or when the program ends."""
        main = threading.main_thread()
        while True:
            with self._lock:
                if not self._held:
                    self._timed = False
                    return
                key, oldest = next(iter(self._held.items()))
            left = oldest.since + HOLD_SECONDS - time.monotonic()
            if left > 0 and main.is_alive():
                main.join(left)
            elif self._held.get(key) is oldest:
                self._alone[key] = oldest.since
                self._submit(key, self._with_held(key, _nothing))

    def _with_held(self, key: str, change: Change[T]) -> Change[T]:
        if key not in self._held:
            return change
        with self._lock:
            held = self._held.pop(key, None)
        return held.then(change) if held else change

    def flush(self) -> None:
        """Make all changes now that are held back."""
        self._after_fork()
        futures = [self._submit(key, self._with_held(key, _nothing)) for key in list(self._held)]
        wait(futures, 2 * PATIENCE_SECONDS)

    def _submit(self, key: str, change: Change[T]) -> Future[tuple[T]]:
        with self._lock:
            self._queued += 1
        future: Future[tuple[T]] = Future()
        try:
            future = self._thread.submit(self._safely, key, change)
        except RuntimeError:  # the interpreter ends
            future.set_result(self._safely(key, change))
        future.add_done_callback(self._one_less)
        return future

    def _one_less(self, _: Future[Any]) -> None:
        with self._lock:
            self._queued -= 1

    def _safely(self, key: str, change: Change[T]) -> tuple[T]:
        try:
            if time.monotonic() < self._failed_at + _PAUSE_SECONDS:
                return (self._memory.change(key, change),)
            return (self._change(key, change),)
        except Exception as error:
            return (self._instead(key, change, error),)

    def _instead(self, key: str, change: Change[T], error: Exception) -> T:
        self._failed_at = time.monotonic()
        if not self._warned:
            self._warned = True
            why = f"{type(error).__name__}: {error}"
            logger.warning("%s: limits are not shared: %s", self.where, why)
        return self._memory.change(key, change)

    def _after_fork(self) -> None:
        """Begin anew in a process that was forked: threads and connections stayed behind."""
        if self._pid != os.getpid():
            self._start()
            self._pid = os.getpid()


class LaterError(Exception):
    """It may take longer than an event loop can wait."""
