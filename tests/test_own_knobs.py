"""A run knows its own knobs, and a thread stays small."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import re
import sqlite3
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from fakes import FakeChat, answer, make_pool, models, search
from router_r1_graph import (
    Call,
    CandidatePool,
    ChatModelController,
    ChatRouterR1,
    ControllerError,
    Reply,
    RouterContext,
    RouterR1Error,
    RuleController,
    ScriptedController,
    Trace,
    TraceError,
    Turn,
    View,
    aroute_only,
    create_router_r1,
    route_only,
    total,
)
from router_r1_graph.candidates.bugs import place

THREAD: Any = {"configurable": {"thread_id": "1"}}
PRICED = {"name": "Ada", "usd_per_call": 0.1}
KNOBS = {"budget_usd": 0.35, "cost_weight": 0.9, "max_rounds": 9, "seed": 7}
both_ways = pytest.mark.parametrize("how", ["invoke", "ainvoke"])


def endless(**kwargs: Any) -> StateGraph[Any, Any, Any, Any]:
    """Return a router that calls until it has to stop; each call may cost, and costs, $0.10."""
    pool = make_pool(PRICED)
    script = [search(f"Ada: number {n}?") for n in range(20)]
    return create_router_r1(pool, ScriptedController(script), models=models(pool), **kwargs)


def run(graph: Any, given: Any, how: str = "invoke", **options: Any) -> dict[str, Any]:
    if how == "invoke":
        return graph.invoke(given, THREAD, **options)
    return asyncio.run(graph.ainvoke(given, THREAD, **options))


# ------------------------------------------------------------------------------------- resumed


@both_ways
@pytest.mark.parametrize("before", ["think", "route", "aggregate", "answer"])
def test_a_run_that_is_resumed_without_a_context_keeps_its_knobs(how, before):
    graph = endless(context=RouterContext(max_rounds=2)).compile(
        InMemorySaver(), interrupt_before=[before]
    )
    result = run(graph, {"question": "?"}, how, context=KNOBS)
    while not (result or {}).get("stop_reason"):
        result = run(graph, None, how)
    assert result["stop_reason"] == "budget_usd"
    assert total(result["ledger"])["calls"] == 3
    assert result["router_r1"]["context"] == {**RouterContext().to_state(), **KNOBS}


def test_a_run_that_is_resumed_by_another_process_keeps_its_knobs(tmp_path):
    def graph(saver: Any) -> Any:
        return endless().compile(saver, interrupt_before=["route"])

    with sqlite3.connect(tmp_path / "runs.db", check_same_thread=False) as connection:
        run(graph(SqliteSaver(connection)), {"question": "?"}, context=KNOBS)
    with sqlite3.connect(tmp_path / "runs.db", check_same_thread=False) as connection:
        later = graph(SqliteSaver(connection))
        result: dict[str, Any] = {}
        while not result.get("stop_reason"):
            result = run(later, None)
    assert result["stop_reason"] == "budget_usd"


def test_a_knob_that_is_passed_at_a_resume_is_the_runs_from_then_on():
    graph = endless().compile(InMemorySaver(), interrupt_before=["route"])
    run(graph, {"question": "?"}, context=KNOBS)
    run(graph, None, context={"budget_usd": 0.15})
    result = run(graph, None)
    assert result["stop_reason"] == "budget_usd"
    assert total(result["ledger"])["calls"] == 1
    assert result["router_r1"]["context"] == {
        **RouterContext().to_state(),
        **KNOBS,
        "budget_usd": 0.15,
    }


def test_a_new_question_on_the_thread_starts_with_the_graphs_knobs():
    graph = endless(context=RouterContext(max_rounds=1)).compile(InMemorySaver())
    assert run(graph, {"question": "?"}, context=KNOBS)["stop_reason"] == "budget_usd"
    result = run(graph, {"question": "another?"})
    assert (result["stop_reason"], result["round"]) == ("round_limit", 1)
    assert result["router_r1"]["context"] == RouterContext(max_rounds=1).to_state()


def test_a_new_question_over_an_interrupted_run_starts_clean():
    graph = endless().compile(InMemorySaver(), interrupt_before=["route"])
    run(graph, {"question": "first?"}, context=KNOBS)
    run(graph, {"question": "second?"}, context={"max_rounds": 1})
    result = run(graph, None)
    assert [m.text for m in result["scratchpad"] if isinstance(m, HumanMessage)] == ["second?"]
    assert result["round"] == 1


def test_an_approval_is_asked_for_in_every_round_of_a_resumed_run():
    graph = endless().compile(InMemorySaver())
    knobs = {"approve_above_usd": 0.01, "max_rounds": 2}
    result = run(graph, {"question": "?"}, context=knobs)
    asked = 0
    while "__interrupt__" in result:
        asked += 1
        (call,) = result["__interrupt__"]
        result = run(graph, Command(resume={call.id: True}))
    assert (asked, result["stop_reason"]) == (2, "round_limit")


# --------------------------------------------------------------------------------------- trace


def test_a_trace_needs_nothing_but_the_state():
    pool = make_pool({"name": "Ada", "base_url": "http://localhost:1/v1"})
    graph = create_router_r1(
        pool, ScriptedController([search("Ada: ?"), answer("Paris")]), models=models(pool)
    ).compile()
    state = graph.invoke({"question": "?"}, context={"cost_weight": 0.9, "seed": 3})
    trace = Trace.from_state(state)
    assert trace.context == RouterContext(cost_weight=0.9, seed=3)
    assert trace.controller == "scripted"
    assert trace.pool == pool.descriptors()
    assert trace == Trace.from_state(
        state,
        pool=pool,
        controller="scripted",
        context=RouterContext(cost_weight=0.9, seed=3),
    )
    assert "localhost" not in str(state)


def test_a_state_that_does_not_say_what_it_ran_with_is_refused():
    state = endless().compile().invoke({"question": "?"}, context={"max_rounds": 0})
    del state["router_r1"]
    with pytest.raises(TraceError, match="another version: name its pool and controller"):
        Trace.from_state(state)
    assert Trace.from_state(state, pool=make_pool(PRICED), controller="x").controller == "x"


# ------------------------------------------------------------------------------ own controllers


class Least:
    """The least that a controller has."""

    def __init__(self, turn: Any) -> None:
        self.decided = turn

    def decide(self, view: View) -> Any:
        return self.decided(view)


def asked_by(controller: Any, how: str = "invoke", **options: Any) -> dict[str, Any]:
    pool = make_pool("Ada")
    graph = create_router_r1(pool, controller, models=models(pool)).compile()
    return run(graph, {"question": "?"}, how, **options)


@both_ways
@pytest.mark.parametrize(
    "last",
    [
        lambda view: answer(view.replies[-1].reply),
        lambda view: Turn(answer=view.replies[-1].reply),
        lambda view: Reply(text=answer(view.replies[-1].reply)),
    ],
)
def test_an_object_with_decide_is_a_controller(how, last):
    result = asked_by(
        Least(lambda view: last(view) if view.replies else search("Ada: capital of France?")), how
    )
    assert (result["answer"], result["stop_reason"]) == ("Paris", "answered")
    assert result["router_r1"]["controller"] == "Least"


def test_a_controller_is_given_its_replies():
    seen: list[Any] = []

    def turn(view: View) -> str:
        seen.append(view.replies)
        return search("Ada: first?", "Ada: second?") if not view.replies else answer()

    asked_by(Least(turn))
    assert seen[0] == ()
    assert [(c.round, c.candidate, c.query, c.reply, c.ok) for c in seen[1]] == [
        (1, "Ada", "first?", "Paris", True),
        (1, "Ada", "second?", "Paris", True),
    ]


class Whole(Least):
    """Has all of it."""

    name = "mine"

    def worst_case_usd(self, view: View) -> float:
        return 1.0

    async def adecide(self, view: View, config: Any = None) -> Any:
        await asyncio.sleep(0)
        return Turn(answer="from adecide")


def test_what_a_controller_has_itself_is_used():
    mine = Whole(lambda view: answer("from decide"))
    assert asked_by(mine)["answer"] == "from decide"
    result = asked_by(mine, "ainvoke")
    assert (result["answer"], result["router_r1"]["controller"]) == ("from adecide", "mine")
    pool = make_pool("Ada")
    graph = create_router_r1(pool, mine, models=models(pool)).compile()
    assert graph.invoke({"question": "?"}, context={"budget_usd": 0.5})["stop_reason"] == (
        "budget_usd"
    )


@both_ways
@pytest.mark.parametrize(
    ("bug", "kind"),
    [
        (lambda view: view.pool.candidates[99], "IndexError: tuple index out of range"),
        (lambda view: None + view, "TypeError: unsupported operand"),
        (lambda view: view.nothing, "AttributeError: 'View' object has no attribute 'nothing'"),
        (lambda view: {}["key"], "KeyError: 'key'"),
        (lambda view: 7, "TypeError: decide returns a Reply, a Turn, or text in tags, not int"),
    ],
)
def test_a_bug_in_a_controller_is_named_with_its_line_and_logged(how, bug, kind, caplog):
    with caplog.at_level(logging.ERROR):
        result = asked_by(Least(bug), how)
    assert result["stop_reason"] == "controller_error"
    assert result["error"].startswith(f"bug: {kind}")
    assert f"({os.path.basename(__file__)}, line " in result["error"]
    (record,) = (r for r in caplog.records if r.exc_info)
    assert "controller Least has a bug" in record.getMessage()


class OwnError(Exception):
    """An exception of a user's own."""


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


