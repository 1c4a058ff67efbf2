"""Asynchronous code from synchronous code, whether or not an event loop is running here."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run_apart(work: Callable[[], Any]) -> Any:
    """Run a function outside of any running event loop, and await its result if need be.

    Code that cannot run within a loop (`asyncio.run`) thus runs anywhere. Where a loop is running,
    it waits for a thread.
    """
    if running_loop() is None:
        return _awaited(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(contextvars.copy_context().run, _awaited, work).result()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop of this thread; None = there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _awaited(work: Callable[[], Any]) -> Any:
    done = work()
    if not inspect.isawaitable(done):
        return done

    async def wait() -> Any:
        return await done

    return asyncio.run(wait())
