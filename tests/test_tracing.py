"""LangSmith, by a sink on loopback that takes what its SDK really sends."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool
from langchain_core.tracers.langchain import LangChainTracer
from langgraph import types
from langgraph.graph import END, START, MessagesState, StateGraph
from langsmith import Client, RunTree, traceable, tracing_context, utils
from langsmith.run_trees import WriteReplica
from typer.testing import CliRunner

from extras import needs
from fakes import NEVER, FakeChat, answer, make_pool, models, search
from langsmith_sink import INFO, LangSmithSink
from openai_server import Reply, Status
from patience import long_enough, wait_until
from router_r1_graph import (
    CandidatePool,
    ChatModelController,
    RouterContext,
    ScriptedController,
    _node,
    create_router_r1,
    create_router_r1_agent,
    parse_controller,
)
from router_r1_graph.candidates import ControllerSettings
from router_r1_graph.cli import app
from router_r1_graph.cost_scales import AbsoluteCost
from router_r1_graph.errors import TraceError
from router_r1_graph.evaluation import loop
from router_r1_graph.evaluation.questions import EvaluationQuestion
from router_r1_graph.evaluation.run import Results, run_controller
from router_r1_graph.evaluation.scorers import parse_scorer
from router_r1_graph.langsmith import once
from router_r1_graph.langsmith.experiments import log_feedback, scores, write_experiment
from router_r1_graph.langsmith.textless import TextlessClient
from router_r1_graph.langsmith.traces import question_config, read_langsmith
from router_r1_graph.ledger import total
from router_r1_graph.trace import Trace, read_traces
from yaml_pool import yaml_pool

QUESTION = "What is the capital of France?"
CONTEXT = RouterContext(cost_weight=0.3, budget_usd=1.0, seed=7)
SCRIPT = [
    search("Ada: capital of France?", "Bob: fail", "Eve: who?") + "<answer>",
    search("Ada: capital of France?", "Bob: which: one?"),
    answer("Paris \u2028 🦉"),
]

has_trace_policy = pytest.mark.skipif(
    not hasattr(types, "TracePolicy"), reason="this LangGraph records the whole state of a node"
)


@pytest.fixture
def sink() -> Iterator[LangSmithSink]:
    with LangSmithSink() as one:
        yield one


def reply(query: str) -> str | Exception:
    return ConnectionError("gone") if query == "fail" else f"reply to {query}"


def turn(prompt: str) -> str:
    return SCRIPT[min(prompt.count("(left: "), 2)] if "(left: " in prompt else SCRIPT[0]


def chat_controller() -> ChatModelController:
    said = iter(SCRIPT)
    settings = ControllerSettings(input_usd_per_mtok=3.0, output_usd_per_mtok=4.0)
    return ChatModelController(FakeChat(text=lambda _: next(said)), settings)


def traced(
    client: Client,
    controller: Any = None,
    *,
    pool: CandidatePool | None = None,
    given: Any = None,
    how: str = "invoke",
    config: Any = None,
    project: str = "test",
    context: RouterContext | None = CONTEXT,
) -> Any:
    pool = pool or make_pool()
    controller = controller or ScriptedController(SCRIPT)
    given = models(pool, **{c.name: FakeChat(text=reply) for c in pool.candidates})
    graph = create_router_r1(pool, controller, models=given).compile()
    with tracing_context(enabled=True, client=client, project_name=project):
        if how == "invoke":
            state = graph.invoke({"question": QUESTION}, config, context=context)
        else:
            state = asyncio.run(graph.ainvoke({"question": QUESTION}, config, context=context))
    client.flush()
    return state


both_ways = pytest.mark.parametrize("how", ["invoke", "ainvoke"])


# ------------------------------------------------------------------------------- what is sent


@both_ways
def test_the_runs_have_names_tags_and_parents(sink, how):
    traced(sink.client(), chat_controller(), how=how)
    names = {run["id"]: run["name"] for run in sink.tree()}
    shown = [
        (
            names.get(run.get("parent_run_id"), ""),
            run["name"],
            run["run_type"],
            [t for t in run["tags"] if t in ("router-r1", "think") or t.startswith("route:")],
        )
        for run in sink.tree()
        if "langsmith:hidden" not in run["tags"]
    ]
    think = [
        ("router-r1", "think", "chain", ["think"]),
        ("think", "controller", "llm", ["think"]),
    ]

    def route(name: str) -> list[Any]:
        tags = [f"route:{name}"]
        return [
            ("router-r1", f"route:{name}", "chain", tags),
            (f"route:{name}", name, "tool", tags),
            (name, name, "llm", tags),
        ]

    expected = [
        ("", "router-r1", "chain", ["router-r1"]),
        *(think + route("Ada") + route("Bob")),
        *(think + route("Bob")),
        *think,
    ]
    assert sorted(shown) == sorted(expected)
    assert shown[0] == expected[0]


def test_the_metadata_say_what_was_run(sink):
    traced(sink.client(), chat_controller())
    root, *others = sink.tree()
    metadata = root["extra"]["metadata"]
    assert (metadata["pool"], metadata["controller"]) == ("pool", "chat_model")
    assert (metadata["cost_weight"], metadata["protocol_version"]) == (0.3, 1)
    assert (metadata["stop_reason"], metadata["rounds"]) == ("answered", 2)
    assert metadata["router_r1_version"]
    rounds = [
        (run["name"], run["extra"]["metadata"]["round"])
        for run in others
        if run["run_type"] == "llm"
    ]
    assert rounds[:1] == [("controller", 1)]
    assert sorted(rounds) == [
        *(("Ada", 1), ("Bob", 1), ("Bob", 2)),
        *(("controller", 1), ("controller", 2), ("controller", 3)),
    ]
    candidates = {
        run["name"]: run["extra"]["metadata"].get("candidate")
        for run in others
        if run["run_type"] == "tool"
    }
    assert candidates == {"Ada": "Ada", "Bob": "Bob"}


def usages(sink: LangSmithSink) -> list[tuple[str, dict[str, Any]]]:
    return [
        (run["run_type"], usage)
        for run in sink.tree()
        if (usage := run["extra"]["metadata"].get("usage_metadata"))
    ]


@both_ways
def test_usage_and_cost_stand_on_the_models_runs_only_and_add_up_to_the_ledger(sink, how):
    bill = total(traced(sink.client(), chat_controller(), how=how)["ledger"])
    found = usages(sink)
    assert {kind for kind, _ in found} == {"llm"}
    assert sum(u["input_tokens"] for _, u in found) == bill["input_tokens"]
    assert sum(u["output_tokens"] for _, u in found) == bill["output_tokens"]
    assert sum(u["total_cost"] for _, u in found) == pytest.approx(bill["cost_usd"])
    for _, usage in found:
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert usage["total_cost"] == pytest.approx(usage["input_cost"] + usage["output_cost"])
    for run in sink.tree():  # LangSmith also reads usage here
        assert "usage_metadata" not in (run.get("outputs") or {})


def test_a_cost_that_the_provider_reports_wins(sink, serve, tmp_path):
    server = serve({"ada": Reply("Paris", cost=0.125)})
    pool = yaml_pool(tmp_path, server, {"Ada": {}})
    graph = create_router_r1(pool, ScriptedController([search("Ada: ?"), answer()])).compile()
    with tracing_context(enabled=True, client=(client := sink.client()), project_name="test"):
        state = graph.invoke({"question": QUESTION})
    client.flush()
    ((_, usage),) = usages(sink)
    assert usage["total_cost"] == total(state["ledger"])["cost_usd"] == 0.125
    assert usage["input_cost"] + usage["output_cost"] == pytest.approx(0.125)


def test_a_price_per_call_stands_on_the_candidates_own_run(sink):
    pool = make_pool({"name": "Clock", "provider": "tool", "usd_per_call": 0.001})
    clock = StructuredTool.from_function(lambda query: "noon", name="clock", description="Tells.")
    controller = ScriptedController([search("Clock: what time is it?"), answer()])
    graph = create_router_r1(pool, controller, models={"Clock": clock}).compile()
    with tracing_context(enabled=True, client=(client := sink.client()), project_name="test"):
        state = graph.invoke({"question": QUESTION})
    client.flush()
    assert usages(sink) == [("tool", {"total_cost": 0.001})]
    assert total(state["ledger"])["cost_usd"] == 0.001


def test_a_price_that_nobody_knows_is_left_to_langsmith(sink):
    traced(sink.client(), ChatModelController(FakeChat(text=answer())))
    ((_, usage),) = usages(sink)
    assert usage == {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def test_tokens_that_are_not_reported_are_sent_as_they_are_billed(sink):
    model = FakeChat(text=answer(), usage=False)
    state = traced(sink.client(), ChatModelController(model))
    ((_, usage),) = usages(sink)
    assert usage["input_tokens"] == state["ledger"]["controller"]["input_tokens"] > 0


def test_the_most_that_a_lost_reply_can_cost_is_metadata_of_the_candidates_run(sink):
    pool = make_pool({"name": "Ada", "output_usd_per_mtok": 2.0})
    state = traced(sink.client(), ScriptedController([search("Ada: fail"), answer("?")]), pool=pool)
    line = state["ledger"]["candidates"]["Ada"]
    (told,) = (r["extra"]["metadata"] for r in sink.tree() if r["run_type"] == "tool")
    for name in ("uncertain_attempts", "uncertain_usd"):
        assert told[name] == line[name] > 0


def test_the_message_of_a_model_stays_as_it_was(sink):
    message = AIMessage(answer())

    class Same(FakeChat):
        def _result(self, query: str) -> Any:
            result = super()._result(query)
            result.generations[0].message = message
            return result

    traced(sink.client(), ChatModelController(Same()))
    assert message.usage_metadata is None


@has_trace_policy
def test_a_turn_is_shown_where_no_model_wrote_it(sink, monkeypatch):
    monkeypatch.setattr(_node, "_traced", False)  # as in a process whose first run this is
    traced(sink.client())
    turns = [run for run in sink.tree() if run["name"] == "think"]
    assert [run["outputs"] for run in turns] == [{"turn": text} for text in SCRIPT]
    assert [run.get("inputs") or {} for run in turns] == [{}] * len(SCRIPT)


@has_trace_policy
def test_until_a_tracer_is_seen_nothing_is_replaced_for_one(sink, monkeypatch):
    monkeypatch.setattr(_node, "_traced", False)
    policy = _node.shows(lambda _: {"turn": ""})["trace_policy"]
    state = {"question": QUESTION}
    shown = (policy.process_inputs(state), policy.process_outputs(state))
    assert [value is state for value in shown] == [True, True]
    traced(sink.client())
    assert policy.process_inputs(state) == {}
    assert policy.process_outputs(state) == {"turn": ""}


@has_trace_policy
def test_where_tracing_is_on_the_first_node_of_a_resumed_run_records_no_state(monkeypatch):
    monkeypatch.setattr(_node, "_traced", False)
    with tracing_context(enabled=True):
        policy = _node.shows(lambda _: {})["trace_policy"]
    assert policy.process_inputs({"question": QUESTION}) == {}


@has_trace_policy
def test_an_evaluation_that_is_traced_records_of_a_node_what_any_run_does(sink):
    client, results = sink.client(), Results(None, parse_scorer("exact_match"))
    asked = [EvaluationQuestion("q1", QUESTION, ("Paris",))]
    controller, pool = ScriptedController([answer("Paris")]), CandidatePool.embedded()
    with tracing_context(enabled=True, client=client, project_name="test"):
        loop.run(run_controller(controller, "scripted", asked, pool, RouterContext(), results))
    client.flush()
    (think,) = [run for run in sink.tree() if run["name"] == "think"]
    assert (think.get("inputs") or {}, think["outputs"]) == ({}, {"turn": answer("Paris")})


def test_inside_another_graph_the_router_has_its_own_run(sink):
    pool = make_pool()
    agent = create_router_r1(pool, ScriptedController([answer()]), models=models(pool)).compile()
    parent = StateGraph(MessagesState)
    parent.add_node("router", agent)
    parent.add_edge(START, "router")
    parent.add_edge("router", END)
    client = sink.client()
    with tracing_context(enabled=True, client=client, project_name="test"):
        parent.compile(name="parent").invoke({"messages": [("human", QUESTION)]})
    client.flush()
    tagged = [run for run in sink.tree() if "router-r1" in run["tags"]]
    assert len(tagged) == 1
    assert tagged[0]["parent_run_id"]
    assert tagged[0]["extra"]["metadata"]["stop_reason"] == "answered"
    (trace,) = read_langsmith("test", client=client)
    assert trace.question == QUESTION


@pytest.mark.parametrize("key", ["sk-proj-abc123def456", "q8Zr2Lw5Tn0Vb7Xc"])
def test_no_secret_is_sent(sink, serve, tmp_path, monkeypatch, key):
    monkeypatch.setenv("CANDIDATE_API_KEY", key)
    monkeypatch.setenv("HEADER", "h3ader-key")
    monkeypatch.setenv("TOKEN", "t0ken-in-url")
    options = {
        "default_headers": {"X-Key": {"env": "HEADER"}},
        "default_query": {"token": {"env": "TOKEN"}},
        "extra_body": {"pass": {"env": "HEADER"}},
    }
    for bad in (Status(401, "Incorrect API key", echo_authorization=True), Reply("Paris")):
        server = serve(bad)
        pool = yaml_pool(
            tmp_path,
            server,
            {"Ada": {"options": options}},
            api_key_env="CANDIDATE_API_KEY",
            controller={"options": options, "api_key_env": "CANDIDATE_API_KEY"},
        )
        for controller in (
            ScriptedController([search("Ada: ?"), answer()]),
            parse_controller("pool", pool),
        ):
            graph = create_router_r1(pool, controller).compile()
            client = sink.client()
            with tracing_context(enabled=True, client=client, project_name="test"):
                graph.invoke({"question": QUESTION})
            client.flush()
    assert len([run for run in sink.tree() if run["run_type"] == "llm"]) >= 4
    for secret in (key, "t0ken-in-url", "h3ader-key"):
        where = sink.text.find(secret)
        assert where < 0, sink.text[max(0, where - 300) : where + 100]


@both_ways
def test_without_text_only_numbers_and_names_are_sent(sink, how):
    class Private(FakeChat):
        def __repr_args__(self) -> Any:
            return [("said", SCRIPT)]

    said = iter(["<think> the secret plan </think>" + SCRIPT[0], *SCRIPT[1:]])
    controller = ChatModelController(Private(text=lambda _: next(said)))
    client = sink.client(TextlessClient)
    config = question_config("q1", ["Paris"], {"from": "France"})
    traced(client, controller, how=how, config=config)
    for text in ("France", "capital", "secret plan", "reply to", "Paris", "gone", "🦉"):
        assert text not in sink.text
    root = sink.tree()[0]
    assert root["extra"]["metadata"]["stop_reason"] == "answered"
    assert root["outputs"]["ledger"]["candidates"]["Ada"]["calls"] == 1
    assert len(usages(sink)) == 5
    assert [run["error"] for run in sink.tree() if run.get("error")] == ["ConnectionError"]
    assert read_langsmith("test", client=client) == []


def test_without_text_a_stream_sends_no_token(sink):
    client = sink.client(TextlessClient)
    graph = create_router_r1(
        make_pool(), ChatModelController(FakeChat(text=answer("hush"))), models=models(make_pool())
    ).compile()
    with tracing_context(enabled=True, client=client, project_name="test"):
        list(graph.stream({"question": QUESTION}, stream_mode=["messages", "updates"]))
    client.flush()
    assert sink.runs
    assert "hush" not in sink.text


def times_sent(sink: LangSmithSink) -> Counter[str]:
    return Counter(re.findall(r'name="(?:post|patch)\.([\w-]+)"', sink.text))


def test_a_run_below_the_router_is_sent_once(sink):
    traced(sink.client(), chat_controller())
    sent = times_sent(sink)
    # What started before the router's first node could say how.
    twice = [run["name"] for run in sink.tree() if sent[run["id"]] == 2]
    assert twice == ["router-r1", "__start__"]
    assert {sent[run["id"]] for run in sink.tree()} == {1, 2}
    assert all(run["end_time"] for run in sink.tree())


@both_ways
def test_what_is_not_below_the_router_is_sent_as_ever(sink, how):
    pool = make_pool()
    agent = create_router_r1(pool, chat_controller(), models=models(pool)).compile()
    parent = StateGraph(MessagesState)
    parent.add_node("router", agent)
    parent.add_node("beside", lambda _: time.sleep(0.2))
    parent.add_node("after", lambda _: None)
    parent.add_edge(START, "router")
    parent.add_edge(START, "beside")
    parent.add_edge("router", "after")
    parent.add_edge("after", END)
    tracer = LangChainTracer(client=(client := sink.client()), project_name="test")
    graph, given = parent.compile(), {"messages": [("human", QUESTION)]}
    if how == "invoke":
        graph.invoke(given, {"callbacks": [tracer]})
    else:
        asyncio.run(graph.ainvoke(given, {"callbacks": [tracer]}))
    client.flush()
    sent = times_sent(sink)
    times = {run["name"]: sent[run["id"]] for run in sink.tree()}
    assert (times["beside"], times["after"], times["controller"]) == (2, 2, 1)
    assert all(run["end_time"] for run in sink.tree())
    assert tracer.client is client


@both_ways
def test_the_runs_of_many_questions_at_once_over_one_tracer_have_one_shape(sink, how):
    pool, client = make_pool("Ada", "Bob"), sink.client()
    both = ScriptedController([search("Ada: q", "Bob: q"), answer()])
    graph = create_router_r1(pool, both, models=models(pool)).compile()
    tracer = LangChainTracer(client=client, project_name="test")
    given: Any = [{"question": f"q{n}"} for n in range(8)]
    # Two runs of the router in one node, too: neither of them is the first.
    twice = RunnableLambda(
        lambda asked, config: graph.batch(asked[:2], config),
        afunc=lambda asked, config: graph.abatch(asked[:2], config),
    )
    if how == "invoke":
        graph.batch(given, {"callbacks": [tracer]})
        twice.invoke(given, {"callbacks": [tracer]})
    else:
        asyncio.run(graph.abatch(given, {"callbacks": [tracer]}))
        asyncio.run(twice.ainvoke(given, {"callbacks": [tracer]}))
    client.flush()
    names = Counter(run["name"] for run in sink.runs.values())
    asked = {"think": 20, "route:Ada": 10, "route:Bob": 10, "Ada": 20, "Bob": 20}
    assert names == {"RunnableLambda": 1, "router-r1": 10, "__start__": 10, **asked}
    sent = times_sent(sink)
    assert {sent[id_] for id_, run in sink.runs.items() if run["name"] in asked} == {1}
    assert all(run["end_time"] for run in sink.runs.values())
    assert tracer.client is client


def test_a_client_with_ideas_of_its_own_is_told_of_both_ends(sink):
    class Spans(Client):
        tracing_mode = "otel"

    class Mine(Client):
        def update_run(self, run_id: Any, **run: Any) -> None:
            super().update_run(run_id, **{**run, "outputs": {"hidden": True}})

    for kind in (Spans, Mine, TextlessClient):
        sink.sent.clear()
        traced(sink.client(kind))
        assert set(times_sent(sink).values()) == {2}, kind


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_what_has_ended_is_sent_together_and_no_later_than_after_so_long(
    sink, monkeypatch, seconds
):
    monkeypatch.setattr(once, "_BURST_SECONDS", seconds)
    pool, client, known = make_pool(), sink.client(), []

    def look(query: str) -> str:
        client.flush()
        known.extend(run["name"] for run in sink.tree() if run.get("end_time"))
        return "Paris"

    given = models(pool, Ada=FakeChat(text=look))
    graph = create_router_r1(pool, chat_controller(), models=given).compile()
    with tracing_context(enabled=True, client=client, project_name="test"):
        graph.invoke({"question": QUESTION})
    client.flush()
    assert ("controller" in known) == (seconds == 0)
    assert all(run["end_time"] for run in sink.tree())


def test_a_node_that_fails_is_shown_with_its_error(sink, monkeypatch):
    monkeypatch.setattr("router_r1_graph.nodes.rounds.observe", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        traced(client := sink.client())
    client.flush()
    (run,) = (run for run in sink.tree() if run["name"] == "aggregate")
    assert "ZeroDivisionError" in run["error"]


def test_an_evaluator_sees_what_is_below_the_router(sink):
    seen: list[RunTree] = []

    @traceable
    def target() -> None:
        traced(sink.client())

    with tracing_context(enabled=True, client=sink.client(), project_name="test"):
        target(langsmith_extra={"on_end": seen.append})
    (router,) = seen[0].child_runs
    names = {run.name for run in router.child_runs}
    assert names == {"__start__", "think", "route:Ada", "route:Bob", "aggregate", "answer"}


def test_a_model_that_was_given_up_on_is_shown_as_it_started(sink, tmp_path):
    pool, hangs = make_pool(), threading.Event()
    client = sink.client()

    def hang(query: str) -> str:
        hangs.wait()
        return "late"

    def attempt(seconds: float) -> FakeChat:
        sink.runs.clear()
        ada = FakeChat(text=hang)
        controller = ScriptedController([search("Ada: capital of France?"), answer()])
        graph = create_router_r1(pool, controller, models=models(pool, Ada=ada)).compile()
        context = RouterContext(deadline_seconds=seconds)
        with tracing_context(enabled=True, client=client, project_name="test"):
            graph.invoke({"question": QUESTION}, context=context)
        client.flush()
        return ada

    long_enough(0.5, attempt, begun=lambda ada: ada.queries)
    (run,) = (run for run in sink.tree() if run["run_type"] == "llm")
    assert (run["name"], run.get("end_time")) == ("Ada", None)
    hangs.set()

    def ended() -> bool:
        client.flush()
        return bool(run.get("end_time"))

    wait_until(ended)
    assert "late" in str(run["outputs"])


def test_replicas_of_the_caller_stay_as_they_are(sink):
    client = sink.client()
    other = sink.client()
    graph = create_router_r1(make_pool(), chat_controller(), models=models(make_pool())).compile()
    replicas = [WriteReplica(project_name="one"), WriteReplica(project_name="two", client=other)]
    with tracing_context(enabled=True, client=client, replicas=replicas):
        graph.invoke({"question": QUESTION})
    client.flush()
    other.flush()
    names = {
        project: sorted(run["name"] for run in sink.tree() if run["session_name"] == project)
        for project in ("one", "two")
    }
    assert names["one"] == names["two"]
    assert "controller" in names["one"]


@pytest.mark.parametrize("silent", [False, True])
def test_an_endpoint_that_is_dead_costs_the_run_nothing(silent):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if silent:  # takes what is sent and never answers: who waits for it waits an hour
            taken.listen()
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        hour = int(NEVER * 1000)
        client = Client(api_url=url, api_key="x", info=INFO, timeout_ms=(hour, hour))
        pool = make_pool()
        graph = create_router_r1(pool, ScriptedController(SCRIPT), models=models(pool))
        with tracing_context(enabled=True, client=client, project_name="test"):
            state = graph.compile().invoke({"question": QUESTION})
    assert state["stop_reason"] == "answered"


# ----------------------------------------------------------------------------- read it back


@both_ways
@pytest.mark.parametrize("make", [chat_controller, lambda: ScriptedController(SCRIPT)])
def test_a_trace_comes_back_from_langsmith_as_it_was(sink, how, make):
    client, controller = sink.client(), make()
    known = {"id": "q1", "gold": ["Paris"], "metadata": {"split": "test"}}
    state = traced(client, controller, how=how, config=question_config(**known))
    trace = Trace.from_state(
        state, pool=make_pool(), controller=controller.name, context=CONTEXT, **known
    )
    (back,) = read_langsmith("test", client=client)
    for name in Trace.model_fields:
        assert getattr(back, name) == getattr(trace, name), name
    assert back.model_dump_json() == trace.model_dump_json()


def test_a_policys_token_ids_come_back_too(sink, tmp_path):
    needs("local")
    from router_r1_graph.controllers.policy.controller import PolicyController, PolicySettings
    from tiny_policy import make_model, make_tokenizer

    tokenizer = make_tokenizer()
    controller = PolicyController(
        make_model(tokenizer), tokenizer, PolicySettings(max_new_tokens=8), temperature=1.0
    )
    client = sink.client()
    state = traced(client, controller, context=RouterContext(max_rounds=1))
    trace = Trace.from_state(
        state, pool=make_pool(), controller=controller.name, context=RouterContext(max_rounds=1)
    )
    (back,) = read_langsmith("test", client=client)
    assert back == trace
    tokens = back.scratchpad[0].additional_kwargs["tokens"]
    assert tokens["output_ids"]
    assert tokens == state["scratchpad"][1].additional_kwargs["tokens"]


def test_a_controller_that_failed_leaves_a_trace_too(sink):
    client = sink.client()
    controller = ChatModelController(FakeChat(text=ValueError("broken")))
    state = traced(client, controller)
    (back,) = read_langsmith("test", client=client)
    assert (back.stop_reason, back.error) == ("controller_error", state["error"])


def test_runs_are_read_page_by_page_and_in_order(sink):
    client = sink.client()
    for number in range(5):
        traced(client, config=question_config(f"q{number}"))
    sink.page_size = 2
    assert [t.id for t in read_langsmith("test", client=client)] == [f"q{n}" for n in range(5)]
    assert sink.asked.count("POST /api/v2/runs/query") == 3


def test_a_filter_and_a_time_choose_the_runs(sink):
    client = sink.client()
    traced(client)
    traced(client, config={"run_name": "mine"})
    assert len(read_langsmith("test", client=sink.client())) == 2
    mine = read_langsmith("test", client=sink.client(), filter='eq(name, "mine")')
    assert len(mine) == 1
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert read_langsmith("test", client=sink.client(), since=tomorrow) == []


def test_what_is_no_trace_is_left_out_with_a_warning(sink, caplog):
    client = sink.client()
    pool = make_pool()
    agent = create_router_r1_agent(pool, ScriptedController([answer()]), models=models(pool))
    with tracing_context(enabled=True, client=client, project_name="test"):
        agent.invoke({"messages": [("human", QUESTION)]})
    client.flush()
    traced(client)
    assert len(read_langsmith("test", client=client)) == 1
    assert "left out" in caplog.text


def test_a_run_whose_decisions_no_draw_can_have_made_is_left_out_with_the_reason(sink, caplog):
    client = sink.client()
    traced(client)
    (run,) = (run for run in sink.runs.values() if "scratchpad" in (run.get("outputs") or {}))
    turns = [m for m in run["outputs"]["scratchpad"] if m["type"] == "ai"]
    decision = turns[0]["response_metadata"]["router_r1"]["decisions"][0]
    decision["of_tomorrow"] = 1
    assert len(read_langsmith("test", client=sink.client())) == 1
    decision["probabilities"] = {decision["asked"]: 0.0}
    assert read_langsmith("test", client=sink.client()) == []
    assert "left out: decisions[0]: the probability of 'Ada' is 0" in caplog.text


def test_a_project_that_does_not_exist_is_a_trace_error(sink):
    with pytest.raises(TraceError, match="LangSmith project 'nowhere'"):
        read_langsmith("nowhere", client=sink.client())


@pytest.fixture
def environment(sink, monkeypatch):
    monkeypatch.setenv("LANGSMITH_ENDPOINT", sink.url)
    monkeypatch.setenv("LANGSMITH_API_KEY", "langsmith-key")
    utils.get_env_var.cache_clear()
    yield sink
    utils.get_env_var.cache_clear()


def test_the_command_writes_a_file_that_training_reads(environment, tmp_path):
    needs("local")
    from router_r1_graph import protocol
    from router_r1_graph.controllers.policy.tokens import TokenCodec
    from tiny_policy import make_tokenizer
    from training.export import supervised_rows

    traced(environment.client(), config=question_config("q1", ["Paris"]))
    file = tmp_path / "traces.jsonl"
    result = CliRunner().invoke(app, ["traces", "from-langsmith", "test", "--out", str(file)])
    assert result.exit_code == 0, result.output
    traces = list(read_traces(file))
    assert [t.id for t in traces] == ["q1"]
    codec = TokenCodec(make_tokenizer(), protocol.load_template(None))
    assert list(supervised_rows(traces, codec))


def test_the_command_prints_json_lines(environment):
    traced(environment.client())
    result = CliRunner().invoke(
        app,
        [
            "traces",
            "from-langsmith",
            "test",
            "--since",
            "2026-01-01",
            "--filter",
            'eq(name, "router-r1")',
        ],
    )
    assert Trace.model_validate_json(result.stdout).question == QUESTION


# ------------------------------------------------------------------- feedback and experiments


def finished(gold: str = "Paris", id: str = "q1") -> Trace:
    pool = make_pool()
    script = [search("Ada: capital of France?"), answer("Paris")]
    graph = create_router_r1(
        pool, ScriptedController(script), models=models(pool), context=CONTEXT
    ).compile()
    state = graph.invoke({"question": QUESTION})
    return Trace.from_state(
        state, pool=pool, controller="scripted", context=CONTEXT, gold=[gold], id=id
    )


def test_reward_and_exact_match_are_feedback_on_the_routers_run(sink):
    from langsmith.uuid import uuid7

    client, run_id = sink.client(), uuid7()
    traced(client, config={"run_id": run_id})
    log_feedback(run_id, scores(finished(), AbsoluteCost(1.0)), client=client, project="test")
    client.flush()
    assert [run["id"] for run in sink.tree() if run["name"] == "router-r1"] == [str(run_id)]
    assert {f["run_id"] for f in sink.feedback} == {str(run_id)}
    logged = {f["key"]: f["score"] for f in sink.feedback}
    assert set(logged) == {"reward", "exact_match", "format", "cheapness"}
    assert logged["exact_match"] == logged["format"] == 1.0
    assert logged["reward"] == pytest.approx(0.7 + 0.3 * logged["cheapness"], abs=1e-4)


def test_an_experiment_has_its_dataset_runs_and_feedback(sink):
    client = sink.client()
    traces = [finished(), finished("London", "q2")]
    name = write_experiment(traces, dataset="capitals", client=client, scale=AbsoluteCost(1.0))
    assert name.startswith("scripted-")
    assert [e["inputs"] for e in sink.examples] == [{"question": QUESTION}] * 2
    assert [e["outputs"] for e in sink.examples] == [{"gold": ["Paris"]}, {"gold": ["London"]}]
    assert sink.projects[name]["reference_dataset_id"] == sink.datasets["capitals"]["id"]
    roots = [run for run in sink.tree() if not run.get("parent_run_id")]
    assert {run["reference_example_id"] for run in roots} == {e["id"] for e in sink.examples}
    matches = [f["score"] for f in sink.feedback if f["key"] == "exact_match"]
    assert sorted(matches) == [0.0, 1.0]
    spent = sum(u["total_cost"] for kind, u in usages(sink) if kind == "llm")
    assert spent == pytest.approx(sum(total(t.ledger)["cost_usd"] for t in traces))
    back = sorted(read_langsmith(name, client=client), key=lambda t: t.id)
    assert [t.model_copy(update={"metadata": {}}) for t in back] == traces
    assert [t.metadata["feedback"]["exact_match"] for t in back] == [1.0, 0.0]


def test_what_people_thought_of_a_run_comes_back_with_its_trace(sink):
    from langsmith.uuid import uuid7

    client = sink.client()
    loved, ignored = uuid7(), uuid7()
    for run_id in (loved, ignored):
        traced(client, config={"run_id": run_id, **question_config(str(run_id), metadata={"a": 1})})
    client.flush()
    of = {"trace_id": loved, "session_id": client.read_project(project_name="test").id}
    for score in (1, 0.5):
        client.create_feedback(loved, "stars", score=score, **of)
    client.create_feedback(loved, "tone", value="warm", **of)
    client.flush()
    back = {trace.id: trace.metadata for trace in read_langsmith("test", client=client)}
    assert back == {str(loved): {"a": 1, "feedback": {"stars": 0.75}}, str(ignored): {"a": 1}}


def test_a_second_experiment_adds_no_question_twice(sink):
    client = sink.client()
    names = {write_experiment([finished()], dataset="d", client=client) for _ in range(2)}
    assert len(names) == 2
    assert len(sink.examples) == 1
    assert sink.feedback == []


def test_reading_warns_of_nothing_that_goes_away(sink, recwarn):
    client = sink.client()
    traced(client)
    read_langsmith("test", client=client)
    assert not [w for w in recwarn if issubclass(w.category, DeprecationWarning)]
    assert sys.version_info >= (3, 11)
