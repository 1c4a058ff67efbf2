"""Chat models that others have made: given as objects, or by LangChain's name of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import langchain_openai
import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import ConfigurableField
from pydantic import Field, PrivateAttr

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
from router_r1_graph.candidates.call import aask, ask
from router_r1_graph.candidates.given import read_leniently
from test_failing_candidates import BROKEN, half
from test_usage import STREAMS, usage
from test_what_is_sent import QUERY, ToolCalls, piece
from yaml_pool import ONE_DOLLAR, bills, both_ways, run, yaml_pool

SEARCH, ANSWER = search("Ada: Capital of France?"), answer("Paris")
BY_NAME = {"provider": "langchain", "model": "openai:ada", "api_key_env": "ADA_KEY"}
BY_FACTORY = {"provider": "test_given_models:made", "model": "ada", "api_key_env": "ADA_KEY"}
IN_FILE = {"by name": BY_NAME, "factory": BY_FACTORY}
COST = "x-litellm-response-cost"
#: Clients of one family, and what LangChain puts around them.
FAMILY = ["given", *IN_FILE, "azure", "own", "deepseek", "xai"]
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


def made(settings: Any) -> Any:
    """A user's factory, which a pool file names."""
    reached = {"base_url": settings.base_url, "api_key": "x", "max_retries": 0}
    return langchain_openai.ChatOpenAI(
        model=settings.model,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        **reached,
        **settings.options,
    )


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
            {"Ada": IN_FILE.get(kind, {})},
            temperature=temperature,
            **settings,
        )
        warm = {} if temperature is None else {"temperature": temperature}
        return pool, None if kind in IN_FILE else {"Ada": given(server, kind, **warm)}, server

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


@pytest.mark.sampled(3)
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
    boss = {"model": "openai:boss" if kind == "by name" else "boss", "protocol": "tools"}
    settings = {**IN_FILE[kind], **boss} if kind in IN_FILE else None
    pool = yaml_pool(tmp_path, server, controller=settings)
    if kind in IN_FILE:
        needs("langchain")
        controller = parse_controller("pool", pool)
    else:
        model = given(server, kind, model="boss")
        controller = ChatModelController(model, ControllerSettings(protocol="tools"))
    graph = create_router_r1(pool, controller).compile()
    state = last_state(graph) if stream else run(graph, "invoke")
    assert state["answer"] == "Paris"
    assert [r.prompt for r in server.requests if r.model == "ada"] == asked


@both_ways
@each_kind
def test_what_a_filter_has_cut_is_paid_and_said(pool_of, how, kind):
    """Azure's class raises an error at it, without the usage."""
    cut = Reply("The cap", 1000, 5, finish_reason="content_filter")
    pool, models, _ = pool_of(kind, cut, **ONE_DOLLAR)
    (bill,) = bills(run(graph_of(pool, models), how))
    assert (bill["reply"], bill["error"]["kind"], bill["ok"]) == ("The cap", "cut", True)
    assert bill["cost_usd"] == pytest.approx(1010e-6)


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


class Another(FakeChat):
    """Another provider's client, which hands on the calls of its model as its server sends them."""

    arguments: str
    asked: int = 0

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self.bind(tools=tools, **options)

    def _message(self, kind: Any, pieces: list[str]) -> Iterator[Any]:
        self.queries.append("?")
        if len(self.queries) > 1:
            yield kind(content="Paris")
            return
        for number, part in enumerate(pieces):
            name, id_ = (None, None) if number else ("Ada", "1")
            calls = [tool_call_chunk(name=name, args=part, id=id_, index=0)]
            yield AIMessageChunk(content="", tool_call_chunks=calls)

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for message in self._message(AIMessageChunk, [self.arguments[:9], self.arguments[9:]]):
            yield ChatGenerationChunk(message=message)

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        (message,) = self._message(AIMessage, [""])
        if not message.text:
            call = {"name": "Ada", "args": self.arguments, "id": "1", "error": None}
            message = AIMessage("", invalid_tool_calls=[{"type": "invalid_tool_call", **call}])
        return ChatResult(generations=[ChatGeneration(message=message)])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (json.dumps(QUERY), ["Who?"]),
        (json.dumps(json.dumps(QUERY)), ["Who?"]),
        ('{"query": "Who wro', []),
    ],
)
def test_half_a_call_of_another_client_is_no_call(stream, arguments, asked):
    """LangChain completes what is cut of a stream's calls."""
    ada, boss = FakeChat(), Another(arguments=arguments)
    controller = ChatModelController(boss, ControllerSettings(protocol="tools"))
    graph = create_router_r1(make_pool({"name": "Ada"}), controller, models={"Ada": ada}).compile()
    state = last_state(graph) if stream else run(graph, "invoke")
    assert (state["answer"], ada.queries, len(boss.queries)) == ("Paris", asked, 2)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("arguments", [json.dumps(json.dumps(QUERY)), '{"query": "Who wro'])
