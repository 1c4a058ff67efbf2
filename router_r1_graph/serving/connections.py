"""The server's connections: how many there are, and how long a request and its head may take.

Without these limits, a client without a key could use up all that the process may have, by opening
connections that say nothing, or by headers without end. If there are too many connections, the one
that has been silent for the longest time is closed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from .refused import RefusedError

resource: Any
try:
    import resource
except ImportError:  # pragma: no cover - Windows
    resource = None

HEADER_SECONDS = 10.0
"""The most seconds for the line and the headers of a request."""
LONGEST_HEAD = 64 * 1024
"""Bytes of the line and the headers of a request; one that is read at once may be longer."""
_COUNTS_HEADS = hasattr(AutoHTTPProtocol, "on_headers_complete")
"""Whether uvicorn's protocol is that of httptools; that of h11 has a limit of its own."""
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
        _head: int | None = 0 if _COUNTS_HEADS else None  # bytes so far; None = a body is read

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
            if self._head is not None:
                self._head += len(data)
            super().data_received(data)
            if self._head is not None and self._head > LONGEST_HEAD:
                self._refuse()
            cycle: Any = self.cycle
            if cycle is not None and not cycle.response_complete:
                self._go_on()
            elif self not in silent and self in held:
                self._wait()

        def on_headers_complete(self) -> None:
            self._head = None
            super().on_headers_complete()

        def on_chunk_header(self) -> None:
            self._head = 0  # behind the last chunk of a body, headers may come again

        def on_body(self, body: bytes) -> None:
            self._head = None
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._head = 0
            super().on_message_complete()

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

        def _refuse(self) -> None:
            """Answer that the head is too long, if no other answer is being written."""
            cycle: Any = self.cycle
            if not self.transport.is_closing() and (cycle is None or cycle.response_complete):
                is_path = 2 * len(getattr(self, "url", b"")) > LONGEST_HEAD
                status, what = (414, "path") if is_path else (431, "head")
                why = f"the {what} of the request is too long; at most {LONGEST_HEAD} bytes"
                body = json.dumps({"error": RefusedError(status, why).error}).encode()
                head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
                head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                self.transport.write(head.encode() + body)
            self.transport.close()

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
