"""Requests and tokens a minute of an endpoint, kept by all processes of this machine together.

Each limit is one number in a file: the moment up to which what was asked for uses the rate up (the
generic cell rate algorithm, GCRA, of ATM networks). A request waits until that moment is no more
than a burst away. Tokens are counted when they are known, after a reply, so the next request waits
for them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from .settings import ModelSettings

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: kept within a process
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_BURST_SECONDS = 5.0
"""What a rate allows in this time may come at once."""
_MOMENTS = struct.Struct("dd")  # of requests and of tokens, in seconds since the epoch
_lock = threading.Lock()


def reserve(settings: ModelSettings) -> float:
    """Take the place of one request, and return how many seconds to wait for it; 0 = no limit.

    Args:
        settings: the limits, and the endpoint and model that they are of.
    """
    requests, tokens = settings.requests_per_minute, settings.tokens_per_minute
    if requests is None and tokens is None:
        return 0.0
    now = time.time()
    with _moments(settings) as moments:
        wait = 0.0
        if tokens is not None:
            wait = moments[1] - now - _BURST_SECONDS
        if requests is not None:
            each = 60.0 / requests
            burst = max(_BURST_SECONDS, each) - each
            moments[0] = max(moments[0], now) + each
            wait = max(wait, moments[0] - each - now - burst)
    return max(0.0, wait)


def spend(settings: ModelSettings, tokens: int) -> None:
    """Count the tokens of a reply."""
    if settings.tokens_per_minute is not None and tokens > 0:
        with _moments(settings) as moments:
            each = 60.0 / settings.tokens_per_minute
            moments[1] = max(moments[1], time.time()) + tokens * each


@contextmanager
def _moments(settings: ModelSettings) -> Iterator[list[float]]:
    """Yield both moments, to be changed while nobody else reads them.

    Where the file cannot be used, nothing is limited, and a warning says so: it is no reason for a
    call to fail.
    """
    try:
        opened = _file(settings).open("a+b")
    except OSError as error:
        logger.warning("requests_per_minute and tokens_per_minute are not kept: %s", error)
        yield [0.0, 0.0]
        return
    with _lock, opened as file, _locked(file):
        file.seek(0)
        data = file.read()
        moments = list(_MOMENTS.unpack(data)) if len(data) == _MOMENTS.size else [0.0, 0.0]
        yield moments
        file.truncate(0)
        file.write(_MOMENTS.pack(*moments))


@contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
    yield
    file.flush()


def _file(settings: ModelSettings) -> Path:
    """Return the file of an endpoint's model; a hash, so that no address stands in its name."""
    folder = _folder(tempfile.gettempdir())
    model = settings.model or getattr(settings, "name", "")
    of = f"{settings.provider}\n{settings.base_url}\n{settings.key_variable}\n{model}"
    return folder / hashlib.sha256(of.encode()).hexdigest()[:32]


@cache
def _folder(temporary: str) -> Path:
    folder = Path(temporary) / f"router-r1-limits-{getattr(os, 'getuid', int)()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