def test_a_bound_candidate_of_another_client_hands_no_half_call_on(stream, arguments):
    settings = ControllerSettings()
    bound = Another(arguments=arguments).bind_tools([{"name": "Ada"}], stream=stream)
    message = ask(bound, [HumanMessage("?")], settings).message
    assert message is not None
    calls = [call["args"] for call in message.tool_calls]
    assert calls == ([] if "Who wro" in arguments else [QUERY])
    assert len(message.invalid_tool_calls) == 1 - len(calls)


class BadRequestError(Exception):
    status_code = 400


class Claude(FakeChat):
    """Refuses parameters as langchain-anthropic hands it on: its own, and those of a call."""

    model: str = "claude-x"
    temperature: float | None = None
    top_p: float | None = None
    words: str
    refuses: list[str]
    sent: list[Any] = Field(default_factory=list)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kw: Any) -> Any:
        own = {"temperature": self.temperature, "top_p": self.top_p, "stop": stop}
        self.sent.append({name for name, value in {**own, **kw}.items() if value is not None})
        if self.sent[-1] >= {*self.refuses}:
            error = {"type": "invalid_request_error", "message": self.words}
            raise BadRequestError({"type": "error", "error": error})
        return super()._generate(messages)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        return self._generate(*args, **kwargs)


@both_ways
@pytest.mark.parametrize(
    ("words", "refuses", "own", "of_call"),
    [
        ("`temperature` is deprecated for this model.", ["temperature"], {"temperature": 0.0}, {}),
        ("temperature is not supported", ["temperature"], {}, {"temperature": 0.5}),
        ("Extra inputs are not permitted: stop_sequences", ["stop"], {}, {"stop": ["x"]}),
        ("Unknown name topP: cannot find field", ["top_p"], {"top_p": 0.5}, {"stop": ["x"]}),
        ("seed is not supported", ["seed"], {"temperature": 0.0}, {"seed": 1, "stop": ["x"]}),
        (
            "`temperature` and `top_p` cannot both be specified for this model.",
            ["temperature", "top_p"],
            {"top_p": 0.5, "temperature": 0.0},
            {},
        ),
    ],
)
def test_another_client_is_asked_again_without_what_its_model_refuses(
    how, words, refuses, own, of_call
):
    settings = ControllerSettings(base_url=f"http://{how}{abs(hash(words))}.test", max_retries=0)
    claude = Claude(words=words, refuses=refuses, **own)
    for _ in range(2):
        prompt = [HumanMessage("?")]
        if how == "ainvoke":
            reply = asyncio.run(aask(claude, prompt, settings, **of_call))
        else:
            reply = ask(claude, prompt, settings, **of_call)
        assert (reply.text, reply.attempts, reply.error) == ("Paris", 1, None)
    everything = {*own, *of_call}
    assert claude.sent == [everything, *[everything - {refuses[0]}] * 2]
    assert {name: getattr(claude, name) for name in own} == own  # the user's own object


def test_what_is_no_word_about_a_parameter_is_asked_once():
    settings = ControllerSettings(base_url="http://other.test", max_retries=0)
    claude = Claude(words="the prompt is too long", refuses=["temperature"], temperature=0.0)
    for count in (1, 2):
        assert ask(claude, [HumanMessage("?")], settings).error is not None
        assert claude.sent == [{"temperature"}] * count


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
