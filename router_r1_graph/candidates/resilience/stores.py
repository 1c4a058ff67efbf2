"""The stores of what is known of endpoints: each changes one record in one step.

A store that fails stops no call: a warning says so once, and for some seconds this process goes by
its own memory. No store blocks an event loop: what may take longer happens in the store's thread.
"""

from __future__ import annotations

import copy
import logging
import os
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ...errors import ConfigError
from ..steps import Await
from .places import MEMORY, find_place
from .record import Record

logger = logging.getLogger(__name__)
T = TypeVar("T")
Change = Callable[[Record], T]
"""Changes a record in place, and returns what is to be known of it."""

_APPLICATION_ID = 0x52314C69  # "R1Li": how SQLite marks whose file it is
_PATIENCE_SECONDS = 2.0
"""So long a store may take for one step."""
_PAUSE_SECONDS = 5.0
"""So long a store that failed is left alone."""
_REDIS_PREFIX = "router-r1:limits:"
_REDIS_KEEPS_SECONDS = 7 * 86400


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
        return self.change(key, change)
        yield  # a generator, as all updates are

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

    def _start(self) -> None:
        self._pid = os.getpid()
        self._memory = MemoryStore()
        self._thread = ThreadPoolExecutor(1, "router-r1-limits")
        self._failed_at = -_PAUSE_SECONDS
        self._warned = False

    @abstractmethod
    def _now_or_later(self, key: str, change: Change[T]) -> T:
        """Change a record at once, or raise `_Later` where that may take longer."""

    @abstractmethod
    def _change(self, key: str, change: Change[T]) -> T:
        """Change a record, in the store's thread."""

    def update(self, key: str, change: Change[T]) -> Generator[Await, Any, T]:
        """Change a record; go by this process's own memory where the store fails."""
        self._after_fork()
        if time.monotonic() < self._failed_at + _PAUSE_SECONDS:
            return self._memory.change(key, change)
        try:
            return self._now_or_later(key, change)
        except _Later:
            future = self._thread.submit(self._safely, key, change)
        except Exception as error:  # whatever a client raises: it is no reason for a call to fail
            return self._instead(key, change, error)
        done = yield Await(future, 2 * _PATIENCE_SECONDS)
        return done[0] if done else self._memory.change(key, change)

    def post(self, key: str, change: Change[Any]) -> None:
        """Change a record, at once or in the store's thread."""
        self._after_fork()
        try:
            self._now_or_later(key, change)
        except Exception:
            try:
                self._thread.submit(self._safely, key, change)
            except RuntimeError:  # the interpreter ends
                self._safely(key, change)

    def read(self, key: str) -> Record:
        """Return a record.

        Raises:
            OSError: the store cannot be reached.
        """
        self._after_fork()
        try:
            return self._thread.submit(self._change, key, copy.deepcopy).result()
        except Exception as error:
            raise OSError(f"{self.where}: {type(error).__name__}: {error}") from None

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


class _Later(Exception):
    """It may take longer than an event loop can wait."""


class SqliteStore(SharedStore):
    """Records in an SQLite file, for the processes of one machine.

    Args:
        file: its path; made if it is not there.

    Raises:
        ConfigError: it cannot be used, or is another program's.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        super().__init__(file)
        try:
            Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            connection = self._connect(_PATIENCE_SECONDS)
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if owner != _APPLICATION_ID and (owner or tables):
                raise ConfigError(f"limits_store: {file} is another program's database")
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS endpoints "
                "(key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
            )
            connection.close()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"limits_store: {file} cannot be used: {error}") from None

    def _start(self) -> None:
        super()._start()
        self._fast: sqlite3.Connection | None = None
        self._slow: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def _connect(self, patience: float) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=patience, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # a crash of the machine ends all calls too
        return connection

    def _now_or_later(self, key: str, change: Change[T]) -> T:
        if not self._lock.acquire(blocking=False):
            raise _Later
        try:
            self._fast = self._fast or self._connect(0.0)
            return _changed(self._fast, key, change)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise _Later from None
            raise
        finally:
            self._lock.release()

    def _change(self, key: str, change: Change[T]) -> T:
        self._slow = self._slow or self._connect(_PATIENCE_SECONDS)
        return _changed(self._slow, key, change)


def _changed(connection: sqlite3.Connection, key: str, change: Change[T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        row = connection.execute("SELECT record FROM endpoints WHERE key = ?", (key,)).fetchone()
        record = Record.loads(row and row[0])
        done = change(record)
        text = record.dumps()
        if row is None:
            connection.execute("INSERT INTO endpoints VALUES (?, ?)", (key, text))
        elif text != row[0]:
            connection.execute("UPDATE endpoints SET record = ? WHERE key = ?", (text, key))
        connection.execute("COMMIT")
        return done
    except BaseException:
        connection.execute("ROLLBACK")
        raise


class RedisStore(SharedStore):
    """Records in a Redis server, for any number of machines, whose clocks have to agree.

    Args:
        url: `redis://HOST:PORT/DATABASE`, `rediss://` or `unix://`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        super().__init__("redis")  # a URL may hold a password

    def _start(self) -> None:
        super()._start()
        self._client: Any = None

    def _now_or_later(self, key: str, change: Change[T]) -> T:
        raise _Later

    def _change(self, key: str, change: Change[T]) -> T:
        import redis

        if self._client is None:
            self._client = redis.Redis.from_url(
                self._url,
                socket_timeout=_PATIENCE_SECONDS,
                socket_connect_timeout=_PATIENCE_SECONDS / 2,
            )
        key = _REDIS_PREFIX + key
        done: list[T] = []

        def transact(pipe: Any) -> None:  # again where somebody else was faster
            text = pipe.get(key)
            record = Record.loads(text)
            done[:] = [change(record)]
            pipe.multi()
            if (new := record.dumps().encode()) != text:
                pipe.set(key, new, ex=_REDIS_KEEPS_SECONDS)

        self._client.transaction(transact, key)
        return done[0]


def open_store(place: str | None) -> Store:
    """Return the store of a place: one in a process, kept until the process ends.

    Args:
        place: see `Resilience.limits_store`.

    Raises:
        ConfigError: it cannot be used.
    """
    where = find_place(place)
    with _opening:
        if where not in _opened:
            _opened[where] = _open(where, own=place is None)
        return _opened[where]


def _open(where: str, *, own: bool) -> Store:
    if where == MEMORY:
        return MemoryStore()
    if "://" in where:
        return RedisStore(where)
    try:
        return SqliteStore(where)
    except ConfigError as error:
        if not own:
            raise
        logger.warning("limits are kept by this process alone: %s", error)
        return MemoryStore()


_opened: dict[str, Store] = {}
_opening = threading.Lock()
