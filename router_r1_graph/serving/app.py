"""The router behind OpenAI's APIs: any client of chat completions or responses can ask it.

Needs the extra `serve`. A request is answered in the event loop, and nothing in it blocks.
`ChatRouterR1` describes the streams.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..candidates.records import Recorder
from ..candidates.resilience.stores import flush_stores
from ..chat.router import ChatRouterR1
from ..errors import ConfigError
from ..invalid import show
from ..trace import TraceWriter
from .chat import ChatRequest
from .chores import aside
from .connections import Server, limited
from .refused import RefusedError
from .request import Asked
from .responses import ResponsesRequest
from .service import RouterService

access = logging.getLogger("router_r1_graph.access")

_SHUTDOWN_SECONDS = 30
_BODIES: dict[str, type[Asked]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/responses": ResponsesRequest,
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "An error in the form of OpenAI's API",
        "content": {"application/json": {"schema": _ERROR}},
    }
}


def create_app(
    model: ChatRouterR1,
    *,
    max_concurrency: int = 64,
    queue: int = 256,
    api_key: str = "",
    chores: str = "cheapest",
    allow_origins: Sequence[str] = (),
    shadow: str = "",
    traces: str | Path | None = None,
    records: str | Path | None = None,
    docs: bool = False,
) -> FastAPI:
    """Return the API over a router, as an ASGI app for any server.

    Args:
        model: answers the questions. Its settings are the defaults of a request; those that it was
            given, and its `max_tokens`, are caps: a request may ask for less, never for more.
        max_concurrency: the most questions that are answered at once.
        queue: the most further questions that may wait; any more are refused with status 429.
        api_key: the key that clients have to send to /v1; "" = none.
        chores: the controller for prompts that chat UIs send by themselves (a title, tags or
            follow-up questions for a conversation); "" = they are routed like all questions.
        allow_origins: the origins of web pages that may ask, such as `https://chat.example.com`;
            `*` = all.
        shadow: a second controller, run on each answered question; /metrics has the cost that it
            would have had. It makes no call that the router has made already.
        traces: the file to which each run is appended, with its decisions; None = none.
        records: the file to which each reply of a candidate is appended; None = none.
        docs: whether /docs and /redoc show the API; they load scripts from other servers.

    Raises:
        ConfigError: `model` is no `ChatRouterR1`, or the file of traces cannot be written.
        ControllerError: `chores` or `shadow` is no controller.

    Example:
        >>> app = create_app(ChatRouterR1(pool="embedded"))
        >>> "/v1/chat/completions" in app.openapi()["paths"]
        True
    """
    if not isinstance(model, ChatRouterR1):
        raise ConfigError(
            "create_app: a ChatRouterR1 is wanted, such as ChatRouterR1(pool='embedded'), not "
            f"{show(model)}"
        )
    service = RouterService(
        model,
        max_concurrency=max_concurrency,
        queue=queue,
        api_key=api_key,
        chores=aside(model, chores) if chores else None,
        shadow=shadow,
        callbacks=[
            *([TraceWriter(traces)] if traces else []),
            *([Recorder(records)] if records else []),
        ],
    )
    paths: dict[str, Any] = {} if docs else {"docs_url": None, "redoc_url": None}
    about = "Asks the right LLMs the right questions."
    app = FastAPI(title="Router-R1", description=about, lifespan=_lifespan, **paths)
    app.state.stop = service.stop
    shadows = [service.shadow.controller] if service.shadow else []
    app.state.controllers = [service.model.controller, *shadows]
    app.add_middleware(AccessLog)
    for path, answer in (
        ("/v1/chat/completions", service.chat),
        ("/v1/responses", service.responses),
    ):
        app.add_api_route(
            path,
            answer,
            methods=["POST"],
            response_model=None,
            responses={200: {"content": {"text/event-stream": {}}}, **_ERRORS},
        )
    reads: dict[str, Callable[..., Any]] = {
        "/v1/models": service.models,
        "/v1/models/{name:path}": service.one_model,
        "/health": service.health,
        "/metrics": service.metrics,
    }
    for path, read in reads.items():
        said = PlainTextResponse if read == service.metrics else JSONResponse
        app.add_api_route(
            path,
            read,
            methods=["GET"],
            response_model=None,
            response_class=said,
            responses=_ERRORS,
        )
        app.add_api_route(path, read, methods=["HEAD"], include_in_schema=False)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _crashed)
    if allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(allow_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    app.openapi = lambda: _described(app)
    return app


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Report what ended in time: uvicorn kills the process by its signal when it has shut down."""
    yield
    await asyncio.to_thread(flush_stores)


def _described(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the bodies that the app reads itself."""
    if app.openapi_schema is None:
        document: dict[str, Any] = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for path, kind in _BODIES.items():
            schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas[kind.__name__] = schema
            content = {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}
            body = {"required": True, "content": {"application/json": content}}
            document["paths"][path]["post"]["requestBody"] = body
        app.openapi_schema = document
    return dict(app.openapi_schema)


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, RefusedError):  # FastAPI's own: no such path or method
        status, why = getattr(error, "status_code", 500), str(getattr(error, "detail", error))
        headers = getattr(error, "headers", None) or {}
        asked, code = f"{request.method} {quote(request.url.path)[:200]}", None
        if status == 404:
            paths, code = ", ".join([*_BODIES, "/v1/models"]), "unknown_url"
            why = f"there is nothing under this path: {asked}; the base URL of a client ends in /v1"
            why += f", and has {paths}"
        elif status == 405:
            why = f"{asked} is not possible: this path takes {headers.get('Allow', 'others')}"
        error = RefusedError(status, why, code=code, headers=headers)
    return _error(error)


def _error(refused: RefusedError) -> Response:
    return JSONResponse({"error": refused.error}, refused.status, refused.headers)


async def _crashed(_: Request, error: Exception) -> Response:
    # Uvicorn logs the traceback; the client gets no part of it.
    return _error(RefusedError(500, "the server failed; its log says why"))


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; port 0 = any free one.

    Raises:
        ConfigError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            why = "another program uses it; name another port (--port; 0 = any free one)"
        else:
            why = str(error)
        raise ConfigError(f"cannot listen on {host}, port {port}: {why}") from None


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then finish requests in progress, for 30 seconds at most.

    Slower requests end in an error of the API, and so do all requests at a second signal.
    """
    # Python's collector walks everything alive again and again (benchmarks/overhead.py).
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    config = uvicorn.Config(
        app,
        http=limited(),
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS + 5,
    )
    server = Server(config, app.state.stop, _SHUTDOWN_SECONDS)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again when it has shut down
        server.run(sockets=[listening])


class AccessLog:
    """Logs each request to `router_r1_graph.access`: client, path, status and seconds.

    The query string of an address is left out, since it may hold a key.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it when its response is complete."""
        if scope["type"] != "http" or not access.isEnabledFor(logging.INFO):
            await self.app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def sent(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            who = (scope.get("client") or ("-",))[0]
            path = quote(scope["path"])
            seconds = time.perf_counter() - start
            access.info("%s %s %s %s %.3f s", who, scope["method"], path, status, seconds)
