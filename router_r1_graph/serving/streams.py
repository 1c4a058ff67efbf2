"""A streamed answer: the start of its response, and comments that keep its connection open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi import Request
from langchain_core.messages import AIMessage, AIMessageChunk
from starlette.responses import StreamingResponse

from ..chat.result import UNANSWERED
from .body import refusing
from .gone import unless_gone
from .refused import RefusedError
from .request import Asked, bill

KEEP_ALIVE_SECONDS = 15.0
"""Seconds for which a stream may be silent: proxies cut connections after a silent minute."""


def require_reply(message: AIMessage) -> None:
    """Check that somebody replied.

    Raises:
        RefusedError: nobody did; with the stop reason, the cause and the bill.
    """
    told = message.response_metadata
    if UNANSWERED in told:
        who = "no candidate" if told["calls"] else "the controller never"
        error = told.get("error")
        why = f"{who} replied: {error}" if error else "the time was up before anybody was asked"
        raise RefusedError(503, why, code=told["stop_reason"], more=bill(message))


async def streamed(
    request: Request,
    stopped: asyncio.Event,
    asked: Asked,
    pieces: AsyncGenerator[AIMessageChunk],
) -> StreamingResponse:
    """Return the response that streams an answer.

    It begins with the first piece, so that a refusal has its status. For a slow answer, it begins
    before that: comments keep the connection open, and a refusal is an event.

    Args:
        request: of the client; if it disconnects, the run is cancelled.
        stopped: set when the server ends the runs in progress.
        asked: the request.
        pieces: of the answer.

    Raises:
        RefusedError: there is no answer.
    """
    first = asyncio.ensure_future(anext(pieces))
    try:
        await unless_gone(request, stopped, asyncio.wait({first}, timeout=KEEP_ALIVE_SECONDS))
        if first.done():
            require_reply(first.result())
    except BaseException:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        raise
    events = asked.events(_beginning_with(first, pieces, type(asked)))
    return StreamingResponse(
        _kept_alive(events),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _beginning_with(
    first: asyncio.Future[AIMessageChunk],
    rest: AsyncGenerator[AIMessageChunk],
    kind: type[Asked],
) -> AsyncGenerator[AIMessageChunk]:
    async with aclosing(rest):
        with refusing(kind):
            piece = await first
            require_reply(piece)
            yield piece
            async for piece in rest:
                yield piece


async def _kept_alive(events: AsyncIterator[str]) -> AsyncGenerator[str]:
    """Yield events, and a comment of server-sent events if there was none for a while."""
    event = asyncio.ensure_future(anext(events))
    try:
        while True:
            await asyncio.wait({event}, timeout=KEEP_ALIVE_SECONDS)
            if not event.done():
                yield ": keep-alive\n\n"
                continue
            try:
                yield event.result()
            except StopAsyncIteration:
                return
            event = asyncio.ensure_future(anext(events))
    finally:
        event.cancel()
