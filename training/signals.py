"""The signals that ask a run to stop: Ctrl-C, a scheduler's SIGTERM, a terminal that is closed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Handlers = dict[int, Any]


def take_signals(stop: Callable[..., Any] = signal.default_int_handler) -> Handlers:
    """Have signals call a function, and return their earlier handlers, for `give_back`.

    SIGHUP stays ignored under `nohup`. If the terminal is gone, nothing is printed any more.

    Args:
        stop: called with number and frame; by default, it raises KeyboardInterrupt.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        numbers.append(hang_up)

    def taken(number: int, frame: Any) -> None:
        if number == hang_up:
            _leave_terminal()
        stop(number, frame)

    return {number: signal.signal(number, taken) for number in numbers}


def give_back(handlers: Handlers) -> None:
    """Give signals their earlier handlers back."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def silence(*streams: Any) -> None:
    """Have streams write to nowhere, as they have no reader."""
    with open(os.devnull, "w") as nowhere:
        for stream in streams:
            with suppress(OSError, ValueError):  # ValueError: closed, or no file
                os.dup2(nowhere.fileno(), stream.fileno())


def _leave_terminal() -> None:
    silence(*(stream for stream in (sys.stdout, sys.stderr) if stream.isatty()))
