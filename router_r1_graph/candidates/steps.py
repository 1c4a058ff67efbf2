"""The steps that a call waits for, and the two ways to go through them.

The logic of a call is a generator of steps, the same with and without asyncio: `run` and `arun`.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from ..outside import NO_LIMIT
from .in_time import ain_time, in_time
from .reply import Reply
from .sending import Sending


@dataclass(frozen=True)
class Invoke:
    """One request to the model; gives its message, or the exception that it raised."""

    timeout: float


@dataclass(frozen=True)
class Begin:
    """The same, without waiting for it; gives a future of a tuple with the result.

    To cancel the future ends the request, where a client can.
    """

    timeout: float
    sending: Sending
    """Is told how far the request has come."""


@dataclass(frozen=True)
class Wait:
    """A pause."""

    seconds: float


@dataclass(frozen=True)
class Await:
    """The result of other work in progress; gives None if it takes longer than `seconds`."""

    future: Future[Any]
    seconds: float | None = None


Steps = Generator[Invoke | Begin | Wait | Await, Any, Reply]

_under_way: dict[asyncio.AbstractEventLoop, set[Steps]] = {}
"""The steps of coroutines. The garbage collector must not find them: it would close them."""
_thrown_away: SimpleQueue[Steps] = SimpleQueue()
"""Steps whose coroutine the garbage collector has ended."""


def run(steps: Steps, invoke: Callable[[], Any]) -> Reply:
    """Go through a call's steps in this thread.

    Args:
        steps: they are closed at the end.
        invoke: makes one request to the model.
    """
    outcome: Any = None
    with closing(steps):
        while True:
            try:
                step = _next_step(steps, outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            match step:
                case Wait():
                    time.sleep(min(step.seconds, NO_LIMIT))
                    outcome = None
                case Await():
                    outcome = _result_of(step)
                case Invoke():
                    outcome = in_time(step.timeout, invoke)
                case Begin():
                    outcome = _begun_in_thread(partial(in_time, step.timeout, invoke, step.sending))


async def arun(steps: Steps, invoke: Callable[[], Coroutine[Any, Any, Any]]) -> Reply:
    """Go through a call's steps as `run` does, without blocking the event loop."""
    outcome: Any = None
    with _ClosedInTime(steps):
        while True:
            try:
                step = _next_step(steps, outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            match step:
                case Wait():
                    await asyncio.sleep(step.seconds)
                    outcome = None
                case Await():
                    outcome = await _aresult_of(step)
                case Invoke():
                    outcome = await ain_time(step.timeout, invoke)
                case Begin():
                    outcome = _begun(ain_time(step.timeout, invoke, step.sending))


class _ClosedInTime:
    """Closes a coroutine's steps at its end, or at a later step of any call if it has none.

    A coroutine whose event loop stops for good has no end, or the garbage collector ends it, in
    whatever thread, in the midst of whatever that does. To close its steps takes locks, and that
    thread may hold them.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        _under_way.setdefault(self._loop, set()).add(self._steps)

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:
            _thrown_away.put(self._steps)  # takes no lock that this thread may hold
            return
        if others := _under_way.get(self._loop):
            others.discard(self._steps)
            if not others:
                del _under_way[self._loop]
        self._steps.close()


def _next_step(steps: Steps, outcome: Any) -> Invoke | Begin | Wait | Await:
    """Return the next step, given what the last one brought.

    Raises:
        StopIteration: there is none; its value is the reply.
    """
    for loop in list(_under_way):
        if loop.is_closed():
            for left in _under_way.pop(loop, ()):
                left.close()
    while not _thrown_away.empty():
        with suppress(Empty):  # another thread was faster
            left = _thrown_away.get_nowait()
            left.close()
            for others in list(_under_way.values()):
                others.discard(left)
    return steps.send(outcome)


def _begun_in_thread(work: Callable[[], Any]) -> Future[tuple[Any]]:
    """Begin work in a thread, which nobody can end."""
    future: Future[tuple[Any]] = Future()

    def run() -> None:
        try:
            done = (work(),)
        except BaseException as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(done)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), daemon=True).start()
    return future


def _begun(work: Coroutine[Any, Any, Any]) -> Future[tuple[Any]]:
    """Begin work in a task, which ends when the future is cancelled."""
    future: Future[tuple[Any]] = Future()
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

    def finish(task: asyncio.Future[Any]) -> None:
        if task.cancelled():
            future.cancel()
        elif future.set_running_or_notify_cancel():
            if error := task.exception():
                future.set_exception(error)
            else:
                future.set_result((task.result(),))

    def end(future: Future[Any]) -> None:
        if future.cancelled() and not task.done():
            with suppress(RuntimeError):  # the loop is closed, and the request ended
                loop.call_soon_threadsafe(task.cancel)

    task.add_done_callback(finish)
    future.add_done_callback(end)
    return future


def either(first: Future[Any], second: Future[Any]) -> Future[bool]:
    """Return a future that is done as soon as one of two is."""
    done: Future[bool] = Future()
    lock = threading.Lock()

    def finish(_: Future[Any]) -> None:
        with lock:
            if not done.done():
                done.set_result(True)

    for future in (first, second):
        future.add_done_callback(finish)
    return done


def _result_of(step: Await) -> Any:
    """Wait in this thread."""
    try:
        most = step.seconds and min(step.seconds, NO_LIMIT)
        return step.future.result(most)
    except FutureTimeoutError:
        return None


async def _aresult_of(step: Await) -> Any:
    """Wait without blocking the event loop; to stop waiting does not stop the work."""
    try:
        async with asyncio.timeout(step.seconds):
            return await asyncio.shield(asyncio.wrap_future(step.future))
    except TimeoutError:
        return None
