"""What is fuzzed: readers of bytes from outside, and what has to hold whatever the bytes are.

A target takes bytes and returns nothing. What its reader may raise is part of it (a `PoolError`, a
`TraceError`); any other exception, or a broken promise, is a finding. `make fuzz` looks for
findings with coverage as its guide, tests/test_fuzz.py tries the known ones and hostile texts.
"""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import langchain_openai
from langchain_core.messages import HumanMessage

from router_r1_graph import CandidatePool, ChatRouterR1, RouterContext, create_router_r1
from router_r1_graph.candidates import call
from router_r1_graph.candidates.candidate import Candidate
from router_r1_graph.candidates.openai import reading
from router_r1_graph.candidates.pool_file import SHIPPED_POOLS
from router_r1_graph.candidates.reply import Reply
from router_r1_graph.chat.answer_reader import AnswerReader
from router_r1_graph.cost_scales import AbsoluteCost
from router_r1_graph.errors import PoolError, TraceError
from router_r1_graph.outside import CONTROL
from router_r1_graph.protocol import (
    Turn,
    close,
    cut,
    escape,
    parse,
    render,
    tagged_answer,
    tags,
    unescape,
)
from router_r1_graph.rewards import reward
from router_r1_graph.trace import Trace, read_traces, write_traces
from router_r1_graph.transcript import as_text

QUESTION = "What is the currency of the country where the author of Hamlet was born?"


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        check: tries it on some bytes; raises what is a finding.
        seeds: bytes that are read without an error, to begin with.
        words: parts of such bytes, which chance would not find.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[str]


def protocol(data: bytes) -> None:
    """Read a controller's turn, whole and piece by piece."""
    text = data.decode(errors="surrogateescape")
    turn = parse(text)
    assert turn.calls or turn.answer is not None or turn.mistakes
    rendered = Turn(turn.thoughts, turn.calls, turn.answer)
    if turn.calls or turn.answer is not None:
        assert parse(render(rendered)) == rendered
    assert unescape(escape(text)) == text
    assert not tags(escape(text))
    assert close(close(text)) == close(text)
    assert len(cut(text, 5).removesuffix(" [... cut]").encode(errors="replace")) <= 20
    assert tagged_answer(text) is None or isinstance(tagged_answer(text), str)
    whole, size = AnswerReader().read(text), 1 + len(data) % 7
    reader = AnswerReader()
    pieces = "".join(reader.read(text[at : at + size]) for at in range(0, len(text), size))
    assert whole.startswith(pieces.rstrip()) or pieces.startswith(whole.rstrip())


CANDIDATE = Candidate(
    name="Ada",
    base_url="http://127.0.0.1:1/v1",
    input_usd_per_mtok=1.0,
    output_usd_per_mtok=2.0,
    max_retries=0,
)
_MOST_USD = 1e6


def client(handler: Callable[[httpx.Request], httpx.Response], *, streaming: bool) -> Any:
    """Return the client of candidates over a transport in this process."""
    return reading(langchain_openai.ChatOpenAI)(
        model="ada",
        base_url=CANDIDATE.base_url,
        api_key="sk-fuzz-0123456789abcdef",
        max_retries=0,
        streaming=streaming,
        http_client=httpx.Client(transport=httpx.MockTransport(handler)),
        http_async_client=httpx.AsyncClient(transport=httpx.MockTransport(handler)),
    )


@cache
def _clients() -> tuple[list[bytes], list[Any]]:
    """Return where the bytes of the next replies stand, and clients that get them."""
    body = [b""]
    kinds = ((200, "text/event-stream"), (200, "application/json"), (500, "text/plain"))

    def handler_of(status: int, kind: str) -> Callable[[httpx.Request], httpx.Response]:
        headers = {"content-type": kind}
        return lambda _: httpx.Response(status, headers=headers, content=body[0])

    return body, [client(handler_of(*kind), streaming=kind == kinds[0]) for kind in kinds]


def reply(data: bytes) -> None:
    """Read a server's reply: a stream, a whole reply, and an error."""
    body, clients = _clients()
    body[0] = data
    for model in clients:
        check_reply(call.ask(model, [HumanMessage(QUESTION)], CANDIDATE))


