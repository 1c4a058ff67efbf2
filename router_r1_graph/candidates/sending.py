"""How far the request of an attempt has come: until its head is sent, it costs nothing.

A machine that is down may not even refuse a connection. An attempt then ends at its time-out, like
one whose reply is late, and only its connections know that there is nothing to pay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

_DIALS = (".connect_tcp.started", ".connect_unix_socket.started")
_SENDS = ".send_request_headers.started"
"""The ends of the names that httpcore gives these events."""


class AbandonedError(Exception):
    """A request was about to be sent for an attempt that nobody waits for any more."""


class Sending:
    """What the connections of one attempt have told."""

    def __init__(self) -> None:
        self._watched = self._dialled = self._sent = self._given_up = False
        self._lock = threading.Lock()

    def watch(self, model: object) -> None:
        """Believe what is told, if the model sends nothing over connections of other clients."""
        self._watched = getattr(type(model), "tells_what_it_sends", False)

    def give_up(self) -> bool:
        """Return whether nothing was sent; if so, nothing will be sent from now on."""
        with self._lock:
            self._given_up = self._watched and self._dialled and not self._sent
            return self._given_up

    def tell(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear of an event of a connection.

        Raises:
            AbandonedError: the attempt was given up before, and this would send its request.
        """
        with self._lock:
            self._dialled |= event.endswith(_DIALS)
            request = info.get("request")
            # A request to a proxy, to be connected with the server, is none of the server's.
            if event.endswith(_SENDS) and getattr(request, "method", b"") != b"CONNECT":
                if self._given_up:
                    raise AbandonedError("nobody waits for the reply any more")
                self._sent = True


_of_attempt: ContextVar[Sending | None] = ContextVar("sending", default=None)


def attempt(sending: Sending) -> Callable[..., T]:
    """Return what runs a function within a new attempt, which tells how far it has come."""
    context = copy_context()
    context.run(_of_attempt.set, sending)
    return context.run


def watch(model: object) -> None:
    """Say which model the attempt in this context asks."""
    if sending := _of_attempt.get():
        sending.watch(model)


def told(request: Any) -> None:
    """Have a request tell its attempt how far it comes: a hook of httpx's synchronous client."""
    if sending := _of_attempt.get():
        request.extensions = {**request.extensions, "trace": sending.tell}


async def atold(request: Any) -> None:
    """Do what `told` does, as a hook of an asynchronous client."""
    if sending := _of_attempt.get():

        async def tell(event: str, info: Mapping[str, Any]) -> None:
            sending.tell(event, info)

        request.extensions = {**request.extensions, "trace": tell}
