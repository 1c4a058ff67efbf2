"""Runs that end because their client has disconnected, or the server ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from .refused import RefusedError

_T = TypeVar("_T")


async def unless_gone(request: Request, stopped: asyncio.Event, work: Awaitable[_T]) -> _T:
    """Do the work; cancel it if the client disconnects, or the server ends.

    Args:
        request: of the client.
        stopped: set when the server ends the runs in progress.
        work: the work to do.

    Raises:
        RefusedError: it was cancelled.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work)
    ends = asyncio.ensure_future(gone()), asyncio.ensure_future(stopped.wait())
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
