"""HTTP clients of the endpoints: connections that belong to one event loop, and one TLS set-up.

LangChain shares an asynchronous client among all event loops of a process. A connection that a
closed loop has left is dead, and its next request fails with "Event loop is closed".
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import openai

from ..outside import usd
from .failures import chain, plain_address
from .guard import aguard, forget_report, guard, note_report, noted_report
from .sending import atold, told
from .server_events import is_stream

_COST_HEADER = "x-litellm-response-cost"
"""LiteLLM's proxy reports a cost only here; 0 = it does not know the model's price."""
_cost: ContextVar[str] = ContextVar("cost", default="")


class OtherModeError(Exception):
    """A reply is a stream against the request, or none.

    Args:
        message: the words of the error.
        response: the response, if our own client has read it.
    """

    def __init__(self, message: str = "", response: Any = None) -> None:
        super().__init__(message)
        self.response = response


class WholeReplyError(OtherModeError):
    """A server that was asked for a stream sent its reply as a whole."""


class StreamedReplyError(OtherModeError):
    """A server that was asked for a whole reply sent a stream."""


_kept: ContextVar[Any] = ContextVar("kept", default=None)
"""A response of the other mode, for the next request in this task."""


def read_in_its_mode(error: BaseException) -> None:
    """Let the request that follows an `OtherModeError` in this task read the reply that came.

    It is paid already, so no second one is asked for.
    """
    _kept.set(next((e.response for e in chain(error) if isinstance(e, OtherModeError)), None))


def _taken(request: Any) -> Any:
    """Return the response that is kept for a request, if there is one."""
    response = _kept.get()
    if response is None:
        return None
    _kept.set(None)
    asked, asks = (json.loads(one.content) for one in (response.request, request))
    if any(asked.get(name) != asks.get(name) for name in ("model", "messages", "input")):
        return None
    response.request = request  # openai's client reads its headers
    note_report({})
    _note_cost(request, response)
    return response


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
        if kept := _taken(request):
            return kept
        response = super().send(request, **options)
        if error := _redirected(request, response):
            response.close()
            raise error
        if other := _other_mode(request, response):
            response.read()
            raise other
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
        if kept := _taken(request):
            return kept
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
        if error := _redirected(request, response):
            await response.aclose()
            raise error
        if other := _other_mode(request, response):
            await response.aread()
            raise other
        return response


def _redirected(request: Any, response: Any) -> RedirectedError | None:
    """Return an error if a redirection turned a POST into a GET. openai's client lets it pass."""
    if response.request.method == request.method:
        return None
    there = plain_address(str(response.url))
    return RedirectedError(f"the server redirects to {there}: set base_url to where it leads")


def _other_mode(request: Any, response: Any) -> OtherModeError | None:
    """Return an error if a reply is a stream against the request, or none.

    openai's client does not notice that either.
    """
    _note_cost(request, response)
    if not response.is_success:
        return None
    response.request = request  # that of a redirection does not know its body
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if _asks_stream(request):
        if kind.endswith(("/json", "+json")):
            return WholeReplyError("the server sends whole replies, and no stream", response)
    elif kind == "text/event-stream" or (
        response.is_stream_consumed and is_stream(response.content[:9].decode("latin-1"))
    ):
        return StreamedReplyError("the server sends streams, and no whole replies", response)
    return None


def _note_cost(request: Any, response: Any) -> None:
    """Note the cost in the headers of a whole reply; those of a stream come before it is known."""
    _cost.set("" if _asks_stream(request) else response.headers.get(_COST_HEADER, ""))


def _asks_stream(request: Any) -> bool:
    return b'"stream":true' in request.content  # no text can hold it: quotes are escaped


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
