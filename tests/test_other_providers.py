"""Real clients of other providers, as candidates and as controllers, where they are installed."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import dataclass
from typing import Any

import pytest

from openai_server import Request
from router_r1_graph import (
    CandidatePool,
    ChatModelController,
    ScriptedController,
    create_router_r1,
)
from router_r1_graph.candidates import ControllerSettings
from router_r1_graph.candidates.providers import make_chat_model
from yaml_pool import bills, both_ways, run

QUERY = "Capital of France?"
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True, scope="module")
def collected():
    """These clients close no connection: what is said of that is said, and ignored, in here.

    Once for all tests of this file, which all ignore it: among the objects of these packages, a
    collection takes 0.2 s.
    """
    yield
    gc.collect()


@dataclass(frozen=True)
class Body:
    """This body, as it is, also where a stream is asked for."""

    body: Any
    code: int = 200

    def send(self, request: Request, http: Any) -> None:
        http.send(self.code, json.dumps(self.body).encode() + b"\n")


def anthropic(text: str, call: str = "", end: str = "end_turn") -> dict[str, Any]:
    parts: list[Any] = [{"type": "text", "text": text}] if text else []
    if call:
        parts += [{"type": "tool_use", "id": "t1", "name": call, "input": {"query": QUERY}}]
    usage = {"input_tokens": 6, "output_tokens": 5, "cache_read_input_tokens": 4}
    head = {"id": "m", "type": "message", "role": "assistant", "model": "m"}
    return head | {"content": parts, "stop_reason": end, "stop_sequence": None, "usage": usage}


def gemini(text: str, call: str = "", end: str = "STOP") -> dict[str, Any]:
    part = {"functionCall": {"name": call, "args": {"query": QUERY}}} if call else {"text": text}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 2, "totalTokenCount": 15}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": end, "index": 0}
    return {"candidates": [candidate], "usageMetadata": usage | {"thoughtsTokenCount": 3}}


def ollama(text: str, call: str = "", end: str = "stop") -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if call:
        message["tool_calls"] = [{"function": {"name": call, "arguments": {"query": QUERY}}}]
    counts = {"prompt_eval_count": 10, "eval_count": 5, "done_reason": end, "done": True}
    return {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message} | counts


#: Name, package, a reply in its form, what a cut one is called there.
PROVIDERS = [
    pytest.param("anthropic", "langchain_anthropic", anthropic, "max_tokens", id="anthropic"),
    pytest.param("google_genai", "langchain_google_genai", gemini, "MAX_TOKENS", id="gemini"),
    pytest.param("ollama", "langchain_ollama", ollama, "length", id="ollama"),
]


@pytest.fixture
def settings_of(serve, monkeypatch):
    """Settings of a provider at a server of ours, `settings_of(provider, *answers)`."""
    monkeypatch.setenv("ADA_KEY", "sk-ant-SECRET")

    def settings(provider: str, *answers: Body) -> dict[str, Any]:
        server = serve(answers)
        url = server.base_url.removesuffix("/v1")
        reached = {"provider": "langchain", "model": f"{provider}:m", "base_url": url}
        return reached | {"api_key_env": "ADA_KEY", "max_tokens": 7, "max_retries": 1}

    return settings


@both_ways
@pytest.mark.parametrize(("provider", "package", "reply", "cut"), PROVIDERS)
def test_a_candidate_of_another_provider_is_read_billed_and_its_errors_are_typed(
    settings_of, how, provider, package, reply, cut
):
    pytest.importorskip(package)
    failures = [(401, "auth", 1), (429, "rate_limited", 2), (503, "server_error", 2)]
    answers = [Body(reply("Paris")), Body(reply("Par", end=cut))]
    for code, _, attempts in failures:
        answers += [
            Body({"error": {"code": code, "message": "no", "status": "X"}}, code)
        ] * attempts
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    ada = settings_of(provider, *answers) | prices | {"name": "Ada"}
    pool = CandidatePool.model_validate({"candidates": [ada]})
    turns = [f"<search> Ada: {i}? </search>" for i in range(5)]
    graph = create_router_r1(pool, ScriptedController([*turns, "<answer> x </answer>"])).compile()
    result = run(graph, how, max_rounds=5)
    whole, short, *failed = bills(result)
    assert (whole["reply"], whole["input_tokens"], whole["output_tokens"]) == ("Paris", 10, 5)
    assert whole["cost_usd"] == pytest.approx(20e-6)
    assert (short["reply"], short["error"]["kind"]) == ("Par", "cut")
    assert [(bill["error"]["kind"], bill["attempts"]) for bill in failed] == [
        (kind, attempts) for _, kind, attempts in failures
    ]
    assert "SECRET" not in str(result)


@dataclass(frozen=True)
class Lines:
    """A stream of Ollama's: these lines, of which the last may be cut."""

    lines: tuple[str, ...]

    def send(self, request: Request, http: Any) -> None:
        http.send(200, "\n".join(self.lines).encode())


