"""What models are sent, and how what they send is read: refusals, tool calls, thoughts, images."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI

from fakes import FakeChat, answer, make_pool, models, search
from openai_server import Malformed, Reply, Request, Status, Wire
from router_r1_graph import (
    ChatModelController,
    ChatRouterR1,
    ControllerSettings,
    QuestionError,
    ScriptedController,
    create_router_r1,
    parse_controller,
    route_only,
)
from router_r1_graph.candidates.images import IMAGE_ALONE
from router_r1_graph.candidates.server_events import let_through
from router_r1_graph.candidates.thoughts import apart
from router_r1_graph.candidates.written_calls import written_calls
from router_r1_graph.chat.answer_reader import AnswerReader
from router_r1_graph.controllers.chat_messages import alternating
from yaml_pool import ONE_DOLLAR, bills, both_ways, run, scripted, yaml_pool

LONG = " ".join(f"Step {n} of the recipe." for n in range(115))
IMAGE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"},
}


@dataclass(frozen=True)
class Error:
    """Status 400 with this error object."""

    error: Mapping[str, Any]

    def send(self, request: Request, http: Any) -> None:
        http.send(400, {"error": self.error})


@dataclass(frozen=True)
class ToolCalls:
    """A turn with these tool calls as they are; streamed, each is one of the given pieces."""

    calls: list[dict[str, Any]]
    finish: str = "tool_calls"
    thoughts: Mapping[str, Any] = field(default_factory=dict)

    def send(self, request: Request, http: Any) -> None:
        head = {"id": "x", "created": 1, "model": request.model}
        usage = {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        if not request.body.get("stream"):
            message = {"role": "assistant", "content": None, "tool_calls": self.calls}
            message |= self.thoughts
            choice = {"index": 0, "message": message, "finish_reason": self.finish}
            http.send(200, {**head, "object": "chat.completion", "choices": [choice], **usage})
            return
        head["object"] = "chat.completion.chunk"
        deltas = [({"role": "assistant", "tool_calls": [call]}, None) for call in self.calls]
        choices = [
            {"index": 0, "delta": delta, "finish_reason": finish}
            for delta, finish in [(dict(self.thoughts), None), *deltas, ({}, self.finish)]
        ]
        chunks = [{**head, "choices": [choice]} for choice in choices]
        http.send_events([*chunks, {**head, "choices": [], **usage}])


def piece(arguments: Any, name: str | None = "Ada", id_: str | None = "D681PevKs", index: Any = 0):
    function = {"name": name, "arguments": arguments}
    return {"id": id_, "index": index, "type": "function", "function": function}


def refusing(name: str, error: Mapping[str, Any], then: Any) -> Callable[[Request], Any]:
    return lambda request: Error(error) if name in request.body else then


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("max_tokens", {"message": "Use 'max_completion_tokens' instead.", "param": "max_tokens"}),
        (
            "temperature",
            {
                "message": "'temperature' does not support 0 with this model.",
                "param": "temperature",
            },
        ),
        ("temperature", {"message": "invalid temperature: only 1 is allowed for this model"}),
        ("stop", {"message": "Argument not supported on this model: stop"}),
        ("stop", "Argument not supported on this model: stop"),  # xAI's
        ("temperature", {"message": "temperature can't be set for reasoning models"}),
        ("temperature", {"message": "`temperature` cannot be specified for this model."}),
        ("stop", {"message": "[{'type': 'extra_forbidden', 'loc': ('body', 'stop')}]"}),
        ("temperature", {"message": "temperature does not apply to reasoning models"}),
        ("temperature", {"message": "Invalid value for 'temperature': must be 1 for this model"}),
        ("top_p", {"message": 'Invalid JSON payload. Unknown name "top_p": Cannot find field.'}),
    ],
)
def test_what_a_model_refuses_is_learned_once_and_not_sent_again(serve, tmp_path, name, error):
    controller = refusing(name, error, Reply(answer("Paris")))
    server = serve({"controller": controller, "ada": Reply("Paris")})
    pool = yaml_pool(tmp_path, server, controller={"options": {"top_p": 0.5}})
    for _ in range(2):  # another graph over the same endpoint knows it too
        result = run(create_router_r1(pool, parse_controller("pool", pool)).compile(), "invoke")
        assert (result["answer"], result["stop_reason"]) == ("Paris", "answered")
    sent = [name in request.body for request in server.requests]
    assert sent == [True, False, False]
    limits = [request.body.get("max_completion_tokens") for request in server.requests]
    assert limits[1:] == ([1024, 1024] if name == "max_tokens" else [None, None])


@pytest.mark.parametrize(
    "error",
    [
        "Input validation error: `temperature` must be strictly positive",
        {"message": "invalid params, temperature should be in (0.0, 1.0]"},
        {"message": "[{'loc': ('body', 'temperature'), 'msg': 'Input should be greater than 0'}]"},
    ],
)
def test_where_a_temperature_of_0_is_refused_a_low_one_is_sent(serve, tmp_path, error):
    server = serve(lambda r: Reply("Oslo") if r.body.get("temperature") else Error(error))
    for settings in ({}, {"temperature": 0.7}):
        pool = yaml_pool(tmp_path, server, **settings)
        (bill,) = bills(run(scripted(pool, search("Ada: ?"), answer()), "invoke"))
        assert bill["reply"] == "Oslo"
    assert [request.body["temperature"] for request in server.requests] == [0.0, 0.01, 0.7]


@pytest.mark.parametrize(
    "error",
    [
        {"message": "temperature must be greater than or equal to 0 and at most 1"},
        {"message": "max_tokens is too large: 512. At most 256.", "param": "max_tokens"},
        {"message": "max_tokens cannot be set higher than 256."},
        "max_tokens cannot be set to 512",
    ],
)
def test_a_value_that_is_refused_is_an_error(serve, tmp_path, error):
    server = serve(Error(error))
    (bill,) = bills(
        run(scripted(yaml_pool(tmp_path, server), search("Ada: ?"), answer()), "invoke")
    )
    assert (bill["error"]["kind"], len(server.requests)) == ("bad_request", 1)
    assert ("max_tokens" in bill["error"]["message"]) == ("max_tokens" in str(error))


@pytest.mark.parametrize(
    ("settings", "sent", "missing"),
    [
        ({}, "max_tokens", "max_completion_tokens"),
        ({"token_limit_parameter": "max_completion_tokens"}, "max_completion_tokens", "max_tokens"),
        ({"token_limit_parameter": None}, "temperature", "max_tokens"),
        ({"temperature": None}, "max_tokens", "temperature"),
        ({"options": {"stop": None}}, "max_tokens", "stop"),
    ],
)
def test_the_pool_file_says_what_is_sent(serve, tmp_path, settings, sent, missing):
    server = serve(Reply(answer("Paris")))
    pool = yaml_pool(tmp_path, server, controller=settings)
    run(create_router_r1(pool, parse_controller("pool", pool)).compile(), "invoke")
    body = server.requests[0].body
    assert sent in body
    assert missing not in body


@pytest.mark.parametrize("limit", ["auto", "max_completion_tokens", None])
def test_the_responses_api_has_one_name_of_the_limit_and_null_sends_none(serve, tmp_path, limit):
    server = serve(Wire({"id": "r", "object": "response", "model": "m", "output": []}))
    settings = {"options": {"use_responses_api": True}, "token_limit_parameter": limit}
    run(scripted(yaml_pool(tmp_path, server, **settings), search("Ada: ?"), answer()), "invoke")
    sent = [name for name in server.requests[0].body if name.startswith("max_")]
    assert sent == ([] if limit is None else ["max_output_tokens"])


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("stream", "Streaming is not supported for this model"),
        ("stream_options", "Unrecognized request argument supplied: stream_options"),
        ("stream", None),  # the server does not look at it, and sends the whole
    ],
)
def test_a_model_that_cannot_stream_is_asked_for_the_whole(serve, tmp_path, refused, message):
    whole = {"choices": [{"message": {"content": "Paris"}, "finish_reason": "stop"}]}

    def reply(request: Request) -> Any:
        if message is None:
            return Malformed(json.dumps(whole))
        return Error({"message": message}) if request.body.get(refused) else Reply("Paris")

    server = serve(reply)
    graph = scripted(yaml_pool(tmp_path, server), search("Ada: ?"), answer())

    async def stream() -> Any:  # LangGraph has chat models stream then
        modes: Any = ["messages", "values"]
        return [part async for part in graph.astream({"question": "?"}, stream_mode=modes)][-1][1]

    for state in (asyncio.run(stream()), asyncio.run(stream())):
        (bill,) = bills(state)
        assert (bill["ok"], bill["reply"]) == (True, "Paris")
    # It is learned once, and a reply that came is read: it is paid.
    assert len(server.requests) == (2 if message is None else 3)


@both_ways
def test_the_responses_api_is_asked_for_the_whole_where_it_cannot_stream(serve, tmp_path, how):
    said = {"type": "output_text", "text": "Paris", "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "content": [said]}
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "cost": 0.5}
    whole = {"id": "r", "model": "ada", "status": "completed", "output": [message], "usage": usage}

    def reply(request: Request) -> Any:
        refusal = Error({"message": "Streaming is not supported for this model"})
        return refusal if request.body.get("stream") else Wire(whole)

    server = serve(reply)
    options = {"use_responses_api": True, "streaming": True}
    graph = scripted(yaml_pool(tmp_path, server, options=options), search("Ada: ?"), answer())
    for _ in range(2):
        (bill,) = bills(run(graph, how))
        assert (bill["error"], bill["reply"], bill["cost_usd"]) == (None, "Paris", 0.5)
    assert [bool(r.body.get("stream")) for r in server.requests] == [True, False, False]


@both_ways
@pytest.mark.parametrize("responses", [False, True])
def test_a_whole_reply_in_place_of_a_stream_is_read_and_paid_once(serve, tmp_path, how, responses):
    said = {"type": "output_text", "text": "Paris", "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "content": [said]}
    of_responses = {"id": "r", "model": "ada", "status": "completed", "output": [message]}
    choice = {"index": 0, "message": {"role": "assistant", "content": "Paris"}}
    of_chat = {"id": "r", "model": "ada", "choices": [choice | {"finish_reason": "stop"}]}
    tokens = (
        ("input_tokens", "output_tokens") if responses else ("prompt_tokens", "completion_tokens")
    )
    usage = {"usage": {tokens[0]: 10, tokens[1]: 5, "total_tokens": 15, "cost": 0.5}}
    server = serve(
        lambda _: Malformed(json.dumps((of_responses if responses else of_chat) | usage))
    )
    options = {"use_responses_api": responses, "streaming": True}
    graph = scripted(yaml_pool(tmp_path, server, options=options), search("Ada: ?"), answer())
    for _ in range(2):
        (bill,) = bills(run(graph, how))
        assert (bill["error"], bill["reply"], bill["cost_usd"]) == (None, "Paris", 0.5)
    assert [bool(r.body.get("stream")) for r in server.requests] == [True, False]


@both_ways
@pytest.mark.parametrize("says", ["This model only support stream mode.", "event-stream", "plain"])
def test_a_model_that_only_streams_is_asked_for_a_stream(serve, tmp_path, how, says):
    delta = {"choices": [{"delta": {"content": "Paris"}, "finish_reason": "stop"}]}
    usage = {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
    stream = f"data: {json.dumps({**delta, **usage})}\n\ndata: [DONE]\n\n"

    def reply(request: Request) -> Any:
        if request.body.get("stream"):
            return Malformed(stream, "text/event-stream")
        return Status(400, says) if " " in says else Malformed(stream, f"text/{says}")

    server = serve(reply)
    graph = scripted(yaml_pool(tmp_path, server, **ONE_DOLLAR), search("Ada: ?"), answer())
    for _ in range(2):
        (bill,) = bills(run(graph, how))
        assert (bill["error"], bill["reply"], bill["cost_usd"]) == (None, "Paris", 20e-6)
    known = yaml_pool(tmp_path, server, {"Bob": {}}, options={"streaming": True})
    assert bills(run(scripted(known, search("Bob: ?"), answer()), how))[0]["reply"] == "Paris"
    more = [True] if " " in says else []  # a reply that came is read: it is paid
    assert [bool(r.body.get("stream")) for r in server.requests] == [False, *more, True, True]


@pytest.mark.parametrize(
    "words",
    [
        "System role not supported",
        "Developer instruction is not enabled for models/gemma-3-27b-it",
        "This model does not support system messages",
        "messages[0].role: unknown variant `system`, expected `user` or `assistant`",
        "role 'system' is not allowed",
    ],
)
def test_a_template_without_a_system_role_is_told_in_the_users_message(serve, tmp_path, words):
    def reply(request: Request) -> Any:
        roles = [m["role"] for m in request.body["messages"]]
        return Status(400, words) if "system" in roles else Reply("Oslo")

    server = serve(reply)
    pool = yaml_pool(tmp_path, server)
    graph = create_router_r1(pool, parse_controller("constant:Ada", pool)).compile()
    result = graph.invoke({"messages": [SystemMessage("In Norwegian."), HumanMessage("Where?")]})
    assert result["answer"] == "Oslo"
    assert server.requests[-1].prompt == "In Norwegian.\n\nWhere?"


def test_a_given_chat_model_is_learned_too():
    calls: list[dict[str, Any]] = []

    def ask(messages: Any, **sent: Any) -> AIMessage:
        calls.append(sent)
        if "stop" in sent:
            raise TypeError("chat() got an unexpected keyword argument 'stop'")
        return AIMessage(answer("Paris"))

    controller = ChatModelController(RunnableLambda(ask))
    result = create_router_r1(make_pool(), controller, models=models(make_pool())).compile()
    assert result.invoke({"question": "?"})["answer"] == "Paris"
    assert calls == [{"stop": ["<information>", "</answer>"]}, {}]


# ----------------------------------------------------------------------------------- tool calls

QUERY = {"query": "Who?"}


@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # in LangChain: it expects a text
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("calls", "asked"),
    [
        ([piece(json.dumps(QUERY))], ["Who?"]),
        ([piece(QUERY)], ["Who?"]),
        ([piece(json.dumps(json.dumps(QUERY)))], ["Who?"]),
        ([piece(f"```json\n{json.dumps(QUERY)}\n```")], ["Who?"]),
        ([piece('{"query": "Wh')], []),
        ([piece('{"query": ["Who?"]}')], []),
        ([piece(json.dumps(QUERY), name="functions.Ada<|channel|>commentary")], ["Who?"]),
        ([piece(json.dumps(QUERY), name="functions.Ada:0")], ["Who?"]),  # Kimi
        ([piece(json.dumps(QUERY), name="default_api:Ada")], ["Who?"]),  # Gemini
        ([piece(json.dumps(QUERY), name='"Ada"', id_=0)], ["Who?"]),
        ([piece("{'query': 'Who?'}"), None], ["Who?"]),
        ([piece('{"query": "Who?",}')], ["Who?"]),
        ([piece('{"query": "Who?"}}<|im_end|>')], ["Who?"]),
        ([piece("{'query': 'Wh")], []),
        ([piece('{"query": "Who?"} and {"query": "Wh')], []),
    ],
)
def test_a_call_is_read_or_told_as_a_mistake_and_never_half(
    serve, tmp_path, calls, asked, streamed
):
    assert _asked_by_tools(serve, tmp_path, ToolCalls(calls), streamed)[0] == asked


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("pieces", "asked"),
    [
        ([piece("", "Ada"), piece('{"query":', None, None), piece(' "Who?"}', "", "")], ["Who?"]),
        ([piece("", "Ada"), piece('{"query": "Who?"}', "Ada")], ["Who?"]),  # the name once more
        ([piece("", "A"), piece('{"query": "Who?"}', "da", None)], ["Who?"]),
        ([piece("", "Ada"), piece('{"query": "Who?"}', None, "new")], ["Who?"]),
        ([piece("{}", "Ada"), piece('{"query": "Who?"}', None, None)], ["Who?"]),
        ([piece('{"query": "Who?"}'), piece('{"query": "Who?"}')], ["Who?"]),  # all of it again
        ([piece('{"query":'), piece('{"query":"Who?"}'), piece("{}", None, None)], ["Who?"]),
        ([piece('{"query": "1"}', id_="a"), piece('{"query": "2"}', id_="b")], ["1", "2"]),
        (
            [piece('{"query": "1"}', id_=None, index=None), piece('{"query": "2"}', index=None)],
            ["1", "2"],
        ),
        *(  # all of them under one index, and without ids (Gemini)
            ([piece('{"query": "1"}', id_=first), *then], ["1", "2"])
            for first in ("", None, "a")
            for then in (
                [piece('{"query": "2"}', id_="")],
                [piece('{"query": "2"}', None, None)],
                [piece('{"query":', None, ""), piece(' "2"}', None, None)],
                [piece("", "Ada", ""), piece('{"query": "2"}', None, None)],
                [piece('{"query": "2"}', id_=""), piece("{}", None, None)],
            )
        ),
        ([piece('{"query": "1"}', id_="a"), piece('{"query": "2"}', id_="a")], []),
        ([piece('{"query": "1"}', id_=""), piece('{"query":"1"}', id_="")], ["1"]),
        ([piece("{}", "Bob", ""), piece('{"query": "2"}', id_="")], ["2"]),
        ([piece('{"query": "1"}', id_=""), piece("", "Bob", ""), piece("{}", "", "")], ["1"]),
    ],
)
def test_a_streamed_call_is_put_together_of_any_pieces(serve, tmp_path, pieces, asked):
    assert sorted(_asked_by_tools(serve, tmp_path, ToolCalls(pieces), True)[0]) == asked


def test_a_call_in_a_turn_that_was_cut_is_not_made(serve, tmp_path):
    cut = ToolCalls([piece('{"query": "Who?"}')], finish="length")
    assert _asked_by_tools(serve, tmp_path, cut, False)[0] == []


def test_the_ids_of_calls_go_back_as_the_provider_gave_them(serve, tmp_path):
    turn = ToolCalls(
        [
            piece("{", id_="badbadbad"),
            piece(json.dumps(QUERY), id_="D681PevKs", index=1),
            piece(json.dumps(QUERY), name="Nobody", id_="nobodyxyz", index=2),
        ]
    )
    _, server = _asked_by_tools(serve, tmp_path, turn, False)
    *_, last = [r.body["messages"] for r in server.requests if r.model == "controller"]
    told = {m["tool_call_id"]: m["content"] for m in last if m["role"] == "tool"}
    assert "the query is missing" in told["badbadbad"]
    assert told["D681PevKs"].startswith("Paris")
    assert "no candidate 'Nobody'" in told["nobodyxyz"]
    called = next(m["tool_calls"] for m in last if m["role"] == "assistant")
    assert {call["id"] for call in called} == told.keys()


GOOGLE = {"extra_content": {"google": {"thought_signature": "signed"}}}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("refused", [False, True])
def test_what_a_provider_wants_back_with_its_calls_goes_back_as_it_came(
    serve, tmp_path, streamed, refused
):
    details = [{"type": "reasoning.encrypted", "data": "x", "index": 0}]
    thoughts = {"reasoning_content": "Ask Ada.", "reasoning_details": details}
    turn = ToolCalls([{**piece(json.dumps(QUERY)), **GOOGLE}], thoughts=thoughts)

    def reply(request: Request) -> Any:
        asked = request.body["messages"]
        if refused and any("reasoning_details" in m for m in asked):
            return Error({"message": "messages.1.reasoning_details: Extra inputs not permitted"})
        return Reply("Paris") if asked[-1]["role"] == "tool" else turn

    _, server = _asked_by_tools(serve, tmp_path, reply, streamed)
    (called,) = [m for m in server.requests[-1].body["messages"] if m["role"] == "assistant"]
    assert called["tool_calls"][0]["extra_content"] == GOOGLE["extra_content"]
    assert called["reasoning_content"] == "Ask Ada."
    assert called.get("reasoning_details") == (None if refused else details)


def test_an_id_of_ours_is_one_that_every_provider_takes(serve, tmp_path):
    _, server = _asked_by_tools(serve, tmp_path, Reply(""), False)
    last = server.requests[-1].body["messages"][-1]
    assert re.fullmatch("[a-zA-Z0-9]{9}", last["tool_call_id"])


def _asked_by_tools(serve: Any, tmp_path: Any, turn: Any, streamed: bool) -> tuple[list[str], Any]:
    """Return what Ada was asked after this turn, and the server."""
    turns = turn if isinstance(turn, Callable) else [turn, Reply("Paris")]
    server = serve({"controller": turns, "ada": Reply("Paris")})
    pool = yaml_pool(tmp_path, server, controller={"protocol": "tools"})
    graph = create_router_r1(pool, parse_controller("pool", pool)).compile()
    if streamed:
        list(graph.stream({"question": "Capital?"}, stream_mode="messages"))
    else:
        assert graph.invoke({"question": "Capital?"})["answer"] == "Paris"
    return [r.prompt for r in server.requests if r.model == "ada"], server


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ('<tool_call>\n{"name": "Ada", "arguments": {"query": "Who?"}}\n</tool_call>', "Who?"),
        ('Ask. [TOOL_CALLS] [{"name": "Ada", "arguments": {"query": "Who?"}}]', "Who?"),
        ('[TOOL_CALLS]Ada[ARGS]{"query": "Who?"}', "Who?"),
        ('<function=Ada>{"query": "Who?"}</function>', "Who?"),
        (
            "<tool_call><function=Ada><parameter=query>\nWho?\n</parameter></function></tool_call>",
            "Who?",
        ),
        ('<|python_tag|>{"name": "Ada", "parameters": {"query": "Who?"}}', "Who?"),
        ('```json\n{"name": "Ada", "parameters": {"query": "Who?"}}\n```', "Who?"),
        (
            "<tool_call>Ada\n<arg_key>query</arg_key>\n<arg_value>Who?</arg_value></tool_call>",
            "Who?",
        ),
        (
            '<minimax:tool_call><invoke name="Ada">'
            '<parameter name="query">Who?</parameter></invoke>',
            "Who?",
        ),
        (
            '<\uff5cDSML\uff5cfunction_calls><\uff5cDSML\uff5cinvoke name="Ada">'
            '<\uff5cDSML\uff5cparameter name="query" string="true">Who?'
            "</\uff5cDSML\uff5cparameter>",
            "Who?",
        ),
        ('<tool_calls>[{"name": "Ada", "arguments": {"query": "Who?"}}]</tool_calls>', "Who?"),
        ('functools[{"name": "Ada", "arguments": {"query": "Who?"}}]', "Who?"),
        (
            '<|channel|>commentary to=functions.Ada <|constrain|>json<|message|>{"query": "Who?"}',
            "Who?",
        ),
        ('{"tool_calls": [{"function": {"name": "Ada", "arguments": {"query": "Who?"}}}]}', "Who?"),
        ('[Ada(query="Who?")]', "Who?"),
        ('```tool_code\nAda(query="Who?")\n```', "Who?"),
        ('Thought: Ask.\nAction: Ada\nAction Input: {"query": "Who?"}\nObservation: A', "Who?"),
        ("Action: Ada\nAction Input: Who?\nObservation: x\nAction: Bob\nAction Input: y", "Who?"),
        ('**Action:** `Ada`\n**Action Input:** "Who?"\n\nThought: I wait.', "Who?"),
        ("action 1: Ada\n\naction_input 1: ```json\n{'query': 'Who?'}\n```", "Who?"),
        ("Thought: Ask.\nAction: Ada[Who?]", "Who?"),
        ('Action: Ada(query="Who?")', "Who?"),
        ('Action: Ada({"query": "Who?"})', "Who?"),
        (
            'Action:\n```json\n{"action": "Ada", "action_input": {"query": "Who?"}}\n```\nThought:',
            "Who?",
        ),
        ('{"action": "Ada", "action_input": "Who?"}', "Who?"),
        ('<|channel|>analysis to=functions.Ada code<|message|>{"query": "Who?"}<|call|>', "Who?"),
        (
            "<|start|>assistant to=functions.Ada<|channel|>commentary json<|message|>"
            '{"query": "Who?"}<|call|><|start|>functions.Ada to=assistant<|channel|>commentary'
            '<|message|>{"query": "of a reply that is invented"}<|end|>',
            "Who?",
        ),
        ('commentary to=functions.Ada json{"query": "Who?"}', "Who?"),
        ('<|python_start|>[Ada(query="Who?")]<|python_end|>', "Who?"),
        ('<|python_tag|>Ada.call(query="Who?")', "Who?"),
        ('<|tool_call_start|>[Ada(query="Who?")]<|tool_call_end|>', "Who?"),
        ('<function_calls>\nAda(query="Who?")\n</function_calls>', "Who?"),
        ('<TOOLCALL>[{"name": "Ada", "arguments": {"query": "Who?"}}]</TOOLCALL>', "Who?"),
        (
            '<|START_ACTION|>[\n  {"tool_call_id": "0", "tool_name": "Ada", "parameters": '
            '{"query": "Who?"}}\n]<|END_ACTION|>',
            "Who?",
        ),
        (
            '<|action_start|><|plugin|>{"name": "Ada", "parameters": {"query": "Who?"}}'
            "<|action_end|>",
            "Who?",
        ),
        (
            '<xai:function_call name="Ada"><parameter name="query">Who?</parameter>'
            "</xai:function_call>",
            "Who?",
        ),
        (
            "<tool_call>\n{'arguments': {'query': 'Who?'}, 'name': 'Ada'}\n</tool_call>",
            "Who?",
        ),
        ('{"tool": "Ada", "tool_input": {"query": "Who?"}}', "Who?"),
        ('{"tool": "Ada", "tool_input": "Who?"}', "Who?"),
        ('{"tool_name": "Ada", "parameters": {"query": "Who?"}}', "Who?"),
        ('print(default_api.Ada(query="Who?"))', "Who?"),
        ('```tool_code\nprint(default_api.Ada(query="Who?"))\n```', "Who?"),
        ('I ask.\n```tool_code\nprint(Ada(query="Who?"))\n```', "Who?"),
        (
            'I ask.\n```json\n{"name": "Ada", "arguments": {"query": "Who?"}}\n```\nI wait.',
            "Who?",
        ),
        ('```json\n{"name": "Ada", "arguments": {"query": "Who?"}}\n```\nI wait.', "Who?"),
        ('I ask.\n\n{"name": "Ada",\n "arguments":\n {"query": "Who?"}}\nI wait.', "Who?"),
        ('I ask:\n[{"name": "Ada", "arguments": {"query": "Who?"}}]', "Who?"),
        ('<tool_call>{"name": "Ada", "arguments": {"query": "Wh', None),  # told as a mistake
    ],
)
def test_a_call_that_is_written_as_text_is_a_call(text, query):
    _, (call,) = written_calls(text, ["Ada", "Bob"])
    assert (call.name, call.arguments.get("query")) == ("Ada" if query else "", query)


@pytest.mark.parametrize(
    "text",
    [
        *("Paris", '{"name": "Ada Lovelace", "arguments": {}}', "{}", "[1]", "Ada(1815)"),
        *(
            "f(query='')",
            "Genre: Action\nAction: none",
            "Action:\n- ask Ada",
            "Final Answer: Paris",
        ),
        *("Thought: it is Ada.\nFinal Answer: Ada", "Reaction: Ada", "Observation: it is Ada"),
        # Examples of what somebody else may call, or of nothing that can be called.
        'It is:\n```json\n{"name": "Bob", "arguments": {"query": "Who?"}}\n```',
        'It is:\n{"name": "Ada", "args": {"query": "?"}}\n{"name": "Bob", "args": {"a": 1}}',
        'It is:\n{"name": "Ada"}',
        'It is:\n```python\nprint("Ada")\n```',
        'It is {"name": "Ada", "arguments": {"query": "Who?"}}',
    ],
)
def test_any_other_text_is_no_call(text):
    assert written_calls(text, ["Ada"]) == (text, [])


HARMONY = {
    "a header": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary "
    'to=functions.Ada <|constrain|>json<|message|>{"query": "Who?"}<|call|>',
    "the recipient of a role": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant "
    'to=functions.Ada<|channel|>commentary json<|message|>{"query": "Who?"}<|call|>',
    "a commentary": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    "<|channel|>commentary<|message|>I ask.<|end|><|start|>assistant<|channel|>commentary "
    'to=functions.Ada code<|message|>{"query": "Who?"}',
    "no marks": 'analysisHm.assistantcommentary to=functions.Ada json{"query":"Who?"}',
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("text", HARMONY.values(), ids=HARMONY)
def test_a_call_behind_thoughts_is_a_call_and_no_thought(serve, tmp_path, text, streamed):
    asked, server = _asked_by_tools(serve, tmp_path, Reply(text), streamed)
    assert asked == ["Who?"]
    turn = next(m for m in server.requests[-1].body["messages"] if m["role"] == "assistant")
    assert "Who?" not in (turn.get("content") or "")


def test_a_call_is_no_reply_of_a_candidate():
    pool = make_pool()
    given = models(pool, Ada=FakeChat(text=HARMONY["a header"]), Bob=FakeChat(text="Paris"))
    script = ScriptedController([search("Ada: ?", "Bob: ?"), answer()])
    ada, bob = bills(
        create_router_r1(pool, script, models=given).compile().invoke({"question": "?"})
    )
    assert (ada["error"]["kind"], ada["thoughts"], bob["reply"]) == ("empty", "Hm.", "Paris")


@pytest.mark.parametrize(
    "text",
    ["Action: Ada", 'Action: Ada\nAction Input: {"query": "Wh', "Action: Ada\nAction Input:"],
)
def test_an_action_without_a_query_is_a_mistake_and_not_the_answer(serve, tmp_path, text):
    asked, server = _asked_by_tools(serve, tmp_path, Reply(text), False)
    assert asked == []
    assert [request.model for request in server.requests] == ["controller", "controller"]
    assert "query is missing" in server.requests[-1].body["messages"][-1]["content"]


# ------------------------------------------------------------------------------------- thoughts


@pytest.mark.parametrize(
    ("text", "thoughts", "said"),
    [
        ("Paris", "", "Paris"),
        ("<think>\nLyon?\n</think>\n\nParis", "Lyon?", "Paris"),
        ("Lyon?\n</think>\n\nParis", "Lyon?", "Paris"),
        ("<think>a</think> <think>b</think>Paris", "a\n\nb", "Paris"),
        ("[THINK]Lyon?[/THINK]Paris", "Lyon?", "Paris"),
        ("<Think>Lyon?</THINK>Paris", "Lyon?", "Paris"),
        ("\u25c1think\u25b7Lyon?\u25c1/think\u25b7Paris", "Lyon?", "Paris"),
        (
            "<|START_THINKING|>Lyon?<|END_THINKING|><|START_RESPONSE|>Paris<|END_RESPONSE|>",
            "Lyon?",
            "Paris",
        ),
        (
            "<|channel|>analysis<|message|>Lyon?<|end|><|start|>assistant<|channel|>final<|message|>Paris",
            "Lyon?",
            "Paris",
        ),
        ("<|channel|>commentary<|message|>Paris.<|end|>", "", "Paris."),
        (
            "<|channel|>analysis<|message|>Lyon?<|end|><|start|>assistant<|channel|>analysis"
            "<|message|>No.<|end|><|start|>assistant<|channel|>commentary<|message|>I know."
            "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>{}<|return|>",
            "Lyon?\n\nNo.\n\nI know.",
            "{}",
        ),
        ("analysisLyon?assistantfinaljson{}", "Lyon?", "{}"),
        ("analysisLyon?assistantfinalParis", "Lyon?", "Paris"),  # of a server that drops them
        ("<|channel|>analysis<|message|>Lyon? or", "Lyon? or", ""),
        ("analysis of the final assistant", "", "analysis of the final assistant"),
        ("<think>Lyon? or", "Lyon? or", ""),
        ("<think>Lyon?</think><response>\nParis\n</response>\n", "Lyon?", "Paris"),
        ("<think></think><response>Paris</response>", "", "Paris"),
        ("<response>Paris</response>", "", "<response>Paris</response>"),  # asked for by a user
        (
            "<think>Lyon?</think><response>a</response> or <response>b</response>",
            "Lyon?",
            "<response>a</response> or <response>b</response>",
        ),
        ("\n<|begin_of_box|>Paris<|end_of_box|>", "", "Paris"),
        (
            "It is <|begin_of_box|>Paris<|end_of_box|>",
            "",
            "It is <|begin_of_box|>Paris<|end_of_box|>",
        ),
        ("Thoughts end with `</think>`.", "", "Thoughts end with `</think>`."),
        ("Here is my thought process: Lyon?\n\nHere is my response: Paris", "Lyon?", "Paris"),
        ("Here is my response: Paris", "", "Here is my response: Paris"),
        (
            "Here are my reasoning steps:\nLyon?\n[BEGIN FINAL RESPONSE]\nParis\n"
            "[END FINAL RESPONSE]",
            "Lyon?",
            "Paris",
        ),
        ("<think>Lyon?</think>Paris<|im_end|>", "Lyon?", "Paris"),
        ("Paris</s>", "", "Paris"),  # of a server with another template
        ("<|im_start|>assistant\nParis<|im_end|>\n<|endoftext|>", "", "Paris"),
        ("It is `<|im_end|>`", "", "It is `<|im_end|>`"),
        ("<|im_end|>", "", "<|im_end|>"),
        ("Paris<|return|>\n", "", "Paris"),
        ("<think>Lyon?</think>Paris<|return|> </s>\n", "Lyon?", "Paris"),
        ("</s></s>", "", "</s>"),
    ],
)
def test_thoughts_are_set_apart_from_what_is_said(text, thoughts, said):
    assert apart(text) == (thoughts, said)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("<think>", "</think>"),
        ("analysis</think>", "assistant"),
        ("</s>", "x"),
        ("<|end|>", "</s>"),
        ("</think></thought>", "`"),
        ("<think>`</think>`", " "),
        ("analysisassistantfinal", "<|im_start|>assistant"),
        ("<|channel|>final<|message|>", "assistant to="),
        ("assistantfinal", " "),
        ("analysis to=functions.", "<|constrain|>"),
        ("<|start|>assistant to=", "<|end|>"),
        ("```", " "),
        ("{", "[\n"),
        ('\n[{"a":', "<tool_call>"),
        ("<|channel|>analysis<|message|>a", "<|end|> "),
        ("<function=", "<invoke name="),
        ("<function=Ada><parameter=a>", "<arg_key>a</arg_key><arg_value>"),
        ("\n{", '\n{"a":"'),
        ("\n{" * 3 + "```\nx\n```", "\n{" * 9),
    ],
)
def test_a_reply_of_nothing_but_marks_stalls_nobody(first, then):
    text = first * 50_000 + then * 50_000  # minutes, if each is read for each
    thoughts, said = apart(text)
    assert len(thoughts) + len(said) <= 2 * len(text)
    written_calls(text, ["Ada"])


@pytest.mark.parametrize("spec", ["constant:Ada", "cheapest", "cascade", "vote"])
def test_thoughts_never_push_the_answer_out(spec):
    pool = make_pool()
    given = models(pool, Ada=FakeChat(text=f"<think>{LONG}</think>\nParis"))
    result = create_router_r1(pool, parse_controller(spec, pool), models=given).compile()
    state = result.invoke({"question": "Capital?"})
    assert state["answer"] == "Paris"
    assert bills(state)[0]["thoughts"] == LONG


@pytest.mark.parametrize("style", ["short", "full"])
@pytest.mark.parametrize("spec", ["constant:Ada", "cascade", "vote"])
@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("<think>Lyon?</think>\n<answer>\nParis\n</answer>", "Paris"),
        ("<think>Lyon?</think><response>Paris</response>", "Paris"),
        ("\n<|begin_of_box|>Paris<|end_of_box|>", "Paris"),
        ("<answer>Paris</answer>", "<answer>Paris</answer>"),  # asked for by a user
    ],
)
def test_marks_around_an_answer_are_no_part_of_it(text, full, spec, style):
    pool = make_pool()
    given = models(pool, Ada=FakeChat(text=text), Bob=FakeChat(text=text))
    graph = create_router_r1(pool, parse_controller(spec, pool), models=given).compile()
    state = graph.invoke({"question": "?"}, context={"answer_style": style})
    assert state["answer"] == (full if style == "full" else "Paris")


def test_thoughts_that_a_provider_reports_are_kept_and_thoughts_alone_are_no_reply():
    reported = AIMessage("Paris", additional_kwargs={"reasoning_content": "Lyon? No."})
    pool = make_pool()
    given = models(pool, Ada=RunnableLambda(lambda _: reported), Bob=FakeChat(text="<think>Hm"))
    script = ScriptedController([search("Ada: ?", "Bob: ?"), answer()])
    ada, bob = bills(
        create_router_r1(pool, script, models=given).compile().invoke({"question": "?"})
    )
    assert (ada["reply"], ada["thoughts"]) == ("Paris", "Lyon? No.")
    assert (bob["ok"], bob["error"]["kind"], bob["thoughts"]) == (False, "empty", "Hm")


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        ("tools", "<think> Lyon? </think>\nParis"),
        ("tools", "<think> Lyon? </think><answer>\nParis\n</answer>"),
        ("tools", "<think>Lyon?</think><answer><|begin_of_box|>Paris<|end_of_box|></answer>"),
        ("tools", "<think>Lyon?</think><response>Paris</response>"),
        ("tags", "<think>Lyon?</think><answer><|begin_of_box|>Paris<|end_of_box|></answer>"),
        ("tools", "Thought: Not Lyon.\nFinal Answer: Paris<|eot_id|>"),
        ("tags", "<think> <answer> Lyon? No. </think> <answer> Paris </answer>"),
        ("tags", "Maybe <search> Ada: ? </search> </think> <answer> Paris </answer>"),
    ],
)
def test_a_controllers_thoughts_are_not_its_answer(serve, tmp_path, protocol, text):
    server = serve({"controller": Reply(text)})
    pool = yaml_pool(tmp_path, server, controller={"protocol": protocol})
    result = run(create_router_r1(pool, parse_controller("pool", pool)).compile(), "invoke")
    assert (result["answer"], len(server.requests)) == ("Paris", 1)
    turn = result["scratchpad"][-1]
    assert "Lyon" in str(turn) or "Maybe" in str(turn)


def test_an_answer_that_is_thought_of_is_not_streamed():
    assert AnswerReader().read("<think> <answer> Lyon </answer>? No") == ""
    assert AnswerReader().read("<think> <answer> Lyon </think> <answer> Par") == "Par"


# ------------------------------------------------------------------- forms of a reply

SAID = {
    "a text": {"content": "Paris"},
    "texts of parts": {"content": [{"type": "output_text", "text": "Par"}, {"text": "is"}]},
    "a part": {"content": {"type": "text", "text": "Paris"}},
    "thoughts among parts": {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
            {"type": "text", "text": "Paris"},
        ]
    },
}
CHOICES = {
    **{
        f"{name} in the {key}": {key: said}
        for key in ("message", "delta")
        for name, said in SAID.items()
    },
    "no message": {"text": "Paris"},
}
BESIDE = (
    {"error": {"message": "", "code": None}},
    {"error": {"message": "success", "code": 0}, "created": "now", "system_fingerprint": 5},
)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_is_read_wherever_its_text_is(serve, tmp_path, choice, stream):
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    choice = {"index": 0, "finish_reason": "stop", **choice}
    for beside in BESIDE:
        body = {"choices": [choice], "usage": usage, **beside}
        server = serve(Wire(body, [body]))
        graph = scripted(yaml_pool(tmp_path, server, **ONE_DOLLAR), search("Ada: ?"), answer())
        modes: Any = ["messages", "values"] if stream else ["values"]
        (bill,) = bills(list(graph.stream({"question": "?"}, stream_mode=modes))[-1][1])
        assert (bill["error"], bill["reply"], bill["cost_usd"]) == (None, "Paris", 20e-6)
        assert server.requests[0].body["stream"] == stream


def of_choice(finish: str | None = None, **said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": finish, **said}]}


THINKS = [of_choice(delta={"reasoning_content": "Not "}), of_choice(delta={"reasoning": "Lyon."})]
SPEAKS = [of_choice(delta={"content": "Par"}), of_choice(delta={"content": "is"})]
WHOLE: dict[str, Any] = {"role": "assistant", "content": "Paris", "reasoning_content": "Not Lyon."}
#: Streams with a whole message at their end, beside a delta, or in the place of deltas.
AGAIN = {
    "thoughts and a text": [*THINKS, *SPEAKS, of_choice("stop", message=WHOLE)],
    "no delta": [*THINKS, *SPEAKS, of_choice("stop", delta=None, message=WHOLE)],
    "a text that had no deltas": [*THINKS, of_choice("stop", message=WHOLE)],
    "thoughts that had no deltas": [*SPEAKS, of_choice("stop", message=WHOLE)],
    "a role before": [of_choice(delta={"content": ""}), of_choice("stop", message=WHOLE)],
    "messages alone": [
        of_choice(message={"content": "Par", "reasoning_content": "Not "}),
        of_choice("stop", message={"content": "is", "reasoning_content": "Lyon."}),
    ],
    "beside the deltas (Perplexity)": [
        of_choice(delta={"content": "Par", "reasoning": "Not "}, message={"reasoning": "Not "}),
        of_choice("stop", delta={"content": "is", "reasoning": "Lyon."}, message=WHOLE),
    ],
}


@pytest.mark.parametrize("events", AGAIN.values(), ids=AGAIN)
@pytest.mark.parametrize("given", [False, True])
def test_what_a_stream_says_again_as_a_message_is_read_once(serve, tmp_path, events, given):
    server = serve(Wire(events=events))
    pool = yaml_pool(tmp_path, server)
    client = ChatOpenAI(model="ada", base_url=server.base_url, api_key="x", max_retries=0)
    controller = ScriptedController([search("Ada: ?"), answer()])
    made = {"Ada": client} if given else {}
    graph = create_router_r1(pool, controller, models=made).compile()
    state = list(graph.stream({"question": "?"}, stream_mode=["messages", "values"]))[-1][1]
    (bill,) = bills(state)
    assert (bill["ok"], bill["reply"], bill["thoughts"]) == (True, "Paris", "Not Lyon.")


@pytest.mark.parametrize("id_", ["", "a"])
def test_calls_that_a_stream_says_again_as_a_message_are_made_once(serve, tmp_path, id_):
    call = piece('{"query": "Who?"}', id_=id_)
    again = of_choice("tool_calls", message={"content": "", "tool_calls": [call, call]})
    turn = Wire(events=[of_choice(delta={"tool_calls": [call]}), again])
    assert _asked_by_tools(serve, tmp_path, turn, True)[0] == ["Who?"]


PIECES = [{"choices": [{"delta": {"content": text}}]} for text in ("Par", "ís")]
LAST = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
FRAMES = {
    "as it should be": ("data: {}\n\n", "data: [DONE]\n\n"),
    "lines that end otherwise": ("data:{}\r\n\r\n", "data:[DONE]\r\n\r\n"),
    "lines that end as on old Macs": ("data: {}\r\r", "data: [DONE]\r\r"),
    "no blank lines": ("data: {}\n", "data: [DONE]\n"),
    "no blank lines, ending otherwise": ("event: x\r\ndata: {}\r\n", "data: [DONE]\r\n"),
    "no last line's end": ("data: {}\n\n", "data: [DONE]"),
    "a quoted end": ("id: 1\ndata: {}\n\n", 'data: "[DONE]"\n\n'),
    "a bare end": (": alive\n\nretry: 3000\ndata: {}\n\n", "data: done\n\n"),
    "no end": ("data: {}\n\n", ""),
}


@pytest.fixture(scope="module")
def reading():
    """A client of openai's that reads streams as ours do."""
    with openai.OpenAI(api_key="x") as client:
        let_through(client)
        yield client


