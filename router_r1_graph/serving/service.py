"""The routes of the served router: which model answers, how many at once, and the metrics."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from .._compat import inherit
from ..candidates.in_time import LONG, in_a_thread
from ..chat.router import ChatRouterR1
from ..words import counted
from .body import parsed, read_body, refusing
from .chat import ChatRequest
from .chores import as_chore, is_chore
from .endpoints import EndpointCollector
from .gone import shutting_down, unless_gone
from .knobs import MODEL, checked, knobs_in_name
from .meter import Meter, Metrics, metered
from .refused import RefusedError
from .request import Asked, read_request
from .responses import ResponsesRequest
from .schemas import with_schema
from .shadow import Shadow
from .streams import require_reply, streamed

_LARGE_AT_ONCE = 4
"""The most large bodies that are read at once: each takes processor time and memory."""
_RETRY_AFTER_SECONDS = 1
_T = TypeVar("_T")
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)


class RouterService:
    """The routes of the app.

    Args:
        model: answers the questions.
        max_concurrency: the most questions that are answered at once.
        queue: the most further questions that may wait; any more are refused with status 429.
        api_key: the key that clients have to send; "" = none.
        chores: answers prompts that chat UIs send by themselves; None = `model` does.
        shadow: the spec of a second controller; "" = none.
        callbacks: of every run, such as a writer of its trace.
    """

    def __init__(
        self,
        model: ChatRouterR1,
        *,
        max_concurrency: int,
        queue: int,
        api_key: str,
        chores: ChatRouterR1 | None,
        shadow: str = "",
        callbacks: Sequence[BaseCallbackHandler] = (),
    ) -> None:
        self.model = model
        self.chores = chores
        self._at_once, self._most = max_concurrency, max_concurrency + queue
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inside = 0
        self._api_key = api_key.encode()
        self._images = model.pool.taking_images() is not None
        self._started = int(time.time())
        self.registry = CollectorRegistry()
        of = {"namespace": "router_r1", "registry": self.registry}
        self.shadow = Shadow(shadow, model, self.registry) if shadow else None
        self.model = self.shadow.main if self.shadow else model
        self._callbacks = callbacks
        self._stopped = asyncio.Event()
        self._places = asyncio.Semaphore(max_concurrency)
        self._readers = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._metrics = Metrics(self.registry)
        self._requests = Counter("requests", "Requests, by HTTP status", ["status"], **of)
        self._in_flight = Gauge("in_flight", "Questions being answered now", **of)
        self.registry.register(EndpointCollector(model.pool))
        self._seconds = Histogram("seconds", "Seconds until an answer", buckets=_BUCKETS, **of)

    def stop(self) -> None:
        """End the runs in progress: their clients get an error that says so."""
        self._stopped.set()

    async def chat(self, request: Request) -> Response:
        """Answer a question: POST /v1/chat/completions."""
        return await self._counted(request, ChatRequest)

    async def responses(self, request: Request) -> Response:
        """Answer a question: POST /v1/responses."""
        return await self._counted(request, ResponsesRequest)

    def _enter_loop(self) -> None:
        """Make events and semaphores anew: asyncio's wait in one event loop only.

        A test client has a loop for each request.
        """
        if (loop := asyncio.get_running_loop()) is not self._loop:
            self._loop, self._stopped = loop, asyncio.Event()
            self._places = asyncio.Semaphore(self._at_once)
            self._readers = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def _counted(self, request: Request, kind: type[Asked]) -> Response:
        self._enter_loop()
        status = 500
        try:
            response = await self._answer(request, kind)
            status = response.status_code
            return response
        except RefusedError as refused:
            status = refused.status
            raise
        finally:
            self._requests.labels(str(status)).inc()

    async def _answer(self, request: Request, kind: type[Asked]) -> Response:
        self._authorize(request)
        coming = read_body(request, images=self._images)
        body = await unless_gone(None, self._stopped, coming)
        read = partial(self._understood, kind, body, request.headers.get("content-encoding", ""))
        if len(body) < LONG:
            asked, messages, options = read()
        else:
            reading = self._read_apart(read)
            asked, messages, options = await unless_gone(request, self._stopped, reading)
        model = self.model
        with refusing(kind):
            if self.chores is not None and is_chore(messages):
                model, messages = self.chores, as_chore(messages, options)
            if asked.stream:
                pieces = self._pieces(model, messages, options)
                return await streamed(request, self._stopped, asked, pieces)
            message = await unless_gone(request, self._stopped, self._ask(model, messages, options))
            require_reply(message)
        return JSONResponse(asked.response(message))

    async def _read_apart(self, read: Callable[[], _T]) -> _T:
        """Read a large body in a thread, which is left where the client goes or the server ends."""
        async with self._readers:
            return await in_a_thread(read)

    def _understood(
        self, kind: type[Asked], body: bytes, encoding: str
    ) -> tuple[Asked, list[BaseMessage], dict[str, Any]]:
        """Return the request, its messages, and the arguments for the chat model."""
        asked = read_request(kind, parsed(body, encoding))
        messages = asked.conversation(images=self._images)
        with refusing(kind):
            return asked, messages, with_schema(asked.options(self.model), messages)

    async def _ask(
        self, model: ChatRouterR1, messages: list[BaseMessage], options: dict[str, Any]
    ) -> AIMessage:
        async with self._place():
            with metered(self._metrics) as meter:
                start = time.perf_counter()
                config: RunnableConfig = {"callbacks": [*self._callbacks, meter]}
                message = await model.ainvoke(messages, config, **options)
                self._book(meter, message, start)
            if self.shadow and model is self.model:
                self.shadow.observe(messages, options, message)
            return message

    async def _pieces(
        self, model: ChatRouterR1, messages: list[BaseMessage], options: dict[str, Any]
    ) -> AsyncGenerator[AIMessageChunk]:
        """Yield the pieces of an answer as they come.

        The run has a task of its own. Starlette cancels a stream through anyio, which cancels again
        and again until the task is gone. That would interrupt LangGraph's own clean-up of a run,
        and its nodes would run on: paid, but unused.
        """
        pieces: asyncio.Queue[AIMessageChunk | None] = asyncio.Queue()

        async def run() -> None:
            try:
                async with self._place():
                    with metered(self._metrics) as meter:
                        start = time.perf_counter()
                        texts: list[str] = []
                        inherit({"callbacks": [*self._callbacks, meter]})
                        async for piece in model.astream(messages, **options):
                            pieces.put_nowait(piece)
                            texts.append(str(piece.text))
                        self._book(meter, piece, start)
                    if self.shadow and model is self.model:
                        whole = piece.model_copy(update={"content": "".join(texts)})
                        self.shadow.observe(messages, options, whole)
            finally:
                pieces.put_nowait(None)

        task = asyncio.create_task(run())
        stopped = asyncio.create_task(self._stopped.wait())
        stopped.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            if self._stopped.is_set() and not task.done():
                raise shutting_down()
            await task  # raises what went wrong
        finally:
            stopped.cancel()
            task.cancel()

    def _book(self, meter: Meter, message: AIMessage, start: float) -> None:
        """Count an answer; the last piece of a stream has its bill."""
        self._seconds.observe(time.perf_counter() - start)
        bill = message.response_metadata
        meter.close(bill["stop_reason"], bill["cost_usd"], bill["candidates"])

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Wait for a free place; refuse the request if too many wait already."""
        if self._inside >= self._most:
            raise RefusedError(
                429,
                f"the server is busy with {counted(self._inside, 'question')}; try again",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
            )
        self._inside += 1
        try:
            async with self._places:
                with self._in_flight.track_inprogress():
                    yield
        finally:
            self._inside -= 1

    def _authorize(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        key = given.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
        if self._api_key and not hmac.compare_digest(key, self._api_key):
            raise RefusedError(
                401,
                "the API key is missing or wrong",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def models(self, request: Request) -> Response:
        """List the one model there is: GET /v1/models."""
        self._authorize(request)
        return JSONResponse({"object": "list", "data": [self._described(MODEL)]})

    async def one_model(self, request: Request, name: str) -> Response:
        """Describe a model, even one with knobs in its name: GET /v1/models/NAME."""
        if not name:  # GET /v1/models/
            return await self.models(request)
        self._authorize(request)
        checked(knobs_in_name(name))
        return JSONResponse(self._described(name))

    def _described(self, name: str) -> dict[str, Any]:
        owner = {"created": self._started, "owned_by": "router-r1-graph"}
        return {"id": name, "object": "model", **owner}

    async def health(self) -> Response:
        """Say that the server is up: GET /health."""
        return JSONResponse({"status": "ok"})

    async def metrics(self) -> Response:
        """Return the metrics for Prometheus: GET /metrics."""
        # In a thread: a store of limits may be a server that does not answer.
        text = await in_a_thread(lambda: generate_latest(self.registry))
        return Response(text, media_type=CONTENT_TYPE_LATEST)
