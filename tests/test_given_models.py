"""Chat models that others have made: given as objects, or by LangChain's name of them."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import langchain_openai
import openai
import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import ConfigurableField
from pydantic import PrivateAttr

from extras import needs
from fakes import FakeChat, answer, make_pool, search
from openai_server import Reply, Status, Wire
from router_r1_graph import (
    CandidatePool,
    ChatModelController,
    ControllerSettings,
    ScriptedController,
    create_router_r1,
    parse_controller,
)
from router_r1_graph.candidates.given import read_leniently
from test_failing_candidates import BROKEN, half
from test_usage import STREAMS, usage
from test_what_is_sent import QUERY, ToolCalls, piece
from yaml_pool import ONE_DOLLAR, bills, both_ways, run, yaml_pool

SEARCH, ANSWER = search("Ada: Capital of France?"), answer("Paris")
BY_NAME = {"provider": "langchain", "model": "openai:ada", "api_key_env": "ADA_KEY"}
COST = "x-litellm-response-cost"
#: Clients of one family, and what LangChain puts around them.
FAMILY = ["given", "by name", "azure", "own", "deepseek", "xai"]
AROUND = ["bound", "with_retry", "with_fallbacks", "configurable", "configurable fields"]
each_kind = pytest.mark.parametrize("kind", FAMILY)


class Own(langchain_openai.ChatOpenAI):
    """A user's own class, which reads as LangChain's does."""

    team: str = "a"
    _asked: int = PrivateAttr(default=0)

    def model_post_init(self, _: Any) -> None:
        self._asked = 7


def given(server: Any, kind: str = "given", **options: Any) -> Any:
    """LangChain's client of a server, or one that is made of it, as a user makes it."""
    reached = {"model": "ada", "api_key": "x", "max_retries": 0, **options}
    address = {"base_url": server.base_url}
    if kind == "azure":
        root = server.base_url.removesuffix("/v1")
        return langchain_openai.AzureChatOpenAI(
            azure_endpoint=root,
            azure_deployment=reached["model"],
            api_version="2025-01-01",
            **reached,
        )
    if kind == "deepseek":
        theirs = pytest.importorskip("langchain_deepseek").ChatDeepSeek
        return theirs(api_base=server.base_url, **reached)
    if kind == "xai":
        return pytest.importorskip("langchain_xai").ChatXAI(xai_api_base=server.base_url, **reached)
    if kind == "own":
        return Own(**reached, **address)
    if kind == "configurable":
        needs("langchain")
        from langchain.chat_models import init_chat_model

        of_openai = {"model_provider": "openai", "configurable_fields": ("temperature",)}
        return init_chat_model(**of_openai, **reached, **address)
    model = langchain_openai.ChatOpenAI(**reached, **address)
    around: dict[str, Any] = {
        "bound": lambda: model.bind(top_p=0.5),
        "with_retry": lambda: model.with_retry(stop_after_attempt=1),
        "with_fallbacks": lambda: _unreachable().with_fallbacks([model]),
        "configurable fields": lambda: model.configurable_fields(
            temperature=ConfigurableField(id="warmth")
        ),
    }
    return around[kind]() if kind in around else model


def _unreachable() -> Any:
    reached = {"base_url": "http://127.0.0.1:9/v1", "api_key": "x", "max_retries": 0}
    return langchain_openai.ChatOpenAI(model="bob", **reached)


@pytest.fixture
def pool_of(serve, tmp_path, monkeypatch):
    """`pool_of(kind, answer, **settings)`: a pool with Ada, models for it, and their server."""
    monkeypatch.setenv("ADA_KEY", "sk-SECRET-of-Ada")

    def make(
        kind: str, answer: Any, temperature: float | None = None, **settings: Any
    ) -> tuple[CandidatePool, Any, Any]:
        if kind == "by name":
            needs("langchain")
        server = serve(answer)
        pool = yaml_pool(
            tmp_path,
            server,
            {"Ada": BY_NAME if kind == "by name" else {}},
            temperature=temperature,
            **settings,
        )
        warm = {} if temperature is None else {"temperature": temperature}
        return pool, None if kind == "by name" else {"Ada": given(server, kind, **warm)}, server

    return make


