"""A store of what is known of endpoints: it changes one record in one step.

A store that fails stops no call: a warning says so once, and for some seconds this process goes by
its own memory. No store blocks an event loop: what may take longer happens in the store's thread.
"""

from __future__ import annotations

import atexit
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
from .record import Record

logger = logging.getLogger(__name__)
T = TypeVar("T")
Change = Callable[[Record], T]
"""Changes a record in place, and returns what is to be known of it."""

PATIENCE_SECONDS = 2.0
"""So long a store may take for one step."""
_POST_SECONDS = 0.02
"""So long what is posted may wait for an update that it can be made with: half the transactions."""
_PAUSE_SECONDS = 5.0
"""So long a store that failed is left alone."""


class Store(ABC):
    """Records by key, for any number of threads and event loops."""

    @abstractmethod
    def update(self, key: str, change: Change[T]) -> Generator[Await, Any, T]:
        """Change a record while nobody else does; the steps are to be waited for."""

    @abstractmethod
    def post(self, key: str, change: Change[Any]) -> None:
        """Change a record, and do not wait until it is done."""

    @abstractmethod
    def read(self, key: str) -> Record:
        """Return a record, for people to look at; this may take a while."""


class MemoryStore(Store):
    """Records of this process."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._lock = threading.Lock()

    def change(self, key: str, change: Change[T]) -> T:
        """Change a record."""
        with self._lock:
            record = self._records.get(key)
            if record is None:
                record = self._records[key] = Record()
            return change(record)

    def update(self, key: str, change: Change[T]) -> Generator[Await, Any, T]:
        """Change a record at once."""
        yield from ()  # nothing to wait for
        return self.change(key, change)

    def post(self, key: str, change: Change[Any]) -> None:
        """Change a record at once."""
        self.change(key, change)

    def read(self, key: str) -> Record:
        """Return a copy of a record."""
        return self.change(key, copy.deepcopy)


class SharedStore(Store):
    """Records that several processes share; in the place of a store that fails, memory.

    Args:
        where: the store's name in warnings.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._start()
        atexit.register(self._flush)

    def _start(self) -> None:
        self._pid = os.getpid()
        self._memory = MemoryStore()
        self._thread = ThreadPoolExecutor(1, "router-r1-limits")
        self._failed_at = -_PAUSE_SECONDS
        self._warned = False
        self._queued = 0
        self._posted: dict[str, list[Change[Any]]] = {}
        self._lock_posted = threading.RLock()
        self._something_posted = threading.Event()
        self._flusher: threading.Thread | None = None

    @abstractmethod
    def _now_or_later(self, key: str, change: Change[T]) -> T:
        """Change a record at once, or raise `LaterError` where that may take longer."""

    @abstractmethod
    def _change(self, key: str, change: Change[T]) -> T:
        """Change a record, in the store's thread."""

    def update(self, key: str, change: Change[T]) -> Generator[Await, Any, T]:
        """Change a record; go by this process's own memory where the store fails."""
        self._after_fork()
        change = self._with_posted(key, change)
        if time.monotonic() < self._failed_at + _PAUSE_SECONDS:
            return self._memory.change(key, change)
        try:
            if self._queued:  # one after another: a later change may take an earlier one back
                raise LaterError
            return self._now_or_later(key, change)
        except LaterError:
            future = self._submit(key, change)
        except Exception as error:  # whatever a client raises: it is no reason for a call to fail
            return self._instead(key, change, error)
        done = yield Await(future, 2 * PATIENCE_SECONDS)
        return done[0] if done else self._memory.change(key, change)

    def post(self, key: str, change: Change[Any]) -> None:
        """Change a record together with the next update of it, or within some milliseconds."""
        self._after_fork()
        with self._lock_posted:
            self._posted.setdefault(key, []).append(change)
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_again_and_again, daemon=True)
                self._flusher.start()
        self._something_posted.set()

    def read(self, key: str) -> Record:
        """Return a record.

        Raises:
            OSError: the store cannot be reached.
        """
        self._after_fork()
        try:
            with self._lock_posted:
                look: Change[Record] = self._with_posted(key, copy.deepcopy)
                future = self._thread.submit(self._change, key, look)
            return future.result()
        except Exception as error:
            raise OSError(f"{self.where}: {type(error).__name__}: {error}") from None

    def _submit(self, key: str, change: Change[T]) -> Future[tuple[T]]:
        with self._lock_posted:
            self._queued += 1
        future: Future[tuple[T]] = Future()
        try:
            future = self._thread.submit(self._safely, key, change)
        except RuntimeError:  # the interpreter ends
            future.set_result(self._safely(key, change))
        future.add_done_callback(self._one_less)
        return future

    def _one_less(self, _: Future[Any]) -> None:
        with self._lock_posted:
            self._queued -= 1

    def _with_posted(self, key: str, change: Change[T]) -> Change[T]:
        """Return a change that first makes those that were posted."""
        with self._lock_posted:
            posted = self._posted.pop(key, [])
        if not posted:
            return change

        def change_all(record: Record) -> T:
            for one in posted:
                one(record)
            return change(record)

        return change_all

    def _flush_again_and_again(self) -> None:
        while True:
            self._something_posted.wait()
            time.sleep(_POST_SECONDS)
            self._something_posted.clear()
            with self._lock_posted:  # nobody may come between what is taken and its queueing
                for key in list(self._posted):
                    self._submit(key, self._with_posted(key, _nothing))

    def _flush(self) -> None:
        """Make what is posted, at the end of the process."""
        if self._pid == os.getpid():
            for key in list(self._posted):
                self._safely(key, self._with_posted(key, _nothing))

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


def _nothing(record: Record) -> None:
    """Change nothing."""


class LaterError(Exception):
    """It may take longer than an event loop can wait."""
