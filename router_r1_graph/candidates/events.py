"""The events of a stream, before openai's client reads them.

Of an event that names an error, the client keeps the error alone: what the reply is billed for, and
the words beside it, are lost. An event without JSON (a sign of life, words of a gateway) ends the
stream with an error that says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from .wire import NAMED

_ALIVE = re.compile(r"\s*(null|ping|heart-?beat|keep-?_?alive)?\s*", re.I)
_DONE = "[DONE]"


def let_through(client: Any) -> None:
    """Let a client of openai's read events of servers that keep to no standard.

    Args:
        client: synchronous or asynchronous. Without the private method that makes its decoder, it
            stays as it is: a broken stream is an error all the same, with less in it.
    """
    make = getattr(client, "_make_sse_decoder", None)
    if make is not None:
        client._make_sse_decoder = lambda: _Decoder(make())


def is_stream(text: str) -> bool:
    """Return whether a text is a stream of events, whatever its server calls it."""
    return re.match(r"(data|event|id|retry)?:", text) is not None


class _Decoder:
    """openai's decoder, whose events are read again."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def iter_bytes(self, iterator: Iterator[bytes]) -> Iterator[Any]:
        for event in self._decoder.iter_bytes(iterator):
            if (read := _read(event)) is not None:
                yield read

    async def aiter_bytes(self, iterator: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for event in self._decoder.aiter_bytes(iterator):
            if (read := _read(event)) is not None:
                yield read


def _read(event: Any) -> Any:
    """Return the event as openai's client takes it; None = it says nothing."""
    data = event.data.strip()
    if data.startswith("{"):
        return _named(event, data) if '"error"' in data else event
    if data.upper().startswith(_DONE):
        return type(event)(event=event.event, data=_DONE)
    if data.startswith("[{"):  # Gemini
        return _named(event, json.dumps(next(iter(_parsed(data) or []), {})))
    words = _parsed(data) or data
    if _ALIVE.fullmatch(str(words)) or _ALIVE.fullmatch(event.event or "none"):
        return None
    return type(event)(event=event.event, data=json.dumps({NAMED: words}))


def _named(event: Any, data: str) -> Any:
    """Return an event with its error under a name that openai's client lets through."""
    body = _parsed(data)
    # Events of the Responses API are numbered, and LangChain reads their errors.
    if isinstance(body, Mapping) and body.get("error") and "sequence_number" not in body:
        body = {**body, NAMED: body["error"], "error": None}
        return type(event)(event=event.event, data=json.dumps(body))
    return event


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return None
