"""HTTP clients of the endpoints: connections that belong to one event loop, and one TLS set-up.

LangChain shares an asynchronous client among all event loops of a process. A connection that a
closed loop has left is dead, and its next request fails with "Event loop is closed".
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import openai

_WHOLE = "the server sends whole replies, and no stream"


class WholeReplyError(Exception):
    """A server that was asked for a stream sent its reply as a whole."""


class Client(openai.DefaultHttpxClient):
    """A synchronous client that closes its connections when nobody holds it any more."""

    def send(self, request: Any, **options: Any) -> Any:
        """Send a request."""
        response = super().send(request, **options)
        if _is_whole(response):
            response.close()
            raise WholeReplyError(_WHOLE)
        return response

    def __del__(self) -> None:
        try:  # noqa: SIM105 - at the end of the interpreter, `suppress` may be gone
            self.close()
        except Exception:  # nosec B110
            pass


class LoopAwareClient(openai.DefaultAsyncHttpxClient):
    """An asynchronous client with its own connections for each event loop that uses it.

    Args:
        **options: what httpx's client takes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._options = options
        self._lock = threading.Lock()
        self._of_loop: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[None]]] = {}

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request over a connection of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._of_loop:
            client = openai.DefaultAsyncHttpxClient(**self._options)
            end = _close_with_the_loop(client)
            await anext(end)
            with self._lock:
                living = {old: kept for old, kept in self._of_loop.items() if not old.is_closed()}
                self._of_loop = living | {loop: (client, end)}
        client, _ = self._of_loop[loop]
        response = await client.send(request, **options)
        if _is_whole(response):
            await response.aclose()
            raise WholeReplyError(_WHOLE)
        return response


def _is_whole(response: Any) -> bool:
    """Return whether a reply that should be a stream is none: openai's client hears nothing."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    asked = b'"stream":true' in response.request.content  # no text can hold it: quotes are escaped
    return asked and response.status_code == 200 and kind == "application/json"


async def _close_with_the_loop(client: Any) -> AsyncGenerator[None]:
    """Close a client when its event loop shuts down, which ends every generator that has begun."""
    try:
        yield
    finally:
        await client.aclose()


@lru_cache(maxsize=256)
def clients_of(address: str | None, proxy: str | None) -> tuple[Any, Any]:
    """Return the synchronous and the asynchronous client of an address, shared by its candidates.

    Args:
        address: the base URL of an endpoint; None = OpenAI's own.
        proxy: the URL of a proxy; None = that of the environment, if any.
    """
    options: dict[str, Any] = {"verify": _tls()} | ({"proxy": proxy} if proxy else {})
    return Client(**options), LoopAwareClient(**options)


@cache
def _tls() -> Any:
    """Return the TLS settings of every client: reading the certificates takes 30 ms."""
    # httpx or httpx2, whichever this release of openai is made of.
    library = openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]
    return import_module(library).create_ssl_context()
