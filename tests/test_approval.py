"""A person in the loop: what may cost too much waits for a word, call by call."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from fakes import FakeChat, PaidController, answer, make_pool, models, search
from router_r1_graph import ChatRouterR1, ConfigError, ScriptedController, create_router_r1
from router_r1_graph.ledger import total

QUESTION = {"question": "What is the capital of France?"}
THREAD: Any = {"configurable": {"thread_id": "1"}}
DEAR = {"name": "Dear", "output_usd_per_mtok": 100.0}
LIMIT = {"approve_above_usd": 0.001}
both_ways = pytest.mark.parametrize("how", ["invoke", "ainvoke"])


def router(*calls: str, **given: Any) -> Any:
    pool = make_pool("Ada", DEAR, {**DEAR, "name": "Eve"})
    script = [search(*calls), answer()]
    graph = create_router_r1(pool, ScriptedController(script), models=models(pool, **given))
    return graph.compile(checkpointer=InMemorySaver())


def do(graph: Any, given: Any, how: str = "invoke", **context: Any) -> dict[str, Any]:
    context = {**LIMIT, **context}
    if how == "invoke":
        return graph.invoke(given, THREAD, context=context)
    return asyncio.run(graph.ainvoke(given, THREAD, context=context))


def bills(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [m.artifact for m in result["scratchpad"] if getattr(m, "artifact", None)]


@both_ways
def test_a_call_that_may_cost_more_waits_and_says_what_it_is(how):
    dear = FakeChat()
    graph = router("Dear: capital of France?", Dear=dear)
    result = do(graph, QUESTION, how)
    (asked,) = result["__interrupt__"]
    worst = (len("capital of France?") + 64) * 1e-6 + 100 * 100e-6
    (action,) = asked.value["action_requests"]
    assert asked.value == {
        "router": "router_r1",
        "question": QUESTION["question"],
        "candidate": "Dear",
        "query": "capital of France?",
        "background": "",
        "worst_case_usd": pytest.approx(worst),
        "action_requests": [action],
        "review_configs": [
            {
                "action_name": "Dear",
                "allowed_decisions": ["approve", "edit", "reject", "respond"],
            }
        ],
    }
    assert action["args"] == {"query": "capital of France?"}
    assert "router_r1 asks Dear" in action["description"]
    assert QUESTION["question"] in action["description"]
    json.dumps(asked.value)
    assert dear.queries == []
    result = do(graph, Command(resume={asked.id: True}), how)
    assert dear.queries == ["capital of France?"]
    assert (result["answer"], bills(result)[0]["reply"]) == ("42", "Paris")


def test_a_call_that_costs_less_does_not_wait():
    assert "__interrupt__" not in do(router("Ada: ?"), QUESTION)
    assert "__interrupt__" not in do(router("Dear: ?"), QUESTION, approve_above_usd=None)


@pytest.mark.parametrize("no", [False, {"approve": False}, {}, "yes", None, 1])
def test_whatever_is_not_an_approval_refuses_the_call_and_nothing_is_paid(no):
    dear = FakeChat()
    graph = router("Dear: ?", Dear=dear)
    (asked,) = do(graph, QUESTION)["__interrupt__"]
    result = do(graph, Command(resume={asked.id: no}))
    (bill,) = bills(result)
    assert (bill["ok"], bill["cost_usd"], bill["attempts"]) == (False, 0.0, 0)
    assert bill["error"] == {"kind": "refused", "message": "refused by a person"}
    assert bill["reply"] == "error: refused by a person"
    assert result["ledger"]["candidates"]["Dear"]["failed_calls"] == 1
    assert dear.queries == []
    assert result["answer"] == "42"


def edit(query: str, name: str = "Dear") -> dict[str, Any]:
    return {"type": "edit", "edited_action": {"name": name, "args": {"query": query}}}


LANGCHAIN: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "approve"}, "?", "Paris"),
    (edit("mine?"), "mine?", "Paris"),
    (edit("mine?", "Eve"), "mine?", "Eve's"),
    (edit(""), "?", "error: refused by a person: the edited call has no query"),
    (edit("x", "Nobody"), "?", "error: refused by a person: no candidate 'Nobody'; candidates: "),
    (edit("long " * 999), "?", "error: refused by a person: the edited call may cost $0.0"),
    ({"type": "reject"}, "?", "error: refused by a person"),
    (
        {"type": "reject", "message": "too expensive"},
        "?",
        "error: refused by a person: too expensive",
    ),
    ({"type": "respond", "message": "I know: Rome"}, "?", "I know: Rome"),
]


@pytest.mark.parametrize(("decision", "query", "reply"), LANGCHAIN)
@pytest.mark.parametrize("form", [lambda d: {"decisions": [d]}, lambda d: d, lambda d: [d]])
def test_a_person_may_answer_in_langchains_form(decision, query, reply, form):
    dear, eve = FakeChat(), FakeChat(text="Eve's")
    graph = router("Dear: ?", Dear=dear, Eve=eve)
    assert len(do(graph, QUESTION, budget_usd=0.011)["__interrupt__"]) == 1
    result = do(graph, Command(resume=form(decision)), budget_usd=0.011)
    (bill,) = bills(result)
    assert bill["query"] == query
    assert bill["reply"].startswith(reply)
    asked_for_it = reply in ("Paris", "Eve's")
    assert dear.queries + eve.queries == ([query] if asked_for_it else [])
    assert bill["ok"] == (not reply.startswith("error"))
    assert (bill["cost_usd"] > 0) == asked_for_it


@pytest.mark.parametrize("no", [[], [{"type": "approve"}] * 2, None, "approve"])
def test_decisions_that_are_not_one_refuse_the_call(no):
    graph = router("Dear: ?")
    (asked,) = do(graph, QUESTION)["__interrupt__"]
    result = do(graph, Command(resume={asked.id: {"decisions": no}}))
    assert bills(result)[0]["error"]["kind"] == "refused"


def test_a_call_without_a_price_waits_since_it_may_cost_anything():
    pool = make_pool({"name": "Ada", "output_usd_per_mtok": None})
    controller = ScriptedController([search("Ada: ?"), answer()])
    graph = create_router_r1(pool, controller, models=models(pool)).compile(InMemorySaver())
    (asked,) = do(graph, QUESTION)["__interrupt__"]
    assert asked.value["worst_case_usd"] is None


def test_a_refusal_holds_though_the_run_is_resumed_without_its_context():
    dear = FakeChat()
    graph = router("Dear: ?", Dear=dear)
    (asked,) = do(graph, QUESTION)["__interrupt__"]
    result = graph.invoke(Command(resume={asked.id: False}), THREAD)
    assert bills(result)[0]["error"]["kind"] == "refused"
    assert dear.queries == []


@both_ways
def test_parallel_calls_are_approved_one_by_one_and_nobody_is_asked_twice(how):
    chats = {name: FakeChat(text=name) for name in ("Ada", "Dear", "Eve")}
    graph = router("Ada: ?", "Dear: ?", "Eve: ?", **chats)
    waiting = {i.value["candidate"]: i.id for i in do(graph, QUESTION, how)["__interrupt__"]}
    assert sorted(waiting) == ["Dear", "Eve"]
    assert chats["Ada"].queries == ["?"]
    verdicts = {waiting["Dear"]: {"approve": True}, waiting["Eve"]: False}
    result = do(graph, Command(resume=verdicts), how)
    assert [b["reply"] for b in bills(result)] == ["Ada", "Dear", "error: refused by a person"]
    assert [len(chat.queries) for chat in chats.values()] == [1, 1, 0]


def test_parallel_calls_can_be_approved_at_different_times():
    chats = {name: FakeChat(text=name) for name in ("Dear", "Eve")}
    graph = router("Dear: ?", "Eve: ?", **chats)
    waiting = {i.value["candidate"]: i.id for i in do(graph, QUESTION)["__interrupt__"]}
    result = do(graph, Command(resume={waiting["Eve"]: True}))
    assert [i.value["candidate"] for i in result["__interrupt__"]] == ["Dear"]
    assert (chats["Eve"].queries, chats["Dear"].queries) == (["?"], [])
    result = do(graph, Command(resume={waiting["Dear"]: True}))
    assert [b["reply"] for b in bills(result)] == ["Dear", "Eve"]
    assert [len(chat.queries) for chat in chats.values()] == [1, 1]


def test_a_refused_call_can_be_made_in_a_later_round():
    pool = make_pool(DEAR)
    script = [search("Dear: ?"), search("Dear: ?"), answer()]
    graph = create_router_r1(pool, ScriptedController(script), models=models(pool))
    graph = graph.compile(checkpointer=InMemorySaver())
    (first,) = do(graph, QUESTION)["__interrupt__"]
    (second,) = do(graph, Command(resume={first.id: False}))["__interrupt__"]
    result = do(graph, Command(resume={second.id: True}))
    assert [b["ok"] for b in bills(result)] == [False, True]


def test_a_summary_that_may_cost_more_waits_too():
    pool = make_pool("Ada", DEAR)
    graph = create_router_r1(
        pool, ScriptedController([search("Ada: ?"), answer()]), models=models(pool)
    ).compile(checkpointer=InMemorySaver())
    (asked,) = do(graph, QUESTION, keep="summary:Dear")["__interrupt__"]
    assert asked.value["candidate"] == "Dear"
    result = do(graph, Command(resume={asked.id: False}), keep="summary:Dear")
    assert bills(result)[0]["reply"] == "Paris"
    assert "kept" not in bills(result)[0]
    assert total(result["ledger"])["failed_calls"] == 1


@both_ways
def test_inside_a_parent_with_a_memory_the_parent_is_resumed(how):
    pool = make_pool(DEAR)
    inner = create_router_r1(
        pool, ScriptedController([search("Dear: ?"), answer("Paris")]), models=models(pool)
    ).compile()
    parent = StateGraph(MessagesState).add_node("router", inner).add_edge(START, "router")
    graph = parent.compile(checkpointer=InMemorySaver())
    given = {"messages": [HumanMessage("?")]}
    (asked,) = do(graph, given, how, router_r1=LIMIT)["__interrupt__"]
    result = do(graph, Command(resume={asked.id: True}), how)
    assert [m.text for m in result["messages"]] == ["?", "Paris"]


@both_ways
def test_a_graph_that_is_a_candidate_can_ask_a_person_itself(how):
    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(interrupt(f"{state['messages'][-1].text} Say it."))]}

    inner = StateGraph(MessagesState).add_node(ask).add_edge(START, "ask")
    pool = make_pool({"name": "Person", "provider": "graph", "usd_per_call": 0.0})
    controller = ScriptedController([search("Person: Paris or Rome?"), answer()])
    graph = create_router_r1(pool, controller, models={"Person": inner})
    graph = graph.compile(checkpointer=InMemorySaver())
    (asked,) = do(graph, QUESTION, how)["__interrupt__"]
    assert asked.value == "Paris or Rome? Say it."
    result = do(graph, Command(resume={asked.id: "Paris"}), how)
    assert bills(result)[0]["reply"] == "Paris"


def test_without_a_checkpointer_it_is_an_error_before_anything_is_asked():
    pool = make_pool()
    controller = PaidController([search("Ada: ?"), answer()])
    graph = create_router_r1(pool, controller, models=models(pool)).compile()
    with pytest.raises(ConfigError, match=r"approve_above_usd: .* needs a checkpointer"):
        graph.invoke(QUESTION, context=LIMIT)
    assert controller.views == []


def test_a_chat_model_cannot_wait_for_a_person():
    with pytest.raises(ConfigError, match="takes no 'approve_above_usd'"):
        ChatRouterR1().invoke("?", approve_above_usd=1.0)


@both_ways
def test_every_call_can_be_looked_at_with_langgraphs_own_interrupt(how):
    ada = FakeChat()
    graph = router("Ada: ?", Ada=ada)
    if how == "invoke":
        graph.invoke(QUESTION, THREAD, interrupt_before=["route"])
    else:
        asyncio.run(graph.ainvoke(QUESTION, THREAD, interrupt_before=["route"]))
    assert graph.get_state(THREAD).next == ("route",)
    assert ada.queries == []
    assert do(graph, None, how)["answer"] == "42"
    assert ada.queries == ["?"]