def check_reply(reply: Reply) -> None:
    """Check what holds for every reply: it can be stored, and its bill can be added up."""
    assert reply.ok or reply.error is not None
    texts = [reply.text, reply.thoughts, reply.error.message if reply.error else ""]
    for text in texts:
        assert "\0" not in text
        text.encode()
    assert "0123456789abcdef" not in "".join(texts)
    for tokens in (reply.input_tokens, reply.output_tokens, reply.reasoning_tokens):
        assert isinstance(tokens, int)
        assert tokens >= 0
    assert 0 <= reply.cost_usd <= _MOST_USD
    assert reply.attempts == 1
    if reply.message is not None:
        json.dumps(reply.message.model_dump())


_FILE = Path(tempfile.mkdtemp(prefix="fuzz-"))


def check_error(error: Exception, file: Path) -> None:
    """Check that an error names the file, in one line that can be written and shown."""
    assert str(error).startswith(str(file)), error
    assert "\n" not in str(error), error
    assert not CONTROL.search(str(error)), error
    str(error).encode()


def pool(data: bytes) -> None:
    """Read a pool file."""
    file = _FILE / "pool.yaml"
    file.write_bytes(data)
    try:
        read = CandidatePool.from_yaml(file)
    except PoolError as error:
        check_error(error, file)
        return
    plain = read.descriptors()
    assert CandidatePool.model_validate_json(plain.model_dump_json()) == plain
    for candidate in read.candidates:
        assert read.find(candidate.name) is candidate
        assert candidate.describe()
        assert not math.isnan(candidate.worst_case_usd(QUESTION))


def trace(data: bytes) -> None:
    """Read a file of traces; what can be read can be shown, rewarded and written again."""
    file = _FILE / "traces.jsonl"
    file.write_bytes(data)
    try:
        traces = list(read_traces(file))
    except TraceError as error:
        check_error(error, file)
        return
    write_traces(file, traces)
    again = [one.model_dump_json() for one in read_traces(file)]
    assert again == [one.model_dump_json() for one in traces]
    for one in traces:
        json.dumps(one.summary(), allow_nan=False)
        as_text(one)
        result = reward(one, AbsoluteCost(usd=0.01), gold=one.gold or ("Paris",))
        assert -1 <= result.total <= 1, result


@cache
def _served() -> tuple[asyncio.AbstractEventLoop, httpx.AsyncClient]:
    from router_r1_graph.serving.app import create_app

    app = create_app(ChatRouterR1(pool="embedded", max_rounds=1))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    return asyncio.new_event_loop(), httpx.AsyncClient(transport=transport, base_url="http://r1")


def request(data: bytes) -> None:
    """Send a body to both APIs that `serve` speaks."""
    loop, http = _served()
    for path in ("/v1/chat/completions", "/v1/responses"):
        response = loop.run_until_complete(http.post(path, content=data))
        check_response(response)


def check_response(response: httpx.Response) -> None:
    """Check that an answer is one, or an error in the form of OpenAI's API, and none of ours."""
    assert response.status_code in (200, 400, 404, 413), response.text
    if response.headers["content-type"].startswith("application/json"):
        said = json.loads(response.content)
        if response.status_code != 200:
            assert said["error"]["message"], said
    else:
        assert response.content.endswith(b"\n\n")


def _turns() -> list[bytes]:
    return [
        b"<think> I need it. </think>\n<search> Ada: where? </search>",
        b"<think> I know. </think> <answer> the &lt;answer> krone </answer>",
        b"<search> Ada: a </search> <search> Bob: b: c </search> <information> no </information>",
    ]


def _replies() -> list[bytes]:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "cost": 1e-5}
    call = {"id": "1", "type": "function", "function": {"name": "Ada", "arguments": '{"a": 1}'}}
    said = {"role": "assistant", "content": "Paris", "reasoning_content": "hm"}
    head = {"id": "1", "created": 1, "model": "ada"}
    whole = [
        {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        for choice in (
            {"index": 0, "message": said, "finish_reason": "stop"},
            {"index": 0, "message": {**said, "tool_calls": [call]}, "finish_reason": "length"},
        )
    ]
    chunk = {**head, "object": "chat.completion.chunk"}
    deltas: list[dict[str, Any]] = [
        said,
        {"content": " is"},
        {"tool_calls": [{"index": 0, **call}]},
    ]
    chunks = [
        *({**chunk, "choices": [{"index": 0, "delta": delta}]} for delta in deltas),
        {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**chunk, "choices": [], "usage": usage},
    ]
    errors: list[Any] = [
        {"error": {"message": "no", "code": 429, "metadata": {"raw": "x"}}},
        {"object": "error", "message": "no", "type": "bad"},
        [{"error": {"message": "no"}}],
    ]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in chunks) + "data: [DONE]\n\n"
    failed = f"data: {json.dumps(chunks[0])}\n\ndata: {json.dumps(errors[0])}\n\n"
    return [*_json_of([*whole, *errors]), stream.encode(), failed.encode()]


