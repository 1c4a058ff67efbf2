"""The file of a reply store: its SQL. Files of another kind are refused."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..outside import MOST_OF_A_RUN
from .sqlite import write_ahead
from .stored import COLUMNS, StoredReply

APPLICATION_ID = 0x52315270  # "R1Rp": how SQLite marks whose file it is
SCHEMA_VERSION = 1
_LOCKED_SECONDS = 30.0
"""Seconds for which another process may hold the file."""

_SCHEMA = """
CREATE TABLE replies (
    key TEXT PRIMARY KEY, candidate TEXT, model TEXT NOT NULL, question TEXT NOT NULL,
    message TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL, seconds REAL NOT NULL, created_at REAL NOT NULL,
    used_at REAL NOT NULL, hits INTEGER NOT NULL DEFAULT 0, saved_usd REAL NOT NULL DEFAULT 0
);
CREATE INDEX replies_by_use ON replies (used_at);
CREATE TABLE claims (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL, expires_at REAL NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class StoreLine:
    """The numbers of one candidate in a store; `candidate` is None for controllers."""

    candidate: str | None
    replies: int
    paid_usd: float
    """The USD that were paid for the replies."""
    hits: int
    """How often they were used again."""
    saved_usd: float
    """The cost of these hits, had the calls been made."""


class StoreFile:
    """The tables of a store. Any thread may use it; every failure is an `sqlite3.Error`.

    Args:
        path: the file.
        make: whether one that is not there is made.

    Raises:
        ConfigError: it cannot be read or written, is no reply store, or a newer release wrote it.
    """

    def __init__(self, path: Path, *, make: bool = True) -> None:
        self.path = path
        self._writer = _open(path, make=make)
        self._writing = threading.RLock()
        # A connection of its own: a reader never waits for a writer.
        self._reader = _connect(path)
        self._reading = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        for connection in (self._reader, self._writer):
            with suppress(sqlite3.Error):
                connection.close()

    def find(self, key: str, oldest: float) -> StoredReply | None:
        """Return the reply to a call, unless it is from before `oldest` (seconds of the epoch)."""
        with self._reading:
            return _find(self._reader, key, oldest)

    def claim(self, key: str, owner: str, seconds: float, oldest: float) -> StoredReply | bool:
        """Take on a call for some seconds.

        Returns:
            The reply if there is one; else whether the call is the owner's.
        """
        now = time.time()
        with self._transaction() as connection:
            if reply := _find(connection, key, oldest):
                return reply
            held = connection.execute(
                "SELECT owner, expires_at FROM claims WHERE key = ?", (key,)
            ).fetchone()
            if held and held[0] != owner and now < held[1] and not _is_dead(held[0]):
                return False
            connection.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (key, owner, now + seconds)
            )
        return True

    def keep(self, key: str, owner: str, reply: StoredReply, max_bytes: int) -> None:
        """Write a reply and give up the claim; delete others if the file is too large."""
        row = (key, *reply.row(), reply.created_at)
        marks = ", ".join("?" * len(row))
        with self._transaction() as connection:
            connection.execute(
                f"INSERT OR REPLACE INTO replies (key, {COLUMNS}, used_at) VALUES ({marks})", row
            )
            connection.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, owner))
            while self.bytes > max_bytes and _forget_a_tenth(connection):
                pass

    def release(self, key: str, owner: str) -> None:
        """Give up a claim."""
        with self._writing:
            self._writer.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, owner))

    def add_hits(self, hits: Mapping[str, tuple[int, float]]) -> None:
        """Add to the hits: key -> how often the reply was used again, and the USD that it saved."""
        now = time.time()
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE replies SET hits = hits + ?, saved_usd = saved_usd + ?, used_at = ? "
                "WHERE key = ?",
                [(count, saved, now, key) for key, (count, saved) in hits.items()],
            )

    @property
    def bytes(self) -> int:
        """The size of what is in the file."""
        pragmas = ("page_count", "freelist_count", "page_size")
        with self._writing:
            pages, free, size = (
                self._writer.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas
            )
        return int((pages - free) * size)

    def lines(self) -> list[StoreLine]:
        """Return the content of the file, by candidate; controllers come last."""
        rows = self._reader.execute(
            f"SELECT candidate, count(*), {_sum('cost_usd')}, {_sum('hits')}, {_sum('saved_usd')} "
            "FROM replies GROUP BY candidate ORDER BY candidate IS NULL, candidate",
            (MOST_OF_A_RUN,) * 3,
        )
        return [StoreLine(*row) for row in rows]

    def replies(self) -> Iterator[StoredReply]:
        """Yield the replies in the file, from the oldest to the newest."""
        reader = _connect(self.path)  # of its own: the reading may take long
        try:
            rows = reader.execute(f"SELECT {COLUMNS} FROM replies ORDER BY created_at")
            yield from (StoredReply(*row) for row in rows)
        finally:
            reader.close()

    def clear(self, before: float, candidate: str | None) -> int:
        """Delete the replies from before a time (seconds of the epoch); return how many."""
        with self._writing:
            deleted = self._writer.execute(
                "DELETE FROM replies WHERE created_at <= ? AND ifnull(candidate = ?, ?)",
                (before, candidate, candidate is None),
            ).rowcount
            with suppress(sqlite3.Error):  # another process is reading: the space is used again
                self._writer.execute("VACUUM")
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return deleted

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have done so itself
                    self._writer.execute("ROLLBACK")
                raise


