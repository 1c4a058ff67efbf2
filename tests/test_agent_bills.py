"""The bill and the budget of an agent, whatever LangChain's other middlewares do."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from extras import needs

needs("agents")

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    LLMToolSelectorMiddleware,
    ModelChoice,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    ModelRouterMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    wrap_model_call,
)
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel, Field, create_model

from openai_server import Reply, Status
from router_r1_graph import RouterContext, RouterDecisionModel, RouterMiddleware, total
from router_r1_graph.agents.account import RunAccount
from router_r1_graph.agents.agent_bill import paid_from
from router_r1_graph.candidates.bill import bill
from router_r1_graph.candidates.reply import Reply as CandidateReply
from router_r1_graph.ledger import new_ledger
from yaml_pool import ONE_DOLLAR, both_ways, yaml_pool

ASKED = {"messages": [("user", "Make the tests pass.")]}
BOTH = {
    "Ada": ONE_DOLLAR,
    "Bob": {**ONE_DOLLAR, "input_usd_per_mtok": 10.0, "output_usd_per_mtok": 20.0},
}
THREAD = {"configurable": {"thread_id": "1"}}
AT_ONCE = {"initial_delay": 0.0, "jitter": False}
USD = {"ada": 1e-6, "bob": 1e-5}
WORST = 497e-6
"""What a call of Ada can cost at most: 297 tokens of the prompt, and 100 of the reply."""


@tool
def run_tests(path: str) -> str:
    """Run the tests of a folder."""
    return f"{path}: all passed"


class Weather(BaseModel):
    """The weather."""

    city: str
    degrees: int


def free(text: str, **options: Any) -> Reply:
    """A reply with 100 tokens of the prompt, and one of its own."""
    return Reply(text, input_tokens=100, output_tokens=1, **options)


def calls(name: str, **args: Any) -> Reply:
    return free("", tool_calls=[(name, args)])


def router_of(tmp_path: Any, server: Any, spec: str = "cheapest", **context: Any) -> Any:
    pool = yaml_pool(tmp_path, server, BOTH, max_tokens=100)
    return RouterMiddleware(pool, spec, context=context)


def ask(router: Any, how: str, outer: Any = (), inner: Any = (), **options: Any) -> Any:
    middleware = [*outer, router, *inner]
    agent = create_agent(router.default_model, [run_tests], middleware=middleware, **options)
    if how == "invoke":
        return agent.invoke(ASKED, THREAD)
    return asyncio.run(agent.ainvoke(ASKED, THREAD))


def paid(state: Any) -> float:
    return total(state["router_r1"]["ledger"])["cost_usd"]


def price(server: Any) -> float:
    """What the server is to be paid for its requests; a token of a reply costs twice as much."""
    return sum(102 * USD[request.model] for request in server.requests)


class Twice(AgentMiddleware):
    """Asks twice, as a middleware does that compares replies."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        handler(request)
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        await handler(request)
        return await handler(request)