def graph_of(pool: CandidatePool, models: Any, *script: str) -> Any:
    return create_router_r1(
        pool, ScriptedController(script or [SEARCH, ANSWER]), models=models
    ).compile()


def last_state(graph: Any) -> Any:
    """Run with candidates that stream."""
    modes: Any = ["messages", "values"]
    return list(graph.stream({"question": "?"}, stream_mode=modes))[-1][1]


def of_each(cases: Any, few: Any) -> Any:
    """Every case with the plainest client, a few with each."""
    every = [pytest.param("given", *case, id=f"given-{name}") for name, case in cases.items()]
    kinds = [*FAMILY[1:], *AROUND]
    return every + [pytest.param(k, *cases[n], id=f"{k}-{n}") for k in kinds for n in few]


@pytest.mark.parametrize(
    ("kind", "events", "paid"), of_each(STREAMS, ["in each chunk, growing", "twice"])
)
def test_a_stream_of_langchains_client_is_paid_as_one_of_our_own(pool_of, kind, events, paid):
    pool, models, _ = pool_of(kind, Wire(events=events), **ONE_DOLLAR)
    (bill,) = bills(last_state(graph_of(pool, models)))
    assert (bill["ok"], bill["error"], bill["reply"]) == (True, None, "Paris")
    assert (bill["input_tokens"], bill["output_tokens"]) == paid[:2]
    assert bill["cost_usd"] == pytest.approx(paid[2])


@pytest.mark.parametrize(("kind", "events", "error"), of_each(BROKEN, ["no finish reason"]))
def test_a_broken_stream_of_langchains_client_is_no_reply(pool_of, kind, events, error):
    pool, models, _ = pool_of(kind, [Wire(events=events), Wire(events=[half("stop")])])
    graph = graph_of(pool, models)
    for ok in (False, True):  # the second time, the server is well
        (bill,) = bills(last_state(graph))
        assert bill["ok"] == ok
        assert bill["error"]["kind"] == ("missing_usage" if ok else error)


@pytest.mark.parametrize("kind", [*FAMILY, *AROUND])
@pytest.mark.parametrize("stream", [False, True])
def test_a_cost_that_langchain_drops_is_paid(pool_of, kind, stream):
    """A server that is not OpenAI's is asked for the usage of a stream, too."""
    pool, models, _ = pool_of(kind, Reply("Paris", 1000, 5, cost=0.5), **ONE_DOLLAR)
    graph = graph_of(pool, models)
    (bill,) = bills(last_state(graph) if stream else run(graph, "invoke"))
    assert (bill["input_tokens"], bill["cost_usd"], bill["error"]) == (1000, 0.5, None)


@both_ways
def test_a_cost_in_the_headers_of_another_is_not_that_of_a_given_model(serve, tmp_path, how):
    message = {"choices": [{"message": {"content": "x"}}], "usage": usage()}
    server = serve({"ada": Wire(message), "bob": Wire(message, headers={COST: "0.5"})})
    pool = yaml_pool(tmp_path, server, {"Ada": {}, "Bob": {}}, **ONE_DOLLAR)
    script = search("Bob: ?"), SEARCH, ANSWER
    paid = bills(run(graph_of(pool, {"Ada": given(server)}, *script), how))
    assert [bill["cost_usd"] for bill in paid] == [0.5, pytest.approx(20e-6)]


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # in LangChain: it expects a text
@each_kind
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (json.dumps(QUERY), ["Who?"]),
        (json.dumps(json.dumps(QUERY)), ["Who?"]),
        (QUERY, ["Who?"]),
        ('{"query": "Who wro', []),
    ],
)
def test_a_controllers_call_by_langchains_client_is_never_half(
    serve, tmp_path, monkeypatch, kind, stream, arguments, asked
):
    monkeypatch.setenv("ADA_KEY", "x")
    server = serve({"boss": [ToolCalls([piece(arguments)]), Reply("Paris")], "ada": Reply("ok")})
    settings = {"protocol": "tools", **BY_NAME, "model": "openai:boss"}
    pool = yaml_pool(tmp_path, server, controller=settings if kind == "by name" else None)
    if kind == "by name":
        needs("langchain")
        controller = parse_controller("pool", pool)
    else:
        boss = given(server, kind, model="boss")
        controller = ChatModelController(boss, ControllerSettings(protocol="tools"))
    graph = create_router_r1(pool, controller).compile()
    state = last_state(graph) if stream else run(graph, "invoke")
    assert state["answer"] == "Paris"
    assert [r.prompt for r in server.requests if r.model == "ada"] == asked


