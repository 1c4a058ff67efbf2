"""Turns that are asked for at the same time share a batch, from event loops and threads alike.

One thread samples as long as turns are waiting. Each caller holds a future of
`concurrent.futures`, which can wake a thread or any event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

from ...candidates.bugs import share
from .generation import Generator
from .sampling import Sample

_PAUSE_SECONDS = 0.002
"""A batch begins when no turn has joined it for this long. Questions whose turns ended together ask
again together, some steps of the event loop later."""
_LONGEST_PAUSE_SECONDS = 0.25
"""If an event loop is busy for longer than this, the batch begins without it."""
_IDLE_SECONDS = 1.0
"""The thread ends after this long without work."""
_LEAVE_SECONDS = 30.0
"""The longest that the end of the program waits for a token, or for a prompt to be read."""
_ending = threading.Event()
"""Whether the program ends."""
_all: WeakSet[Batches] = WeakSet()


@atexit.register
def _leave() -> None:
    """Have the threads leave torch: Python would end them within its C++, which aborts."""
    _ending.set()
    for batches in list(_all):
        batches.leave()


class HasGenerator(Protocol):
    """An object with a generator, which may be replaced (in training, by vLLM's)."""

    generator: Generator


class Batches:
    """Samples turns in batches, in a thread of its own.

    Args:
        owner: holds the generator.
        max_batch: most turns in one batch.
    """

    running: Callable[[], int] | None = None
    """How many questions are running; where it is set, a batch begins when all of them wait for a
    turn. So the rows of a batch depend on the questions only, and not on timing. That matters
    because the last digits of a probability depend on the batch."""

    def __init__(self, owner: HasGenerator, max_batch: int) -> None:
        self._owner = owner
        self._max_batch = max_batch
        self._changed = threading.Condition()
        self._waiting: dict[Sample, Future[None]] = {}  # in order of arrival
        self._loops: set[asyncio.AbstractEventLoop] = set()
        """The event loops that turns of the next batch come from."""
        self._running = False
        self._thread: threading.Thread | None = None
        _all.add(self)

    def leave(self) -> None:
        """Wait until sampling has ended; the program ends."""
        with self._changed:
            self._changed.notify()
        if self._thread:
            self._thread.join(_LEAVE_SECONDS)

    def join(self, turn: Sample, loop: asyncio.AbstractEventLoop | None = None) -> Future[None]:
        """Return a future that is done when the turn has ended; cancel it to leave.

        Args:
            turn: to be sampled.
            loop: the event loop that waits for it; None = a thread waits.
        """
        done: Future[None] = Future()
        with self._changed:
            self._waiting[turn] = done
            if loop:
                self._loops.add(loop)
            if self._running:
                self._changed.notify()
            else:
                self._running = True
                self._thread = threading.Thread(target=self._run, name="policy", daemon=True)
                self._thread.start()
        return done

    def _run(self) -> None:
        while not _ending.is_set():
            with self._changed:
                if not self._waiting:
                    self._changed.wait(_IDLE_SECONDS)
                if not self._waiting:
                    self._running = False
                    return
            if self.running:
                self._wait_for_all(self.running)
            else:
                joined = -1
                while joined < len(self._waiting) and joined < self._max_batch:
                    joined = len(self._waiting)
                    self._pause()
            self._sample(self._next_batch())

    def _wait_for_all(self, running: Callable[[], int]) -> None:
        with self._changed:
            # A question may also end without a turn, and nobody may wait for all any more.
            while len(self._waiting) < running() and self.running is running:
                self._changed.wait(_PAUSE_SECONDS)
            ordered = sorted(self._waiting, key=_without_time)
            self._waiting = {turn: self._waiting[turn] for turn in ordered}

    def _pause(self) -> None:
        """Wait a moment by the clock of the event loops: a busy one may bring more turns."""
        with self._changed:
            loops, self._loops = self._loops, set()
        if not loops:
            time.sleep(_PAUSE_SECONDS)
        ends = time.monotonic() + _LONGEST_PAUSE_SECONDS
        for loop in loops:
            paused = threading.Event()
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(loop.call_later, _PAUSE_SECONDS, paused.set)
                paused.wait(max(0.0, ends - time.monotonic()))

    def _next_batch(self) -> dict[Sample, Future[None]]:
        """Take the turn that has waited longest, and those nearest in length, to save padding."""
        with self._changed:
            waiting = {turn: done for turn, done in self._waiting.items() if not done.done()}
            self._waiting = {}
            if len(waiting) <= self._max_batch:
                return waiting
            size = len(next(iter(waiting)).so_far)
            near = sorted(waiting, key=lambda turn: abs(len(turn.so_far) - size))
            batch = {turn: waiting.pop(turn) for turn in near[: self._max_batch]}
            self._waiting = waiting
            return batch

    def _sample(self, batch: dict[Sample, Future[None]]) -> None:
        rested = False

        def rest(going: int) -> bool:
            """Return whether a batch with the waiting turns would be twice as large."""
            nonlocal rested
            if _ending.is_set():
                return True
            if self.running:
                return False
            rested = min(len(self._waiting), self._max_batch - going) >= going
            return rested

        turns: Sequence[Sample] = list(batch)
        try:
            self._owner.generator.generate(
                turns, ended=lambda turn: _resolve(batch[turn]), rest=rest
            )
        except BaseException as error:  # every caller that waits receives it
            share(error)
            for done in batch.values():
                _resolve(done, error)
            return
        going = {turn: done for turn, done in batch.items() if not done.done()}
        if _ending.is_set():
            for done in going.values():
                done.cancel()
        elif rested:
            with self._changed:  # resting turns have waited longest
                self._waiting = {**going, **self._waiting}
        else:  # another generator may not say of each turn that it has ended
            for done in going.values():
                _resolve(done)


def _without_time(turn: Sample) -> tuple[object, ...]:
    """Return a turn's place in a batch, which does not depend on the order of arrival."""
    return turn.so_far, turn.random.getstate() if turn.random else ()


def _resolve(done: Future[None], error: BaseException | None = None) -> None:
    with suppress(InvalidStateError):  # its question may have been cancelled
        if error is None:
            done.set_result(None)
        elif isinstance(error, StopIteration):  # which no future of asyncio can hold
            done.set_exception(RuntimeError(f"the generator raised {error!r}"))
        else:
            done.set_exception(error)