@pytest.mark.parametrize(("frame", "end"), FRAMES.values(), ids=FRAMES)
def test_a_stream_is_read_however_its_events_are_framed(reading, frame, end):
    # Of an indented event, a blank line alone tells where it ends.
    forms = itertools.product(("", "\ufeff"), (None, 1) if "\n\n" in frame else (None,))
    for (mark, indent), size in itertools.product(forms, (1, 2, 3, 7, 64, 1024)):
        events = [
            frame.format("\ndata: ".join(json.dumps(event, indent=indent).splitlines()))
            for event in (*PIECES, LAST)
        ]
        sent = "".join([mark, *events, end]).encode()
        pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
        read = list(reading._make_sse_decoder().iter_bytes(iter(pieces)))
        told = [event.data for event in read if event.data != "[DONE]"]
        assert [json.loads(data) for data in told] == [*PIECES, LAST]
        assert [event.data for event in read[3:]] == ["[DONE]"] * bool(end)


# ------------------------------------------------------------------- roles, system, style, images


def test_messages_alternate_and_none_is_empty_whatever_came():
    made = [
        HumanMessage("a"),
        HumanMessage([{"type": "text", "text": "b"}, IMAGE]),
        AIMessage("c"),
        AIMessage(" "),
    ]
    for some in itertools.product(made, repeat=4):
        fitted = alternating(some)
        kinds = [m.type for m in fitted]
        assert all(one != other for one, other in itertools.pairwise(kinds))
        assert all(m.content for m in fitted)
        texts = [m.text for m in some if m.text.strip()]
        assert re.sub(r"\s", "", "".join(m.text for m in fitted)) == "".join(texts)