PAR = '{"model": "m", "message": {"role": "assistant", "content": "Par"}, "done": false}'


@pytest.mark.sampled(5)
@both_ways
@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ((PAR,), "connection"),
        ((PAR, '{"model": "m", "mess'), "connection"),
        ((PAR, '{"error": "model runner has unexpectedly stopped"}'), "server_error"),
        ((PAR, '{"error": {"message": "slow down", "code": 429}}'), "rate_limited"),
        (('{"error": {"type": "overloaded_error"}}',), "server_error"),
        (('{"error": "an error was encountered while running it: EOF"}',), "server_error"),
    ],
)
def test_half_a_stream_of_ollama_is_the_error_that_it_is_and_is_retried(
    settings_of, how, lines, kind
):
    pytest.importorskip("langchain_ollama")
    broken, whole = Lines(lines), Body(ollama("Paris"))
    ada = settings_of("ollama", broken, broken, broken, whole) | {"name": "Ada"}
    pool = CandidatePool.model_validate({"candidates": [ada]})
    turns = [f"<search> Ada: {i}? </search>" for i in range(2)]
    graph = create_router_r1(pool, ScriptedController([*turns, "<answer> x </answer>"])).compile()
    failed, retried = bills(run(graph, how, max_rounds=2))
    assert (failed["error"]["kind"], failed["attempts"]) == (kind, 2)
    assert (retried["reply"], retried["error"], retried["attempts"]) == ("Paris", None, 2)


