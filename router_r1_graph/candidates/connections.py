"""HTTP clients of the endpoints: connections that belong to one event loop, and one TLS set-up.

LangChain shares an asynchronous client among all event loops of a process. A connection that a
closed loop has left is dead, and its next request fails with "Event loop is closed".
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import openai

from ..outside import usd
from .failures import plain_address
from .guard import aguard, forget_report, guard, noted_report
from .sending import atold, told

_COST_HEADER = "x-litellm-response-cost"
"""LiteLLM's proxy reports a cost only here; 0 = it does not know the model's price."""
_cost: ContextVar[str] = ContextVar("cost", default="")


class WholeReplyError(Exception):
    """A server that was asked for a stream sent its reply as a whole."""


class StreamedReplyError(Exception):
    """A server that was asked for a whole reply sent a stream."""


def cost_in_headers() -> dict[str, float]:
    """Return the cost in the headers of the last whole reply in this task, as a body reports it."""
    cost = usd(_cost.get())
    return {"cost": cost} if cost else {}


def forget_reply() -> None:
    """Forget the last reply, before a request that may go over another client's connections."""
    _cost.set("")
    forget_report()


def reported_so_far() -> dict[str, Any] | None:
    """Return the usage of the reply in this task; {} = none yet, None = no reply has come."""
    report = noted_report()
    return None if report is None else {**cost_in_headers(), **report}


class RedirectedError(Exception):
    """A server redirected the request in a way that loses its body."""


class Client(openai.DefaultHttpxClient):
    """A synchronous client that closes its connections when it is no longer used."""

    def __init__(self, **options: Any) -> None:
        super().__init__(event_hooks={"request": [told], "response": [guard]}, **options)

    def send(self, request: Any, **options: Any) -> Any:
        """Send a request."""
        response = super().send(request, **options)
        if error := _other_than_asked(request, response):
            response.close()
            raise error
        return response

    def __del__(self) -> None:
        try:  # noqa: SIM105 - at the end of the interpreter, `suppress` may be gone
            self.close()
        except Exception:  # nosec B110
            pass


class LoopAwareClient(openai.DefaultAsyncHttpxClient):
    """An asynchronous client with its own connections for each event loop that uses it.

    Args:
        **options: the options of httpx's client.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        hooks = {"request": [atold], "response": [aguard]}
        self._options = {"event_hooks": hooks, **options}
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
        if error := _other_than_asked(request, response):
            await response.aclose()
            raise error
        return response


def _other_than_asked(request: Any, response: Any) -> Exception | None:
    """Return an error if a reply is a stream against the request, or none; None = it fits.

    openai's client does not notice a whole reply in place of a stream, nor a redirection that
    turns its POST into a GET.
    """
    if response.request.method != request.method:
        there = plain_address(str(response.url))
        return RedirectedError(f"the server redirects to {there}: set base_url to where it leads")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    asked = b'"stream":true' in request.content  # no text can hold it: quotes are escaped
    _cost.set("" if asked else response.headers.get(_COST_HEADER, ""))
    if not response.is_success:
        return None
    if asked and kind.endswith(("/json", "+json")):
        return WholeReplyError("the server sends whole replies, and no stream")
    if not asked and kind == "text/event-stream":
        return StreamedReplyError("the server sends streams, and no whole replies")
    return None


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