def raises(error: Exception) -> Any:
    raise error


def of_a_server(view: View) -> Any:
    request = httpx.Request("GET", "http://x.example")
    raise httpx.HTTPStatusError("no", request=request, response=httpx.Response(500))


def asks_a_closed_port(view: View) -> Any:
    httpx.get("http://127.0.0.1:9")


@both_ways
@pytest.mark.parametrize(
    ("raising", "kind"),
    [
        (lambda view: json.loads("{x"), "bug: JSONDecodeError"),
        (lambda view: json.loads(""), "bug: JSONDecodeError"),
        (lambda view: np.linalg.inv(np.zeros((2, 2))), "bug: LinAlgError"),
        (lambda view: CandidatePool.model_validate({}), "bug: ValidationError"),
        (lambda view: raises(OutputParserException("no")), "bug: OutputParserException"),
        (lambda view: Path("/nonexistent").read_text(), "bug: FileNotFoundError"),
        (lambda view: raises(OwnError("mine")), "bug: OwnError: mine"),
        (lambda view: raises(ExceptionGroup("all", [OwnError("mine")])), "bug: OwnError: mine"),
        (lambda view: replace(view, nothing=1), "bug: TypeError"),
        (of_a_server, "server_error: HTTPStatusError"),
        (asks_a_closed_port, "connection: ConnectError"),
        (lambda view: raises(TimeoutError("slow")), "timeout: TimeoutError"),
        (lambda view: raises(MemoryError("of numpy")), "other: MemoryError: of numpy"),
        (lambda view: raises(OutOfMemoryError("CUDA out of memory")), "other: OutOfMemoryError"),
        (lambda view: raises(RouterR1Error("mine")), "other: mine"),
    ],
)
def test_whatever_a_controller_raises_is_named_with_its_line(how, raising, kind, caplog):
    result = asked_by(Least(raising), how)
    assert result["stop_reason"] == "controller_error"
    assert result["error"].startswith(kind)
    assert f"({os.path.basename(__file__)}, line " in result["error"]
    named = [r.getMessage() for r in caplog.records if "has a bug" in r.getMessage()]
    assert named == ["controller Least has a bug"] * kind.startswith("bug")


