"""The server's connections: how many there are, and how long one may take to send a request.

Without these limits, a client that opens connections and sends nothing could use up all that the
process may have. If there are too many, the connection that has been silent for the longest time is
closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

resource: Any
try:
    import resource
except ImportError:  # pragma: no cover - Windows
    resource = None

HEADER_SECONDS = 10.0
"""The most seconds for the line and the headers of a request."""
_MOST = 4096


def most_connections() -> int:
    """Return how many connections are held at once: half of the files that may be open."""
    if resource is None:  # pragma: no cover
        return _MOST
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else max(8, min(_MOST, files // 2))


def limited(
    most: int | None = None, header_seconds: float = HEADER_SECONDS
) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with limits, to be given as `http` of its config.

    Args:
        most: the most connections at once; None = see `most_connections`.
        header_seconds: how long a connection may be without a request.
    """
    allowed = most_connections() if most is None else most
    silent: dict[asyncio.Protocol, None] = {}  # in the order of their last word
    held: set[asyncio.Protocol] = set()

    class Limited(AutoHTTPProtocol):  # type: ignore[misc]
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            held.add(self)
            if len(held) > allowed:
                longest: Any = next(iter(silent), self)
                longest._drop()
            if self in held:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._go_on()
            held.discard(self)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            cycle: Any = self.cycle
            if cycle is not None and not cycle.response_complete:
                self._go_on()
            elif self not in silent and self in held:
                self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            cycle: Any = self.cycle
            if self in held and (cycle is None or cycle.response_complete):
                self._wait()

        def _wait(self) -> None:
            self._go_on()
            silent[self] = None
            self._timer = asyncio.get_running_loop().call_later(header_seconds, self._drop)

        def _go_on(self) -> None:
            silent.pop(self, None)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _drop(self) -> None:
            self._go_on()
            held.discard(self)
            self.transport.abort()

    return Limited


class Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's server, which tells the application some seconds after the signal to stop.

    Args:
        config: of uvicorn; its `timeout_graceful_shutdown` is longer than `seconds`.
        stop: ends the runs that are still in progress.
        seconds: how long they may continue; a second signal ends them at once.
    """

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None], seconds: float) -> None:
        super().__init__(config)
        self._stop = stop
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def shutdown(self, sockets: Any = None) -> None:
        """Let requests in progress end, and end them when their time is over."""
        self._loop = asyncio.get_running_loop()
        timer = self._loop.call_later(self._seconds, self._stop)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at the second signal, end the runs; at the third, everything."""
        if self.should_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop)
            self._loop = None
            return
        super().handle_exit(sig, frame)
