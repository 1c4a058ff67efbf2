"""What a call waits for: its logic is a generator of these steps, run with and without asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
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
class Wait:
    """A pause."""

    seconds: float


@dataclass(frozen=True)
class Await:
    """The result of somebody else's work; gives None if it takes longer than `seconds`."""

    future: Future[Any]
    seconds: float | None = None


Steps = Generator[Invoke | Wait | Await, Any, Reply]


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
