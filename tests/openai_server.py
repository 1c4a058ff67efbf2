"""A real HTTP server on loopback that speaks OpenAI's chat completions API, and its older one.

It fails on demand. `Completion` answers the older one, which takes and gives token ids.

>>> from openai import OpenAI
>>> with OpenAIServer([Status(503), Reply("Paris", input_tokens=12)]) as server:
...     with OpenAI(base_url=server.base_url, api_key="x", max_retries=1) as client:
...         completion = client.chat.completions.create(
...             model="m", messages=[{"role": "user", "content": "Capital of France?"}])
>>> completion.choices[0].message.content, completion.usage.prompt_tokens
('Paris', 12)
>>> server.count("m"), server.requests[0].prompt
(2, 'Capital of France?')
"""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Protocol, runtime_checkable


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: Mapping[str, Any]
    time: float  # time.monotonic() at arrival

    @property
    def model(self) -> str:
        return self.body.get("model", "")

    @property
    def prompt(self) -> str:
        """The content of the last message."""
        return self.body["messages"][-1]["content"]


@runtime_checkable
class Behaviour(Protocol):
    def send(self, request: Request, http: _Handler) -> None: ...


@dataclass(frozen=True)
class Reply:
    """A completion; streamed when the request says so."""

    text: str
    input_tokens: int = 10
    output_tokens: int = 5
    cost: float | None = None  # USD, in usage.cost as OpenRouter reports it
    reasoning_tokens: int | None = None
    usage: bool = True  # False: a server that reports no usage
    tool_calls: Sequence[tuple[str, Mapping[str, Any] | str]] = ()  # name, arguments (str: raw)
    finish_reason: str = "stop"
    delay: float = 0.0  # seconds before the first byte
    keeps_stop: bool = False  # vLLM's include_stop_str_in_output; OpenAI leaves the stop string out

    def send(self, request: Request, http: _Handler) -> None:
        http.server.closing.wait(self.delay)
        text, stop = self.text, request.body.get("stop") or ()
        for mark in [stop] if isinstance(stop, str) else stop:
            before, found, _ = text.partition(mark)
            text = before + found * self.keeps_stop
        cut = text != self.text
        calls = [] if cut else self._calls()
        finish = "stop" if cut else self.finish_reason
        finish = "tool_calls" if calls and finish == "stop" else finish
        usage = {"usage": self._usage()} if self.usage else {}
        if not request.body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": text}
            message |= {"tool_calls": calls} if calls else {}
            http.send(200, _completion(request, message=message, finish_reason=finish) | usage)
            return
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": text[i : i + 8]} for i in range(0, len(text), 8)]
        deltas += [{"tool_calls": [{"index": i, **call}]} for i, call in enumerate(calls)]
        chunks = [_completion(request, delta=delta, finish_reason=None) for delta in deltas]
        chunks.append(_completion(request, delta={}, finish_reason=finish))
        if usage and (request.body.get("stream_options") or {}).get("include_usage"):
            chunks.append(_completion(request) | usage)
        http.send_events(chunks)

    def _calls(self) -> list[dict[str, Any]]:
        calls = []
        for i, (name, given) in enumerate(self.tool_calls):
            arguments = given if isinstance(given, str) else json.dumps(given)
            function = {"name": name, "arguments": arguments}
            calls.append({"id": f"call_{i}", "type": "function", "function": function})
        return calls

    def _usage(self) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }
        if self.reasoning_tokens is not None:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return usage if self.cost is None else usage | {"cost": self.cost}


