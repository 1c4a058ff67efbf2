"""The graph: one question in, one answer out, by every way LangGraph has of running it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from fakes import FakeChat, MeetingChat, PaidController, answer, make_pool, models, search
from router_r1_graph import (
    Candidate,
    ChatModelController,
    PoolError,
    QuestionError,
    ReplyError,
    RouterContext,
    ScriptedController,
    create_router_r1,
    create_router_r1_agent,
)
from router_r1_graph.controllers.controller import View

CAPITAL = {"question": "What is the capital of France?"}
NODES = ["think", "route", "aggregate", "answer"]


def router(*script: Any, pool: Any = None, given: Any = None, **compile_options: Any) -> Any:
    """Return a compiled graph over a script (or a controller) and fake candidates."""
    pool = pool or make_pool()
    controller = script[0] if len(script) == 1 and not isinstance(script[0], str) else None
    graph = create_router_r1(
        pool, controller or ScriptedController(script), models=given or models(pool)
    )
    return graph.compile(**compile_options)


def one_call(**options: Any) -> Any:
    return router(search("Ada: capital of France?"), answer("Paris"), **options)


def essence(result: dict[str, Any]) -> tuple[Any, ...]:
    """Return what is the same in every run of one script: all but ids and times."""
    return (
        [(m.type, m.text, m.response_metadata["router_r1"]["rounds"]) for m in result["messages"]],
        result["answer"],
        result["stop_reason"],
        result["round"],
        [(m.type, m.text, getattr(m, "tool_calls", None)) for m in result["scratchpad"]],
        {
            name: (line["calls"], line["cost_usd"])
            for name, line in result["ledger"]["candidates"].items()
        },
    )


# ------------------------------------------------------------------------------- ways to run it


def test_the_graph_has_four_nodes():
    assert set(one_call().get_graph().nodes) == {"__start__", "__end__", *NODES}


def test_a_run_goes_through_its_nodes_in_order():
    steps = [next(iter(step)) for step in one_call().stream(CAPITAL, stream_mode="updates")]
    assert steps == ["think", "route", "aggregate", "think", "answer"]


def test_a_question_is_answered_with_its_bill():
    result = one_call().invoke(CAPITAL)
    assert essence(result) == (
        [("ai", "Paris", 1)],
        "Paris",
        "answered",
        1,
        [
            ("human", "What is the capital of France?", None),
            (
                "ai",
                search("Ada: capital of France?"),
                [
                    {
                        "type": "tool_call",
                        "name": "Ada",
                        "args": {"query": "capital of France?"},
                        "id": "call_0_0",
                    }
                ],
            ),
            ("tool", "Paris\n(left: 3 rounds)", None),
            ("ai", answer("Paris"), []),
        ],
        {"Ada": (1, pytest.approx(10 * 1e-6 + 5 * 2e-6))},
    )


async def test_every_way_to_run_gives_the_same():
    graph, expected = one_call(), essence(one_call().invoke(CAPITAL))
    assert essence(await graph.ainvoke(CAPITAL)) == expected
    assert [essence(r) for r in graph.batch([CAPITAL] * 3)] == [expected] * 3
    assert [essence(r) for r in await graph.abatch([CAPITAL] * 3)] == [expected] * 3
    assert essence(list(graph.stream(CAPITAL, stream_mode="values"))[-1]) == expected
    parts = [part async for part in graph.astream(CAPITAL, stream_mode="values")]
    assert essence(parts[-1]) == expected


def test_questions_of_one_batch_do_not_mix():
    pool = make_pool()
    given = models(pool, Ada=FakeChat(text=lambda query: f"reply to {query}", delay=0.01))

    def script(view: View) -> str:
        if not view.scratchpad:
            return search(f"Ada: {view.question}")
        return answer(view.scratchpad[-1].artifact["reply"])

    graph = router(ScriptedController(script), pool=pool, given=given)
    results = graph.batch([{"question": f"q{n}"} for n in range(20)])
    assert [r["answer"] for r in results] == [f"reply to q{n}" for n in range(20)]


def test_the_last_human_message_is_the_question():
    queries: list[View] = []

    def script(view: View) -> str:
        queries.append(view)
        return answer()

    history = [HumanMessage("Hi"), AIMessage("Hello!"), HumanMessage(" Who wrote Hamlet? ")]
    result = router(ScriptedController(script)).invoke({"messages": history})
    assert queries[0].question == "Who wrote Hamlet?"
    assert [m.text for m in queries[0].conversation] == ["Hi", "Hello!"]
    assert [m.text for m in result["messages"]] == ["Hi", "Hello!", " Who wrote Hamlet? ", "42"]


def test_a_question_beside_messages_goes_before_them():
    views: list[View] = []

    def script(view: View) -> str:
        views.append(view)
        return answer()

    router(ScriptedController(script)).invoke(
        {"messages": [HumanMessage("Hi")], "question": "Who?"}
    )
    assert views[0].question == "Who?"
    assert [m.text for m in views[0].conversation] == ["Hi"]


# ------------------------------------------------------------------------------- parallel calls


def meeting(barrier: Any) -> Any:
    pool = make_pool("Ada", "Bob", "Eve")
    given = {c.name: MeetingChat(text=c.name, barrier=barrier) for c in pool.candidates}
    calls = ["Bob: who?", "Ada: who?", "Eve: who?"]
    return router(search(*calls), answer(), pool=pool, given=given)


def observed(result: dict[str, Any]) -> list[str]:
    return [m.artifact["reply"] for m in result["scratchpad"] if isinstance(m, ToolMessage)]


def test_the_calls_of_a_round_are_in_flight_at_once():
    result = meeting(threading.Barrier(3)).invoke(CAPITAL)
    assert observed(result) == ["Bob", "Ada", "Eve"]
    assert result["round"] == 1


async def test_the_calls_of_a_round_are_in_flight_at_once_in_an_async_run():
    result = await meeting(asyncio.Barrier(3)).ainvoke(CAPITAL)
    assert observed(result) == ["Bob", "Ada", "Eve"]
    assert result["round"] == 1


async def test_questions_are_in_flight_at_once():
    pool = make_pool("Ada")
    given = {"Ada": MeetingChat(barrier=asyncio.Barrier(10))}
    graph = router(search("Ada: who?"), answer(), pool=pool, given=given)
    results = await asyncio.gather(*(graph.ainvoke(CAPITAL) for _ in range(10)))
    assert [r["answer"] for r in results] == ["42"] * 10


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_replies_stand_in_the_order_of_the_calls_whoever_is_first(how):
    pool = make_pool("Ada", "Bob", "Eve")
    given = {
        c.name: FakeChat(text=c.name, delay=delay)
        for c, delay in zip(pool.candidates, (0.1, 0.05, 0.0), strict=True)
    }
    graph = router(search("Ada: ?", "Bob: ?", "Eve: ?"), answer(), pool=pool, given=given)
    result = graph.invoke(CAPITAL) if how == "invoke" else asyncio.run(graph.ainvoke(CAPITAL))
    turn, *replies, _ = result["scratchpad"][1:]
    assert observed(result) == ["Ada", "Bob", "Eve"]
    assert [m.tool_call_id for m in replies] == [call["id"] for call in turn.tool_calls]


# ----------------------------------------------------------------------------- mistakes, caching


def test_an_unknown_candidate_is_answered_with_the_nearest_name():
    pool = make_pool("Quillora", "Bob")
    result = router(search("Quilora: who?"), answer(), pool=pool).invoke(CAPITAL)
    (observation,) = [m for m in result["scratchpad"] if isinstance(m, ToolMessage)]
    assert observation.text.startswith(
        "not done: no candidate 'Quilora' (did you mean 'Quillora'?); candidates: Quillora, Bob"
    )
    assert (observation.status, observation.artifact) == ("error", None)
    assert result["ledger"]["candidates"] == {}


def test_an_answer_beside_a_search_is_not_taken():
    both = search("Ada: who?") + "<answer> a guess </answer>"
    result = router(both, answer("after reading")).invoke(CAPITAL)
    assert (result["answer"], result["round"]) == ("after reading", 1)
    assert any("an answer beside a search is not taken" in m.text for m in result["scratchpad"])


def test_a_call_refused_in_one_round_can_be_made_in_the_next():
    """The refusal, which has no reply, is not taken for an earlier reply to the same query."""
    pool = make_pool("Ada", "Bob")
    chats = models(pool, Ada=FakeChat(text=lambda query: f"reply to {query}"))
    script = [search("Ada: one", "Ada: two"), search("Ada: two"), search("Ada: one"), answer()]
    graph = router(*script, pool=pool, given=chats)
    result = graph.invoke(CAPITAL, context={"max_calls_per_round": 1})
    assert observed_texts(result) == ["reply to one", "reply to two", "reply to one"]
    assert chats["Ada"].queries == ["one", "two"]


def observed_texts(result: dict[str, Any]) -> list[str]:
    return [m.artifact["reply"] for m in result["scratchpad"] if getattr(m, "artifact", None)]


# ------------------------------------------------------------------------------------- threads


def on_a_thread(*script: Any, **options: Any) -> tuple[Any, Any, list[View]]:
    """Return a graph with a memory, the config of a thread, and the views of its controller."""
    views: list[View] = []

    def controller(view: View) -> str:
        views.append(view)
        return script[sum(isinstance(m, AIMessage) for m in view.scratchpad)]

    graph = router(ScriptedController(controller), checkpointer=InMemorySaver(), **options)
    return graph, {"configurable": {"thread_id": "1"}}, views


def as_question(text: str) -> dict[str, Any]:
    return {"question": text}


def as_messages(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


@pytest.mark.parametrize("second", [as_question, as_messages])
@pytest.mark.parametrize("first", [as_question, as_messages])
def test_a_second_question_on_a_thread_starts_clean(first, second):
    graph, thread, views = on_a_thread(search("Ada: ?"), answer())
    graph.invoke(first("first?"), thread)
    result = graph.invoke(second("second?"), thread)
    assert [v.question for v in views] == ["first?", "first?", "second?", "second?"]
    assert views[2].scratchpad == ()
    assert views[2].left.rounds == 4
    assert (result["round"], result["stop_reason"]) == (1, "answered")
    assert [m.type for m in result["scratchpad"]] == ["human", "ai", "tool", "ai"]
    assert result["scratchpad"][0].text == "second?"
    assert result["ledger"]["candidates"]["Ada"]["calls"] == 1
    assert result["messages"][-1].text == "42"


def test_the_conversation_of_a_thread_reaches_the_controller():
    graph, thread, views = on_a_thread(answer("Shakespeare"))
    graph.invoke(as_messages("Who wrote Hamlet?"), thread)
    graph.invoke(as_messages("When?"), thread)
    assert [m.text for m in views[1].conversation] == ["Who wrote Hamlet?", "Shakespeare"]


@pytest.mark.parametrize("second", [as_question, as_messages])
@pytest.mark.parametrize("first", [as_question, as_messages])
@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("when", ["interrupt_before", "interrupt_after"])
def test_a_question_after_an_interrupted_run_starts_clean(first, second, node, when):
    graph, thread, views = on_a_thread(search("Ada: ?", "Bob: ?"), answer())
    graph.invoke(first("first?"), thread, **{when: [node]})
    views.clear()
    result = graph.invoke(second("second?"), thread)
    assert [v.question for v in views] == ["second?", "second?"]
    assert views[0].scratchpad == ()
    assert result["scratchpad"][0].text == "second?"
    assert [m.type for m in result["scratchpad"]] == ["human", "ai", "tool", "tool", "ai"]
    assert (result["round"], result["stop_reason"]) == (1, "answered")
    assert {n: line["calls"] for n, line in result["ledger"]["candidates"].items()} == {
        "Ada": 1,
        "Bob": 1,
    }


def test_a_reply_to_an_interrupted_question_is_no_reply_to_the_next():
    """The ids of the calls are the same, and the second question's second call is not sent."""
    scripts = {
        "first?": [search("Bob: ?", "Bob: ??")],
        "second?": [search("Ada: ?", "Ada: ?"), answer()],
    }
    controller = ScriptedController(
        lambda view: scripts[view.question][sum(m.type == "ai" for m in view.scratchpad)]
    )
    pool = make_pool()
    given = models(pool, Bob=FakeChat(text="to the first"))
    graph = router(controller, pool=pool, given=given, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    graph.invoke(as_question("first?"), thread, interrupt_before=["aggregate"])
    result = graph.invoke(as_question("second?"), thread)
    assert observed(result) == ["Paris", "Paris"]


def test_replies_are_not_kept_twice():
    graph, thread, _ = on_a_thread(search("Ada: ?"), search("Bob: ?"), answer())
    graph.invoke(CAPITAL, thread)
    assert graph.get_state(thread).values["replies"] == []


@pytest.mark.parametrize("node", NODES)
def test_an_interrupted_run_goes_on_where_it_was(node):
    graph, thread, _ = on_a_thread(search("Ada: ?", "Bob: ?"), answer())
    expected = essence(router(search("Ada: ?", "Bob: ?"), answer()).invoke(CAPITAL))
    graph.invoke(CAPITAL, thread, interrupt_before=[node])
    assert node in graph.get_state(thread).next
    assert essence(graph.invoke(None, thread)) == expected


def test_a_person_can_look_at_the_calls_before_they_are_made():
    pool = make_pool("Ada")
    ada = FakeChat()
    graph, thread, _ = on_a_thread(
        search("Ada: ?"), answer(), pool=pool, given={"Ada": ada}, interrupt_before=["route"]
    )
    graph.invoke(CAPITAL, thread)
    assert ada.queries == []
    state = graph.get_state(thread)
    assert state.next == ("route",)
    assert [c["args"]["query"] for c in state.values["scratchpad"][-1].tool_calls] == ["?"]
    assert graph.invoke(None, thread)["answer"] == "42"
    assert ada.queries == ["?"]


def test_two_threads_do_not_meet():
    graph, thread, views = on_a_thread(answer())
    graph.invoke(as_messages("first?"), thread)
    graph.invoke(as_messages("second?"), {"configurable": {"thread_id": "2"}})
    assert views[1].conversation == ()


STRICT = """
import sys, warnings
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from fakes import FakeChat, answer, make_pool, models, search
from router_r1_graph import ScriptedController, create_router_r1

warnings.simplefilter("error")  # what others warn of as they are imported is not ours
pool = make_pool()
given = models(pool, Bob=FakeChat(text=ConnectionError("gone")))
script = [search("Ada: ?", "Bob: ?", "Eve: ?") + "<answer>", search("Ada: ?"), answer()]
graph = create_router_r1(pool, ScriptedController(script), models=given)
with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
    router = graph.compile(checkpointer=saver)
    thread = {"configurable": {"thread_id": "1"}}
    parts = list(router.stream({"question": "first?"}, thread, stream_mode="values"))
    router.invoke({"question": "second?"}, thread, interrupt_before=["aggregate"])
    result = router.invoke(None, thread)
with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
    router = graph.compile(checkpointer=saver)
    state = router.get_state(thread).values
    assert {key: state[key] for key in result} == result, (state, result)
    assert state["answer"] == "42" and len(state["scratchpad"]) == 9, state
    for old, part in zip([s.values for s in router.get_state_history(thread)][::-1][2:], parts[1:]):
        assert {key: old[key] for key in part} == part, (old, part)

def builtin(value):
    if type(value) is dict:
        return all(map(builtin, [*value, *value.values()]))
    if type(value) is list:
        return all(map(builtin, value))
    if isinstance(value, BaseMessage):
        return builtin(dict(value))
    return value is None or type(value) in (str, int, float, bool)

for part in [*parts, result]:
    assert builtin(part), part
print("the same,", len(parts), "parts")
"""


def test_a_strict_serializer_gives_back_what_went_in(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STRICT, str(tmp_path / "checkpoints.sqlite")],
        env={
            **os.environ,
            "LANGGRAPH_STRICT_MSGPACK": "true",
            "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), os.getcwd()]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the same, 8 parts\n"
    assert "not allowed" not in done.stderr.lower()
    assert "unregistered" not in done.stderr.lower()


# --------------------------------------------------------------------------- inside other graphs


def test_a_parent_gets_one_message_and_no_tool_calls():
    parent = StateGraph(MessagesState)
    parent.add_node("router", one_call())
    parent.add_edge(START, "router")
    result = parent.compile().invoke({"messages": [HumanMessage("Capital of France?")]})
    question, reply = result["messages"]
    assert (question.type, reply.type, reply.text) == ("human", "ai", "Paris")
    assert (reply.name, reply.tool_calls) == ("router_r1", [])


def test_a_parent_with_a_memory_can_ask_twice():
    parent = StateGraph(MessagesState)
    parent.add_node("router", one_call())
    parent.add_edge(START, "router")
    graph = parent.compile(checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    graph.invoke(as_messages("first?"), thread)
    result = graph.invoke(as_messages("second?"), thread)
    assert [m.text for m in result["messages"]] == ["first?", "Paris", "second?", "Paris"]


def test_a_router_with_a_memory_of_its_own_inside_a_parent_starts_clean():
    parent = StateGraph(MessagesState)
    parent.add_node("router", one_call(checkpointer=True))
    parent.add_edge(START, "router")
    graph = parent.compile(checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    graph.invoke(as_messages("first?"), thread)
    result = graph.invoke(as_messages("second?"), thread)
    assert [m.text for m in result["messages"]] == ["first?", "Paris", "second?", "Paris"]
    assert result["messages"][-1].response_metadata["router_r1"]["rounds"] == 1


def test_two_routers_in_a_row_bill_what_each_of_them_spent():
    class Parent(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]

    parent = StateGraph(Parent)
    parent.add_node("first", one_call())
    parent.add_node("second", one_call())
    parent.add_edge(START, "first")
    parent.add_edge("first", "second")
    result = parent.compile().invoke({"messages": [HumanMessage("?")]})
    bills = [m.response_metadata["router_r1"]["cost_usd"] for m in result["messages"][1:]]
    assert bills == [pytest.approx(20e-6)] * 2


def test_a_parents_tool_calls_do_not_reach_the_controller_and_its_system_messages_stand_apart():
    views: list[View] = []

    def script(view: View) -> str:
        views.append(view)
        return answer()

    call = {"type": "tool_call", "id": "1", "name": "other", "args": {}}
    history = [
        SystemMessage("Be brief."),
        HumanMessage("Hi"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("done", tool_call_id="1"),
        AIMessage("Hello!"),
        HumanMessage("Who?"),
        AIMessage("", tool_calls=[{**call, "id": "2", "name": "transfer_to_router"}]),
        ToolMessage("transferred", tool_call_id="2"),
    ]
    router(ScriptedController(script)).invoke({"messages": history})
    assert views[0].question == "Who?"
    assert [m.text for m in views[0].conversation] == ["Hi", "Hello!"]
    assert views[0].instructions == "Be brief."


def test_the_agent_speaks_messages_and_nothing_else():
    pool = make_pool()
    controller = ScriptedController([search("Ada: ?"), answer("Paris")])
    agent = create_router_r1_agent(pool, controller, models=models(pool), name="geographer")
    assert agent.name == "geographer"
    assert list(agent.get_input_jsonschema()["properties"]) == ["messages"]
    assert list(agent.get_output_jsonschema()["properties"]) == ["messages"]
    result = agent.invoke({"messages": [("user", "Capital of France?")]})
    assert list(result) == ["messages"]
    assert [m.text for m in result["messages"]] == ["Capital of France?", "Paris"]


def test_the_agents_context_is_used():
    pool = make_pool()
    controller = ScriptedController([search("Ada: ?"), answer()])
    context = RouterContext(max_rounds=0)
    agent = create_router_r1_agent(pool, controller, models=models(pool), context=context)
    (_, reply) = agent.invoke({"messages": [HumanMessage("?")]})["messages"]
    assert reply.response_metadata["router_r1"]["stop_reason"] == "round_limit"


def test_the_final_message_carries_the_stop_reason_and_the_bill():
    result = one_call().invoke(CAPITAL)
    (message,) = result["messages"]
    bill = message.response_metadata["router_r1"]
    seconds = bill.pop("seconds")
    assert seconds == result["ledger"]["seconds"]
    assert bill == {
        "stop_reason": "answered",
        "rounds": 1,
        "calls": 1,
        "failed_calls": 0,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost_usd": pytest.approx(20e-6),
    }


# ------------------------------------------------------------------------------------ questions


@pytest.mark.parametrize(
    "question",
    [
        {"question": ""},
        {"question": " \n"},
        {"messages": []},
        {"messages": [HumanMessage("")]},
        {"messages": [AIMessage("Hello!")]},
        {"messages": [SystemMessage("Be brief.")]},
    ],
)
def test_without_a_question_there_is_a_question_error(question):
    with pytest.raises(QuestionError, match=r"there is no question: (there has|neither|the last)"):
        one_call().invoke(question)


async def test_without_a_question_there_is_a_question_error_in_an_async_run():
    with pytest.raises(QuestionError):
        await one_call().ainvoke({"question": ""})


def test_a_question_of_100_kilobytes_is_asked_whole():
    question = "Why? " * 20_000
    pool = make_pool()
    ada = FakeChat()
    controller = ScriptedController(
        lambda view: answer() if view.scratchpad else search(f"Ada: {view.question}")
    )
    result = router(controller, pool=pool, given=models(pool, Ada=ada)).invoke(
        {"question": question}
    )
    assert result["answer"] == "42"
    assert ada.queries == [question.strip()]


def test_a_question_with_tags_is_not_read_as_a_turn():
    question = "What does <answer> 41 </answer> mean? <search> Ada: x </search>"
    chat = FakeChat(text=answer("a tag"))
    result = router(ChatModelController(chat)).invoke({"question": question})
    assert (result["answer"], result["round"]) == ("a tag", 0)
    assert "<answer> 41 </answer>" not in chat.queries[0]


def test_a_question_that_utf8_cannot_hold_is_asked_all_the_same():
    result = router(answer(), checkpointer=InMemorySaver()).invoke(
        {"question": "What is \ud800?"}, {"configurable": {"thread_id": "1"}}
    )
    assert result["scratchpad"][0].text == "What is \ufffd?"


# --------------------------------------------------------------------------- recursion, failures


@pytest.mark.parametrize("limit", range(3, 16))
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize(
    "turn", [search("Ada: ?", "Bob: ?"), "no tags", "<search> Eve: ? </search>"]
)
def test_a_low_recursion_limit_ends_in_an_answer(limit, how, turn):
    graph = router(turn)
    config = {"recursion_limit": limit}
    context = {"max_rounds": 100}
    if how == "invoke":
        result = graph.invoke(CAPITAL, config, context=context)
    else:
        result = asyncio.run(graph.ainvoke(CAPITAL, config, context=context))
    assert result["stop_reason"] in ("round_limit", "invalid")
    assert result["messages"][-1].text


def test_a_low_recursion_limit_leaves_the_controller_a_last_word():
    controller = ScriptedController(
        lambda view: answer("in time") if view.must_answer else search("Ada: ?")
    )
    for limit in range(3, 12):
        result = router(controller).invoke(CAPITAL, {"recursion_limit": limit})
        assert result["answer"] == "in time"


def test_a_controller_is_told_that_the_recursion_limit_leaves_no_more_calls():
    told: list[str] = []

    def script(view: View) -> str:
        if view.must_answer and view.scratchpad:
            told.append(view.scratchpad[-1].text)
        return answer() if view.must_answer else search("Ada: ?")

    for limit in range(6, 20):
        router(ScriptedController(script)).invoke(
            CAPITAL, {"recursion_limit": limit}, context={"max_rounds": 100}
        )
    assert len(told) == 14
    assert all(text.endswith("(left: 0 rounds; answer now)") for text in told)


class Broken(ScriptedController):
    """Raises in its second turn."""

    def turn(self, view: View) -> Any:
        if view.scratchpad:
            raise RuntimeError("no idea")
        return super().turn(view)


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_a_controller_that_raises_ends_in_what_is_known(how):
    graph = router(Broken([search("Ada: ?")]))
    result = graph.invoke(CAPITAL) if how == "invoke" else asyncio.run(graph.ainvoke(CAPITAL))
    assert (result["stop_reason"], result["answer"]) == ("controller_error", "Paris")
    assert result["ledger"]["controller"]["failed_calls"] == 1
    assert result["ledger"]["candidates"]["Ada"]["calls"] == 1


def test_a_controller_whose_turn_is_an_error_ends_in_what_is_known():
    failed = ReplyError("server_error", "500")
    result = router(PaidController([search("Ada: ?"), failed])).invoke(CAPITAL)
    assert (result["stop_reason"], result["answer"]) == ("controller_error", "Paris")


def test_why_the_controller_failed_is_told_and_forgotten_with_the_next_question():
    graph = router(
        PaidController([ReplyError("auth", "401: no access")]), checkpointer=InMemorySaver()
    )
    thread = {"configurable": {"thread_id": "1"}}
    result = graph.invoke(CAPITAL, thread)
    assert (result["stop_reason"], result["error"]) == ("controller_error", "auth: 401: no access")
    result = graph.invoke(CAPITAL, thread, context={"max_rounds": 0, "deadline_seconds": 0})
    assert (result["stop_reason"], result["error"]) == ("deadline", "")


def test_a_controller_that_fails_at_once_ends_without_an_answer():
    result = router(PaidController([ReplyError("auth", "401")])).invoke(CAPITAL)
    assert (result["stop_reason"], result["answer"]) == ("controller_error", "")
    assert result["messages"][-1].text == "(no answer: controller_error)"
    assert [m.type for m in result["scratchpad"]] == ["human"]


class Unpriceable(ScriptedController):
    """Cannot say what it costs."""

    def worst_case_usd(self, view: View) -> float:
        raise RuntimeError("no price")


def test_a_controller_that_cannot_say_its_price_ends_the_run():
    result = router(Unpriceable([answer()])).invoke(CAPITAL, context={"budget_usd": 1})
    assert result["stop_reason"] == "controller_error"


def test_a_failed_reply_is_not_the_answer():
    pool = make_pool()
    given = models(pool, Bob=FakeChat(text=ConnectionError("gone")))
    graph = router(Broken([search("Ada: ?", "Bob: ?")]), pool=pool, given=given)
    result = graph.invoke(CAPITAL)
    assert result["answer"] == "Paris"
    assert result["ledger"]["candidates"]["Bob"]["failed_calls"] == 1


def test_a_chat_model_given_for_a_candidate_is_asked_under_any_of_its_names():
    pool = make_pool(
        {"name": "Ada 7B", "aliases": ["Ada"], "provider": "fakes:fake_chat_model"}, "Bob"
    )
    ada = FakeChat(text="Rome")
    graph = router(search("ada: ?"), answer(), pool=pool, given={"ADA": ada, "Bob": FakeChat()})
    assert observed(graph.invoke(CAPITAL)) == ["Rome"]
    assert ada.queries == ["?"]


def test_models_for_some_candidates_leave_the_others_as_they_are():
    pool = make_pool(
        {"name": "Ada", "provider": "fakes:fake_chat_model", "options": {"text": "from the pool"}},
        {"name": "Bob", "provider": "fakes:fake_chat_model", "options": {"text": "from the pool"}},
    )
    graph = router(search("Ada: ?", "Bob: ?"), answer(), pool=pool, given={"Bob": FakeChat()})
    assert observed(graph.invoke(CAPITAL)) == ["from the pool", "Paris"]


def test_models_for_nobody_is_an_error_that_suggests_the_nearest():
    with pytest.raises(PoolError, match=r"models: no candidate 'Adda' \(did you mean 'Ada'\?\)"):
        create_router_r1(make_pool(), ScriptedController([]), models={"Adda": FakeChat()})


def test_any_runnable_that_replies_with_a_message_can_be_asked():
    pool = make_pool("Ada")
    flaky = iter([ConnectionError("gone"), "Rome"])
    chat = FakeChat(text=lambda _: next(flaky))
    graph = router(
        search("Ada: ?"),
        answer(),
        pool=pool,
        given={"Ada": chat.with_retry(wait_exponential_jitter=False)},
    )
    assert observed(graph.invoke(CAPITAL)) == ["Rome"]


def test_a_candidate_named_error_or_with_an_odd_name_can_be_asked():
    pool = make_pool("error", "日本")
    assert isinstance(pool.candidates[1], Candidate)
    graph = router(search("error: ?", "日本: ?", "x: ?"), search("error: ?"), answer(), pool=pool)
    assert observed_texts(graph.invoke(CAPITAL)) == ["Paris"] * 3
