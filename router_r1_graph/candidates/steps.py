"""The steps that a call waits for. Its logic is a generator of them, with or without asyncio."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from .reply import Reply


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


def begun_in_thread(work: Callable[[], Any]) -> Future[tuple[Any]]:
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


def begun(work: Coroutine[Any, Any, Any]) -> Future[tuple[Any]]:
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


def result_of(step: Await) -> Any:
    """Wait in this thread."""
    try:
        return step.future.result(step.seconds)
    except FutureTimeoutError:
        return None


async def aresult_of(step: Await) -> Any:
    """Wait without blocking the event loop; to stop waiting does not stop the work."""
    try:
        async with asyncio.timeout(step.seconds):
            return await asyncio.shield(asyncio.wrap_future(step.future))
    except TimeoutError:
        return None
