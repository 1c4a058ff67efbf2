"""Work with a time-out, after which it is abandoned; exceptions of any kind are values.

It may be any code: a client that hangs, a tool that ignores its cancellation or blocks the event
loop, a task that something inside it cancels. Only an interrupt of LangGraph, Ctrl-C and the
cancellation of the run itself are raised.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from langgraph.errors import GraphBubbleUp

from .sending import Sending, attempt

logger = logging.getLogger(__name__)
T = TypeVar("T")

LATE_SECONDS = 0.5
"""A result that comes this many seconds after its time-out is late: code blocked the event loop."""
LONG = 64 * 1024
"""From this size on, a text is read in a thread: in the event loop, all others would wait."""
_CANCEL_SECONDS = 0.1
"""Seconds to wait for work that was cancelled at its time-out; slower work is abandoned."""
_CLEAN_UP_SECONDS = 1.0
"""The same, if the run itself was cancelled: then there is no deadline."""
_LONG_WORK = threading.Lock()
_left: set[asyncio.Future[Any]] = set()


class TooLateError(TimeoutError):
    """Nothing came within its time.

    Attributes:
        partial: a late reply, which may have to be paid; None = there is none.
        unsent: whether no request was sent, and none will be.
    """

    def __init__(self, message: str, partial: object = None, *, unsent: bool = False) -> None:
        super().__init__(message)
        self.partial, self.unsent = partial, unsent


def in_time(
    seconds: float, work: Callable[[], T], sending: Sending | None = None
) -> T | BaseException:
    """Work in a thread, and abandon it at the time-out; return the result or the exception.

    Args:
        seconds: until the time-out.
        work: the attempt.
        sending: is told how far its request has come.
    """
    sending = sending or Sending()
    outcome: list[T | BaseException] = []

    def target() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # no Ctrl-C, which only the main thread gets
            outcome.append(error)

    within = attempt(sending)  # callbacks and the tracing parent travel in the context
    thread = threading.Thread(target=within, args=(target,), daemon=True)
    thread.start()
    thread.join(min(seconds, threading.TIMEOUT_MAX))
    if outcome:
        return _raised(outcome[0])
    return TooLateError(_too_slow(seconds), unsent=sending.give_up())


async def ain_time(
    seconds: float | None, work: Callable[[], Awaitable[T]], sending: Sending | None = None
) -> T | BaseException:
    """Work in a task, as `in_time` does in a thread."""
    sending = sending or Sending()
    start, ends = time.monotonic(), list[float]()
    within = attempt(sending)
    task: asyncio.Task[T | BaseException] = within(asyncio.create_task, _outcome(work, ends))
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:  # of this task: the run is over
        await _cancel(task, _CLEAN_UP_SECONDS)
        raise
    took = (ends[0] if ends else time.monotonic()) - start
    late = seconds is not None and took > seconds + LATE_SECONDS
    if seconds is None or (task.done() and not late):
        return _raised(task.result())
    why, unsent = _too_slow(seconds), sending.give_up()
    if late:
        why += f"; the event loop was blocked, and free again after {took:.1f} s"
        # What blocked it may have come to an end: then its bill is known.
        await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
    if not await _cancel(task, _CANCEL_SECONDS):
        why += "; it was cancelled, and runs on"
    if late or not task.done():
        logger.warning("%s", why)
    came = _raised(task.result()) if task.done() else None
    partial = None if isinstance(came, BaseException) else came
    return TooLateError(why, partial, unsent=unsent)


def in_a_thread(work: Callable[[], T]) -> Coroutine[Any, Any, T]:
    """Return an awaitable of synchronous work; unlike `asyncio.to_thread`, it delays no exit."""
    done: asyncio.Future[T] = (loop := asyncio.get_running_loop()).create_future()

    def settle(settled: Callable[[Any], None], outcome: object) -> None:
        if not done.done():
            settled(outcome)

    def target() -> None:
        told: tuple[Callable[[Any], None], object]
        try:
            told = (done.set_result, work())
        except StopIteration as error:  # which no future holds
            raised = RuntimeError(f"it raised {error!r}")
            raised.__cause__ = error
            told = (done.set_exception, raised)
        except BaseException as error:
            told = (done.set_exception, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *told)

    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(target,), daemon=True).start()

    async def wait() -> T:
        return await done

    return wait()


async def apart_if_long(length: int, work: Callable[[], T]) -> T:
    """Work; in a thread if the text that is worked on has a length of `LONG` or more.

    One such thread works at a time: several would keep Python from the event loop for longer.
    """
    if length < LONG:
        return work()

    def in_turn() -> T:
        with _LONG_WORK:
            return work()

    return await in_a_thread(in_turn)


async def _outcome(work: Callable[[], Awaitable[T]], ends: list[float]) -> T | BaseException:
    """Work, and add the moment at which it ends."""
    try:
        return await work()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    finally:
        ends.append(time.monotonic())


async def _cancel(task: asyncio.Future[Any], seconds: float) -> bool:
    """Cancel abandoned work; return whether it has ended."""
    if not task.done():
        task.cancel()
        _left.add(task)  # so that it is not collected while it runs
        task.add_done_callback(_left.discard)
        await asyncio.wait({task}, timeout=seconds)
    return task.done()


def _raised(outcome: T | BaseException) -> T | BaseException:
    if isinstance(outcome, GraphBubbleUp):  # an interrupt, not a failure
        raise outcome
    return outcome


def _too_slow(seconds: float) -> str:
    return f"no reply within {seconds:.3g} s"