@both_ways
@pytest.mark.parametrize("kind", [TypeError, AttributeError, KeyError, IndexError, OwnError])
def test_a_bug_in_a_chat_model_of_your_own_is_named_as_that_of_a_controller_is(how, kind, caplog):
    result = asked_by(FakeChat(text=kind("mine")), how)
    assert result["stop_reason"] == "controller_error"
    assert re.match(rf"bug: {kind.__name__}: '?mine'? \(fakes.py, line \d+, in ", result["error"])
    named = [r.getMessage() for r in caplog.records if r.exc_info]
    assert named == ["controller has a bug"]


class LeastAsync:
    """The least that an asynchronous controller has."""

    def __init__(self, turn: Any) -> None:
        self.decided = turn

    async def adecide(self, view: View) -> Any:
        await asyncio.sleep(0)
        return self.decided(view)


class All(Whole):
    """All that a controller has."""

    def decide(self, view: View, config: Any = None) -> Any:
        return self.decided(view)

    async def adecide(self, view: View, config: Any = None) -> Any:
        await asyncio.sleep(0)
        return self.decided(view)


class Inherited(RuleController):
    """A rule that decides itself."""

    name = "mine"

    def __init__(self, turn: Any) -> None:
        self.decided = turn

    def turn(self, view: View) -> Turn:
        raise NotImplementedError

    def decide(self, view: View, config: Any = None) -> Any:
        return self.decided(view)