CONVERSATION = [SystemMessage("Answer in German."), HumanMessage("Hi"), HumanMessage("Capital?")]


@pytest.mark.parametrize("protocol", ["tags", "tools"])
def test_system_messages_reach_the_controller_and_whoever_is_asked_it_all(
    serve, tmp_path, protocol
):
    turns = {
        "tags": [Reply(search("Ada: Capital?", "Ada: A part?")), Reply(answer("Paris"))],
        "tools": [
            Reply("", tool_calls=[("Ada", {"query": "Capital?"}), ("Ada", {"query": "A part?"})]),
            Reply("Paris"),
        ],
    }
    server = serve({"controller": turns[protocol], "ada": Reply("Paris")})
    pool = yaml_pool(tmp_path, server, controller={"protocol": protocol})
    graph = create_router_r1(pool, parse_controller("pool", pool)).compile()
    graph.invoke({"messages": CONVERSATION})
    for request in server.requests:
        system = [m["content"] for m in request.body["messages"] if m["role"] == "system"]
        told = any("Answer in German." in text for text in system)
        assert told == (request.prompt != "A part?")
        if request.model == "controller":
            roles = [m["role"] for m in request.body["messages"]]
            assert all(a != b or a == "tool" for a, b in itertools.pairwise(roles))


@pytest.mark.parametrize("where", ["pool", "run"])
@pytest.mark.parametrize(
    "spec", ["constant:Ada", "cascade", "vote", "keyword", "cheapest", "random", "sticky"]
)
def test_in_full_style_the_whole_reply_is_the_answer(spec, where):
    reply = f"The answer is Paris. {LONG}"
    pool = make_pool("Ada", **({"answer_style": "full"} if where == "pool" else {}))
    given = models(pool, Ada=FakeChat(text=reply))
    graph = create_router_r1(pool, parse_controller(spec, pool), models=given).compile()
    style = {} if where == "pool" else {"answer_style": "full"}
    assert graph.invoke({"question": "?"}, context=style)["answer"] == reply
    assert graph.invoke({"question": "?"}, context={"answer_style": "short"})["answer"] == "Paris"


