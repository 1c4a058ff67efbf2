"""One file of replies that were paid for: every program that names it pays once for the same call.

The key invariant: a reply is in the file before it is used, so a killed process loses none. The
file may be used by several processes at once. A failing file (a full disk, say) fails no question:
the calls are made and paid as without it.
"""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from ..invalid import show
from .flights import Flights
from .store_file import StoreFile, StoreLine, owner_of
from .stored import StoredReply

logger = logging.getLogger(__name__)
T = TypeVar("T")

SMALLEST_BYTES = 100_000


class ReplyStore:
    """Replies in an SQLite file, for any number of threads, event loops and processes at once.

    A call is looked up by all that determines its reply: endpoint, model, options, messages and
    sampling parameters. A candidate's name and prices are not among them. No key is ever in the
    file; questions and replies are.

    Args:
        path: the file; made if it is not there. Not on a network drive: SQLite's write-ahead log
            needs memory that the processes share.
        max_bytes: the size of the file from which the replies that were not used for the longest
            time are deleted.
        max_age_seconds: if a reply is older, the candidate is asked again; None = replies never
            expire.
        every: whether sampled replies are kept and used too, and those of tools, retrievers and
            graphs. By default only those of models at temperature 0 are.
        make: whether a file that is not there is made.

    Raises:
        ConfigError: the file cannot be read or written, is no reply store, or a newer release wrote
            it; or a limit is out of range.

    Example:
        >>> import tempfile
        >>> from router_r1_graph import create_router_r1
        >>> with ReplyStore(tempfile.mkdtemp() + "/replies.sqlite") as replies:
        ...     graph = create_router_r1("embedded", "keyword", replies=replies).compile()
        ...     first = graph.invoke({"question": "Who wrote Hamlet?"})
        ...     again = graph.invoke({"question": "Who wrote Hamlet?"})
        >>> again["ledger"]["candidates"]["Quillora"]["stored_calls"]
        1
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int = 2**30,
        max_age_seconds: float | None = None,
        every: bool = False,
        make: bool = True,
    ) -> None:
        if max_bytes < SMALLEST_BYTES:
            raise ConfigError(f"max_bytes is at least {SMALLEST_BYTES:,}, not {max_bytes!r}")
        if max_age_seconds is not None and not max_age_seconds > 0:
            raise ConfigError(f"max_age_seconds is a number above 0, not {max_age_seconds!r}")
        self.path = Path(path)
        self.max_bytes = max_bytes
        self.max_age_seconds = max_age_seconds
        self.every = every
        self._abandoned: list[Any] = []
        self._start(StoreFile(self.path, make=make))

    def _start(self, file: StoreFile) -> None:
        self._pid = os.getpid()
        self._owner = owner_of(self._pid, uuid.uuid4().hex)
        self._file = file
        self._writer = ThreadPoolExecutor(1, "router-r1-replies")
        self._lock = threading.Lock()
        self._hits: dict[str, tuple[int, float]] = {}
        self._warned = False
        self.flights = Flights()

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the same file in another process."""
        return _reopen, (self.path, self.max_bytes, self.max_age_seconds, self.every)

    def __enter__(self) -> ReplyStore:
        """Return the store, to be closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def flush(self) -> None:
        """Wait until everything is in the file, also how often replies were used again."""
        self._submit(self._write_hits, None).result()

    def close(self) -> None:
        """Write all pending changes, and close the file."""
        if self._pid == os.getpid():
            self.flush()
            self._writer.shutdown()
            self._file.close()

    # ----------------------------------------------------------------------------------- a call

    def find(self, key: str) -> StoredReply | None:
        """Return the stored reply to a call; None if there is none, or the file cannot be read."""
        self._after_fork()
        return self._safely(lambda: self._file.find(key, self._oldest), None)

    def claim(self, key: str, seconds: float) -> Future[StoredReply | bool]:
        """Take on a call that no other process may make meanwhile, in the store's own thread.

        The future's result is the reply if it has come in between, True if the call may be made,
        and False if another process makes it. A claim ends with its process, or after `seconds`.
        """
        return self._submit(lambda: self._file.claim(key, self._owner, seconds, self._oldest), True)

    def keep(self, key: str, reply: StoredReply) -> Future[None]:
        """Write a reply, and give up the claim; an earlier reply to the same call is replaced."""
        return self._submit(lambda: self._file.keep(key, self._owner, reply, self.max_bytes), None)

    def release(self, key: str) -> None:
        """Give up a claim without a reply, without waiting for it."""
        self._submit(lambda: self._file.release(key, self._owner), None)

    def count_hit(self, key: str, saved_usd: float) -> None:
        """Count a reply that was used again, without waiting for it.

        Hits that come while the store writes are written together, after that. So a process that
        ends without its exit handlers, as those of multiprocessing do, leaves its hits in the file.
        """
        self._after_fork()
        with self._lock:
            waiting = bool(self._hits)
            hits, saved = self._hits.get(key, (0, 0.0))
            self._hits[key] = (hits + 1, saved + saved_usd)
        if not waiting:
            self._submit(self._write_hits, None)

    # ------------------------------------------------------------------------------ as a whole

    def stats(self) -> list[StoreLine]:
        """Return the content of the file, by candidate; controllers come last."""
        self.flush()
        return self._file.lines()

    @property
    def bytes(self) -> int:
        """The size of the content of the file."""
        return self._file.bytes

    def replies(self) -> Iterator[StoredReply]:
        """Yield the replies in the file, from the oldest to the newest."""
        return self._file.replies()

    def clear(
        self, *, older_than_seconds: float | None = None, candidate: str | None = None
    ) -> int:
        """Delete replies, and return how many.

        Args:
            older_than_seconds: only those that are older; None = of any age.
            candidate: only those of the candidate of this name; None = of all.
        """
        return self._file.clear(time.time() - (older_than_seconds or 0.0), candidate)

    @property
    def _oldest(self) -> float:
        return time.time() - (self.max_age_seconds or float("inf"))

    def _write_hits(self) -> None:
        with self._lock:
            hits, self._hits = self._hits, {}
        if hits:
            self._file.add_hits(hits)

    # -------------------------------------------------------------------------------- threads

    def _submit(self, work: Callable[[], T], otherwise: T) -> Future[T]:
        self._after_fork()
        try:
            return self._writer.submit(self._safely, work, otherwise)
        except RuntimeError:  # closed, or the interpreter ends
            done: Future[T] = Future()
            done.set_result(self._safely(work, otherwise))
            return done

    def _safely(self, work: Callable[[], T], otherwise: T) -> T:
        """Do something with the file; if it fails, log that once, and go on without it."""
        try:
            return work()
        except sqlite3.Error as error:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "%s: the reply store failed: %s; calls are paid as without it", self.path, error
                )
            return otherwise

    def _after_fork(self) -> None:
        """Open the file anew in a process that was forked: a connection belongs to its process."""
        if self._pid != os.getpid():
            # Not closed: that would end the locks which the other process has on the file.
            self._abandoned += [self._file, self._writer]
            self._start(StoreFile(self.path))


def _reopen(path: Path, max_bytes: int, max_age_seconds: float | None, every: bool) -> ReplyStore:
    return ReplyStore(path, max_bytes=max_bytes, max_age_seconds=max_age_seconds, every=every)


def as_store(replies: ReplyStore | str | Path | None) -> ReplyStore | None:
    """Return a store as it is, or that of a file: one in a process, kept until the process ends.

    Raises:
        ConfigError: see `ReplyStore`; or it is neither.
    """
    if replies is None or isinstance(replies, ReplyStore):
        return replies
    if not isinstance(replies, str | Path):
        raise ConfigError(f"replies: a ReplyStore or its file is wanted, not {show(replies)}")
    with _opening:
        file = os.path.abspath(replies)
        if file not in _opened:
            _opened[file] = ReplyStore(replies)
        return _opened[file]


_opened: dict[str, ReplyStore] = {}
_opening = threading.Lock()


@atexit.register
def _close_all() -> None:
    for store in _opened.values():
        store.close()
