"""The events of a stream, before openai's client reads them.

If an event names an error, the client keeps only the error, and loses the usage and the words
beside it. An event without JSON (a sign of life, words of a gateway) ends the stream with an error
without a message. A byte-order mark at the beginning of the stream loses its first event, and
events without blank lines between them are not recognised. Nor is a reply that is sent as a whole,
or chunks alone, under another content type than that of JSON.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response

from .._compat import read_otherwise
from ..outside import read_reply_json, writable_within
from .guard import note_report
from .wire import NAMED, failure_in, kept_for, report_in

_ALIVE = re.compile(r"(null|ping|heart-?beat|keep-?_?alive)?", re.I)
_DONE = "[DONE]"
_ENDS = re.compile(r"\[DONE\]|\W*DONE\W*\Z", re.I)
_WHOLE = re.compile(rb"data:\s*(?:\{.*\}|\[DONE\])\s*")


def let_through(client: Any) -> None:
    """Let a client of openai's read events of servers that do not keep to the standard.

    Args:
        client: synchronous or asynchronous.
    """
    read_otherwise(client, lambda make: lambda: _Decoder(make()), _processed)


def _processed(read: Callable[..., Any]) -> Callable[..., Any]:
    """Return what reads a body, or the data of an event, and keeps what `read` would drop."""

    def process(*, data: object, cast_to: Any, **of_it: Any) -> Any:
        data = writable_within(data)  # once more for a client on connections of the user's own
        if isinstance(data, Mapping):
            response = data.get("response")  # of an event of the Responses API
            if report := report_in(response if isinstance(response, Mapping) else data):
                note_report(report)
        if isinstance(data, Mapping) and (cast_to is Response or "response" in data):
            if error := failure_in(data):  # LangChain keeps its words alone
                raise error
            data = kept_for(data)
        cast_to = _Chunk if cast_to is ChatCompletionChunk else cast_to
        return read(data=data, cast_to=cast_to, **of_it)

    return process


class _Chunk(ChatCompletionChunk):
    """A chunk that LangChain can read without a warning, even with odd contents."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Return the chunk as it was sent."""
        return super().model_dump(**{**options, "warnings": False})


def is_stream(text: str) -> bool:
    """Return whether a text is a stream of events, even if its content type is another."""
    return re.match(r"(data|event|id|retry)?:", text) is not None


class _Decoder:
    """openai's decoder; its events are repaired."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def iter_bytes(self, iterator: Iterator[bytes]) -> Iterator[Any]:
        for event in self._decoder.iter_bytes(_framed(iterator)):
            if (read := _read(event)) is not None:
                yield _lenient(read)

    async def aiter_bytes(self, iterator: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for event in self._decoder.aiter_bytes(_aframed(iterator)):
            if (read := _read(event)) is not None:
                yield _lenient(read)


def _lenient(event: Any) -> Any:
    event.json = partial(read_reply_json, event.data)
    return event


def _framed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    frames = _Frames()
    for piece in pieces:
        yield frames.closed(piece)
    yield frames.closed(b"\n\n")


async def _aframed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    frames = _Frames()
    async for piece in pieces:
        yield frames.closed(piece)
    yield frames.closed(b"\n\n")


class _Frames:
    """The lines of a stream, with a blank line after each whole event."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """The pieces of the last line, joined once: a long line comes in thousands of them."""
        self._begun = False
        self._bare = False
        """Whether its lines are the JSON of a whole reply, or of chunks, and no events."""
        self._within = False
        """Whether a line of the event has come, and more may follow."""

    def closed(self, piece: bytes) -> bytes:
        """Return the lines that are complete after one more piece of the stream."""
        waits = self._rest and self._rest[-1].endswith(b"\r")
        self._rest.append(piece)
        if not (waits or b"\n" in piece or b"\r" in piece):
            return b""
        *lines, last = [*b"".join(self._rest).splitlines(keepends=True), b""]
        if lines and not lines[-1].endswith(b"\n"):  # a CR may be half of a line's end
            last = lines.pop()
        self._rest = [last]
        return b"".join(map(self._line, lines))

    def _line(self, line: bytes) -> bytes:
        if not line.isascii():
            line = line.decode(errors="replace").encode()
        if not self._begun:
            line, self._begun = line.removeprefix(codecs.BOM_UTF8), True
            self._bare = line.lstrip().startswith(b"{")
        if self._bare and line.strip():
            line = b"data: " + line
        if not line.startswith(b"data:"):
            self._within &= bool(line.strip())
            return line
        whole = not self._within and _WHOLE.fullmatch(line)
        self._within = not whole
        return line + b"\n\n" if whole else line


def _read(event: Any) -> Any:
    """Return the event as openai's client takes it; None = it is empty."""
    data = event.data.strip()
    if data.startswith("{"):
        return _named(event, data) if '"error"' in data else event
    if _ENDS.match(data):
        return type(event)(event=event.event, data=_DONE)
    if data.startswith("[{"):  # Gemini
        return _named(event, json.dumps(next(iter(_parsed(data) or []), {})))
    words = _parsed(data) or data
    if any(_ALIVE.fullmatch(said.strip()) for said in (str(words), event.event or "none")):
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
        return read_reply_json(text)
    except ValueError:
        return None