def test_a_whole_answer_is_handed_on_although_the_controller_sees_it_cut():
    pool = make_pool("Ada")
    given = models(pool, Ada=FakeChat(text=LONG))
    constant = parse_controller("constant:Ada", pool)
    result = create_router_r1(pool, constant, models=given).compile().invoke({"question": "?"})
    assert result["answer"] == LONG
    observed = next(m for m in result["scratchpad"] if isinstance(m, ToolMessage))
    assert "[... cut]" in observed.text
    assert (observed.artifact["whole"], len(observed.text) < len(LONG)) == (LONG, True)


@pytest.mark.parametrize("keep", ["all", "vote", "summary:Ada"])
@pytest.mark.parametrize("controller", ["constant:Ada", "cascade", "vote", "nobody"])
def test_no_answer_has_the_mark_of_a_cut(controller, keep):
    pool = make_pool({"name": "Ada", "max_tokens": 16}, "Bob")
    given = models(pool, Ada=FakeChat(text="word " * 5000), Bob=FakeChat(text="word " * 5000))
    writes_none = ScriptedController([search("Ada: ?"), "half a turn"])
    decides = writes_none if controller == "nobody" else parse_controller(controller, pool)
    graph = create_router_r1(pool, decides, models=given).compile()
    limits = {"max_information_tokens": 8, "max_rounds": 2, "keep": keep}
    result = graph.invoke({"question": "?"}, context=limits)
    texts = [result["answer"], *(str(m.text) for m in result["messages"])]
    assert result["answer"].startswith("word word")
    assert not [text for text in texts if "[... cut]" in text]
    assert any("[... cut]" in str(m.text) for m in result["scratchpad"])