def _pools() -> list[bytes]:
    small = """name: two
controller: {model: c, base_url: "http://localhost:1/v1"}
candidates:
  - &a {name: Ada, aliases: [A], input_usd_per_mtok: 1, output_usd_per_mtok: 2.5,
        prices_checked: 2026-01-01, options: {default_headers: {X-K: {env: K}}}}
  - <<: *a
    name: Bob
    aliases: []
    strengths: !!str facts
"""
    return [small.encode(), *(file.read_bytes() for file in sorted(SHIPPED_POOLS.glob("*.yaml")))]


def _traces() -> list[bytes]:
    graph = create_router_r1("embedded", context=RouterContext(max_rounds=1)).compile()
    state = graph.invoke({"question": QUESTION})
    one = Trace.from_state(state, gold=["krone"])
    small = one.pool.model_copy(update={"candidates": one.pool.candidates[:2]})
    lines = [one, one.model_copy(update={"pool": small, "scratchpad": one.scratchpad[-1:]})]
    return [line.model_dump_json().encode() + b"\n" for line in lines]


def _requests() -> list[bytes]:
    tool = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    user = {"role": "user", "content": "Who?"}
    parts = [{"type": "text", "text": "Who?"}, {"type": "refusal", "refusal": "no"}]
    output = {"type": "function_call_output", "call_id": "1", "output": "x"}
    chat: dict[str, Any] = {"model": "router-r1", "messages": [user]}
    response: dict[str, Any] = {"model": "router-r1:max_rounds=1", "input": "Who?"}
    return _json_of(
        [
            chat | {"stream": True, "stream_options": {"include_usage": True}, "stop": ["a"]},
            chat | {"messages": [{"role": "system", "content": "x"}, {**user, "content": parts}]},
            chat | {"tools": [{"type": "function", "function": tool}], "tool_choice": "auto"},
            chat
            | {
                "messages": [
                    user,
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "1", "content": "42"},
                ]
            },
            chat
            | {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": schema},
                }
            },
            chat
            | {"budget_usd": 0.1, "cost_weight": 0.5, "max_tokens": 5, "n": 1, "logprobs": False},
            response | {"stream": True, "instructions": "x", "max_output_tokens": 9},
            response | {"input": [user, {"type": "message", **user}, output]},
            response
            | {"tools": [{"type": "function", **tool}], "text": {"format": {"type": "text"}}},
        ]
    )


def _json_of(values: Iterable[Any]) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


_JSON = ('{"', '":', "[[[[[[[[", "]", "}", "null", "NaN", "1e999", "-1", "\\ud800", "\\u0000", '""')

TARGETS = {
    "protocol": Target(
        protocol,
        _turns,
        [
            *(f"<{slash}{tag}>" for tag in ("think", "search", "answer") for slash in ("", "/")),
            *("<information>", "&lt;", "&amp;lt;", "Ada:", " [... cut]"),
        ],
    ),
    "reply": Target(
        reply,
        _replies,
        [
            *_JSON,
            *("data: ", "\n\n", "[DONE]", "event: error\n", ": ping\n\n", "choices", "delta"),
            *("message", "content", "tool_calls", "function", "arguments", "usage", "cost"),
            *("prompt_tokens", "completion_tokens_details", "reasoning", "finish_reason", "error"),
        ],
    ),
    "pool": Target(
        pool,
        _pools,
        [
            *("!!bool ", "!!int ", "!!float ", "!!timestamp ", "!!binary ", "!!set ", "!!omap "),
            *("!!python/name:os.system", "<<: ", "&a ", "*a", "? ", "- ", "[[[[[[", "{{{{", ".nan"),
            *("candidates:", "options:", "{env: A}", "base_url: ", "provider: ", "\\ud800", "\\0"),
        ],
    ),
    "trace": Target(
        trace,
        _traces,
        [*_JSON, "scratchpad", "ledger", "artifact", "tool_calls", "usage_metadata", "context"],
    ),
    "request": Target(
        request,
        _requests,
        [
            *_JSON,
            *("messages", "role", "content", "tool_calls", "tools", "stop", "stream", "input"),
            *("model", "router-r1:", "response_format", "json_schema", "function", "arguments"),
            *("function_call", "call_id", "output", "image_url", "user", "assistant", "developer"),
        ],
    ),
}