@both_ways
@pytest.mark.parametrize("form", [Least, LeastAsync, All, Inherited])
@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (Turn(answer="42"), "42"),
        (answer(), "42"),
        (Reply(text=answer()), "42"),
        (None, "not NoneType"),
        ({"answer": "42"}, "not dict"),
    ],
)
def test_each_form_of_a_controller_may_return_each_form_of_a_turn(how, form, turn, said):
    result = asked_by(form(lambda view: turn), how)
    if said == "42":
        assert (result["answer"], result["stop_reason"]) == ("42", "answered")
        return
    assert result["stop_reason"] == "controller_error"
    assert " returns a Reply, a Turn, or text in tags, " + said in result["error"]
    inherits = form is Inherited and how == "ainvoke"  # what returned it is not the user's
    assert (f"({os.path.basename(__file__)}, line " in result["error"]) is not inherits


@both_ways
@pytest.mark.parametrize("usd", [None, "much", float("nan"), -1])
def test_a_worst_case_that_is_no_number_is_named_with_its_line(how, usd):
    class Priced(All):
        def worst_case_usd(self, view: View) -> Any:
            return usd

    result = asked_by(Priced(lambda view: answer()), how, context={"budget_usd": 1})
    assert result["error"].startswith(
        f"bug: TypeError: worst_case_usd returns a number of USD, not {usd!r} (test_own_knobs.py"
    )


class BrokenError(Exception):
    """An exception whose own code is broken."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


class WordlessError(Exception):
    """An exception that cannot be written."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class NoTextError(Exception):
    """An exception whose words are no text."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


@pytest.mark.sampled(3)
@both_ways
@pytest.mark.parametrize("deadline", [None, 10])
@pytest.mark.parametrize("form", [Least, LeastAsync])
@pytest.mark.parametrize(
    "error",
    [
        *(
            BrokenError("x"),
            WordlessError("x"),
            NoTextError("x"),
            StopIteration(5),
            GeneratorExit(),
        ),
        *(asyncio.CancelledError(), RouterR1Error("x")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_odd_exceptions_end_no_run_raw_and_are_logged_each_time(how, deadline, form, error, caplog):
    for _ in range(2):
        caplog.clear()
        controller = form(lambda view: raises(error))
        result = asked_by(controller, how, context={"deadline_seconds": deadline})
        assert result["stop_reason"] == "controller_error"
        assert f"({os.path.basename(__file__)}, line " in result["error"]
        if not isinstance(error, RouterR1Error):
            (told,) = (r.getMessage() for r in caplog.records if "has a bug" in r.getMessage())
            assert told.startswith(f"controller {form.__name__} has a bug")


def test_an_odd_exception_of_a_controller_fails_no_other_entry():
    for error in (BrokenError("x"), WordlessError("x"), asyncio.CancelledError()):
        controller = Least(lambda view, error=error: raises(error))
        assert "test_own_knobs.py, line" in route_only("embedded", controller, "?").error
        routing = asyncio.run(aroute_only("embedded", controller, "?"))
        assert "test_own_knobs.py, line" in routing.error


@both_ways
@pytest.mark.parametrize(
    "error",
    [BrokenError("x"), WordlessError("x"), NoTextError("x")],
    ids=lambda e: type(e).__name__,
)
def test_an_odd_exception_of_a_candidate_is_a_failed_call(how, error):
    pool = make_pool("Ada")
    controller = ScriptedController([search("Ada: ?"), answer()])
    graph = create_router_r1(pool, controller, models={"Ada": FakeChat(text=error)}).compile()
    result = run(graph, {"question": "?"}, how)
    assert (result["answer"], total(result["ledger"])["failed_calls"]) == ("42", 1)


class AsyncDecide:
    """A controller whose asynchronous method has the other one's name."""

    async def decide(self, view: View) -> str:
        return answer()


@both_ways
@pytest.mark.filterwarnings("error")
def test_an_asynchronous_decide_is_told_its_right_name(how):
    says = r"^bug: .*, not coroutine; an `async def` is called adecide \(test_own_knobs.py, line "
    assert re.search(says, asked_by(AsyncDecide(), how)["error"])


