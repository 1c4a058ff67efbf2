"""The router inside other graphs: one message comes out, no call leaks, nothing is paid twice."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from typing_extensions import TypedDict

from fakes import FakeChat, PaidController, answer, make_pool, models, search
from router_r1_graph import (
    CandidatePool,
    KeywordController,
    Ledger,
    RouterContext,
    ScriptedController,
    create_router_r1,
    create_router_r1_agent,
)
from router_r1_graph.controllers.controller import View
from router_r1_graph.ledger import total

HAMLET = "What is the capital of the country where the author of Hamlet was born?"
SCRIPT = (search("Ada: one?", "Bob: two?"), search("Ada: three?"), answer("Paris"))
THREAD: Any = {"configurable": {"thread_id": "1"}}
both_ways = pytest.mark.parametrize("how", ["invoke", "ainvoke"])


class Scripted(GenericFakeChatModel):
    """The model of an agent or a supervisor: says its messages one after the other."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


def scripted(*said: AIMessage) -> Scripted:
    return Scripted(messages=iter(said))


def calling(name: str, id: str = "1", **args: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": id}])


def router(*script: str, agent: bool = False, given: Any = None, **options: Any) -> Any:
    pool = make_pool()
    controller = ScriptedController(script or SCRIPT)
    given = given or models(pool)
    if agent:
        return create_router_r1_agent(pool, controller, models=given, **options)
    return create_router_r1(pool, controller, models=given).compile(**options)


def parent(node: Any, *, checkpointer: Any = None, state: Any = MessagesState) -> Any:
    builder = StateGraph(state).add_node("router", node).add_edge(START, "router")
    return builder.compile(checkpointer=checkpointer)


def run(graph: Any, how: str, given: Any, config: Any = None, **options: Any) -> Any:
    if how == "invoke":
        return graph.invoke(given, config, **options)
    return asyncio.run(graph.ainvoke(given, config, **options))


def said(text: str = HAMLET) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def bill_of(message: AnyMessage) -> dict[str, Any]:
    found: dict[str, Any] = message.response_metadata["router_r1"]
    return found


def every_call_is_answered(messages: Sequence[AnyMessage]) -> bool:
    """Whether an API would take these messages: each tool call has its tool message."""
    calls = [call["id"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
    return sorted(calls) == sorted(m.tool_call_id for m in messages if m.type == "tool")


# ----------------------------------------------------------------------------- shared messages


@both_ways
def test_a_subgraph_that_shares_messages_adds_one_with_its_bill(how):
    result = run(parent(router()), how, said())
    question, reply = result["messages"]
    assert (question.text, reply.type, reply.text) == (HAMLET, "ai", "Paris")
    bill = bill_of(reply)
    assert (bill["stop_reason"], bill["rounds"], bill["calls"]) == ("answered", 2, 3)
    assert bill["cost_usd"] == pytest.approx(3 * 20e-6)
    assert set(result) == {"messages"}


@both_ways
def test_no_step_of_a_parents_stream_shows_a_call_of_the_router(how):
    graph = parent(router())
    if how == "invoke":
        steps = list(graph.stream(said(), stream_mode="values"))
    else:

        async def collect() -> list[Any]:
            return [step async for step in graph.astream(said(), stream_mode="values")]

        steps = asyncio.run(collect())
    assert [len(step["messages"]) for step in steps] == [1, 2]
    assert not any(getattr(m, "tool_calls", []) for step in steps for m in step["messages"])


def test_a_failing_candidate_in_a_subgraph_leaks_nothing_either():
    pool = make_pool()
    given = models(pool, Bob=FakeChat(text=ConnectionError("gone")))
    result = parent(router(given=given)).invoke(said())
    assert [m.type for m in result["messages"]] == ["human", "ai"]
    assert (bill_of(result["messages"][-1])["failed_calls"], result["messages"][-1].text) == (
        1,
        "Paris",
    )


# -------------------------------------------------------------------------------- other schemas


class Quiz(TypedDict):
    """A parent that shares no key with the router."""

    ask: str
    answers: Annotated[list[str], operator.add]
    cost_usd: Annotated[float, operator.add]


@both_ways
def test_a_parent_of_another_schema_calls_the_router_in_a_node(how):
    inner = router()

    def node(state: Quiz) -> dict[str, Any]:
        result = inner.invoke({"question": state["ask"]})
        return {"answers": [result["answer"]], "cost_usd": total(result["ledger"])["cost_usd"]}

    async def anode(state: Quiz) -> dict[str, Any]:
        result = await inner.ainvoke({"question": state["ask"]})
        return {"answers": [result["answer"]], "cost_usd": total(result["ledger"])["cost_usd"]}

    graph = parent(node if how == "invoke" else anode, state=Quiz)
    result = run(graph, how, {"ask": "Capital of France?", "answers": [], "cost_usd": 0.0})
    assert result["answers"] == ["Paris"]
    assert result["cost_usd"] == pytest.approx(3 * 20e-6)


@both_ways
def test_a_node_with_a_memory_may_ask_twice(how):
    """Two runs of one router in one node: each starts clean, and both are kept apart."""
    inner = router()

    def node(state: Quiz) -> dict[str, Any]:
        results = [inner.invoke({"question": state["ask"]}) for _ in range(2)]
        costs = [total(result["ledger"])["cost_usd"] for result in results]
        return {"answers": [result["answer"] for result in results], "cost_usd": sum(costs)}

    async def anode(state: Quiz) -> dict[str, Any]:
        results = [await inner.ainvoke({"question": state["ask"]}) for _ in range(2)]
        costs = [total(result["ledger"])["cost_usd"] for result in results]
        return {"answers": [result["answer"] for result in results], "cost_usd": sum(costs)}

    graph = parent(node if how == "invoke" else anode, state=Quiz, checkpointer=InMemorySaver())
    result = run(graph, how, {"ask": "?", "answers": [], "cost_usd": 0.0}, THREAD)
    assert result["answers"] == ["Paris", "Paris"]
    assert result["cost_usd"] == pytest.approx(6 * 20e-6)


class Billed(MessagesState):
    """A parent that keeps the router's ledger too."""

    ledger: Ledger


def test_a_parents_ledger_is_of_the_last_router_and_adds_nothing_up():
    builder = StateGraph(Billed)
    builder.add_node("first", router())
    builder.add_node("second", router(search("Bob: ?"), answer("Rome")))
    builder.add_edge(START, "first").add_edge("first", "second")
    result = builder.compile().invoke(said())
    assert total(result["ledger"])["calls"] == 1
    assert [bill_of(m)["calls"] for m in result["messages"][1:]] == [3, 1]


# -------------------------------------------------------------------------------- in an agent


@both_ways
def test_a_tool_of_an_agent_gives_the_answer_and_keeps_the_bill(how):
    inner = router()

    @tool(response_format="content_and_artifact")
    def ask_router(question: str) -> tuple[str, dict[str, Any]]:
        """Find something out."""
        result = inner.invoke({"question": question})
        return result["answer"], bill_of(result["messages"][-1])

    agent = create_agent(
        scripted(calling("ask_router", question="Capital of France?"), AIMessage("It is Paris.")),
        [ask_router],
    )
    result = run(agent, how, said())
    assert [m.type for m in result["messages"]] == ["human", "ai", "tool", "ai"]
    assert every_call_is_answered(result["messages"])
    brought = result["messages"][2]
    assert (brought.text, brought.artifact["calls"]) == ("Paris", 3)
    assert brought.artifact["cost_usd"] == pytest.approx(3 * 20e-6)


# --------------------------------------------------------------------------- with a supervisor


@both_ways
@pytest.mark.parametrize("output_mode", ["last_message", "full_history"])
@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_beside_other_agents_of_a_supervisor_it_says_one_thing(how, output_mode):
    supervisors = pytest.importorskip("langgraph_supervisor")
    facts = router(agent=True, name="facts")
    poet = create_agent(scripted(AIMessage("O Paris!"), AIMessage("O Paris!")), name="poet")
    model = scripted(
        calling("transfer_to_facts", "1"), calling("transfer_to_poet", "2"), AIMessage("Done.")
    )
    graph = supervisors.create_supervisor([facts, poet], model=model, output_mode=output_mode)
    result = run(graph.compile(), how, said())
    texts = [(m.name, m.text) for m in result["messages"] if m.type == "ai" and m.text]
    assert ("facts", "Paris") in texts
    assert ("poet", "O Paris!") in texts
    assert texts[-1] == ("supervisor", "Done.")
    assert every_call_is_answered(result["messages"])
    assert not {"Ada", "Bob"} & {
        call["name"] for m in result["messages"] for call in getattr(m, "tool_calls", [])
    }
    (ours,) = (m for m in result["messages"] if m.text == "Paris")
    assert (bill_of(ours)["calls"], bill_of(ours)["stop_reason"]) == (3, "answered")


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_a_supervisor_can_ask_it_again_on_the_same_thread():
    supervisors = pytest.importorskip("langgraph_supervisor")
    views: list[View] = []

    def script(view: View) -> str:
        views.append(view)
        return answer("Paris")

    pool = make_pool()
    facts = create_router_r1_agent(
        pool, ScriptedController(script), models=models(pool), name="facts"
    )
    model = scripted(
        *(calling("transfer_to_facts", "1"), AIMessage("So it is.")),
        *(calling("transfer_to_facts", "2"), AIMessage("Again.")),
    )
    graph = supervisors.create_supervisor([facts], model=model)
    compiled = graph.compile(checkpointer=InMemorySaver())
    compiled.invoke(said("Capital of France?"), THREAD)
    result = compiled.invoke(said("And of old?"), THREAD)
    assert [view.question for view in views] == ["Capital of France?", "And of old?"]
    # It sees what was said, without a supervisor's calls.
    heard = views[1].conversation
    assert heard[0].text == "Capital of France?"
    assert not any(getattr(m, "tool_calls", []) for m in heard)
    assert every_call_is_answered(result["messages"])


@both_ways
def test_as_an_agent_of_a_swarm_it_takes_over_and_says_one_thing(how):
    swarms = pytest.importorskip("langgraph_swarm")
    over = swarms.create_handoff_tool(agent_name="facts")
    alice = create_agent(scripted(calling("transfer_to_facts")), [over], name="alice")
    agents = [alice, router(agent=True, name="facts")]
    swarm = swarms.create_swarm(agents, default_active_agent="alice").compile()
    result = run(swarm, how, said())
    (ours,) = (m for m in result["messages"] if m.type == "ai" and m.text)
    assert (ours.name, ours.text, bill_of(ours)["calls"]) == ("facts", "Paris", 3)
    assert result["active_agent"] == "facts"


@both_ways
@pytest.mark.parametrize("agent", [True, False])
def test_tasks_of_deepagents_are_answered_side_by_side(how, agent):
    deep = pytest.importorskip("deepagents")
    facts = {"name": "facts", "description": "Finds facts.", "runnable": router(agent=agent)}
    tasks = [
        calling("task", id, description=id, subagent_type="facts").tool_calls[0] for id in "12"
    ]
    model = scripted(AIMessage("", tool_calls=tasks), AIMessage("Done."))
    result = run(deep.create_deep_agent(model=model, subagents=[facts]), how, said())
    assert [m.text for m in result["messages"] if m.type == "tool"] == ["Paris", "Paris"]
    assert every_call_is_answered(result["messages"])


# ------------------------------------------------------------------------------- two at once


@both_ways
@pytest.mark.parametrize("side_by_side", [True, False])
def test_two_routers_over_different_pools_keep_their_bills_apart(how, side_by_side):
    pools = {"one": make_pool("Ada"), "two": make_pool("Eve", "Zoe")}
    scripts = {
        "one": [search("Ada: ?"), answer("Paris")],
        "two": [search("Eve: ?", "Zoe: ?"), answer("Rome")],
    }
    builder = StateGraph(MessagesState)
    for name, pool in pools.items():
        controller = ScriptedController(scripts[name])
        agent = create_router_r1_agent(pool, controller, models=models(pool), name=name)
        builder.add_node(name, agent)
    builder.add_edge(START, "one")
    builder.add_edge(START if side_by_side else "one", "two")
    result = run(builder.compile(), how, said())
    assert [(m.name, m.text, bill_of(m)["calls"]) for m in result["messages"][1:]] == [
        ("one", "Paris", 1),
        ("two", "Rome", 2),
    ]


def test_two_routers_have_knobs_of_their_own_and_a_runs_context_goes_before_them():
    builder = StateGraph(MessagesState, context_schema=RouterContext)
    for name, rounds in (("none", 0), ("many", 3)):
        context = RouterContext(max_rounds=rounds)
        builder.add_node(name, router(agent=True, name=name, context=context))
    builder.add_edge(START, "none").add_edge("none", "many")
    graph = builder.compile()
    reasons = [bill_of(m)["rounds"] for m in graph.invoke(said())["messages"][1:]]
    assert reasons == [0, 2]
    context = RouterContext(max_rounds=1)
    reasons = [bill_of(m)["rounds"] for m in graph.invoke(said(), context=context)["messages"][1:]]
    assert reasons == [1, 1]


# ------------------------------------------------------------------ the three checkpoint modes


@pytest.mark.parametrize("mode", [None, True, False])
@both_ways
def test_in_every_checkpoint_mode_each_question_starts_clean(how, mode):
    graph = parent(router(checkpointer=mode), checkpointer=InMemorySaver())
    run(graph, how, said("first?"), THREAD)
    result = run(graph, how, said("second?"), THREAD)
    assert [m.text for m in result["messages"]] == ["first?", "Paris", "second?", "Paris"]
    assert [bill_of(m)["calls"] for m in result["messages"][1::2]] == [3, 3]


@pytest.mark.parametrize("mode", [None, True])
@both_ways
def test_with_the_parents_memory_an_interrupted_router_pays_for_no_call_twice(how, mode):
    given = {"Ada": FakeChat(), "Bob": FakeChat()}
    inner = router(checkpointer=mode, given=given, interrupt_after=["aggregate"])
    graph = parent(inner, checkpointer=InMemorySaver())
    result = run(graph, how, said(), THREAD)
    assert [m.type for m in result["messages"]] == ["human"]
    assert (given["Ada"].queries, given["Bob"].queries) == (["one?"], ["two?"])
    while graph.get_state(THREAD).next:
        result = run(graph, how, None, THREAD)
    assert (given["Ada"].queries, given["Bob"].queries) == (["one?", "three?"], ["two?"])
    assert [m.text for m in result["messages"]] == [HAMLET, "Paris"]
    assert bill_of(result["messages"][-1])["calls"] == 3


def test_without_a_memory_the_router_leaves_no_checkpoint():
    def namespaces(mode: bool | None) -> set[str]:
        saver = InMemorySaver()
        parent(router(checkpointer=mode), checkpointer=saver).invoke(said(), THREAD)
        found = {entry.config["configurable"]["checkpoint_ns"] for entry in saver.list(THREAD)}
        return {namespace.partition(":")[0] for namespace in found}

    assert namespaces(False) == {""}
    assert namespaces(None) == {"", "router"}
    assert namespaces(True) == {"", "router"}


def test_without_a_memory_an_interrupted_router_starts_over_and_pays_again():
    """LangGraph's rule for `checkpointer=False`; docs/how-to/embed.md warns of it."""
    given = {"Ada": FakeChat(), "Bob": FakeChat()}
    inner = router(checkpointer=False, given=given, interrupt_after=["aggregate"])
    graph = parent(inner, checkpointer=InMemorySaver())
    graph.invoke(said(), THREAD)
    graph.invoke(None, THREAD)
    assert given["Ada"].queries == ["one?", "one?"]


def test_a_router_without_a_memory_is_not_asked_again_when_its_parent_goes_on():
    given = {"Ada": FakeChat(), "Bob": FakeChat()}
    builder = StateGraph(MessagesState)
    builder.add_node("router", router(checkpointer=False, given=given))
    builder.add_node("after", lambda state: {"messages": [AIMessage("Good.")]})
    builder.add_edge(START, "router").add_edge("router", "after")
    graph = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["after"])
    graph.invoke(said(), THREAD)
    result = graph.invoke(None, THREAD)
    assert [m.text for m in result["messages"]] == [HAMLET, "Paris", "Good."]
    assert (given["Ada"].queries, given["Bob"].queries) == (["one?", "three?"], ["two?"])


# ---------------------------------------------------------------------------------------- money


def keyword(**options: Any) -> Any:
    return create_router_r1(CandidatePool.embedded(), KeywordController()).compile(**options)


def counted(graph: Any, how: str, given: Any) -> tuple[Any, dict[str, int]]:
    """Run a graph; return its result, and the tokens that LangChain's own counter saw."""
    counter = UsageMetadataCallbackHandler()
    result = run(graph, how, given, {"callbacks": [counter]})
    usage = counter.usage_metadata.values()
    return result, {
        name: sum(one[name] for one in usage)  # type: ignore[literal-required]
        for name in ("input_tokens", "output_tokens")
    }


@both_ways
def test_a_counter_over_the_parent_counts_what_the_ledger_counts(how):
    result, usage = counted(parent(keyword()), how, said())
    message = result["messages"][-1]
    bill = bill_of(message)
    assert usage == {name: bill[name] for name in usage}
    assert usage["input_tokens"] > 0
    # Were it here too, whoever adds the messages of a conversation up would pay twice.
    assert message.usage_metadata is None


@both_ways
def test_a_counter_over_an_agent_counts_what_the_artifact_says(how):
    inner = keyword()

    @tool(response_format="content_and_artifact")
    def ask_router(question: str) -> tuple[str, dict[str, Any]]:
        """Find something out."""
        result = inner.invoke({"question": question})
        return result["answer"], bill_of(result["messages"][-1])

    model = scripted(calling("ask_router", question=HAMLET), AIMessage("It is London."))
    result, usage = counted(create_agent(model, [ask_router]), how, said())
    bill = result["messages"][2].artifact
    assert usage == {name: bill[name] for name in usage}
    assert bill["calls"] == 3


def test_the_bill_of_two_routers_is_the_sum_of_their_messages():
    builder = StateGraph(MessagesState)
    builder.add_node("first", keyword()).add_node("second", keyword())
    builder.add_edge(START, "first").add_edge("first", "second")
    result, usage = counted(builder.compile(), "invoke", said())
    bills = [bill_of(m) for m in result["messages"][1:]]
    assert usage == {name: sum(bill[name] for bill in bills) for name in usage}
    assert bills[0]["cost_usd"] == bills[1]["cost_usd"]


def test_what_the_controller_costs_is_on_the_same_bill_once():
    pool = make_pool()
    controller = PaidController([search("Ada: ?"), answer("Paris")], usd=0.01)
    inner = create_router_r1(pool, controller, models=models(pool)).compile()
    bill = bill_of(parent(inner).invoke(said())["messages"][-1])
    assert bill["cost_usd"] == pytest.approx(0.02 + 20e-6)
