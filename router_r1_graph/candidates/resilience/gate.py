"""The places of an endpoint within this process: callers without a place wait in turn.

A store could count them alone, but 5,000 waiting calls would then ask it again and again.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future


class Gate:
    """At most so many inside; for any number of threads and event loops.

    Args:
        places: how many.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._inside = 0
        self._waiting: deque[Future[bool]] = deque()

    def enter(self) -> Future[bool] | None:
        """Take a place; None = it is taken, else a future that is done when the turn comes."""
        if self._pid != os.getpid():  # forked: those inside are the other process's
            self._start()
        with self._lock:
            if self._inside < self._places:
                self._inside += 1
                return None
            turn: Future[bool] = Future()
            self._waiting.append(turn)
            return turn

    def enter_at_once(self) -> bool:
        """Take a place if there is a free one."""
        if (turn := self.enter()) is None:
            return True
        self.give_up(turn)
        return False

    def give_up(self, turn: Future[bool]) -> None:
        """Stop waiting; a place that was given in the same moment goes to the next."""
        if not turn.cancel():
            self.leave()

    def leave(self) -> None:
        """Give a place to the one that has waited for the longest."""
        with self._lock:
            while self._waiting:
                turn = self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    turn.set_result(True)
                    return
            self._inside -= 1

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(not turn.cancelled() for turn in list(self._waiting))
