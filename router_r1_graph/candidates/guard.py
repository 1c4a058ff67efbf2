"""The body of a server's reply, while it comes: its length is limited, its JSON read leniently.

A reply that came is most likely paid. So its usage is noted before anything can fail to read it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from functools import cache
from types import new_class
from typing import Any

from ..outside import read_reply_json

MOST_BYTES = 64 * 2**20
"""The most bytes that are read, unpacked, of a body or of one line of a stream."""
MOST_OF_A_STREAM = 4
"""How many times as long a stream may be: servers spend 300 to 500 bytes on a token."""
MOST_OF_AN_ERROR = 2**18
"""The most bytes that are read of an error, whose words are searched dozens of times."""
_came: ContextVar[list[Mapping[str, Any]] | None] = ContextVar("came", default=None)
"""The report of the reply in this task, if it has come: tasks that read a stream share the list."""


class OverlongReplyError(Exception):
    """A reply has more than `MOST_BYTES`."""


def forget_report() -> None:
    """Forget the last reply in this task, before a request."""
    _came.set([])


def note_report(report: Mapping[str, Any]) -> None:
    """Note usage that the reply in this task reports; an empty report says that one has come."""
    if (came := _came.get()) is None:
        _came.set(came := [])
    came[:] = [{**(came[0] if came else {}), **report}]


def noted_report() -> dict[str, Any] | None:
    """Return the usage of the reply in this task; {} = none yet, None = no reply has come."""
    came = _came.get()
    return dict(came[0]) if came else None


class _Guarded:
    """In front of a class of responses: a body has a limit, and its JSON is read leniently."""

    def iter_bytes(self, *args: Any, **options: Any) -> Iterator[bytes]:
        counted = _Counted(self)
        for piece in super().iter_bytes(*args, **options):  # type: ignore[misc]
            yield counted.add(piece)
            if counted.enough:
                self.close()  # type: ignore[attr-defined]
                return

    async def aiter_bytes(self, *args: Any, **options: Any) -> AsyncIterator[bytes]:
        counted = _Counted(self)
        async with aclosing(super().aiter_bytes(*args, **options)) as pieces:  # type: ignore[misc]
            async for piece in pieces:
                yield counted.add(piece)
                if counted.enough:
                    break
        if counted.enough:
            await self.aclose()  # type: ignore[attr-defined]

    def json(self, **_: Any) -> Any:
        return read_reply_json(self.content)  # type: ignore[attr-defined]


@cache
def _guarded(kind: type[Any]) -> type[Any]:
    return new_class(kind.__name__, (_Guarded, kind))


class _Counted:
    def __init__(self, response: Any) -> None:
        self._is_error = not response.is_success
        self._streams = "event-stream" in response.headers.get("content-type", "")
        self._line = self._whole = 0

    @property
    def enough(self) -> bool:
        """Whether the rest is not read: a server may not even end it."""
        return self._is_error and self._whole >= MOST_OF_AN_ERROR

    def add(self, piece: bytes) -> bytes:
        """Count a piece, and return as much of it as is read.

        Raises:
            OverlongReplyError: it is one too many.
        """
        if self._is_error:
            piece = piece[: MOST_OF_AN_ERROR - self._whole]
        self._whole += len(piece)
        if self._streams and (end := piece.rfind(b"\n") + 1):
            self._line = -end
        self._line += len(piece)
        for count, most in (
            (self._line, MOST_BYTES),
            (self._whole, MOST_BYTES * MOST_OF_A_STREAM),
        ):
            if count > most:
                raise OverlongReplyError(f"the reply has more than {most:,} bytes")
        return piece


def guard(response: Any) -> None:
    """Guard a response whose body has not been read, and note that a reply has come."""
    kind: Any = type(response)
    response.__class__ = _guarded(kind)
    if response.is_success:
        note_report({})


async def aguard(response: Any) -> None:
    """Do what `guard` does, as a hook of an asynchronous client."""
    guard(response)
