"""What a hostile client sends to the router: without end, of wrong types, by the megabyte."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading

import pytest

from fakes import FakeChat, make_pool
from router_r1_graph import ChatRouterR1, errors, protocol
from router_r1_graph.controllers.rules import ConstantController
from router_r1_graph.errors import did_you_mean
from served import ask, get, serving_at

from router_r1_graph.serving.connections import LONGEST_HEAD, limited  # isort: skip - the extra

USER = {"role": "user", "content": "Who wrote Hamlet?"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "enum": ["x"]}}}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
KNOBS = {"cost_weight": 0.5, "max_rounds": 2, "keep": "all", "router_r1": {"max_rounds": 1}}
BODIES = {
    "/v1/chat/completions": {
        "model": "router-r1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi."}]},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "1", "content": "a result"},
            USER,
        ],
        "stream": False,
        "stream_options": {"include_usage": True},
        "stop": ["x"],
        "max_tokens": 5,
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
        "n": 1,
        "metadata": {"a": "b"},
        **KNOBS,
    },
    "/v1/responses": {
        "model": "router-r1",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi."}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "a result"},
            USER,
        ],
        "instructions": "Be brief.",
        "max_output_tokens": 5,
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
        "metadata": {"a": "b"},
        **KNOBS,
    },
}
PYTHON = re.compile(
    r"NoneType|object has no attribute|argument of type|Traceback|unhashable|subscriptable"
    r"|iterable|indices|positional|keyword|<class"
)


def nested(kind):
    value = kind()
    for _ in range(300):
        value = {"a": value} if kind is dict else [value]
    return value


WRONG = {
    "null": None,
    "true": True,
    "number": -3.5,
    "digits": int("9" * 4000),
    "text": "x" * 5000,
    "list": [],
    "null in a list": [None],
    "texts": ["x" * 5000],
    "object": {},
    "type": {"type": [1], "x" * 5000: 1},
    "name": {"name": 1},
    "deep list": nested(list),
    "deep object": nested(dict),
}


def places(value, at=()):
    """Yield the path of each value in a JSON value."""
    yield at
    if not isinstance(value, dict | list):
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(part, (*at, key))


def put(value, at, new):
    """Return a JSON value with another value at a place."""
    if not at:
        return new
    copy = value.copy()
    copy[at[0]] = put(value[at[0]], at[1:], new)
    return copy


@pytest.fixture(scope="module")
def url():
    with serving_at(http=limited()) as url:
        yield url


@pytest.fixture
def post(url):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=100)

    def posted(path, body):
        data = body if isinstance(body, bytes) else json.dumps(body)
        connection.request("POST", path, data)
        response = connection.getresponse()
        return response.status, response.read()

    yield posted
    connection.close()


def refusal(status, said):
    """Return the message of a refusal in the form of the API; nothing else is one."""
    assert status == 400, said
    error = json.loads(said)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert len(said) < 1200
    assert len(error["message"]) < 1000
    assert not PYTHON.search(error["message"]), error["message"]
    return error["message"]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_type_at_any_place_of_a_body_is_no_error_of_the_server(post, path, wrong):
    refused = 0
    for at in places(BODIES[path]):
        status, said = post(path, put(BODIES[path], at, WRONG[wrong]))
        if status != 200:
            assert refusal(status, said)
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"null", "the body has to be a JSON object, not null"),
        (b'[{"a": 1}]', 'the body has to be a JSON object, not [{"a": 1}]'),
        (b'{"n": ' + b"9" * 5000 + b"}", "the body is not JSON: a number has too many digits"),
        (b"[" * 100_000, "the body is not JSON: it is nested too deeply"),
        ({"messages": [USER]}, "model is missing: it has to be 'router-r1'"),
        ({"model": "router-r1", "messages": [USER], "max_rounds": "9" * 5000}, "at most 1000, not"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_refusal_says_what_is_wrong_in_few_words(post, body, says):
    assert says in refusal(*post("/v1/chat/completions", body))


@pytest.mark.parametrize("call", [None, 1, "f", [], {}, {"function": None}, {"function": ["f"]}])
def test_a_tool_call_that_is_none_is_refused_by_what_one_is(post, call):
    told = [{"role": "assistant", "content": "", "tool_calls": [call]}, USER]
    body = {"model": "router-r1", "messages": told}
    message = refusal(*post("/v1/chat/completions", body))
    assert message.startswith("messages.0: a tool call needs an id, and a function with a name")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({f"z{n}udget": 1 for n in range(1000)}, "1002 fields; at most 1000"),
        ({"model": "router-r1:" + "cost=1," * 500}, "has to be 'router-r1', not 'router-r1:cost=1"),
        (
            {"response_format": {"type": "json_object", "schema": {"anyOf": [{}] * 10_000}}},
            "response_format: schema has more than 10000 parts",
        ),
    ],
    ids=["fields", "model", "schema"],
)
def test_what_would_take_long_to_read_is_refused(post, more, says):
    body = {"model": "router-r1", "messages": [USER], **more}
    assert says in refusal(*post("/v1/chat/completions", body))


def test_long_names_are_compared_with_nothing(post, monkeypatch):
    compared = []
    near = errors.get_close_matches
    monkeypatch.setattr(
        errors, "get_close_matches", lambda *a, **k: compared.append(a) or near(*a, **k)
    )
    assert did_you_mean("budgt_usd", ["budget_usd", "x" * 101]) == " (did you mean 'budget_usd'?)"
    assert did_you_mean("x" * 101, ["x" * 100]) == ""
    body = {"model": "router-r1", "messages": [USER], "x" * 100_000: 1}
    assert post("/v1/chat/completions", body)[0] == 200
    assert [(wrong, list(known)) for wrong, known in compared] == [("budgt_usd", ["budget_usd"])]


def test_a_long_question_is_read_in_threads_and_a_short_one_in_the_event_loop(monkeypatch):
    at_work: dict[str, list[threading.Thread]] = {"turn": [], "parse": []}
    parse = protocol.parse

    class Watched(ConstantController):
        def turn(self, view):
            at_work["turn"].append(threading.current_thread())
            return super().turn(view)

    def watched(text):
        at_work["parse"].append(threading.current_thread())
        return parse(text)

    monkeypatch.setattr(protocol, "parse", watched)
    pool = make_pool("Ada")
    ada = FakeChat(text="Paris")
    model = ChatRouterR1(pool=pool, controller=Watched("Ada", pool), models={"Ada": ada})
    with serving_at(model) as url:
        ask(url, "<search>")
        (loop,) = {*at_work["turn"], *at_work["parse"]}
        at_work = {"turn": [], "parse": []}
        ask(url, "<search>" * 10_000)
    assert ada.queries[-1].endswith("<search>" * 10_000)
    assert loop not in at_work["turn"]
    assert at_work["parse"][0] is not loop


# ----------------------------------------------------------------------------- heads of requests

HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def said_after(url, begin, piece):
    """Send a beginning, then the same piece until the server closes; return what it has said."""
    sent, said = 0, b""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.settimeout(100)
        connection.sendall(begin)
        try:
            while sent < 50 * LONGEST_HEAD:
                connection.sendall(piece)
                sent += len(piece)
        except OSError:
            pass  # the server has closed
        while True:
            try:
                part = connection.recv(1 << 16)
            except OSError:
                part = b""
            if not part:
                return said
            said += part


@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        (HEAD, b"X-a: b\r\n" * 1000, 431),
        (HEAD + b"X-a: ", b"a" * 10_000, 431),
        (b"", b"\r\n" * 5000, 431),
        (b"GET /", b"a" * 10_000, 414),
        (HEAD + b"\r\n" + HEAD, b"X-a: b\r\n" * 1000, 431),  # the connection's second request
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"X-a: b\r\n" * 1000, 431),
    ],
    ids=["headers", "one header", "lines", "path", "second", "trailers"],
)
def test_a_head_without_end_is_refused(url, begin, piece, status):
    pytest.importorskip("httptools")  # h11 has limits of its own
    said = said_after(url, begin, piece)
    *_, last = re.split(rb"(?=HTTP/1\.1 \d)", said)
    assert last.startswith(b"HTTP/1.1 %d " % status)
    error = json.loads(last.partition(b"\r\n\r\n")[2])["error"]
    assert error["message"].endswith("of the request is too long; at most 65536 bytes")
    assert error["type"] == "invalid_request_error"
    assert "ok" in get(f"{url}/health")


def test_long_heads_within_the_limit_and_long_bodies_are_read(url):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=100)
    for size in (LONGEST_HEAD // 2, 10):
        connection.request("GET", "/health", headers={"X-a": "a" * size})
        assert b"ok" in connection.getresponse().read()
    body = json.dumps({"model": "router-r1", "messages": [USER], "a": "b" * 10 * LONGEST_HEAD})
    parts = [body[n : n + 1000].encode() for n in range(0, len(body), 1000)]
    for sent in (body, iter(parts), body):  # the second one in chunks
        connection.request("POST", "/v1/chat/completions", sent)
        assert b"chat.completion" in connection.getresponse().read()
    connection.close()