@both_ways
def test_a_wait_that_gemini_names_is_read(settings_of, how):
    pytest.importorskip("langchain_google_genai")
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3600s"}
    named = {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED", "details": [info]}
    ada = settings_of("google_genai", Body({"error": named}, 429)) | {"name": "Ada"}
    pool = CandidatePool.model_validate({"candidates": [ada]})
    turns = ["<search> Ada: Who? </search>", "<answer> x </answer>"]
    graph = create_router_r1(pool, ScriptedController(turns)).compile()
    (bill,) = bills(run(graph, how))
    assert (bill["error"]["kind"], bill["attempts"]) == ("rate_limited", 1)  # nobody waits so long


@pytest.mark.sampled(3)
@both_ways
@pytest.mark.parametrize("protocol", ["tags", "tools"])
@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize(("knob", "sent"), [({"temperature": 0.7}, 0.7), ({}, 0.0)])
def test_the_temperature_of_a_run_reaches_ollama(serve, how, protocol, built, knob, sent):
    pytest.importorskip("langchain_ollama")
    server = serve(Body(ollama("<answer> Paris </answer>" if protocol == "tags" else "Paris")))
    url = server.base_url.removesuffix("/v1")
    settings = ControllerSettings(
        provider="langchain", model="ollama:m", base_url=url, protocol=protocol
    )
    model = None if built else make_chat_model(settings)
    controller = ChatModelController(model, settings)
    graph = create_router_r1(CandidatePool.embedded(), controller).compile()
    assert run(graph, how, **knob)["answer"] == "Paris"
    (request,) = server.requests
    assert request.body["options"]["temperature"] == sent


@pytest.mark.sampled(5)
@both_ways
@pytest.mark.parametrize("protocol", ["tags", "tools"])
@pytest.mark.parametrize(("provider", "package", "reply", "cut"), PROVIDERS)
def test_a_controller_of_another_provider_calls_and_answers(
    settings_of, how, protocol, provider, package, reply, cut
):
    pytest.importorskip(package)
    tools = protocol == "tools"
    call = reply("", "Quillora") if tools else reply(f"<search> Quillora: {QUERY} </search>")
    end = reply("Paris" if tools else "<answer> Paris </answer>")
    given = settings_of(provider, Body(call), Body(end)) | {"protocol": protocol}
    settings = ControllerSettings(**given)
    controller = ChatModelController(make_chat_model(settings), settings)
    graph = create_router_r1(CandidatePool.embedded(), controller).compile()
    result = run(graph, how, max_rounds=1, temperature=0.7)
    (bill,) = bills(result)
    assert (result["answer"], bill["candidate"]) == ("Paris", "Quillora")
    paid = result["ledger"]["controller"]
    assert (paid["input_tokens"], paid["output_tokens"]) == (20, 10)


#: Of each client: what its model refuses in turn, in its provider's words, and where that is sent.
REFUSALS = [
    pytest.param(
        *("anthropic", "langchain_anthropic", anthropic),
        {"temperature top_p": "`temperature` and `top_p` cannot both be specified for this model."},
        ["temperature"],
        id="anthropic, both",
    ),
    pytest.param(
        *("anthropic", "langchain_anthropic", anthropic),
        {
            "temperature": "`temperature` is deprecated for this model.",
            "stop_sequences": "stop_sequences: Extra inputs are not permitted",
        },
        ["temperature", "stop_sequences"],
        id="anthropic, a stop of the call",
    ),
    pytest.param(
        *("google_genai", "langchain_google_genai", gemini),
        {
            "temperature": "temperature is not supported by this model.",
            "topP": "Unable to submit request because topP is not supported.",
            "stopSequences": "stopSequences is not supported by this model",
            "seed": "seed is not supported",
        },
        ["temperature", "topP", "stopSequences", "seed"],
        id="gemini",
    ),
    pytest.param(
        *("ollama", "langchain_ollama", ollama),
        {"seed": "invalid option: seed is not supported", "stop": "stop is not supported"},
        ["seed", "stop"],
        id="ollama",
    ),
]


@dataclass(frozen=True)
class Refusing:
    """A provider whose model refuses these parameters, each or together, in these words."""

    words: dict[str, str]
    reply: Any

    def __call__(self, request: Request) -> Body:
        for names, words in self.words.items():
            if {*names.split()} <= {*sent_in(request)}:
                error = {"type": "invalid_request_error", "code": 400, "status": "INVALID_ARGUMENT"}
                return Body({"type": "error", "error": error | {"message": words}}, 400)
        return Body(self.reply("<answer> Paris </answer>"))


def sent_in(request: Request) -> dict[str, Any]:
    body = request.body
    return {**body, **body.get("options", {}), **body.get("generationConfig", {})}


@both_ways
@pytest.mark.parametrize(("provider", "package", "reply", "words", "gone"), REFUSALS)
def test_any_parameter_that_any_client_is_refused_is_learned_once(
    serve, monkeypatch, how, provider, package, reply, words, gone
):
    pytest.importorskip(package)
    monkeypatch.setenv("ADA_KEY", "x")
    server = serve(Refusing(words, reply))
    reached = {"provider": "langchain", "model": f"{provider}:m", "api_key_env": "ADA_KEY"}
    options = {"top_p": 0.5} if provider != "ollama" else {}
    options |= {"seed": 3} if provider != "anthropic" else {}
    url = server.base_url.removesuffix("/v1")
    settings = ControllerSettings(base_url=url, options=options, **reached)
    graph = create_router_r1(
        CandidatePool.embedded(), ChatModelController(settings=settings)
    ).compile()

    async def twice() -> list[Any]:  # in one event loop
        return [await graph.ainvoke({"question": "?"}) for _ in range(2)]

    states = asyncio.run(twice()) if how == "ainvoke" else [run(graph, how) for _ in range(2)]
    assert [state["answer"] for state in states] == ["Paris"] * 2
    assert len(server.requests) == 2 + len(gone)  # by tags: a stop goes with each call
    assert not {*gone} & {*sent_in(server.requests[-1])}
    kept = {"top_p", "topP", "seed"} & {*sent_in(server.requests[0])} - {*gone}
    assert kept <= {*sent_in(server.requests[-1])}


@dataclass(frozen=True)
class Events:
    """A stream of Anthropic's, or of one that speaks OpenAI's API."""

    events: tuple[dict[str, Any], ...]

    def send(self, request: Request, http: Any) -> None:
        lines = [f"event: {e.get('type')}\ndata: {json.dumps(e)}\n\n" for e in self.events]
        http.send(200, "".join(lines).encode(), content_type="text/event-stream")


def of_anthropic(block: dict[str, Any], *deltas: dict[str, Any]) -> Events:
    start = {"type": "message_start", "message": anthropic("") | {"content": []}}
    begin = {"type": "content_block_start", "index": 0, "content_block": block}
    pieces = [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    stop = {"stop_reason": "tool_use", "stop_sequence": None}
    end = {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 5}}
    last = ({"type": "content_block_stop", "index": 0}, end, {"type": "message_stop"})
    return Events((start, begin, *pieces, *last))


def pieces_of(arguments: str) -> Events:
    call = {"type": "tool_use", "id": "t1", "name": "Quillora", "input": {}}
    cut = (arguments[:9], arguments[9:])
    return of_anthropic(call, *({"type": "input_json_delta", "partial_json": c} for c in cut))


@both_ways
@pytest.mark.parametrize("encoded", ["once", "twice", "cut"])
def test_half_a_call_of_anthropics_stream_is_no_call(serve, how, encoded):
    theirs = pytest.importorskip("langchain_anthropic").ChatAnthropic
    whole = json.dumps({"query": QUERY})
    arguments = {"once": whole, "twice": json.dumps(whole), "cut": whole[:18]}[encoded]
    said = of_anthropic({"type": "text", "text": ""}, {"type": "text_delta", "text": "Paris"})
    server = serve([pieces_of(arguments), said])
    url = server.base_url.removesuffix("/v1")
    boss = theirs(model="m", base_url=url, api_key="x", max_retries=0, streaming=True)
    controller = ChatModelController(boss, ControllerSettings(protocol="tools"))
    graph = create_router_r1(CandidatePool.embedded(), controller).compile()
    result = run(graph, how)
    assert result["answer"] == "Paris"
    assert [bill["query"] for bill in bills(result)] == ([] if encoded == "cut" else [QUERY])