def test_the_prompt_asks_for_a_short_answer_unless_the_user_wants_it_whole(serve, tmp_path):
    server = serve(Reply(answer("Paris")))
    pool = yaml_pool(tmp_path, server, controller={})
    graph = create_router_r1(pool, parse_controller("pool", pool)).compile()
    for style in ("short", "full"):
        run(graph, "invoke", answer_style=style)
    short, full = [request.prompt for request in server.requests]
    assert "the answer alone, as short as possible; unknown if nobody knows" in short
    assert "as short as possible" not in full


def shown(*parts: Any) -> HumanMessage:
    return HumanMessage([p if isinstance(p, dict) else {"type": "text", "text": p} for p in parts])


OTHER = {"type": "image_url", "image_url": {"url": "data:image/png;base64,BBBB"}}
STRING = {"type": "image_url", "image_url": IMAGE["image_url"]["url"], "detail": "low"}
OF_RESPONSES = {**STRING, "type": "input_image"}


@pytest.mark.parametrize(
    ("messages", "asked", "seen"),
    [
        ([shown("What is it?", IMAGE)], "What is it?", [IMAGE]),
        ([shown("What is it?", STRING)], "What is it?", [IMAGE]),
        ([shown("What is it?", OF_RESPONSES)], "What is it?", [IMAGE]),
        ([shown(IMAGE, OTHER)], IMAGE_ALONE, [IMAGE, OTHER]),
        ([shown(" ", IMAGE), AIMessage("A cat."), HumanMessage("Its breed?")], None, [IMAGE]),
        ([shown(IMAGE), AIMessage("A cat."), shown("And?", OTHER)], "And?", [IMAGE, OTHER]),
        ([shown(IMAGE), AIMessage("A cat."), shown(OTHER)], IMAGE_ALONE, [IMAGE, OTHER]),
    ],
)
def test_images_go_to_candidates_that_take_them(serve, tmp_path, messages, asked, seen):
    asked = asked or messages[-1].text
    server = serve({"ada": Reply("A cat."), "controller": Reply(answer("A cat."))})
    pool = yaml_pool(
        tmp_path, server, {"Ada": {"image_inputs": True}, "Bob": {}}, controller={"image_inputs": 1}
    )
    graph = create_router_r1(pool, parse_controller("vote", pool)).compile()
    state = graph.invoke({"messages": messages})
    assert (state["answer"], state["scratchpad"][0].text) == ("A cat.", asked)
    (request,) = server.requests  # Bob does not see them
    assert (request.model, request.prompt) == ("ada", [{"type": "text", "text": asked}, *seen])

    assert route_only(pool, "vote", messages=messages).calls == tuple(
        route_only(pool.taking_images(), "vote", asked).calls
    )
    route_only(pool, "pool", messages=messages)
    told = json.dumps(server.requests[-1].body)
    assert [told.count(json.dumps(image)) for image in (IMAGE, OTHER)] == [
        seen.count(image) for image in (IMAGE, OTHER)
    ]
    assert asked in told


