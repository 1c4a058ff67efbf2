"""What has to do with time, such that a slow machine does not turn a test's verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def long_enough(seconds: float, attempt: Callable[[float], T], begun: Callable[[T], bool]) -> T:
    """Return what comes of an attempt whose limit is so many seconds.

    A limit that was over before what it is to end had begun says nothing: then it is tried again
    with ten times as many seconds, and once more.
    """
    for limit in (seconds, 10 * seconds, 100 * seconds):
        result = attempt(limit)
        if begun(result):
            break
    return result


def wait_until(known: Callable[[], object]) -> None:
    """Wait for an event that nobody tells of; pytest-timeout ends a wait that has no end."""
    while not known():
        time.sleep(0.02)