@dataclass(frozen=True)
class Completion:
    """What `/v1/completions` says to token ids; streamed when the request says so."""

    text: str
    ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    ids_as: Literal["token_ids", "token_id:N", "none"] = "token_ids"  # vLLM of today, of old; llama
    finish_reason: str | None = "stop"
    stop_reason: str | int | None = None
    usage: Mapping[str, Any] | None = None

    def send(self, request: Request, http: _Handler) -> None:
        usage = {"usage": self.usage} if self.usage else {}
        head = {"id": f"cmpl-{request.time}", "object": "text_completion", "model": request.model}
        end = {"finish_reason": self.finish_reason, "stop_reason": self.stop_reason}
        if not request.body.get("stream"):
            choice = {"index": 0, "text": self.text, **self._tokens(0, len(self.ids)), **end}
            http.send(200, head | {"choices": [choice]} | usage)
            return
        pieces = max(1, len(self.ids))
        choices: list[dict[str, Any]] = [
            {"index": 0, "text": "" if i else self.text, **self._tokens(i, i + 1)}
            for i in range(pieces)
        ]
        choices[-1] |= end
        events = [head | {"choices": [choice], "usage": None} for choice in choices]
        http.send_events([*events, head | {"choices": []} | usage])

    def _tokens(self, start: int, end: int) -> dict[str, Any]:
        ids = self.ids[start:end]
        names = [f"token_id:{i}" if self.ids_as == "token_id:N" else "?" for i in ids]
        scores = {"tokens": names, "token_logprobs": list(self.logprobs[start:end])}
        return {"logprobs": scores} | ({"token_ids": ids} if self.ids_as == "token_ids" else {})


@dataclass(frozen=True)
class Status:
    """An HTTP error with a JSON body of OpenAI's form."""

    code: int
    message: str = "told to fail"
    retry_after: float | None = None  # seconds
    error_code: str | None = None  # such as "context_length_exceeded"
    echo_authorization: bool = False  # a careless server: the caller's key stands in the message

    def send(self, request: Request, http: _Handler) -> None:
        echo = f": {request.headers.get('authorization')}" if self.echo_authorization else ""
        error = {"message": self.message + echo, "type": "error", "code": self.error_code}
        headers = {} if self.retry_after is None else {"retry_after": f"{self.retry_after:g}"}
        http.send(self.code, {"error": error | {"param": None}}, **headers)


@dataclass(frozen=True)
class Hang:
    """Accept, and never answer; the connection is dropped when the server stops."""

    def send(self, request: Request, http: _Handler) -> None:
        http.server.closing.wait()
        http.close_connection = True


@dataclass(frozen=True)
class Cut:
    """Close the connection before the headers, or in the middle of the body (or stream)."""

    where: Literal["before_headers", "mid_body"] = "before_headers"

    def send(self, request: Request, http: _Handler) -> None:
        if self.where == "mid_body" and request.body.get("stream"):
            http.send_events([_completion(request, delta={"content": "Par"})], end=False)
        elif self.where == "mid_body":
            http.send(200, b'{"id": "cut", "choices": [', content_length="1000")
        http.close_connection = True


@dataclass(frozen=True)
class Malformed:
    """Status 200 and a body that is not JSON."""

    text: str = "<html>Bad gateway</html>"
    content_type: str = "application/json"

    def send(self, request: Request, http: _Handler) -> None:
        http.send(200, self.text.encode(), content_type=self.content_type)


@dataclass(frozen=True)
class Wire:
    """Exactly this: a body, and these events for a request that streams."""

    body: Any = None
    events: Sequence[Any] = ()
    end: bool = True  # False: the stream ends without [DONE], as a closed connection does
    code: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, request: Request, http: _Handler) -> None:
        if not request.body.get("stream") or self.code != 200:
            http.send(self.code, json.dumps(self.body).encode(), **self.headers)
            return
        http.send_events(self.events, end=self.end)
        if not self.end:
            http.wfile.write(b"0\r\n\r\n")


@dataclass(frozen=True)
class EmptyChoices:
    """A completion without choices, as some gateways send when the model behind them failed."""

    def send(self, request: Request, http: _Handler) -> None:
        if request.body.get("stream"):
            http.send_events([_completion(request)])
        else:
            http.send(200, _completion(request))


def _completion(request: Request, **choice: Any) -> dict[str, Any]:
    """Return a completion (or a chunk of a stream) with this choice, or with none."""
    kind = "chat.completion.chunk" if request.body.get("stream") else "chat.completion"
    choices = [{"index": 0, **choice}] if choice else []
    head = {"id": f"chatcmpl-{request.time}", "object": kind, "created": int(time.time())}
    return head | {"model": request.model, "choices": choices}


