"""What a run tells while it happens: custom events, and tokens by who wrote them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

from fakes import FakeChat, answer, make_pool, models, search
from router_r1_graph import ChatModelController, ScriptedController, create_router_r1

QUESTION: Any = {"question": "What is the capital of France?"}


def router(*script: str, **given: Any) -> Any:
    pool = make_pool()
    graph = create_router_r1(pool, ScriptedController(script), models=models(pool, **given))
    return graph.compile(name="router_r1")


def timeless(events: list[Any]) -> list[Any]:
    return [{k: v for k, v in e.items() if k != "seconds"} for e in events]


CALL = {"id": "call_0_0", "round": 1, "candidate": "Ada", "query": "capital?"}
EXPECTED = [
    {"type": "budget", "rounds": 4, "usd": 1.0},
    {"type": "route_start", **CALL},
    {"type": "route_end", **CALL, "ok": True, "cost_usd": pytest.approx(20e-6), "stored": False},
    {"type": "budget", "rounds": 3, "usd": pytest.approx(1.0 - 20e-6)},
    {"type": "budget", "rounds": 3, "usd": pytest.approx(1.0 - 20e-6)},
]


def test_a_call_is_told_when_it_begins_and_ends_and_the_budget_before_each_turn():
    graph = router(search("Ada: capital?"), answer())
    context = {"budget_usd": 1.0}
    events = list(graph.stream(QUESTION, context=context, stream_mode="custom"))
    assert timeless(events) == EXPECTED
    assert events[2]["seconds"] > 0
    assert events[0]["seconds"] is None


async def test_the_same_is_told_in_an_async_run():
    graph = router(search("Ada: capital?"), answer())
    stream = graph.astream(QUESTION, context={"budget_usd": 1.0}, stream_mode="custom")
    assert timeless([event async for event in stream]) == EXPECTED


def test_a_failed_call_is_told_as_such():
    graph = router(search("Ada: ?"), answer(), Ada=FakeChat(text=ConnectionError("gone")))
    events = graph.stream(QUESTION, stream_mode="custom")
    (end,) = [e for e in events if e["type"] == "route_end"]
    assert (end["ok"], end["cost_usd"]) == (False, 0.0)


def test_the_seconds_left_are_told():
    graph = router(answer())
    events = list(graph.stream(QUESTION, context={"deadline_seconds": 60}, stream_mode="custom"))
    assert all(0 < event["seconds"] <= 60 for event in events)


@pytest.mark.parametrize("as_node", [True, False])
def test_a_parent_that_streams_its_subgraphs_is_told_too(as_node):
    inner = router(search("Ada: capital?"), answer())
    node = inner if as_node else (lambda state: inner.invoke({"messages": state["messages"]}))
    parent = StateGraph(MessagesState).add_node("router", node).add_edge(START, "router").compile()
    given: Any = {"messages": [("user", "capital of France?")]}
    parts = list(parent.stream(given, stream_mode="custom", subgraphs=True))
    assert [event["type"] for _, event in parts] == [
        *("budget", "route_start", "route_end", "budget", "budget")
    ]
    assert all(where[0].startswith("router:") for where, _ in parts)


def test_who_does_not_stream_them_is_told_nothing():
    graph = router(search("Ada: ?"), answer())
    modes = {mode for mode, _ in graph.stream(QUESTION, stream_mode=["updates", "values"])}
    assert modes == {"updates", "values"}


def chat(*texts: str) -> GenericFakeChatModel:
    """Return a chat model that streams these texts word by word."""
    return GenericFakeChatModel(messages=iter([AIMessage(text) for text in texts]))


def test_the_tokens_of_the_controller_and_of_candidates_can_be_told_apart():
    pool = make_pool("Ada", "Bob")
    controller = ChatModelController(chat(search("Ada: one", "Bob: two"), answer("of both")))
    given = {"Ada": chat("reply of Ada"), "Bob": chat("reply of Bob")}
    graph = create_router_r1(pool, controller, models=given).compile()
    by_tag: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for chunk, metadata in graph.stream(QUESTION, stream_mode="messages"):
        if chunk.type != "AIMessageChunk":
            continue
        (tag,) = {t for t in metadata["tags"] if t == "think" or t.startswith("route:")}
        by_tag[tag] = by_tag.get(tag, "") + chunk.text
        name = metadata.get("candidate") or metadata["controller"]
        by_name[name] = by_name.get(name, "") + chunk.text
        node = metadata["langgraph_node"]
        assert node == ("think" if tag == "think" else "route")
        assert metadata["round"] in (1, 2)
    written = search("Ada: one", "Bob: two") + answer("of both")
    assert by_tag == {"think": written, "route:Ada": "reply of Ada", "route:Bob": "reply of Bob"}
    assert by_name == {controller.name: written, "Ada": "reply of Ada", "Bob": "reply of Bob"}


def test_the_tokens_of_a_graph_that_is_a_candidate_have_its_tag():
    def say(state: MessagesState) -> dict[str, Any]:
        return {"messages": [speaker.invoke(state["messages"])]}

    speaker = chat("from inside")
    inner = StateGraph(MessagesState).add_node(say).add_edge(START, "say")
    pool = make_pool({"name": "Graph", "provider": "graph"})
    graph = create_router_r1(
        pool, ScriptedController([search("Graph: ?"), answer()]), models={"Graph": inner}
    ).compile()
    parts = graph.stream(QUESTION, stream_mode="messages", subgraphs=True)
    said = [(c.text, m["tags"]) for _, (c, m) in parts if c.type == "AIMessageChunk"]
    assert "".join(text for text, _ in said) == "from inside"
    assert all("route:Graph" in tags for _, tags in said)