def test_no_image_is_sent_to_a_formatter_that_takes_none(serve, tmp_path):
    form = Reply("", tool_calls=[("answer", {"value": 1})])
    server = serve({"ada": Reply("1"), "bob": form})
    pool = yaml_pool(tmp_path, server, {"Ada": {"image_inputs": True}, "Bob": {}})
    model = ChatRouterR1(pool=pool, controller="constant:Ada", formatter="Bob")
    schema = {"type": "object", "title": "answer", "properties": {"value": {"type": "integer"}}}
    said = [shown("One?", OTHER), AIMessage("Yes."), shown("How many?", IMAGE)]
    assert model.with_structured_output(schema).invoke(said) == {"value": 1}
    told = json.dumps(server.requests[-1].body["messages"])
    assert (server.requests[-1].model, told.count("[image]"), "base64" in told) == ("bob", 2, False)


@pytest.mark.parametrize(
    ("part", "says"), [(IMAGE, "of the pool 'pool'"), ({"type": "input_audio"}, "input_audio")]
)
def test_a_part_that_nobody_takes_is_refused_before_anything_is_paid(serve, tmp_path, part, says):
    server = serve({"ada": Reply("A cat.")})
    pool = yaml_pool(tmp_path, server, {"Ada": {}})
    graph = create_router_r1(pool, ScriptedController([answer()])).compile()
    question = HumanMessage([{"type": "text", "text": "What is it?"}, part])
    with pytest.raises(QuestionError, match=says) as told:
        graph.invoke({"messages": [question]})
    assert str(tmp_path) not in str(told.value)  # it may reach clients of a server
    assert not server.requests


def test_a_controller_that_takes_images_sees_them():
    views: list[Any] = []

    def look(messages: Any, **_: Any) -> AIMessage:
        views.append(messages[-1].content)
        return AIMessage(answer("A cat"))

    pool = make_pool({"name": "Ada", "image_inputs": True})
    controller = ChatModelController(RunnableLambda(look), ControllerSettings(image_inputs=True))
    graph = create_router_r1(pool, controller, models=models(pool)).compile()
    graph.invoke({"messages": [HumanMessage([{"type": "text", "text": "What?"}, IMAGE])]})
    assert views[0][1] == IMAGE
