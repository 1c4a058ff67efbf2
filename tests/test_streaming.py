"""What a run tells while it happens: custom events, and tokens by who wrote them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

from fakes import FakeChat, answer, make_pool, models, search
from router_r1_graph import (
    ChatModelController,
    ChatRouterR1,
    ScriptedController,
    create_router_r1,
    create_router_r1_agent,
)

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


# ------------------------------------------------------------------- what a parent's streams show


def side_by_side(make: Any = create_router_r1, **given: Any) -> Any:
    """Return a parent with two routers, "left" and "right", that answer with their names."""
    parent = StateGraph(MessagesState)
    pool = make_pool("Ada", "Bob")
    for name in ("left", "right"):
        script = [search("Ada: one", "Bob: two"), search("Ada: one", "Nobody: x"), answer(name)]
        graph = make(pool, ScriptedController(script), models=models(pool), name=name, **given)
        parent.add_node(name, graph.compile() if make is create_router_r1 else graph)
        parent.add_edge(START, name)
    return parent.compile()


def in_a_chat_model(pool: Any, controller: Any, *, name: str, **given: Any) -> Any:
    model = ChatRouterR1(pool=pool, controller=controller, **given)

    async def reply(state: MessagesState) -> Any:
        message = await model.ainvoke(state["messages"])
        message.name = name
        return {"messages": [message]}

    return reply


ASKED: Any = {"messages": [("user", "Who is it?")]}
KNOBS: Any = {"router_r1": {"keep": "summary:Bob"}}
QUIET: Any = [
    (create_router_r1, {}, False),
    (create_router_r1, {"stream_steps": False}, True),
    (create_router_r1_agent, {}, False),
    (create_router_r1_agent, {}, True),
    (in_a_chat_model, {}, False),
    (in_a_chat_model, {}, True),
]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(("make", "given", "subgraphs"), QUIET)
async def test_a_parents_stream_shows_the_answers_alone(make, given, subgraphs, version):
    graph = side_by_side(make, **given)
    modes: Any = ["messages", "updates", "values"]
    parts = graph.astream(
        ASKED, stream_mode=modes, subgraphs=subgraphs, context=KNOBS, version=version
    )
    shown: dict[str, list[Any]] = {mode: [] for mode in modes}
    async for part in parts:
        if version == "v2":
            where, mode, data = part["ns"], part["type"], part["data"]
        else:
            where, mode, data = part if subgraphs else ((), *part)
        if not where or mode == "messages":
            shown[mode].append(data)
    texts = sorted((meta["langgraph_node"], m.text) for m, meta in shown["messages"] if m.text)
    assert texts == [("left", "left"), ("right", "right")]
    # As with any graph that is a node, the update is the whole conversation.
    updates = {name: up["messages"][-1].text for d in shown["updates"] for name, up in d.items()}
    assert updates == {"left": "left", "right": "right"}
    assert [m.text for m in shown["values"][-1]["messages"]] == ["Who is it?", "left", "right"]


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
@pytest.mark.parametrize(("make", "given"), [q[:2] for q in QUIET[:3]])
def test_in_version_3_the_parents_own_stream_has_the_answers(make, given):
    stream = side_by_side(make, **given).stream_events(ASKED, version="v3", context=KNOBS)
    assert sorted((m.node, str(m.text)) for m in stream.messages) == [
        ("left", "left"),
        ("right", "right"),
    ]
    below = side_by_side(make, **given).stream_events(ASKED, version="v3", context=KNOBS)
    first = next(iter(below.subgraphs))
    texts = [str(m.text) for m in first.messages]
    if make is create_router_r1 and not given:
        assert (texts[0], texts[-1]) == (
            search("Ada: one", "Bob: two"),
            first.path[0].split(":")[0],
        )
    else:
        assert texts == []


@pytest.mark.parametrize("keep", ["all", "summary:Bob"])
def test_who_asks_for_more_sees_each_message_once(keep):
    context: Any = {"router_r1": {"keep": keep}}
    parts = list(
        side_by_side().stream(ASKED, stream_mode="messages", subgraphs=True, context=context)
    )
    assert len({m.id for _, (m, _) in parts}) == len(parts)
    for name in ("left", "right"):
        inside = [(m, meta) for where, (m, meta) in parts if where[0].startswith(f"{name}:")]
        kinds = [(meta["langgraph_node"], m.type) for m, meta in inside]
        turns = [m.text for m, meta in inside if meta["langgraph_node"] == "think"]
        assert turns[0] == search("Ada: one", "Bob: two")
        assert (len(turns), kinds.count(("answer", "ai"))) == (3, 1)
        # Two calls and, where asked for, two summaries; then a repeated call and a refused one.
        assert kinds.count(("route", "tool")) == (2 if keep == "all" else 4)
        assert kinds.count(("aggregate", "tool")) == 2
        assert not any(m.type == "human" for m, _ in inside)


def test_an_endpoint_that_gives_every_turn_the_same_id_loses_none():
    texts = [search("Ada: one"), search("Ada: two"), answer("three")]
    model = GenericFakeChatModel(messages=iter([AIMessage(text, id="1") for text in texts]))
    pool = make_pool()
    graph = create_router_r1(pool, ChatModelController(model), models=models(pool)).compile()
    result = graph.invoke(QUESTION)
    assert [m.text for m in result["scratchpad"] if m.type == "ai"] == texts
