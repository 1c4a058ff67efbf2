"""The router behind OpenAI's chat completions API: any client of that API can ask it.

Needs the extra `serve`. A request is answered in the event loop, and nothing in it blocks.
`ChatRouterR1` describes what is streamed, and when.
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.exceptions import HTTPException

from ..chat_router import ChatRouterR1
from ..errors import ConfigError, ControllerError, QuestionError
from ..words import counted
from .schema import MODEL, ChatRequest, RefusedError, completion, read_request, server_sent_events

_LARGEST_BODY = 4 * 1024 * 1024
_RETRY_AFTER_SECONDS = 1
_SHUTDOWN_SECONDS = 30
_T = TypeVar("_T")
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)


class RouterService:
    """What the routes of the app do.

    Args:
        model: answers the questions.
        max_concurrency: the most questions that are answered at once.
        queue: the most further questions that may wait; any more are refused with status 429.
        api_key: the key that clients have to send; "" = none.
    """

    def __init__(
        self, model: ChatRouterR1, *, max_concurrency: int, queue: int, api_key: str
    ) -> None:
        self.model = model
        self._most = max_concurrency + queue
        self._places = asyncio.Semaphore(max_concurrency)
        self._inside = 0
        self._api_key = api_key.encode()
        self._started = int(time.time())
        self.registry = CollectorRegistry()
        of = {"namespace": "router_r1", "registry": self.registry}
        self._requests = Counter("requests", "Requests, by HTTP status", ["status"], **of)
        self._in_flight = Gauge("in_flight", "Questions being answered now", **of)
        self._usd = Counter("cost_usd", "USD of all answered questions", **of)
        self._calls = Counter("calls", "Calls, by candidate", ["candidate"], **of)
        self._seconds = Histogram("seconds", "Seconds until an answer", buckets=_BUCKETS, **of)

    async def chat(self, request: Request) -> Response:
        """Answer a question: POST /v1/chat/completions."""
        status = 500
        try:
            response = await self._answer(request)
            status = response.status_code
            return response
        except RefusedError as refused:
            status = refused.status
            raise
        finally:
            self._requests.labels(str(status)).inc()

    async def _answer(self, request: Request) -> Response:
        self._authorize(request)
        asked = await _read(request)
        options, messages = asked.options(), asked.conversation()
        try:
            if asked.stream:
                return await self._stream(request, asked, messages, options)
            message = await _unless_gone(request, self._ask(messages, options))
        except QuestionError as error:
            raise RefusedError(400, str(error), param="messages") from None
        except ControllerError as error:
            raise RefusedError(502, str(error), code="controller_error") from None
        except ConfigError as error:  # `keep` names no candidate of the pool
            raise RefusedError(400, str(error), param="keep") from None
        return JSONResponse(completion(message))

    async def _stream(
        self,
        request: Request,
        asked: ChatRequest,
        messages: list[BaseMessage],
        options: dict[str, Any],
    ) -> Response:
        pieces = self._pieces(messages, options)
        # The first piece sends the status: any refusal has to come before it.
        first = await _unless_gone(request, anext(pieces))
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        return StreamingResponse(
            server_sent_events(_beginning_with(first, pieces), usage),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def _ask(self, messages: list[BaseMessage], options: dict[str, Any]) -> AIMessage:
        async with self._place():
            start = time.perf_counter()
            message = await self.model.ainvoke(messages, **options)
            self._book(message, start)
            return message

    async def _pieces(
        self, messages: list[BaseMessage], options: dict[str, Any]
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
                    async for piece in self.model.astream(messages, **options):
                        pieces.put_nowait(piece)
                    self._book(piece, start)
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
        owner = {"created": self._started, "owned_by": "router-r1-graph"}
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", **owner}]})

    async def health(self) -> Response:
        """Say that the server is up: GET /health."""
        return JSONResponse({"status": "ok"})

    async def metrics(self) -> Response:
        """Return what Prometheus collects: GET /metrics."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


def create_app(
    model: ChatRouterR1, *, max_concurrency: int = 64, queue: int = 256, api_key: str = ""
) -> FastAPI:
    """Return the API over a router, as an ASGI app for any server.

    Args:
        model: answers the questions; its knobs are the defaults of a request.
        max_concurrency: the most questions that are answered at once.
        queue: the most further questions that may wait; any more are refused with status 429.
        api_key: the key that clients have to send to /v1; "" = none.

    Example:
        >>> app = create_app(ChatRouterR1(pool="embedded"))
        >>> "/v1/chat/completions" in app.openapi()["paths"]
        True
    """
    service = RouterService(model, max_concurrency=max_concurrency, queue=queue, api_key=api_key)
    app = FastAPI(title="Router-R1", description="Asks the right LLMs the right questions.")
    body = {"content": {"application/json": {"schema": ChatRequest.model_json_schema()}}}
    app.add_api_route(
        "/v1/chat/completions",
        service.chat,
        methods=["POST"],
        openapi_extra={"requestBody": body},
        response_model=None,
    )
    for path, answer in (
        ("/v1/models", service.models),
        ("/health", service.health),
        ("/metrics", service.metrics),
    ):
        app.add_api_route(path, answer, methods=["GET"], response_model=None)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _crashed)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, RefusedError):  # FastAPI's own: no such path or method
        status, why = getattr(error, "status_code", 500), getattr(error, "detail", str(error))
        error = RefusedError(status, str(why), headers=getattr(error, "headers", None))
    return _error(error)


def _error(refused: RefusedError) -> Response:
    return JSONResponse({"error": refused.error}, refused.status, refused.headers)


async def _crashed(_: Request, error: Exception) -> Response:
    # Uvicorn logs the traceback; the client gets no part of it.
    return _error(RefusedError(500, "the server failed; its log says why"))


async def _read(request: Request) -> ChatRequest:
    """Read the body of a request.

    Raises:
        RefusedError: it is too long, is not JSON, or holds what is not allowed.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_BODY:
            raise RefusedError(413, f"the body is longer than {_LARGEST_BODY} bytes")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None
    return read_request(data)


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


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; port 0 = any free one.

    Raises:
        ConfigError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen on {host}, port {port}: {error}") from None


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then finish requests in progress, for 30 seconds at most."""
    # Python's collector walks everything alive again and again (benchmarks/overhead.py).
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    config = uvicorn.Config(
        app, access_log=False, log_level="warning", timeout_graceful_shutdown=_SHUTDOWN_SECONDS
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again when it has shut down
        uvicorn.Server(config).run(sockets=[listening])