class NoView:
    """A controller whose methods take no view."""

    def decide(self) -> str:
        return answer()

    def worst_case_usd(self) -> float:
        return 0.0


class AdecideNoView:
    """The same, asynchronous."""

    async def adecide(self) -> str:
        return answer()


@both_ways
@pytest.mark.parametrize(
    ("controller", "says"),
    [
        (NoView(), "takes 1 positional argument but 2 were given"),
        (AdecideNoView(), "takes 1 positional argument but 2 were given"),
        (Least(lambda view: Turn(answer=5)), "Turn whose answer is a text or None, not int"),
        (Least(lambda view: Turn(calls=(("Ada", "x"),))), "Turn whose calls are Calls, not tuple"),
        (Least(lambda view: Turn(calls=(Call("Ada", 5),))), "texts as candidate and query, not "),
        (Least(lambda view: Turn(thoughts="x")), "thoughts are a tuple of texts, not str"),
        (Least(lambda view: Turn(thoughts=(1,))), "thoughts are texts, not int"),
    ],
)
def test_a_call_that_no_line_of_the_users_reached_names_the_method(how, controller, says, caplog):
    for context in ({}, {"budget_usd": 1}):
        result = asked_by(controller, how, context=context)
        assert result["error"].startswith("bug: TypeError: ")
        assert says in result["error"]
        assert result["error"].count(f"({os.path.basename(__file__)}, line ") == 1


def test_a_line_of_a_compiled_event_loop_is_no_line_of_the_users():
    uvloop = pytest.importorskip("uvloop")
    pool = make_pool("Ada")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(
            create_router_r1(pool, AdecideNoView(), models=models(pool))
            .compile()
            .ainvoke({"question": "6 x 7?"})
        )
    assert f"({os.path.basename(__file__)}, line " in result["error"]
    code = compile("def run():\n    raise TypeError", "uvloop/loop.pyx", "exec")
    made: dict[str, Any] = {}
    exec(code, made)
    with pytest.raises(TypeError) as raised:
        made["run"]()
    assert "loop.pyx" not in place(raised.value)


@both_ways
def test_an_adecide_may_return_its_turn_at_once(how):
    class Plain:
        def adecide(self, view: View) -> str:
            return answer()

    assert asked_by(Plain(), how)["answer"] == "42"


def defaults_of_its_own(self: Any, view: View, scale: Any = 2) -> Any:
    return scale == 2


def by_name(self: Any, view: View, *, config: Any = None) -> Any:
    return "configurable" in config


def annotated(self: Any, view: View, scale: Any = 2, run: RunnableConfig | None = None) -> Any:
    return scale == 2 and "configurable" in run


def second(self: Any, view: View, c: Any) -> Any:
    return "configurable" in c


def by_place(self: Any, view: View, config: Any = None, /) -> Any:
    return "configurable" in config


def everything(self: Any, *given: Any) -> Any:
    return "configurable" in given[1]


def others(self: Any, view: View, **more: Any) -> Any:
    return not more


@both_ways
@pytest.mark.parametrize(
    "taken", [defaults_of_its_own, by_name, annotated, second, by_place, everything, others]
)
def test_the_config_is_given_to_the_parameter_that_is_for_it(how, taken):
    def decide(*args: Any, **given: Any) -> str:
        return answer("yes" if taken(*args, **given) else "no")

    decide.__signature__ = inspect.signature(taken)  # type: ignore[attr-defined]

    async def adecide(*args: Any, **given: Any) -> str:
        return decide(*args, **given)

    adecide.__signature__ = inspect.signature(taken)  # type: ignore[attr-defined]
    for members in ({"decide": decide}, {"adecide": adecide}):
        assert asked_by(type("Mine", (), members)(), how)["answer"] == "yes"


@both_ways
def test_a_bug_in_question_ended_is_logged_and_ends_nothing(how, caplog):
    class Keeps(Least):
        def question_ended(self, scratchpad: Any) -> None:
            raise KeyError("kept")

    controller = Keeps(lambda view: answer())
    result = asked_by(controller, how)
    assert (result["answer"], result["stop_reason"]) == ("42", "answered")
    assert [r.getMessage() for r in caplog.records if r.exc_info] == ["controller Keeps has a bug"]
    assert route_only("embedded", controller, "?").answer == "42"


