"""A reply that came is read if there is any way to, and is on the bill if there is none."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from fakes import FakeChat, make_pool
from in_process import cli
from openai_server import Cut, Reply, Wire
from router_r1_graph import (
    Candidate,
    ReplyStore,
    ScriptedController,
    candidate_tool,
    create_router_r1,
    parse_controller,
)
from router_r1_graph.candidates import guard
from router_r1_graph.candidates.call import aask, ask
from router_r1_graph.candidates.providers import make_chat_model
from router_r1_graph.candidates.records import stored_records
from router_r1_graph.candidates.tool_calls import as_written
from router_r1_graph.outside import MOST_OF_A_CALL, MOST_TOKENS, NO_LIMIT, read_reply_json
from router_r1_graph.trace import Trace
from yaml_pool import ONE_DOLLAR, bills, both_ways, run, scripted, yaml_pool

SEARCH, ANSWER = "<search> Ada: Capital? </search>", "<answer> Paris </answer>"
HALF = "\ud83d"
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
DEEP = "[" * 3000 + "]" * 3000


def body(message: Any = None, usage: Any = USAGE, **more: Any) -> str:
    message = message or {"role": "assistant", "content": "Paris"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    told = {"usage": usage} if usage else {}
    return json.dumps({"id": "x", "created": 1, "choices": [choice], **told, **more})


@dataclass(frozen=True)
class Raw:
    """Exactly these bytes, with status 200."""

    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, request, http):
        http.send(200, self.data, **self.headers)


def events(*chunks: Any) -> Raw:
    lines = [chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode() for chunk in chunks]
    stream = b"".join(b"data: %s\n\n" % line for line in [*lines, b"[DONE]"])
    return Raw(stream, {"content_type": "text/event-stream"})


def piece(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "choices": [choice], **more}


READABLE = {
    "half a character in a key": body(**{HALF: 1}),
    "in a key of the message": body({"role": "assistant", "content": "Paris", HALF: 1}),
    "in a key of the usage": body(usage={**USAGE, HALF: 1}),
    "in a key of its details": body(usage={**USAGE, "prompt_tokens_details": {HALF: 1}}),
    "a long number": body().replace('"created": 1', f'"created": {"9" * 5000}'),
    "a field that is nested deeply": body().replace('"created": 1', f'"created": {DEEP}'),
    "a byte of no text": body().encode().replace(b'"id": "x"', b'"id": "x\xff"'),
    "a line break in a text": body().replace('"id": "x"', '"id": "x\n"'),
}


@both_ways
@pytest.mark.parametrize("sent", READABLE.values(), ids=READABLE)
def test_a_paid_reply_is_read_whatever_keys_bytes_and_numbers_it_has(serve, tmp_path, how, sent):
    data = sent if isinstance(sent, bytes) else sent.encode()
    pool = yaml_pool(tmp_path, serve(Raw(data)), **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["ok"], bill["error"]) == (True, None)
    assert (bill["input_tokens"], bill["output_tokens"]) == (10, 5)
    assert bill["cost_usd"] == pytest.approx(20e-6)


def test_a_count_of_any_length_is_flagged_and_estimated(serve, tmp_path):
    sent = body().replace('"prompt_tokens": 10', f'"prompt_tokens": {"9" * 5000}')
    pool = yaml_pool(tmp_path, serve(Raw(sent.encode())), **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), "invoke"))
    assert "reported the impossible: prompt_tokens 999" in bill["error"]["message"]
    assert (bill["ok"], bill["input_tokens"], bill["output_tokens"]) == (True, 10, 5)  # by the sum


def test_what_cannot_be_kept_of_a_reply_is_left_out_and_the_rest_is_not():
    deep = '{"a": %s, "b": "]}\\"[{", "c": [1, {"d": 2}]}'
    for inner in (DEEP, "[" * 9999 + '"]"' + "]" * 9999, '{"x":' * 5000 + "1" + "}" * 5000):
        read = read_reply_json(deep % inner)
        assert (read["b"], read["c"]) == (']}"[{', [1, {"d": 2}])
    assert abs(read_reply_json("[-%s]" % ("9" * 10_000))[0]) > MOST_TOKENS
    assert read_reply_json('{"a": "é"}'.encode("utf-16")) == {"a": "é"}
    for broken in ("", "<html>", '{"a": ', DEEP[:-1], '{"a": "' + "\\" * 5001):
        with pytest.raises(ValueError, match=r"line 1"):
            read_reply_json(broken)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@both_ways
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", ["text", "text in a text", "object"])
@pytest.mark.parametrize("depth", [40, 48, 49, 58, 64, 300])
def test_arguments_that_are_nested_too_deeply_are_an_invalid_call(
    serve, tmp_path, how, stream, form, depth
):
    given: Any = {"query": "Capital?", "more": nested(depth - 1)}
    text = json.dumps(given)
    sent = {"text": text, "text in a text": json.dumps(text), "object": given}[form]
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": sent}}
    whole = {"role": "assistant", "content": None, "tool_calls": [call]}
    delta = {"index": 0, "delta": {**whole, "tool_calls": [{"index": 0, **call}]}}
    chunks = [{"id": "x", "choices": [delta]}, piece("", "tool_calls", usage=USAGE)]
    raw = events(*chunks) if stream else Raw(body(whole).encode())
    settings = yaml_pool(tmp_path, serve(raw)).candidates[0]
    model = make_chat_model(settings).model_copy(update={"streaming": stream})
    asked = model, [HumanMessage("?")], settings
    reply = ask(*asked) if how == "invoke" else asyncio.run(aask(*asked))
    assert reply.ok
    assert reply.message is not None
    if depth <= 48:
        assert [one["args"] for one in reply.message.tool_calls] == [given]
        return
    assert reply.message.tool_calls == []
    (invalid,) = reply.message.invalid_tool_calls
    assert (invalid["name"], invalid["id"]) == ("f", "call_1")
    assert invalid["error"] == "its arguments are nested more than 48 deep"
    assert as_written(invalid["args"]) == text or form == "object"


UNREADABLE = {
    "a null among the choices": {"choices": [None]},
    "choices by name": {"choices": {"0": {}}},
    "a text for choices": {"choices": "x"},
    "a number for choices": {"choices": 7},
    "content that is an object": {"message": {"role": "assistant", "content": {"a": 1}}},
    "calls that are a text": {
        "message": {"role": "assistant", "content": "x", "tool_calls": "abc"}
    },
}


@both_ways
@pytest.mark.parametrize("sent", UNREADABLE.values(), ids=UNREADABLE)
def test_a_reply_that_cannot_be_read_is_billed_by_the_usage_it_sent(serve, tmp_path, how, sent):
    pool = yaml_pool(tmp_path, serve(Raw(body(**sent).encode())), **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["ok"], bill["error"]["kind"]) == (False, "malformed")
    assert (bill["input_tokens"], bill["output_tokens"]) == (10, 5)
    assert bill["cost_usd"] == pytest.approx(20e-6)
    assert not {"uncertain_attempts", "uncertain_usd"} & set(bill)


@pytest.mark.parametrize("where", ["body", "header"])
def test_a_cost_alone_is_the_bill_of_a_reply_that_cannot_be_read(serve, tmp_path, where):
    told = {"usage": {"cost": 0.01}} if where == "body" else {"usage": None}
    headers = {"x_litellm_response_cost": "0.01"} if where == "header" else {}
    sent = Raw(body(choices=[None], **told).encode(), headers)
    (bill,) = bills(
        run(scripted(yaml_pool(tmp_path, serve(sent), **ONE_DOLLAR), SEARCH, ANSWER), "invoke")
    )
    assert (bill["error"]["kind"], bill["cost_usd"]) == ("malformed", 0.01)


@both_ways
@pytest.mark.parametrize("sent", ["<html>", "[]", "{}", body(usage=None, choices=[None])])
def test_without_usage_its_price_is_uncertain_and_at_most_the_worst(serve, tmp_path, how, sent):
    pool = yaml_pool(tmp_path, serve(Raw(sent.encode())), max_tokens=20, **ONE_DOLLAR)
    result = run(scripted(pool, SEARCH, ANSWER), how)
    (bill,) = bills(result)
    assert (bill["ok"], bill["cost_usd"], bill["uncertain_attempts"]) == (False, 0.0, 1)
    (ada,) = pool.candidates
    assert bill["uncertain_usd"] == pytest.approx(ada.worst_case_usd("Capital?"))
    assert result["ledger"]["candidates"]["Ada"]["uncertain_usd"] == bill["uncertain_usd"]


def choice(finish: str, **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": None, **message}
    return {"choices": [{"index": 0, "message": said, "finish_reason": finish}]}


IN_VAIN = {
    "only reasoning": ("empty", choice("length", reasoning_content="hm")),
    "a filter": ("declined", choice("content_filter", content="")),
    "a refusal": ("declined", choice("stop", refusal="No.")),
    "no text": ("empty", choice("stop")),
    "no choice": ("empty", {"choices": []}),
}


@both_ways
@pytest.mark.parametrize(("kind", "sent"), IN_VAIN.values(), ids=IN_VAIN)
def test_a_paid_reply_of_no_use_is_paid_once(serve, tmp_path, how, kind, sent):
    server = serve(Raw(body(**sent).encode()))
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    bought = []
    for _ in range(2):
        with ReplyStore(tmp_path / "replies.sqlite") as store:
            script = ScriptedController([SEARCH, ANSWER])
            graph = create_router_r1(pool, script, replies=store).compile()
            bought += bills(run(graph, how))
            assert list(stored_records(store)) == []
    assert [(bill["ok"], bill["error"]["kind"]) for bill in bought] == [(False, kind)] * 2
    assert bought[0]["error"]["message"] == bought[1]["error"]["message"]
    assert [bill["cost_usd"] for bill in bought] == [pytest.approx(20e-6), 0]
    assert bought[1]["saved_usd"] == pytest.approx(20e-6)
    assert server.count() == 1


@both_ways
@pytest.mark.parametrize("sent", [choice("length"), choice("content_filter", content="")])
def test_a_stored_turn_without_a_text_is_the_same_mistake_or_failure_again(
    serve, tmp_path, how, sent
):
    turns = [Raw(body(**sent).encode()), Reply(ANSWER)]
    server = serve({"controller": turns})
    pool = yaml_pool(tmp_path, server, controller={}, **ONE_DOLLAR)
    ended = []
    for _ in range(2):
        with ReplyStore(tmp_path / "replies.sqlite") as store:
            graph = create_router_r1(pool, parse_controller("pool", pool), replies=store)
            result = run(graph.compile(), how)
        ended.append((result["answer"], result["stop_reason"], result.get("error")))
        asked = server.count()
    assert ended[0] == ended[1]
    assert (ended[0][1] == "answered", asked) in [(True, 2), (False, 1)]


@both_ways
@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_of_the_other_mode_is_paid_once_behind_a_redirection_too(
    serve, tmp_path, how, stream
):
    sent = Raw(body().encode()) if stream else events(piece("Paris", "stop", usage=USAGE))
    other = serve(sent)
    server = serve(Wire(code=307, headers={"location": f"{other.base_url}/chat/completions"}))
    pool = yaml_pool(tmp_path, server, options={"streaming": stream}, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["reply"], bill["cost_usd"]) == ("Paris", pytest.approx(20e-6))
    assert (server.count(), other.count()) == (1, 1)


@pytest.mark.parametrize("code", [200, 500, 429])
def test_an_error_with_usage_is_billed_and_asked_again(serve, tmp_path, code):
    sent = {"error": {"message": "boom", "code": code if code != 200 else 500}, "usage": USAGE}
    server = serve(Wire(sent, code=code))
    pool = yaml_pool(tmp_path, server, max_retries=0, **ONE_DOLLAR)
    for count in (1, 2):
        with ReplyStore(tmp_path / "replies.sqlite") as store:
            script = ScriptedController([SEARCH, ANSWER])
            (bill,) = bills(run(create_router_r1(pool, script, replies=store).compile(), "invoke"))
        kind = "rate_limited" if code == 429 else "server_error"
        assert (bill["error"]["kind"], server.count()) == (kind, count)
        # The usage beside a refusal may be that of the account.
        assert bill["cost_usd"] == pytest.approx(0 if code == 429 else 20e-6)


@both_ways
def test_a_server_that_changes_its_mode_is_paid_once_for_each_reply(serve, tmp_path, how):
    whole, streamed = Raw(body().encode()), events(piece("Paris", "stop", usage=USAGE))
    server = serve(lambda request: whole if request.body.get("stream") else streamed)
    pool = yaml_pool(
        tmp_path,
        server,
        {"Ada": {}, "Bob": {"model": "ada", "options": {"streaming": True}}},
        **ONE_DOLLAR,
    )
    turns = [
        f"<search> {name}: Capital {n}? </search>" for n in range(2) for name in ("Ada", "Bob")
    ]
    paid = bills(run(scripted(pool, *turns, ANSWER), how))
    assert [bill["reply"] for bill in paid] == ["Paris"] * 4
    assert [bill["cost_usd"] for bill in paid] == [pytest.approx(20e-6)] * 4
    assert server.count() == 4


@both_ways
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", [USAGE, None])
def test_an_error_is_the_same_where_a_server_has_but_one_mode(serve, tmp_path, how, stream, usage):
    sent = Raw(body().encode()) if stream else events(piece("Paris", "stop", usage=USAGE))
    failed = Wire({"error": {"message": "boom"}, "usage": usage}, code=500)
    pool = yaml_pool(tmp_path, serve([sent, failed]), options={"streaming": stream}, **ONE_DOLLAR)
    first, second = bills(run(scripted(pool, SEARCH, SEARCH.replace("?", "!"), ANSWER), how))
    assert (first["reply"], second["error"]["kind"]) == ("Paris", "server_error")
    assert second["cost_usd"] == pytest.approx(20e-6 if usage else 0)
    assert not {"uncertain_attempts", "uncertain_usd"} & {*second}


def test_the_worst_case_counts_several_replies_and_a_limit_of_the_body():
    plain = Candidate(name="A", model="m", output_usd_per_mtok=1.0, max_tokens=100)
    assert plain.fair_usd("?") == pytest.approx(100e-6)
    for options, tokens in (
        ({"n": 3}, 300),
        ({"extra_body": {"max_tokens": 1000, "n": 2}}, 2000),
        ({"extra_body": {"max_completion_tokens": 10}}, 100),
        ({"n": None, "extra_body": [1]}, 100),
    ):
        several = plain.model_copy(update={"options": options})
        assert several.fair_usd("?") == pytest.approx(tokens * 1e-6)


def test_an_uncertain_price_beyond_any_call_is_the_most_of_a_call(serve, tmp_path):
    unlimited = {"max_tokens": NO_LIMIT, "output_usd_per_mtok": 600.0}
    pool = yaml_pool(tmp_path, serve(Raw(b"{}")), **unlimited)
    result = run(scripted(pool, SEARCH, ANSWER), "invoke")
    (bill,) = bills(result)
    assert bill["uncertain_usd"] == MOST_OF_A_CALL
    assert Trace.read(json.loads(Trace.from_state(result).model_dump_json()))


@both_ways
@pytest.mark.parametrize(
    "sent",
    [
        Raw(body(choices=[None]).encode()),
        Raw(body(choices=[None], usage=None).encode()),
        Raw(body()[:40].encode()),
        Cut("mid_body"),
        Cut(),
    ],
    ids=["billed", "not billed", "cut", "the connection, in the body", "before the headers"],
)
def test_a_budget_ends_a_run_whose_paid_replies_cannot_be_read(serve, tmp_path, how, sent):
    server = serve(sent)
    prices = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 20_000, "max_tokens": 5}
    turns = ScriptedController(
        lambda view: ANSWER if view.must_answer else SEARCH.replace("?", f" {view.left.rounds}?")
    )
    graph = create_router_r1(yaml_pool(tmp_path, server, **prices), turns).compile()
    result = run(graph, how, budget_usd=0.35, max_rounds=20)
    assert (result["stop_reason"], server.count()) == ("budget_usd", 3)  # at $0.10 each


@both_ways
def test_an_exception_of_any_other_client_is_uncertain(how):
    graph = create_router_r1(
        make_pool({"name": "Ada", "max_tokens": 20, **ONE_DOLLAR}),
        ScriptedController([SEARCH, ANSWER]),
        models={"Ada": FakeChat(text=UnicodeEncodeError("utf-8", HALF, 0, 1, "no character"))},
    ).compile()
    (bill,) = bills(run(graph, how))
    assert (bill["error"]["kind"], bill["uncertain_attempts"]) == ("bug", 1)
    assert bill["uncertain_usd"] > 0


def test_an_empty_reply_that_was_read_has_its_price():
    graph = create_router_r1(
        make_pool({"name": "Ada", "max_tokens": 20, **ONE_DOLLAR}),
        ScriptedController([SEARCH, ANSWER]),
        models={"Ada": FakeChat(text="", input_tokens=0, output_tokens=0)},
    ).compile()
    (bill,) = bills(run(graph, "invoke"))
    assert (bill["error"]["kind"], bill.get("uncertain_attempts")) == ("empty", None)


@both_ways
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "base_url",
    ["http://127.0.0.1:{closed}/v1", "https://127.0.0.1:{port}/v1", "http://localhost:{closed}/v1"],
    ids=["refused", "no TLS", "by name"],
)
def test_a_connection_that_was_never_made_is_free(serve, tmp_path, how, stream, base_url):
    server = serve(Reply("Paris"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    port = server.base_url.split(":")[2].split("/")[0]
    address = base_url.format(closed=closed, port=port)
    options = {"streaming": True} if stream else {}
    pool = yaml_pool(tmp_path, server, options=options, base_url=address, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["error"]["kind"], bill["cost_usd"]) == ("connection", 0.0)
    assert not {"uncertain_attempts", "uncertain_usd"} & {*bill}


@both_ways
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("code", ["timeout", "server_error"])
def test_an_error_in_a_stream_is_free_only_before_any_text(serve, tmp_path, how, begun, code):
    named = {"error": {"message": "upstream unreachable", "code": code}}
    texts = [piece("Pa"), piece("ris")] if begun else []
    server = serve(events(*texts, named))
    pool = yaml_pool(tmp_path, server, options={"streaming": True}, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["ok"], bill["cost_usd"]) == (False, 0.0)
    assert bill.get("uncertain_attempts", 0) == begun


@both_ways
def test_a_stream_that_cannot_be_read_is_billed_by_the_usage_in_it(serve, tmp_path, how):
    event = {**piece("Pa", usage=USAGE), "choices": [None]}
    server = serve(events(event))
    pool = yaml_pool(tmp_path, server, options={"streaming": True}, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["ok"], bill["cost_usd"]) == (False, pytest.approx(20e-6))
    assert "uncertain_usd" not in bill


@both_ways
def test_a_long_stream_of_short_lines_is_no_long_line(serve, tmp_path, monkeypatch, how):
    monkeypatch.setattr(guard, "MOST_BYTES", 2**13)
    pieces = [piece("Paris. ") for _ in range(60)] + [piece("", usage=USAGE, finish="stop")]
    sent = events(*pieces)
    assert 2**13 < len(sent.data) < 2**15
    server = serve(sent)
    pool = yaml_pool(tmp_path, server, options={"streaming": True}, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert bill["ok"]


def test_a_request_that_was_never_sent_is_not(serve, tmp_path):
    server = serve(Reply("Paris"))
    (ada,) = yaml_pool(tmp_path, server, **ONE_DOLLAR).candidates
    reply = ask(make_chat_model(ada), [HumanMessage("Capital?")], ada, logit_bias={"x": object()})
    assert (reply.ok, reply.uncertain_attempts, reply.uncertain_usd) == (False, 0, 0.0)
    assert server.count() == 0


# ----------------------------------------------------------------------------------------- streams

END = piece("ris", "stop", usage=USAGE)
STREAMED = {
    "half a character in a key": events({HALF: 1, **piece("Pa")}, END),
    "a byte of no text": events(
        json.dumps({**piece("Pa"), "model": "m"}).encode().replace(b'"m"', b'"m\xff"'), END
    ),
    "a long number": events(
        json.dumps({**piece("Pa"), "created": 1})
        .encode()
        .replace(b": 1}", b": %s}" % (b"9" * 5000)),
        END,
    ),
    "a field that is nested deeply": events(
        json.dumps({**piece("Pa"), "x": 1}).encode().replace(b": 1}", b": %s}" % DEEP.encode()), END
    ),
}


def streamed(pool, how):
    return run(scripted(pool, SEARCH, ANSWER), how)


@both_ways
@pytest.mark.parametrize("sent", STREAMED.values(), ids=STREAMED)
def test_a_stream_is_read_whatever_keys_bytes_and_numbers_it_has(serve, tmp_path, how, sent):
    pool = yaml_pool(tmp_path, serve(sent), options={"streaming": True}, **ONE_DOLLAR)
    (bill,) = bills(streamed(pool, how))
    assert (bill["ok"], bill["error"]) == (True, None)
    assert bill["cost_usd"] == pytest.approx(20e-6)


@both_ways
@pytest.mark.parametrize("usage", [USAGE, None])
def test_a_stream_that_cannot_be_read_to_its_end_is_on_the_bill(serve, tmp_path, how, usage):
    sent = events(piece("Pa", **({"usage": usage} if usage else {})), {"choices": {"0": {}}})
    pool = yaml_pool(tmp_path, serve(sent), options={"streaming": True}, **ONE_DOLLAR)
    (bill,) = bills(streamed(pool, how))
    assert (bill["ok"], bill["error"]["kind"]) == (False, "malformed")
    assert bill["cost_usd"] == pytest.approx(20e-6 if usage else 0.0)
    assert ("uncertain_usd" in bill) == (usage is None)


# ------------------------------------------------------------------------------------- long bodies


class Endless:
    """A body, or a stream, without an end."""

    def __init__(self) -> None:
        self.sent = 0

    def send(self, request, http):
        kind = "text/event-stream" if request.body.get("stream") else "application/json"
        http._send_head(200, {"content_type": kind, "transfer_encoding": "chunked"})
        start = json.dumps(piece("Pa", usage=USAGE))
        data = f"data: {start}\n\n".encode() if request.body.get("stream") else b"{"
        while self.sent < 2**26 and not http.server.closing.is_set():
            http.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.sent += len(data)
            data = b" " * 2**16


@both_ways
@pytest.mark.parametrize("stream", [False, True])
def test_a_body_without_an_end_is_left_alone_at_its_limit(
    serve, tmp_path, monkeypatch, how, stream
):
    monkeypatch.setattr(guard, "MOST_BYTES", 2**20)
    endless = Endless()
    server = serve(endless)
    options = {"streaming": True} if stream else {}
    pool = yaml_pool(tmp_path, server, options=options, max_retries=2, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["error"]["kind"], bill["attempts"], server.count()) == ("malformed", 1, 1)
    assert "more than 1,048,576 bytes" in bill["error"]["message"]
    if stream:  # its first event said what it costs so far
        assert bill["cost_usd"] == pytest.approx(20e-6)
    else:
        assert (bill["cost_usd"], bill["uncertain_attempts"]) == (0.0, 1)
    assert endless.sent < 2**25


@both_ways
def test_a_line_of_a_stream_without_an_end_is_read_in_linear_time(
    serve, tmp_path, monkeypatch, how
):
    monkeypatch.setattr(guard, "MOST_BYTES", 2**25)
    streams = {"options": {"streaming": True}, "timeout_seconds": 15}  # else it takes 30 s
    pool = yaml_pool(tmp_path, serve(Endless()), **streams, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["error"]["kind"], bill["cost_usd"]) == ("malformed", pytest.approx(20e-6))


@both_ways
def test_the_limit_is_that_of_the_unpacked_body(serve, tmp_path, monkeypatch, how):
    monkeypatch.setattr(guard, "MOST_BYTES", 2**20)
    long = body({"role": "assistant", "content": "<" * 2**22})
    sent = Raw(gzip.compress(long.encode()), {"content_encoding": "gzip"})
    assert len(sent.data) < 2**14
    pool = yaml_pool(tmp_path, serve(sent), **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["error"]["kind"], bill["uncertain_attempts"]) == ("malformed", 1)
    assert "more than 1,048,576 bytes" in bill["error"]["message"]


@both_ways
def test_a_packed_reply_within_the_limit_is_read(serve, tmp_path, how):
    sent = Raw(gzip.compress(body().encode()), {"content_encoding": "gzip"})
    (bill,) = bills(run(scripted(yaml_pool(tmp_path, serve(sent)), SEARCH, ANSWER), how))
    assert (bill["ok"], bill["output_tokens"]) == (True, 5)


STALLING = {
    "a string without an end within lists": Raw(b"[" * 3000 + b'"' + b'\\"' * 500_000),
    "spaces in an event": events(json.dumps(" " * 400_000 + "x").encode()),
    "spaces in the name of an event": Raw(
        b"event: %sx\ndata: no JSON\n\n" % (b" " * 400_000), {"content_type": "text/event-stream"}
    ),
}


@both_ways
@pytest.mark.parametrize("sent", STALLING.values(), ids=STALLING)
def test_no_reply_takes_longer_than_linear_time(serve, tmp_path, how, sent):
    options = {"streaming": True} if sent.headers else {}
    settings = {"options": options, "timeout_seconds": 15}  # else it takes minutes
    pool = yaml_pool(tmp_path, serve(sent), **settings, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert not bill["ok"]
    assert bill["error"]["kind"] != "timeout"


@dataclass(frozen=True)
class Refusal:
    """A status, with this body and these headers."""

    status: int
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, request, http):
        http.send(self.status, self.data, **self.headers)


@both_ways
def test_a_long_number_in_retry_after_takes_linear_time(serve, tmp_path, how):
    server = serve([Refusal(429, b"{}", {"retry_after": "1" * 60_000 + "x"}), Reply("Paris")])
    (ada,) = yaml_pool(tmp_path, server, max_retries=1).candidates
    asked = [make_chat_model(ada), [HumanMessage("Capital?")], ada]
    within = {"seconds_left": 15}  # else it takes longer, and no time is left
    reply = ask(*asked, **within) if how == "invoke" else asyncio.run(aask(*asked, **within))
    assert (reply.ok, server.count()) == (True, 2)


LONG = "a-" * 2**22
LONG_ERRORS = {
    "words": Refusal(503, json.dumps({"error": {"message": f"overloaded {LONG}"}}).encode()),
    "a code": Refusal(503, json.dumps({"error": {"message": "down", "code": LONG}}).encode()),
    "a page": Refusal(503, f"<html>{LONG}".encode()),
    "a packed page": Refusal(503, gzip.compress(LONG.encode()), {"content_encoding": "gzip"}),
    "with status 200": Raw(json.dumps({"error": {"message": LONG, "code": "x" + LONG}}).encode()),
    "in a stream": events({"error": {"message": LONG, "code": LONG}}),
    "words of a stream": events(LONG.encode()),
}


@both_ways
@pytest.mark.parametrize("sent", LONG_ERRORS.values(), ids=LONG_ERRORS)
def test_of_an_error_of_any_length_only_its_beginning_is_read(serve, tmp_path, how, sent):
    options = {"streaming": True} if sent.headers.get("content_type") else {}
    settings = {"options": options, "timeout_seconds": 15}  # else it takes a minute
    pool = yaml_pool(tmp_path, serve(sent), **settings, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["error"]["kind"], bill.get("uncertain_attempts", 0)) == ("server_error", 0)
    assert len(bill["error"]["message"]) <= 500


# ------------------------------------------------------------------------------------------- store


@both_ways
def test_a_billed_reply_that_cannot_be_read_is_not_paid_again(serve, tmp_path, how):
    server = serve(Raw(body(choices=[None]).encode()))
    graph_of = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    for _ in range(3):  # as by three commands
        with ReplyStore(tmp_path / "replies.sqlite") as store:
            tool = create_router_r1(graph_of, ScriptedController([SEARCH, ANSWER]), replies=store)
            (bill,) = bills(run(tool.compile(), how))
            store.flush()
            assert list(stored_records(store)) == []  # no reply that a recorded pool could give
        assert (bill["ok"], bill["error"]["kind"]) == (False, "malformed")
        assert "NoneType" in bill["error"]["message"]
        assert bill["cost_usd"] + bill["saved_usd"] == pytest.approx(20e-6)
    assert (bill["stored"], server.count()) == (True, 1)


def test_a_reply_that_reports_no_usage_is_asked_for_again(serve, tmp_path):
    server = serve([Raw(b"<html>Bad gateway</html>"), Wire(json.loads(body()))])
    (ada,) = yaml_pool(tmp_path, server, **ONE_DOLLAR).candidates
    with ReplyStore(tmp_path / "replies.sqlite") as store:
        tool = candidate_tool(ada, replies=store)
        call = {"type": "tool_call", "id": "1", "name": ada.slug, "args": {"query": "Capital?"}}
        told = [tool.invoke(call).artifact["ok"] for _ in range(3)]
    assert (told, server.count()) == ([False, True, True], 2)


# ----------------------------------------------------------------------------- where it is shown

NOT_CONFIRMED = r"\$0, and up to \$0\.\d+ that no provider confirmed"


def test_a_transcript_says_what_may_be_billed_of_a_call_a_candidate_and_the_run(serve, tmp_path):
    yaml_pool(tmp_path, serve(Raw(b"<html>")), **ONE_DOLLAR)
    asked = ("ask", "Capital?", "--pool", "pool.yaml", "--controller", "constant:Ada")
    done = cli(*asked, cwd=tmp_path)
    assert re.search(rf"^reply .*\[0 tokens, {NOT_CONFIRMED}, ", done.stdout, re.M)
    assert re.search(rf"^bill +Ada +{NOT_CONFIRMED}  1 call, 1 failed", done.stdout, re.M)
    assert re.search(rf"^bill +total +{NOT_CONFIRMED}  \d", done.stdout, re.M)
    chat = cli("chat", *asked[2:], input="Capital?\n", cwd=tmp_path)
    assert re.search(rf"^bill +{NOT_CONFIRMED}, 1 call \(1 failed\)", chat.stdout, re.M)


def test_a_controller_whose_turns_are_only_uncertain_has_a_line_on_the_bill(serve, tmp_path):
    server = serve(Raw(b"<html>"))
    yaml_pool(tmp_path, server, controller=ONE_DOLLAR)
    done = cli("ask", "Capital?", "--pool", "pool.yaml", cwd=tmp_path)
    assert re.search(rf"^bill +controller +{NOT_CONFIRMED}  1 call", done.stdout, re.M)
    assert re.search(rf"^bill +total +{NOT_CONFIRMED}  \d", done.stdout, re.M)


@both_ways
def test_the_last_message_says_what_may_be_billed_if_anything(serve, tmp_path, how):
    server = serve([Raw(b"<html>"), Wire(json.loads(body()))])
    graph = scripted(yaml_pool(tmp_path, server, **ONE_DOLLAR), SEARCH, ANSWER)
    for uncertain in (True, False):
        result = run(graph, how)
        bill = result["messages"][-1].response_metadata["router_r1"]
        known = result["ledger"]["candidates"]["Ada"].get("uncertain_usd")
        assert bill.get("uncertain_usd") == known
        assert (known is not None) == uncertain


# ------------------------------------------------------- content types that say something else

WHOLE = json.loads(body())
OTHER_TYPES = ("text/plain", "text/html; charset=utf-8", "application/octet-stream")


@both_ways
@pytest.mark.parametrize("kind", [*OTHER_TYPES, "text/event-stream"])
@pytest.mark.parametrize("sent", [WHOLE, piece("Paris", "stop", usage=USAGE)])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_reply_in_place_of_a_stream_is_paid_once_by_any_name(
    serve, tmp_path, how, kind, sent, indent
):
    server = serve(Raw(json.dumps(sent, indent=indent).encode(), {"content_type": kind}))
    options = {"streaming": True}
    pool = yaml_pool(tmp_path, server, max_retries=2, options=options, **ONE_DOLLAR)
    result = run(scripted(pool, SEARCH, ANSWER), how)
    (bill,) = bills(result)
    assert (bill["ok"], bill["error"], server.count()) == (True, None, 1)
    assert (bill["cost_usd"], "Paris" in str(result["scratchpad"][-2])) == (
        pytest.approx(20e-6),
        True,
    )


@both_ways
@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson", *OTHER_TYPES])
def test_a_stream_in_place_of_a_reply_is_paid_once_by_any_name(serve, tmp_path, how, kind):
    chunks = events(piece("Par"), piece("is", "stop", usage=USAGE)).data
    server = serve(Raw(chunks, {"content_type": kind}))
    pool = yaml_pool(tmp_path, server, max_retries=2, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["ok"], bill["error"], server.count()) == (True, None, 1)
    assert bill["cost_usd"] == pytest.approx(20e-6)
