"""What our SQLite files have in common."""

from __future__ import annotations

import sqlite3
import time


def write_ahead(connection: sqlite3.Connection, seconds: float) -> None:
    """Switch a file to the write-ahead log, for all connections from now on.

    SQLite itself does not wait for another process that switches the same file.

    Args:
        connection: to the file; not within a transaction.
        seconds: for which it is tried.

    Raises:
        sqlite3.Error: the file cannot be switched.
    """
    give_up = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
