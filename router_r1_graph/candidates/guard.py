"""The body of a server's reply, while it comes: its length is limited, its JSON read leniently.

A reply that came is most likely paid. So its usage is noted before anything can fail to read it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from types import new_class
from typing import Any

from ..outside import read_reply_json

MOST_BYTES = 32 * 2**20
"""The most bytes of a reply that are read, unpacked: far more than any model writes."""
_report: ContextVar[dict[str, Any] | None] = ContextVar("report", default=None)


class OverlongReplyError(Exception):
    """A reply has more than `MOST_BYTES`."""


def forget_report() -> None:
    """Forget the last reply in this task, before a request."""
    _report.set(None)


def note_report(report: Mapping[str, Any]) -> None:
    """Note usage that the reply in this task reports; an empty report says that one has come."""
    _report.set({**(_report.get() or {}), **report})


def noted_report() -> dict[str, Any] | None:
    """Return the usage of the reply in this task; {} = none yet, None = no reply has come."""
    return _report.get()


class _Guarded:
    """In front of a class of responses: a body has a limit, and its JSON is read leniently."""

    def iter_bytes(self, *args: Any, **options: Any) -> Iterator[bytes]:
        count = 0
        for piece in super().iter_bytes(*args, **options):  # type: ignore[misc]
            count = _counted(count, piece)
            yield piece

    async def aiter_bytes(self, *args: Any, **options: Any) -> AsyncIterator[bytes]:
        count = 0
        async for piece in super().aiter_bytes(*args, **options):  # type: ignore[misc]
            count = _counted(count, piece)
            yield piece

    def json(self, **_: Any) -> Any:
        return read_reply_json(self.content)  # type: ignore[attr-defined]


@cache
def _guarded(kind: type[Any]) -> type[Any]:
    return new_class(kind.__name__, (_Guarded, kind))


def _counted(count: int, piece: bytes) -> int:
    if (count := count + len(piece)) > MOST_BYTES:
        raise OverlongReplyError(f"the reply has more than {MOST_BYTES:,} bytes")
    return count


def guard(response: Any) -> None:
    """Guard a response whose body has not been read, and note that a reply has come."""
    kind: Any = type(response)
    response.__class__ = _guarded(kind)
    if response.is_success:
        note_report({})


async def aguard(response: Any) -> None:
    """Do what `guard` does, as a hook of an asynchronous client."""
    guard(response)
