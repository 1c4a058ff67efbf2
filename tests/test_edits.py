"""A person edits the state of a run (`update_state`) and lets it go on from there."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from fakes import FakeChat, answer, make_pool, models, search
from router_r1_graph import QuestionError, ScriptedController, View, create_router_r1
from router_r1_graph.state import written
from router_r1_graph.trace import Trace

THREAD: Any = {"configurable": {"thread_id": "1"}}
EDIT = search("Ada: mine")


def ask_twice(view: View) -> str:
    """Ask Ada two queries about the question, each naming the reply before; then answer."""
    done = view.replies
    if len(done) >= 2 or view.must_answer:
        return answer(done[-1].reply if done else "nothing")
    before = f" after {done[-1].reply}" if done else ""
    return search(f"Ada: {len(done) + 1} of {view.question}{before}")


def router(**compiled: Any) -> Any:
    pool = make_pool("Ada", "Bob")
    chats = {"Ada": FakeChat(text=lambda query: f"<{query}>"), "Bob": FakeChat(text="bob")}
    graph = create_router_r1(pool, ScriptedController(ask_twice), models=models(pool, **chats))
    return graph.compile(checkpointer=InMemorySaver(), **compiled)


def before(graph: Any, node: str, round_: int) -> Any:
    """Return the state before a node of a round, from 0."""
    states = [s for s in graph.get_state_history(THREAD) if s.next and s.next[0] == node]
    return states[::-1][round_]


def goes_on(graph: Any, config: Any, **given: Any) -> tuple[list[str], dict[str, Any]]:
    """Go on from an edited state; return the queries of the whole run, and its result."""
    result = graph.invoke(None, config, **given)
    trace = Trace.from_state(result)
    assert trace.rounds == len({call.round for call in trace.calls})
    return [call.query for call in trace.calls], result


INPUTS = [
    ({"question": "r"}, "r"),
    ({"messages": [("user", "r")]}, "r"),
    ({"messages": [{"role": "user", "content": "r"}]}, "r"),
    ({"question": "r", "messages": [HumanMessage("s")]}, "r"),
]


@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize(("update", "question"), INPUTS)
def test_an_edited_input_is_asked_with_all_its_rounds_and_the_knobs_of_the_run(
    update, question, at_start
):
    graph = router()
    graph.invoke({"question": "q"}, THREAD, context={"max_rounds": 3})
    config = before(graph, "__start__", 0).config if at_start else THREAD
    queries, result = goes_on(graph, graph.update_state(config, update, as_node="__start__"))
    assert queries == [f"1 of {question}", f"2 of {question} after <1 of {question}>"]
    assert (result["stop_reason"], result["round"]) == ("answered", 2)
    assert result["router_r1"]["context"]["max_rounds"] == (4 if at_start else 3)
    assert result["ledger"]["controller"]["calls"] == 3


def turn_of(state: Any) -> Any:
    return state.values["scratchpad"][-1]


def in_words(turn: Any) -> Any:
    return turn.model_copy(update={"content": EDIT})


def in_calls(turn: Any) -> Any:
    (call,) = turn.tool_calls
    return turn.model_copy(update={"tool_calls": [{**call, "args": {"query": "mine"}}]})


def as_json(turn: Any) -> Any:
    call = {**turn.tool_calls[0], "args": {"query": "mine"}}
    return {"role": "assistant", "content": turn.content, "id": turn.id, "tool_calls": [call]}


@pytest.mark.parametrize("round_", [0, 1])
@pytest.mark.parametrize("edit", [None, in_words, in_calls, as_json])
def test_an_edited_turn_is_made_in_the_place_of_the_controllers(round_, edit):
    graph = router()
    graph.invoke({"question": "another"}, THREAD)
    graph.invoke({"question": "q"}, THREAD)
    graph.invoke({"question": "q"}, {"configurable": {"thread_id": "2"}})
    state = before(graph, "route" if edit else "think", -2 + round_ - (0 if edit else 1))
    turn = edit(turn_of(state)) if edit else AIMessage(EDIT)
    config = graph.update_state(state.config, {"scratchpad": [turn]}, as_node="think")
    queries, result = goes_on(graph, config)
    first = ["mine", "2 of q after <mine>"] if round_ == 0 else ["1 of q", "mine"]
    assert queries == first
    assert (result["answer"], result["stop_reason"]) == (f"<{first[1]}>", "answered")
    # The person's turn is not the controller's: what it had written before stays on the bill.
    written = 2 + round_ if edit else 1 + round_ + (round_ == 0)
    assert result["ledger"]["controller"]["calls"] in (written, written + 1)


def test_an_edited_turn_may_answer_or_be_wrong():
    graph = router()
    graph.invoke({"question": "q"}, THREAD)
    state = before(graph, "think", 1)
    for text, end in [(answer("me"), "me"), ("what?", "<2 of q after <1 of q>>")]:
        turn = {"scratchpad": [AIMessage(text)]}
        result = graph.invoke(None, graph.update_state(state.config, turn, as_node="think"))
        assert (result["answer"], result["stop_reason"]) == (end, "answered")


@pytest.mark.parametrize("how", ["by id", "as json", "as route", "without a bill", "instead"])
def test_an_edited_reply_is_what_the_controller_reads(how):
    graph = router()
    graph.invoke({"question": "q"}, THREAD)
    state = before(graph, {"by id": "think", "as json": "think"}.get(how, "aggregate"), 0)
    if how in ("by id", "as json"):
        state = before(graph, "think", 1)
        old = turn_of(state)
        new = old.model_copy(update={"content": "mine"})
        if how == "as json":
            new = {"role": "tool", "content": "mine", "id": old.id, "tool_call_id": "call_0_0"}
        config = graph.update_state(state.config, {"scratchpad": [new]}, as_node="aggregate")
    else:
        if how == "instead":  # of asking at all
            state = before(graph, "route", 0)
            new = ToolMessage("mine", tool_call_id="call_0_0")
        else:
            new = state.values["replies"][0].model_copy(update={"content": "mine"})
            new.artifact = None if how == "without a bill" else new.artifact
        config = graph.update_state(state.config, {"replies": [new]}, as_node="route")
    queries, result = goes_on(graph, config)
    assert queries == ["1 of q", "2 of q after mine"]
    assert result["ledger"]["candidates"]["Ada"]["calls"] == 2
    assert result["scratchpad"][2].text.startswith("mine")


def test_an_edited_reply_takes_the_place_of_all_of_a_cut_one():
    graph = router()
    graph.invoke({"question": "q" * 400}, THREAD, context={"max_information_tokens": 5})
    state = before(graph, "think", 1)
    new = turn_of(state).model_copy(update={"content": "mine"})
    config = graph.update_state(state.config, {"scratchpad": [new]}, as_node="aggregate")
    queries, _ = goes_on(graph, config)
    assert queries[1].endswith(" after mine")


def test_a_run_that_is_over_goes_on_with_a_turn_or_with_more_rounds():
    graph = router()
    graph.invoke({"question": "q"}, THREAD, context={"max_rounds": 1})
    config = before(graph, "think", 1).config
    queries, result = goes_on(graph, config, context={"max_rounds": 4})
    assert (len(queries), result["stop_reason"]) == (2, "answered")
    end = graph.get_state(THREAD).config
    config = graph.update_state(end, {"scratchpad": [AIMessage(EDIT)]}, as_node="think")
    queries, result = goes_on(graph, config)
    assert queries[-1] == "mine"
    assert result["answer"] == "<mine>"


def test_where_nobody_says_which_node_it_is_an_error_and_not_a_loss():
    graph = router(interrupt_before=["route"])
    graph.invoke({"question": "q"}, THREAD)
    with pytest.raises(QuestionError, match="as_node='think'"):
        graph.update_state(THREAD, {"scratchpad": [AIMessage(EDIT)]})


def test_inside_a_parent_the_routers_own_state_is_edited():
    parent = StateGraph(MessagesState).add_node("router", router(interrupt_before=["route"]))
    graph: Any = parent.add_edge(START, "router").compile(checkpointer=InMemorySaver())
    graph.invoke({"messages": [("user", "q")]}, THREAD)
    inner = graph.get_state(THREAD, subgraphs=True).tasks[0].state
    graph.update_state(inner.config, {"scratchpad": [AIMessage(EDIT)]}, as_node="think")
    for _ in range(3):
        result = graph.invoke(None, THREAD)
    assert result["messages"][-1].text == "<2 of q after <mine>>"


def test_adding_to_a_scratchpad_takes_time_in_proportion_to_what_is_added():
    def calls(count):
        """Return how many functions are called while so many messages are added."""
        new = [ToolMessage("x", tool_call_id=str(number)) for number in range(count)]
        events = Counter()
        sys.setprofile(lambda _, event, __: events.update([event]))
        try:
            added = written([HumanMessage("q?"), AIMessage("a turn")], new)
        finally:
            sys.setprofile(None)
        assert len(added) == count + 2
        return events["call"]

    assert calls(800) < 3 * calls(400)


def test_a_message_replaces_the_last_one_that_it_is_meant_for():
    turn, reply = AIMessage("a", id="1"), ToolMessage("x", tool_call_id="c")
    old = written([], [HumanMessage("q?"), turn, reply, AIMessage("b", id="2")])
    again = [ToolMessage("y", tool_call_id="c"), AIMessage("c", id="3"), AIMessage("d", id="1")]
    texts = [str(m.text) for m in written(old, [*again, AIMessage("e"), AIMessage("f")])]
    assert texts == ["q?", "d", "y", "f"]