#: One behaviour for every request; several in order (the last repeats); or a function that chooses.
Answer = Behaviour | Sequence[Behaviour] | Callable[[Request], Behaviour]


#: Those that have been used here, and 0. What is learnt of an address outlives its server.
_PORTS = {0}


class OpenAIServer(ThreadingHTTPServer):
    """Answers as the test says, from `__enter__` to `__exit__`.

    `answer`: an Answer, or a mapping from the name of a model to one (other models get a 404).
    An exception in a test's function cuts the connection, and is raised again by `__exit__`.
    """

    daemon_threads = True
    request_queue_size = 128  # the usual 5 would stall a burst of parallel calls

    def __init__(self, answer: Answer | Mapping[str, Answer]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._failure: BaseException | None = None
        self._asked: dict[int, int] = {}  # id of a sequence -> how many of it are used up
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def server_bind(self) -> None:
        while self.server_address[1] in _PORTS:
            self.socket.close()
            self.socket = socket.socket(self.address_family, self.socket_type)
            self.server_address = ("127.0.0.1", 0)
            socketserver.TCPServer.server_bind(self)  # HTTPServer's looks its name up in the DNS
        _PORTS.add(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        failure = sys.exception()
        if not isinstance(failure, OSError):  # an OSError: the client went away
            self._failure = failure

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def __enter__(self) -> OpenAIServer:
        loop = partial(self.serve_forever, poll_interval=0.01)
        threading.Thread(target=loop, daemon=True, name="openai-server").start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            kept = list(self._connections)
        for connection in kept:  # kept alive by clients
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._failure is not None and kind is None:
            raise self._failure

    def count(self, model: str | None = None) -> int:
        """Return how many completions were asked for, of one model or of all."""
        return sum(model in (None, request.model) for request in list(self.requests))

    def choose(self, request: Request) -> Behaviour:
        """Record a request, and choose what to do with it."""
        with self._lock:
            self.requests.append(request)
            answer: Any = self.answer
            if isinstance(answer, Mapping):
                missing = Status(404, f"The model {request.model!r} does not exist")
                answer = answer.get(request.model, missing)
            if isinstance(answer, Sequence):
                used = self._asked.get(id(answer), 0)
                self._asked[id(answer)] = used + 1
                return answer[min(used, len(answer) - 1)]
        return answer if isinstance(answer, Behaviour) else answer(request)


#: How the paths end that are answered; from the third on, tests say each byte.
_PATHS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    *("/api/chat", ":generateContent", "/openai/deployments/ada/chat/completions"),
    "/openai/deployments/boss/chat/completions",
)


class _Handler(BaseHTTPRequestHandler):
    server: OpenAIServer
    protocol_version = "HTTP/1.1"  # for chunked streams
    disable_nagle_algorithm = True  # else the body of a reply waits 40 ms for a delayed ACK

    def do_GET(self) -> None:
        answer = self.server.answer
        names = list(answer) if isinstance(answer, Mapping) else ["test-model"]
        models = [{"id": n, "object": "model", "created": 0, "owned_by": "tests"} for n in names]
        if self.path == "/v1/models":
            self.send(200, {"object": "list", "data": models})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        data = self.rfile.read(size)
        if len(data) < size:  # the client has left: it was interrupted
            self.close_connection = True
            return
        body = json.loads(data)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path.partition("?")[0].endswith(_PATHS):
            request = Request(self.path, headers, body, time.monotonic())
            self.server.choose(request).send(request, self)
        else:
            self.send_error(404)

    def send(self, code: int, body: bytes | Mapping[str, Any], **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        defaults = {"content_type": "application/json", "content_length": str(len(data))}
        self._send_head(code, defaults | headers)
        self.wfile.write(data)

    def send_events(self, events: Sequence[Mapping[str, Any]], end: bool = True) -> None:
        # Chunked, so that a client can tell a cut stream from one that ended.
        self._send_head(200, {"content_type": "text/event-stream", "transfer_encoding": "chunked"})
        for text in [*map(json.dumps, events), *(["[DONE]"] if end else [])]:
            data = f"data: {text}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if end:
            self.wfile.write(b"0\r\n\r\n")

    def _send_head(self, code: int, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass
