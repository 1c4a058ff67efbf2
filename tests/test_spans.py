"""Runs in tracers other than LangSmith: names in any of them, costs as OpenTelemetry spans."""

import asyncio
import json
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.tools import tool

from extras import needs
from fakes import FakeChat, answer, make_pool, search
from router_r1_graph import (
    ChatModelController,
    ControllerSettings,
    GenAISpans,
    ScriptedController,
    create_router_r1,
)
from yaml_pool import both_ways

needs("otel")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@tool
def look(query: str) -> str:
    """Look something up."""
    return query


class Names(BaseCallbackHandler):
    """Keeps the names and candidates of models' runs, as any tracer is told them."""

    def __init__(self) -> None:
        self.seen: list[tuple[str | None, str | None]] = []

    def on_chat_model_start(self, *_: Any, metadata: Any = None, **told: Any) -> None:
        self.seen.append((told.get("name"), metadata.get("candidate")))


@pytest.fixture
def spans() -> Any:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    handler = GenAISpans(provider.get_tracer("test"))
    yield handler, exporter.get_finished_spans
    provider.shutdown()


@both_ways
def test_names_tokens_and_costs_are_on_spans_and_add_up(spans, how):
    handler, finished = spans
    pool = make_pool("Ada", {"name": "Tool", "provider": "tool", "usd_per_call": 0.5})
    turns = iter([search("Ada: q", "Tool: q"), "<answer> 42 </answer>"])
    chat = FakeChat(text=lambda _: next(turns))
    settings = ControllerSettings(model="boss", output_usd_per_mtok=100)

    # A bound model, as one with tools is, has its cost too.
    given = {"Ada": FakeChat(usage=False).bind(stop=["x"]), "Tool": look}
    graph = create_router_r1(pool, ChatModelController(chat, settings), models=given).compile()
    names, counter = Names(), UsageMetadataCallbackHandler()
    config: Any = {"callbacks": [names, counter, handler], "run_name": "my router"}
    if how == "invoke":
        result = graph.invoke({"question": "?"}, config)
    else:
        result = asyncio.run(graph.ainvoke({"question": "?"}, config))
    assert names.seen == [("controller", None), ("Ada", "Ada"), ("controller", None)]
    found = {span.name: span for span in finished()}
    router = found["my router"]
    ada = next(s for s in found.values() if s.attributes.get("router_r1.candidate") == "Ada")
    assert ada.context.trace_id == router.context.trace_id
    tool_cost = found["execute_tool Tool"].attributes["gen_ai.usage.cost"]
    assert tool_cost == pytest.approx(0.5)
    chats = [s for s in finished() if s.attributes.get("gen_ai.operation.name") == "chat"]
    costs = [s.attributes["gen_ai.usage.cost"] for s in chats]
    ledger = result["ledger"]
    assert sum(costs) + tool_cost == pytest.approx(router.attributes["router_r1.cost_usd"])
    assert ledger["candidates"]["Ada"]["cost_usd"] in costs  # its tokens are estimated
    assert router.attributes["router_r1.stop_reason"] == "answered"


def ask_ada(**config: Any) -> None:
    controller = ScriptedController([search("Ada: q"), answer()])
    graph = create_router_r1(make_pool("Ada"), controller, models={"Ada": FakeChat()}).compile()
    assert graph.invoke({"question": "6 x 7?"}, config or None)["answer"] == "42"


def test_langfuse_shows_candidates_and_tokens():
    langfuse = pytest.importorskip("langfuse")
    from langfuse.langchain import CallbackHandler

    exporter = InMemorySpanExporter()
    client = langfuse.Langfuse(
        public_key="pk", secret_key="sk", host="http://127.0.0.1:9", span_exporter=exporter
    )
    ask_ada(callbacks=[CallbackHandler()])
    client.flush()
    told = [
        json.loads(span.attributes["langfuse.observation.usage_details"])
        for span in exporter.get_finished_spans()
        if span.name == "Ada" and "langfuse.observation.usage_details" in span.attributes
    ]
    assert told == [{"input": 10, "output": 5, "total": 15}]
    client.shutdown()


@pytest.mark.filterwarnings("ignore")  # of mlflow's own
def test_mlflow_shows_candidates_and_tokens(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("langchain")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    mlflow.langchain.autolog()
    try:
        ask_ada()
        mlflow.flush_trace_async_logging()
        [trace] = mlflow.search_traces(return_type="list")
    finally:
        mlflow.langchain.autolog(disable=True)
    tokens = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    told = [span.attributes.get("mlflow.chat.tokenUsage") for span in trace.data.spans]
    assert told.count(tokens) == 1
    assert "Ada" in {span.name for span in trace.data.spans}
