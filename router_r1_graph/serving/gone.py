"""Runs that end because their client has disconnected, or the server ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import Request

from .refused import RefusedError

_T = TypeVar("_T")


async def unless_gone(request: Request | None, stopped: asyncio.Event, work: Awaitable[_T]) -> _T:
    """Do the work; cancel it if the client disconnects, or the server ends.

    Args:
        request: of the client; None = the work itself reads it, and notices.
        stopped: set when the server ends the runs in progress.
        work: the work to do.

    Raises:
        RefusedError: it was cancelled.
    """

    async def gone(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work)
    ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(stopped.wait())]
    if request:
        ends.append(asyncio.ensure_future(gone(request)))
    try:
        await asyncio.wait({task, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise shutting_down() if stopped.is_set() else RefusedError(499, "the client has gone")
    finally:
        for waiting in (task, *ends):
            waiting.cancel()
        await asyncio.gather(task, *ends, return_exceptions=True)


def shutting_down() -> RefusedError:
    """Return the error of a run that the end of the server cuts off."""
    return RefusedError(503, "the server is shutting down", code="shutting_down")