@pytest.mark.parametrize("name", ["name", "decide", "adecide"])
@pytest.mark.parametrize("error", [ValueError("mine"), AttributeError("mine")])
@pytest.mark.parametrize("kind", [property, cached_property])
def test_a_property_that_raises_is_an_error_when_the_graph_is_built(name, error, kind):
    class Mine:
        def decide(self, view: View) -> str:
            return answer()

    broken = kind(lambda self: raises(error))
    setattr(Mine, name, broken)
    if kind is cached_property:
        broken.__set_name__(Mine, name)
    with pytest.raises(ControllerError, match=r"controller Mine: \w+: mine \(test_own_knobs.py"):
        create_router_r1("embedded", Mine())


def test_what_is_no_controller_is_refused_when_the_graph_is_built():
    with pytest.raises(ControllerError, match=r"decide\(view\) or adecide\(view\), not int"):
        create_router_r1("embedded", 7)  # type: ignore[arg-type]


def test_pool_and_controller_may_be_named():
    graph = create_router_r1("embedded", "constant:Quillora").compile()
    result = graph.invoke({"question": "Who wrote Hamlet?"})
    assert result["answer"] == "William Shakespeare"
    assert result["router_r1"]["controller"] == "constant:Quillora"


# -------------------------------------------------------------------------------- conversation


def stored_bytes(saver: InMemorySaver) -> int:
    blobs = sum(len(value[1]) for value in saver.blobs.values())
    points = sum(
        len(point[1]) + len(metadata[1])
        for threads in saver.storage.values()
        for points in threads.values()
        for point, metadata, _ in points.values()
    )
    writes = sum(len(w[2][1]) for group in saver.writes.values() for w in group.values())
    return blobs + points + writes


@pytest.mark.long
def test_a_thread_of_200_questions_stays_small():
    pool, prompts = make_pool("Ada"), []

    class Chat(FakeChat):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            prompts.append(sum(len(m.text) for m in messages))
            return super()._generate(messages, *args, **kwargs)

    def turn(prompt: str) -> str:
        called = prompt.startswith("<information")
        said = "It is a rather long answer of some sixty characters, say."
        return answer(said) if called else search("Ada: who?")

    saver = InMemorySaver()
    graph = create_router_r1(
        pool,
        ChatModelController(Chat(text=turn)),
        models=models(pool, Ada=FakeChat(text="x" * 500)),
    ).compile(saver)
    for number in range(1, 201):
        question = f"Question number {number} about something: who is it?"
        state = graph.invoke({"messages": [("user", question)]}, THREAD)
    assert len(state["messages"]) == 400
    assert total(state["ledger"])["calls"] == 1
    assert stored_bytes(saver) < 29.5e6
    assert max(prompts) < 12_000  # the prompt has a bound, whatever the length of the thread


def test_the_latest_messages_that_fit_are_shown_and_a_person_begins():
    seen: list[View] = []

    def turn(view: View) -> str:
        seen.append(view)
        return answer()

    said = [
        SystemMessage("Be brief."),
        HumanMessage("a" * 400),
        AIMessage("b" * 40),
        HumanMessage("c" * 40),
        AIMessage("d" * 40),
        HumanMessage("And now?"),
    ]
    pool = make_pool("Ada")
    graph = create_router_r1(pool, Least(turn), models=models(pool)).compile()
    for tokens in (1000, 119, 51, 30, 15, 1, 0):
        graph.invoke({"messages": said}, context={"max_conversation_tokens": tokens})
    shown = ["".join(m.text[0] for m in view.conversation) for view in seen]
    assert shown == ["abcd", "abcd", "cd", "cd", "cd", "c", ""]
    assert [CUT in m.text for m in seen[1].conversation] == [True, False, False, False]
    assert {view.question for view in seen} == {"And now?"}


CUT = " [... cut ...] "
LONG = "It begins. " + "word " * 3000 + "It ends."
PICTURE = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}