@both_ways
@each_kind
def test_what_langchains_client_is_refused_is_learned_once(pool_of, how, kind):
    def reply(request: Any) -> Any:
        refuses = Status(400, "Unsupported value: 'temperature' does not support 0.5.")
        return refuses if "temperature" in request.body else Reply("Paris")

    pool, models, server = pool_of(kind, reply, temperature=0.5)
    for _ in range(2):
        (bill,) = bills(run(graph_of(pool, models), how))
        assert (bill["reply"], bill["attempts"]) == ("Paris", 1)
    assert ["temperature" in request.body for request in server.requests] == [True, False, False]


class BadRequestError(Exception):
    status_code = 400


class Claude(FakeChat):
    """Refuses a temperature as langchain-anthropic hands it on."""

    model: str = "claude-x"
    temperature: float | None = None
    sent: list[Any]

    def _result(self, query: str) -> Any:
        self.sent.append(self.temperature)
        if self.temperature is not None:
            kind, why = "invalid_request_error", "`temperature` is deprecated for this model."
            raise BadRequestError({"type": "error", "error": {"type": kind, "message": why}})
        return super()._result(query)


@both_ways
def test_another_client_is_asked_again_without_a_temperature_that_its_model_refuses(how):
    sent: list[Any] = []
    pool = make_pool({"name": "Ada", "base_url": f"http://claude.test/{how}", "max_retries": 0})
    models = {"Ada": Claude(sent=sent, temperature=0.0)}
    for _ in range(2):
        (bill,) = bills(run(graph_of(pool, models), how))
        assert (bill["reply"], bill["attempts"], bill["error"]) == ("Paris", 1, None)
    assert models["Ada"].sent == [0.0, None, None]
    assert models["Ada"].temperature == 0.0  # the user's own object


def test_a_users_own_class_and_object_stay_as_they_are(serve):
    server = serve(Reply("Paris"))
    own = given(server, "own")
    read: Any = read_leniently(own)
    assert isinstance(read, Own)
    assert (type(own), type(read).__name__, read.team, read._asked) == (Own, "Own", "a", 7)
    assert read_leniently(read) is read
    fake = FakeChat()
    assert read_leniently(fake) is fake
    plain = given(server, timeout=7, default_headers={"x-team": "a"})
    ours = read_leniently(plain)
    assert type(plain) is langchain_openai.ChatOpenAI
    assert (ours.request_timeout, ours.root_client.timeout) == (7, 7)
    assert (plain.stream_usage, ours.stream_usage) == (None, True)
    assert isinstance(ours.invoke("?"), AIMessage)
    assert asyncio.run(ours.ainvoke("?")).text == plain.invoke("?").text == "Paris"
    assert {request.headers["x-team"] for request in server.requests} == {"a"}
    retrying = read_leniently(plain.with_retry())
    assert type(retrying.bound) is type(ours)
    assert retrying.invoke("?").text == "Paris"


def test_connections_and_functions_of_the_users_own_are_kept(serve, monkeypatch):
    server = serve(Reply("Paris"))
    with openai.DefaultHttpxClient(headers={"x-team": "b"}) as connections:
        assert read_leniently(given(server, http_client=connections)).invoke("?").text == "Paris"
    assert server.requests[0].headers["x-team"] == "b"
    model = given(server)
    seen: list[Any] = []
    create = model.client.with_raw_response.create
    noted = SimpleNamespace(create=lambda **sent: seen.append(sent) or create(**sent))
    monkeypatch.setattr(model.client, "create", None)
    monkeypatch.setattr(model.client, "with_raw_response", noted)
    assert read_leniently(model).invoke("?").text == "Paris"
    assert len(seen) == 1


def test_an_event_loop_pays_for_no_request_of_another(serve):
    server = serve(Reply("Paris"))
    ours = read_leniently(given(server))
    for _ in range(4):
        assert asyncio.run(ours.ainvoke("?")).text == "Paris"
    assert server.count() == 4