class AtOnce(AgentMiddleware):
    """Asks twice at the same time, and waits for both."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(handler, [request, request]))[1]

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return (await asyncio.gather(handler(request), handler(request)))[1]


class First(AgentMiddleware):
    """Asks three times, at once or in turn, and takes the first reply."""

    def __init__(self, at_once: bool) -> None:
        super().__init__()
        self.at_once = at_once

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        with ThreadPoolExecutor(3 if self.at_once else 1) as pool:
            responses = list(pool.map(handler, [request] * 3))
        return responses[0]

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        if self.at_once:
            responses = await asyncio.gather(*(handler(request) for _ in range(3)))
        else:
            responses = [await handler(request) for _ in range(3)]
        return responses[0]


class GivesUp(AgentMiddleware):
    """Cancels its first call, and asks again."""

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        with suppress(TimeoutError):
            await asyncio.wait_for(handler(request), 0.1)
        return await handler(request)


@both_ways
def test_each_paid_call_is_on_the_bill_whatever_becomes_of_its_response(serve, tmp_path, how):
    # Repeated by an outer middleware, by an inner one, and thrown away with a message for it.
    asks = Twice(), AtOnce()
    for outer, inner in [([one], []) for one in asks] + [([], [one]) for one in asks]:
        server = serve(lambda request: free("Done."))
        state = ask(router_of(tmp_path, server), how, outer, inner)
        assert len(server.requests) == 2
        assert paid(state) == pytest.approx(price(server))
        assert [s["candidate"] for s in state["router_r1"]["steps"]] == ["Ada"]

    server = serve(lambda request: free(""))  # no reply at all
    retry = ModelRetryMiddleware(max_retries=2, **AT_ONCE)
    state = ask(router_of(tmp_path, server), how, [retry])
    assert "failed after 3 attempts" in state["messages"][-1].text
    assert [r.model for r in server.requests] == ["ada", "bob"] * 3
    assert paid(state) == pytest.approx(price(server))
    assert total(state["router_r1"]["ledger"])["failed_calls"] == 6


@both_ways
def test_a_structured_reply_that_cannot_be_read_is_paid(serve, tmp_path, how):
    replies = [calls("Weather", city="x", degrees="hot"), calls("Weather", city="x", degrees=3)]
    server = serve({"ada": replies})
    form = ToolStrategy(Weather, handle_errors=False)
    retry = ModelRetryMiddleware(**AT_ONCE)
    state = ask(router_of(tmp_path, server), how, [retry], response_format=form)
    assert state["structured_response"].degrees == 3
    assert paid(state) == pytest.approx(price(server))


@both_ways
def test_the_budget_holds_through_retries_around_the_router(serve, tmp_path, how):
    server = serve(lambda request: free(""))
    retry = ModelRetryMiddleware(max_retries=20, **AT_ONCE)
    state = ask(router_of(tmp_path, server, budget_usd=0.004), how, [retry])
    assert paid(state) == pytest.approx(price(server))
    assert 0.002 < paid(state) <= 0.004
    # Nor does one that asks twice inside pay more than there is.
    server = serve(lambda request: free("Done.", delay=0.05))
    state = ask(router_of(tmp_path, server, budget_usd=0.0012), "invoke", [], [Twice()])
    assert paid(state) == pytest.approx(price(server))
    assert 0 < paid(state) <= 0.0012


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "in turn"])
@pytest.mark.parametrize("stands", ["before", "behind"])
@both_ways
def test_several_calls_of_one_step_share_its_budget(serve, tmp_path, how, stands, at_once):
    # Each reply costs nearly its worst case, and the budget is for two of them, but not for three.
    server = serve(lambda request: Reply("Done.", input_tokens=280, output_tokens=100, delay=0.1))
    price_of_one = 480e-6
    for budget, real in (1.9 * WORST, 1), (2.9 * WORST, 2):
        server.requests.clear()
        router = router_of(tmp_path, server, budget_usd=budget)
        asks = First(at_once)
        state = ask(router, how, *(([asks], []) if stands == "before" else ([], [asks])))
        assert [r.model for r in server.requests] == ["ada"] * real
        assert paid(state) == pytest.approx(price_of_one * real)
        assert paid(state) <= budget
        bill = state["router_r1"]
        if stands == "behind":  # one of the calls was refused, and so was the candidate
            assert (bill["steps"], bill["stop_reason"]) == ([], "budget_usd")
            assert state["messages"][-1].text == "(no answer: budget_usd)"
        else:
            assert [step["candidate"] for step in bill["steps"]] == ["Ada"]
            ended = "no answer" in state["messages"][-1].text
            assert bill["stop_reason"] == ("budget_usd" if ended else "answered")
            assert at_once or not ended


def test_a_call_that_comes_to_no_end_keeps_nothing_of_the_budget(serve, tmp_path):
    replies = [free("Late.", delay=1.0), free("Done.")]
    server = serve({"ada": replies})
    router = router_of(tmp_path, server, budget_usd=1.5 * WORST)
    state = ask(router, "ainvoke", [], [GivesUp()])
    assert state["messages"][-1].text == "Done."
    assert paid(state) == pytest.approx(102e-6)  # the call that was cancelled is on no bill


@both_ways
def test_an_agent_goes_on_after_a_step_that_was_tried_several_times_at_once(serve, tmp_path, how):
    def says(request: Any) -> Reply:
        done = request.body["messages"][-1]["role"] == "tool"
        return free("Done.") if done else calls("run_tests", path="a")

    server = serve(says)
    router = router_of(tmp_path, server)
    store = InMemorySaver()
    for _ in range(2):  # the second run, on the same thread, begins another bill
        server.requests.clear()
        state = ask(router, how, [AtOnce()], [First(at_once=True)], checkpointer=store)
        assert state["messages"][-1].text == "Done."
        assert [s["candidate"] for s in state["router_r1"]["steps"]] == ["Ada", "Ada"]
        assert paid(state) == pytest.approx(price(server))
        assert len(server.requests) == 12


@both_ways
def test_what_a_call_really_sends_is_in_its_worst_case(serve, tmp_path, how, caplog):
    fields: Any = {f"f{n}": (str, Field(description="a long description " * 9)) for n in range(60)}
    big = create_model("Report", __doc__="A report.", **fields)
    server = serve(lambda request: calls("Report", **dict.fromkeys(fields, "x")))
    router = router_of(tmp_path, server, "constant:Bob", budget_usd=0.01)
    state = ask(router, how, response_format=ToolStrategy(big))
    assert (server.requests, state["messages"][-1].text) == ([], "(no answer: budget_usd)")
    assert state["router_r1"]["stop_reason"] == "budget_usd"

    @wrap_model_call
    def longer(request: Any, handler: Any) -> Any:
        return handler(request.override(model_settings={"max_tokens": 3000}))

    server = serve(lambda request: Reply("x", output_tokens=3000))
    router = router_of(tmp_path, server, "constant:Bob", budget_usd=0.01)
    if how == "invoke":  # the function has no asynchronous form
        state = ask(router, how, [longer])
        assert [r.model for r in server.requests] == ["ada"]  # Bob may cost 6 cents
        assert paid(state) == pytest.approx(0.00601)

    # A long schema that was expected is no price beyond the list.
    server = serve(lambda request: Reply("x", input_tokens=4000, output_tokens=1))
    ask(router_of(tmp_path, server), how, response_format=ToolStrategy(big, handle_errors=False))
    assert "more than its prices" not in caplog.text


@both_ways
def test_an_inner_middleware_that_gives_up_does_not_end_the_candidates(serve, tmp_path, how):
    server = serve({"ada": Status(401), "bob": free("Done.")})
    retry = ModelRetryMiddleware(max_retries=1, **AT_ONCE)
    state = ask(router_of(tmp_path, server), how, [], [retry])
    assert state["messages"][-1].text == "Done."
    assert [s["candidate"] for s in state["router_r1"]["steps"]] == ["Bob"]
    # Where nobody is left, its message is the last word.
    server = serve(lambda request: Status(401))
    state = ask(router_of(tmp_path, server), how, [], [retry])
    assert "failed after 2 attempts" in state["messages"][-1].text
    assert [s["candidate"] for s in state["router_r1"]["steps"]] == [""]


@pytest.mark.filterwarnings("ignore:The middleware `ModelRouterMiddleware` is in beta")
@both_ways
def test_a_model_that_an_inner_middleware_puts_in_is_billed_or_named(serve, tmp_path, how, caplog):
    server = serve(lambda request: free("Done."))
    router = router_of(tmp_path, server)
    choices = {n: ModelChoice(model=router.models[n], criteria=n) for n in ("Ada", "Bob")}
    bobs = RouterDecisionModel(pool=router.pool, controller="constant:Bob")
    inner = ModelRouterMiddleware(choices=choices, instructions="?", classifier=bobs)
    state = ask(router, how, [], [inner])
    assert [r.model for r in server.requests] == ["bob"]
    (step,) = state["router_r1"]["steps"]
    assert (step["chosen"], step["candidate"]) == ("Ada", "Bob")
    assert paid(state) == pytest.approx(step["cost_usd"]) == pytest.approx(price(server))

    server = serve({"ada": Status(500), "bob": Status(500), "eve": free("Done.")})
    router = router_of(tmp_path, server)
    eve = router.models["Bob"].model_copy(update={"model_name": "eve"})
    state = ask(router, how, [], [ModelFallbackMiddleware(eve)])
    assert state["messages"][-1].text == "Done."
    assert [s["candidate"] for s in state["router_r1"]["steps"]] == [""]
    assert "answered by the model eve, which is on no bill" in caplog.text


@pytest.mark.filterwarnings("ignore:Counting tokens in tool schemas")
@both_ways
def test_middlewares_behind_the_router_use_the_candidate_and_are_billed(serve, tmp_path, how):
    def says(request: Any) -> Reply:
        names = [t["function"]["name"] for t in request.body.get("tools", ())]
        if "ToolSelectionResponse" in names:
            return calls("ToolSelectionResponse", tools=["run_tests"])
        done = request.body["messages"][-1]["role"] == "tool"
        return free("Done.") if done else calls("run_tests", path="a")

    server = serve(says)
    edits = [ClearToolUsesEdit(trigger=1, keep=0)]
    router = router_of(tmp_path, server)
    inner = [
        LLMToolSelectorMiddleware(max_tools=1),
        ContextEditingMiddleware(edits=edits, token_count_method="model"),
        TodoListMiddleware(),
        PIIMiddleware("email"),
    ]
    outer = [SummarizationMiddleware(model=router.default_model, trigger=("messages", 50))]
    state = ask(router, how, outer, inner)
    assert state["messages"][-1].text == "Done."
    assert [r.model for r in server.requests] == ["ada"] * 4  # each step: a selection, and a reply
    assert "[cleared]" in server.requests[-1].body["messages"][-1]["content"]
    assert paid(state) == pytest.approx(price(server))
    assert [s["candidate"] for s in state["router_r1"]["steps"]] == ["Ada", "Ada"]


@both_ways
def test_runs_at_once_and_resumed_ones_each_have_their_own_bill(serve, tmp_path, how):
    def says(request: Any) -> Reply:
        done = request.body["messages"][-1]["role"] == "tool"
        return free("Done.", delay=0.01) if done else calls("run_tests", path="a")

    server = serve(says)
    router = router_of(tmp_path, server)
    agent = create_agent(router.default_model, [run_tests], middleware=[Twice(), router])
    if how == "invoke":
        states = agent.batch([ASKED] * 4)
    else:
        states = asyncio.run(agent.abatch([ASKED] * 4))
    assert [total(s["router_r1"]["ledger"])["calls"] for s in states] == [4] * 4
    assert not [name for name in states[0] if name != "router_r1" and name.startswith("router")]

    # A person approves the call of a tool: the run goes on with the bill that it had.
    asks = HumanInTheLoopMiddleware(interrupt_on={"run_tests": True})
    store = InMemorySaver()
    agent = create_agent(
        router.default_model, [run_tests], middleware=[Twice(), router, asks], checkpointer=store
    )
    agent.invoke(ASKED, THREAD)
    kept = store.get(THREAD)["channel_values"]
    assert "router_r1" in kept
    assert "router_r1_paid" not in kept
    resume = Command(resume={"decisions": [{"type": "approve"}]})
    state = agent.invoke(resume, THREAD)
    assert total(state["router_r1"]["ledger"])["calls"] == 4
    assert state["router_r1"]["stop_reason"] == "answered"
    # Its next run begins another bill.
    assert agent.invoke(ASKED, THREAD)["router_r1"]["steps"][0]["candidate"] == "Ada"
    assert total(agent.get_state(THREAD).values["router_r1"]["ledger"])["calls"] == 2


def test_a_step_that_another_middleware_writes_itself_is_nobodys(serve, tmp_path, caplog):
    @wrap_model_call
    def refuses(request: Any, handler: Any) -> Any:
        return AIMessage("No.")

    server = serve(lambda request: free("Done."))
    state = ask(router_of(tmp_path, server), "invoke", [], [refuses])
    assert (server.requests, state["messages"][-1].text) == ([], "No.")
    assert [s["candidate"] for s in state["router_r1"]["steps"]] == [""]
    assert "on no bill" not in caplog.text


def test_what_is_reserved_is_not_left_until_it_is_charged_or_released(serve, tmp_path):
    ada = yaml_pool(tmp_path, serve("unused"), BOTH, max_tokens=100).candidates[0]
    most = ada.worst_case_usd("hello", 0)
    paid_so_far, limits = paid_from(new_ledger()), RouterContext(budget_usd=1.5 * most)
    one, other = (RunAccount(paid_so_far, limits, time.time()) for _ in range(2))
    held = one.reserve(ada, "hello", 0)
    assert held
    assert one.left.usd == pytest.approx(0.5 * most)
    assert other.reserve(ada, "hello", 0) is None  # another attempt at the step, the same run
    other.settle()  # none of its own calls is under way
    one.release(held)
    held = other.reserve(ada, "hello", 0)
    assert held
    reply = CandidateReply(cost_usd=0.25 * most, message=AIMessage("Hi"), text="Hi")
    other.charge(bill(ada.name, reply)[1], held)
    assert one.left.usd == pytest.approx(1.25 * most)
    assert one.update({"steps": []})["router_r1"]["ledger"] == paid_so_far["ledger"]
