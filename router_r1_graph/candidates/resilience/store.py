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
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from ..steps import Await
from .endpoint_state import EndpointState

logger = logging.getLogger(__name__)
T = TypeVar("T")
Change = Callable[[EndpointState], T]
"""Changes a state in place, and returns the result for the caller."""

PATIENCE_SECONDS = 2.0
"""Seconds that a store may take for one step."""
_PAUSE_SECONDS = 5.0
"""Seconds for which a store that failed is not used."""


class Store(ABC):
    """States by key, for any number of threads and event loops."""

    @abstractmethod
    def update(self, key: str, change: Change[T]) -> Generator[Await, Any, T]:
        """Change a state alone; the caller has to wait for the steps."""

    @abstractmethod
    def post(self, key: str, change: Change[Any]) -> None:
        """Change a state, and do not wait until it is done."""

    @abstractmethod
    def read(self, key: str) -> EndpointState:
        """Return a state, for people to look at; this may take a while."""


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

    def post(self, key: str, change: Change[Any]) -> None:
        """Change a state at once."""
        self.change(key, change)

    def read(self, key: str) -> EndpointState:
        """Return a copy of a state."""
        return self.change(key, copy.deepcopy)


class SharedStore(Store):
    """States that several processes share; if the store fails, memory replaces it.

    Args:
        where: the store's name in warnings.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._memory = MemoryStore()
        self._thread = ThreadPoolExecutor(1, "router-r1-limits")
        self._failed_at = -_PAUSE_SECONDS
        self._warned = False
        self._queued = 0
        self._counting = threading.Lock()

    @abstractmethod
    def _now_or_later(self, key: str, change: Change[T]) -> T:
        """Change a state at once, or raise `LaterError` if that may take longer."""

    @abstractmethod
    def _change(self, key: str, change: Change[T]) -> T:
        """Change a state, in the store's thread."""

    def update(self, key: str, change: Change[T]) -> Generator[Await, Any, T]:
        """Change a state; if the store fails, use this process's own memory."""
        self._after_fork()
        if time.monotonic() < self._failed_at + _PAUSE_SECONDS:
            return self._memory.change(key, change)
        try:
            return self._now_or_later(key, change)
        except LaterError:
            future = self._submit(key, change)
        except Exception as error:  # any error of a client: it must not fail a call
            return self._instead(key, change, error)
        done = yield Await(future, 2 * PATIENCE_SECONDS)
        return done[0] if done else self._memory.change(key, change)

    def post(self, key: str, change: Change[Any]) -> None:
        """Change a state, at once or in the store's thread."""
        self._after_fork()
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
        try:
            return self._thread.submit(self._change, key, copy.deepcopy).result()
        except Exception as error:
            raise OSError(f"{self.where}: {type(error).__name__}: {error}") from None

    def _submit(self, key: str, change: Change[T]) -> Future[tuple[T]]:
        with self._counting:
            self._queued += 1
        future: Future[tuple[T]] = Future()
        try:
            future = self._thread.submit(self._safely, key, change)
        except RuntimeError:  # the interpreter ends
            future.set_result(self._safely(key, change))
        future.add_done_callback(self._one_less)
        return future

    def _one_less(self, _: Future[Any]) -> None:
        with self._counting:
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


class LaterError(Exception):
    """It may take longer than an event loop can wait."""
