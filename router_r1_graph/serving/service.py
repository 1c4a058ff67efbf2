"""What the routes of the served router do: who is asked, how many at once, what is counted."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
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
from ..chat.router import ChatRouterR1
from ..errors import ConfigError, ControllerError, QuestionError
from ..trace import TraceWriter
from ..words import counted
from .chat import ChatRequest
from .chores import as_question, is_chore
from .endpoints import EndpointCollector
from .knobs import MODEL, checked, knobs_in_name
from .refused import RefusedError
from .request import Asked, read_request
from .responses import ResponsesRequest
from .schemas import with_schema
from .shadow import Shadow

_LARGEST_BODY = 4 * 1024 * 1024
_RETRY_AFTER_SECONDS = 1
_T = TypeVar("_T")
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)


class RouterService:
    """What the routes of the app do.

    Args:
        model: answers the questions.
        max_concurrency: the most questions that are answered at once.
        queue: the most further questions that may wait; any more are refused with status 429.
        api_key: the key that clients have to send; "" = none.
        chores: answers what chat UIs ask on their own; None = `model` does.
        shadow: the spec of a controller that is run beside; "" = none.
        writer: writes the trace of each run; None = none is kept.
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
        writer: TraceWriter | None = None,
    ) -> None:
        self.model = model
        self.chores = chores
        self._most = max_concurrency + queue
        self._places = asyncio.Semaphore(max_concurrency)
        self._inside = 0
        self._api_key = api_key.encode()
        self._started = int(time.time())
        self.registry = CollectorRegistry()
        of = {"namespace": "router_r1", "registry": self.registry}
        self.shadow = Shadow(shadow, model, self.registry) if shadow else None
        self.model = self.shadow.main if self.shadow else model
        self._config: RunnableConfig = {"callbacks": [writer]} if writer else {}
        self._requests = Counter("requests", "Requests, by HTTP status", ["status"], **of)
        self._in_flight = Gauge("in_flight", "Questions being answered now", **of)
        self._usd = Counter("cost_usd", "USD of all answered questions", **of)
        self._calls = Counter("calls", "Calls, by candidate", ["candidate"], **of)
        self.registry.register(EndpointCollector(model.pool))
        self._seconds = Histogram("seconds", "Seconds until an answer", buckets=_BUCKETS, **of)

    async def chat(self, request: Request) -> Response:
        """Answer a question: POST /v1/chat/completions."""
        return await self._counted(request, ChatRequest)

    async def responses(self, request: Request) -> Response:
        """Answer a question: POST /v1/responses."""
        return await self._counted(request, ResponsesRequest)

    async def _counted(self, request: Request, kind: type[Asked]) -> Response:
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
        asked = read_request(kind, await _read(request))
        messages = asked.conversation(images=self.model.pool.taking_images() is not None)
        options = with_schema(asked.options(self.model), messages)
        model = self.model
        if self.chores is not None and is_chore(messages):
            model, messages = self.chores, [as_question(messages)]
        try:
            if asked.stream:
                # The first piece sends the status: any refusal has to come before it.
                pieces = self._pieces(model, messages, options)
                first = await _unless_gone(request, anext(pieces))
                return StreamingResponse(
                    asked.events(_beginning_with(first, pieces)),
                    media_type="text/event-stream",
                    headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
                )
            message = await _unless_gone(request, self._ask(model, messages, options))
        except QuestionError as error:
            raise RefusedError(400, str(error), param="messages") from None
        except ControllerError as error:
            raise RefusedError(502, str(error), code="controller_error") from None
        except ConfigError as error:  # it begins with the field: `keep`, `tools`, `budget_usd`
            field = str(error).partition(":")[0]
            param = field if field in kind.model_fields else None
            raise RefusedError(400, str(error), param=param) from None
        return JSONResponse(asked.response(message))

    async def _ask(
        self, model: ChatRouterR1, messages: list[BaseMessage], options: dict[str, Any]
    ) -> AIMessage:
        async with self._place():
            start = time.perf_counter()
            message = await model.ainvoke(messages, self._config, **options)
            self._book(message, start)
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
                    start = time.perf_counter()
                    whole: AIMessageChunk | None = None
                    inherit(self._config)
                    async for piece in model.astream(messages, **options):
                        pieces.put_nowait(piece)
                        whole = piece if whole is None else whole + piece
                    self._book(piece, start)
                    if self.shadow and model is self.model and whole is not None:
                        whole.response_metadata = piece.response_metadata
                        self.shadow.observe(messages, options, whole)
            finally:
                pieces.put_nowait(None)

        task = asyncio.create_task(run())
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await task  # raises what went wrong
        finally:
            task.cancel()

    def _book(self, message: AIMessage, start: float) -> None:
        """Count an answer; the last piece of a stream has its bill."""
        self._seconds.observe(time.perf_counter() - start)
        bill = message.response_metadata
        self._usd.inc(bill["cost_usd"])
        for name, line in bill["candidates"].items():
            self._calls.labels(name).inc(line["calls"])

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
        """Describe a model, also one with knobs in its name: GET /v1/models/NAME."""
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
        """Return what Prometheus collects: GET /metrics."""
        # In a thread: a store of limits may be a server that does not answer.
        text = await asyncio.to_thread(generate_latest, self.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)


async def _read(request: Request) -> object:
    """Read the body of a request.

    Raises:
        RefusedError: it is too long, or is not JSON.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_BODY:
            raise RefusedError(413, f"the body is longer than {_LARGEST_BODY} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None


async def _beginning_with(first: _T, rest: AsyncGenerator[_T]) -> AsyncGenerator[_T]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


async def _unless_gone(request: Request, work: Awaitable[_T]) -> _T:
    """Do the work; cancel it if the client disconnects."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RefusedError(499, "the client has gone")
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)