def _sum(column: str) -> str:
    """Return the sum of a column, without amounts that cannot be: the file comes from outside."""
    return f"sum(CASE WHEN {column} BETWEEN 0 AND ? THEN {column} ELSE 0 END)"


def _find(connection: sqlite3.Connection, key: str, oldest: float) -> StoredReply | None:
    row = connection.execute(
        f"SELECT {COLUMNS} FROM replies WHERE key = ? AND created_at >= ?", (key, oldest)
    ).fetchone()
    return StoredReply(*row) if row else None


def _forget_a_tenth(connection: sqlite3.Connection) -> int:
    """Delete the replies that were not used for the longest time; return how many."""
    (count,) = connection.execute("SELECT count(*) FROM replies").fetchone()
    return connection.execute(
        "DELETE FROM replies WHERE key IN (SELECT key FROM replies ORDER BY used_at LIMIT ?)",
        (1 + count // 10,),
    ).rowcount


def owner_of(pid: int, name: str) -> str:
    """Return how a claim names its owner."""
    return f"{socket.gethostname()} {pid} {name}"


def _is_dead(owner: str) -> bool:
    """Return whether the process with a claim is known to have ended."""
    host, pid, _ = owner.rsplit(" ", 2)
    if host != socket.gethostname() or os.name == "nt":  # there, the signal 0 is Ctrl-C
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False


def _open(path: Path, *, make: bool) -> sqlite3.Connection:
    if path.is_dir():
        raise ConfigError(f"{path}: a folder; a reply store is a file, such as replies.sqlite")
    if not make and not path.exists():
        raise ConfigError(f"{path}: no such reply store")
    try:
        connection = _connect(path)
    except (sqlite3.Error, ValueError) as error:  # ValueError: a zero byte in the name
        raise ConfigError(f"{path}: the reply store cannot be opened: {error}") from None
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        if "not a database" in str(error):
            raise ConfigError(f"{path}: no reply store; name another file") from None
        raise ConfigError(f"{path}: the reply store cannot be used: {error}") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    """Connect to a file; one connection may serve several threads, in turn."""
    return sqlite3.connect(
        path, timeout=_LOCKED_SECONDS, isolation_level=None, check_same_thread=False
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is a store, and make the tables if it is new.

    Both happen in one transaction, since other processes may open the same new file.
    """
    # A crash of the machine may lose the last replies; a killed process loses none.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _check(connection, path):
            connection.execute("DELETE FROM claims WHERE expires_at < ?", (time.time(),))
        else:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    write_ahead(connection, _LOCKED_SECONDS)


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file is a store already; False for an empty one.

    Raises:
        ConfigError: it is something else, or a newer release wrote it.
    """
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and owner in (0, APPLICATION_ID):
        return False
    if owner != APPLICATION_ID:
        raise ConfigError(f"{path}: another program's SQLite file, no reply store")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: a newer release wrote it (layout {version}; this one reads "
            f"{SCHEMA_VERSION}): update router-r1-graph, or name another file"
        )
    return True