@both_ways
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (["Who wrote Hamlet?", LONG], ["Who wrote Hamlet?", CUT]),
        ([LONG, "Shakespeare"], [CUT, "Shakespeare"]),
        ([LONG, LONG], [CUT, CUT]),
        (["Who?", "He.", LONG, "ok"], [CUT, "ok"]),
        (["Who wrote Hamlet?", LONG, "When?", "1600"], ["Who wrote Hamlet?", CUT, "When?", "1600"]),
        ([LONG, "He.", "When?", "1600"], [CUT, "He.", "When?", "1600"]),
        (["a" * 7900, "He.", "When?", LONG], ["When?", CUT]),
    ],
)
def test_a_long_message_is_cut_inside_and_the_newest_turn_is_always_shown(how, said, shown):
    prompts: list[list[str]] = []

    class Chat(FakeChat):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            prompts.append([str(m.text) for m in messages])
            return super()._generate(messages, *args, **kwargs)

        async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            prompts.append([str(m.text) for m in messages])
            return await super()._agenerate(messages, *args, **kwargs)

    pool = make_pool("Ada")
    graph = create_router_r1(
        pool, ChatModelController(Chat(text=answer("the UK"))), models=models(pool)
    ).compile()
    roles = ["user", "ai"] * (len(said) // 2)
    run(graph, {"messages": [*zip(roles, said, strict=True), ("user", "Where was he born?")]}, how)
    told = prompts[0][:-1]
    assert [CUT if CUT in text else text for text in told] == shown
    assert sum(len(text) for text in told) <= 2000 * 4
    for text in told:
        if CUT in text:
            assert text.startswith("It begins. word")
            assert text.endswith("word It ends.")


def test_a_message_that_is_cut_keeps_its_images():
    seen: list[View] = []

    def turn(view: View) -> str:
        seen.append(view)
        return answer()

    pool = make_pool({"name": "Ada", "image_inputs": True})
    graph = create_router_r1(pool, Least(turn), models=models(pool)).compile()
    pictured = HumanMessage([{"type": "text", "text": LONG}, PICTURE])
    graph.invoke({"messages": [pictured, AIMessage("A cat."), HumanMessage("Its name?")]})
    (shown, _), (image,) = seen[0].conversation, seen[0].all_images
    assert CUT in shown.text
    assert image == PICTURE
    assert pictured.text == LONG


def test_a_follow_up_question_reaches_a_chat_model_with_what_was_said():
    prompts: list[list[str]] = []

    class Chat(FakeChat):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            prompts.append([str(m.text) for m in messages])
            return super()._generate(messages, *args, **kwargs)

    pool = make_pool("Ada")
    graph = create_router_r1(
        pool, ChatModelController(Chat(text=answer("the UK"))), models=models(pool)
    ).compile(InMemorySaver())
    graph.invoke({"messages": [("user", "Who wrote Hamlet?")]}, THREAD)
    graph.invoke({"messages": [("user", "In which country was he born?")]}, THREAD)
    assert prompts[1][:2] == ["Who wrote Hamlet?", "the UK"]
    assert "In which country was he born?" in prompts[1][2]


def test_inside_a_parent_the_router_sees_the_parents_conversation():
    seen: list[View] = []

    def turn(view: View) -> str:
        seen.append(view)
        return answer()

    pool = make_pool("Ada")
    router = create_router_r1(pool, Least(turn), models=models(pool)).compile()
    parent = StateGraph(MessagesState).add_node("router", router).add_edge(START, "router")
    parent.compile().invoke({"messages": [("user", "one"), ("ai", "two"), ("user", "three")]})
    assert [m.text for m in seen[0].conversation] == ["one", "two"]


# --------------------------------------------------------------------------------- chat models


def test_a_copy_of_a_chat_router_has_a_graph_of_its_own():
    model = ChatRouterR1(pool="embedded", controller="constant:Quillora")
    other = model.model_copy(update={"pool": CandidatePool.from_yaml("embedded_unseen")})
    other = other.model_copy(update={"controller": "cheapest"})
    asked = set(other.invoke("Who wrote Hamlet?").response_metadata["candidates"])
    assert asked <= {c.name for c in CandidatePool.from_yaml("embedded_unseen").candidates}
    assert set(model.invoke("Who wrote Hamlet?").response_metadata["candidates"]) == {"Quillora"}
    model.controller = "constant:Vantegro"
    assert set(model.invoke("Who wrote Hamlet?").response_metadata["candidates"]) == {"Vantegro"}


def test_every_knob_is_a_field_of_the_chat_router_with_the_same_default():
    model = ChatRouterR1(pool="embedded", controller="keyword")
    knobs = replace(RouterContext(), approve_above_usd=None).to_state()
    knobs.pop("approve_above_usd")
    assert {name: getattr(model, name) for name in knobs} == knobs
