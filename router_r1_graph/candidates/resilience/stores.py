"""The stores that there are: memory, an SQLite file, a Redis server."""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..sqlite import write_ahead
from .endpoint_state import EndpointState
from .places import MEMORY, find_place
from .store import PATIENCE_SECONDS, Change, LaterError, MemoryStore, SharedStore, Store, T

logger = logging.getLogger(__name__)

_APPLICATION_ID = 0x52314C69  # "R1Li": how SQLite marks whose file it is
_REDIS_PREFIX = "router-r1:limits:"
_REDIS_KEEPS_SECONDS = 7 * 86400


class SqliteStore(SharedStore):
    """States in an SQLite file, for the processes of one machine.

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
            with closing(self._connect(PATIENCE_SECONDS)) as connection:
                self._prepare(connection)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"limits_store: {file} cannot be used: {error}") from None

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Check whose file it is, and make the table.

        Both happen in one transaction, since other processes may open the same new file. Closing
        the connection ends it where the file is another program's.
        """
        connection.execute("BEGIN IMMEDIATE")
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner != _APPLICATION_ID and (owner or tables):
            raise ConfigError(f"limits_store: {self._file} is another program's database")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS endpoints "
            "(key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
        )
        connection.execute("COMMIT")
        write_ahead(connection, PATIENCE_SECONDS)

    def _start(self) -> None:
        super()._start()
        self._fast: sqlite3.Connection | None = None
        self._slow: sqlite3.Connection | None = None
        self._busy = threading.Lock()
        self._busy_slow = threading.Lock()

    def _connect(self, patience: float) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=patience, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = OFF")  # a crash of the machine ends all calls too
        return connection

    def _now_or_later(self, key: str, change: Change[T]) -> T:
        if not self._busy.acquire(blocking=False):
            raise LaterError
        try:
            self._fast = self._fast or self._connect(0.0)
            return _changed(self._fast, key, change)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise LaterError from None
            raise
        finally:
            self._busy.release()

    def _change(self, key: str, change: Change[T]) -> T:
        with self._busy_slow:  # of several threads, once the store's own thread has ended
            self._slow = self._slow or self._connect(PATIENCE_SECONDS)
            return _changed(self._slow, key, change)


def _changed(connection: sqlite3.Connection, key: str, change: Change[T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        row = connection.execute("SELECT record FROM endpoints WHERE key = ?", (key,)).fetchone()
        state = EndpointState.loads(row and row[0])
        done = change(state)
        text = state.dumps()
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
    """States in a Redis server, for any number of machines, whose clocks have to agree.

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
        raise LaterError

    def _change(self, key: str, change: Change[T]) -> T:
        import redis

        if self._client is None:
            self._client = redis.Redis.from_url(
                self._url,
                socket_timeout=PATIENCE_SECONDS,
                socket_connect_timeout=PATIENCE_SECONDS / 2,
            )
        key = _REDIS_PREFIX + key
        done: list[T] = []

        def transact(pipe: Any) -> None:  # again where somebody else was faster
            text = pipe.get(key)
            state = EndpointState.loads(text)
            done[:] = [change(state)]
            pipe.multi()
            if (new := state.dumps().encode()) != text:
                pipe.set(key, new, ex=_REDIS_KEEPS_SECONDS)

        self._client.transaction(transact, key)
        return done[0]


def open_store(place: str | None) -> Store:
    """Return the store of a place: one for each process, kept until the process ends.

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


def flush_stores() -> None:
    """Make all changes now that the stores of this process hold back."""
    for store in list(_opened.values()):
        store.flush()


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
