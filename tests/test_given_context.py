"""Settings mean the same wherever they are given, and what is no setting is an error there."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel, TypeAdapter

from extras import needs
from fakes import FakeChat, answer, make_pool, models, search
from router_r1_graph import (
    ChatRouterR1,
    ConfigError,
    RouterContext,
    ScriptedController,
    Trace,
    TraceError,
    View,
    aroute_only,
    create_router_r1,
    create_router_r1_agent,
    route_only,
)

QUESTION: Any = {"messages": [("user", "?")]}
KNOWN = RouterContext(max_rounds=7)
"""The settings that a graph is built with, where a run is given some."""
POOL = make_pool("Ada")


class Seen:
    """A controller that keeps what it was shown."""

    def __init__(self, turn: str = answer()) -> None:
        self.contexts: list[RouterContext] = []
        self.turn = turn

    def decide(self, view: View) -> str:
        self.contexts.append(view.context)
        return self.turn


def router(seen: Seen, context: Any = None) -> StateGraph[Any, Any, Any, Any]:
    return create_router_r1(POOL, seen, models=models(POOL), context=context)


def parent(schema: type[Any] | None, router: Any) -> Any:
    graph = StateGraph(MessagesState, context_schema=schema)
    return graph.add_node("router", router).add_edge(START, "router").compile()


@dataclass
class Own:
    """A parent's context."""

    max_rounds: str = "the parent's"
    router_r1: Any = None


def built(given: Any) -> RouterContext:
    router(seen := Seen(), given).compile().invoke(QUESTION)
    return seen.contexts[0]


def built_agent(given: Any) -> RouterContext:
    seen = Seen()
    create_router_r1_agent(POOL, seen, models=models(POOL), context=given).invoke(QUESTION)
    return seen.contexts[0]


def a_run(given: Any) -> RouterContext:
    router(seen := Seen(), KNOWN).compile().invoke(QUESTION, context=given)
    return seen.contexts[0]


def an_async_run(given: Any) -> RouterContext:
    graph = router(seen := Seen(), KNOWN).compile()
    asyncio.run(graph.ainvoke(QUESTION, context=given))
    return seen.contexts[0]


def a_resumed_run(given: Any) -> RouterContext:
    graph = router(seen := Seen(), KNOWN).compile(InMemorySaver(), interrupt_before=["think"])
    thread: Any = {"configurable": {"thread_id": "1"}}
    graph.invoke(QUESTION, thread)
    graph.invoke(None, thread, context=given)
    return seen.contexts[0]


def alone_under_the_key(given: Any) -> RouterContext:
    return a_run({"router_r1": given, "user": "ada"})


def in_a_parent(given: Any) -> RouterContext:
    graph = parent(None, router(seen := Seen(), KNOWN).compile())
    graph.invoke(QUESTION, context={"router_r1": given, "max_rounds": "the parent's"})
    return seen.contexts[0]


def in_a_parent_with_a_class(given: Any) -> RouterContext:
    parent(Own, router(seen := Seen(), KNOWN).compile()).invoke(
        QUESTION, context=Own(router_r1=given)
    )
    return seen.contexts[0]


class Model(BaseModel):
    """A parent's context that is a Pydantic model."""

    router_r1: RouterContext | None = None
    spare: RouterContext = RouterContext()  # a second field of the kind


def in_a_parent_with_a_model(given: Any) -> RouterContext:
    graph = parent(Model, router(seen := Seen(), KNOWN).compile())
    graph.invoke(QUESTION, context={"router_r1": given, "spare": given})
    return seen.contexts[0]


def in_a_parent_of_our_schema(given: Any) -> RouterContext:
    graph = parent(RouterContext, router(seen := Seen(), KNOWN).compile())
    graph.invoke(QUESTION, context=given)
    return seen.contexts[0]


def routed(given: Any) -> RouterContext:
    routing = route_only(POOL, seen := Seen(), "?", context=given)
    assert not routing.error
    return seen.contexts[0]


def routed_async(given: Any) -> RouterContext:
    asyncio.run(aroute_only(POOL, seen := Seen(), "?", context=given))
    return seen.contexts[0]


def a_trace(given: Any) -> RouterContext:
    state = router(Seen(), KNOWN).compile().invoke(QUESTION)
    return Trace.from_state(state, context=given).context


def an_evaluation(given: Any) -> RouterContext:
    needs("eval")
    from router_r1_graph import Evaluation

    return Evaluation(POOL, [], ["cheapest"], context=given).context


def a_decision_model(given: Any) -> RouterContext:
    needs("agents")
    from langchain_core.decisions import Choice

    from router_r1_graph import RouterDecisionModel

    seen = Seen(search("Ada: ?"))
    model = RouterDecisionModel(pool=POOL, controller=seen, context=given)
    which = Choice(instructions="Which?", criteria={"Ada": None})
    model.invoke({"state": "?", "questions": {"model": which}})
    return seen.contexts[0]


def agent(seen: Seen, context: Any, schema: type[Any] | None = None) -> Any:
    needs("agents")
    from langchain.agents import create_agent

    from router_r1_graph import RouterMiddleware

    middleware = RouterMiddleware(POOL, seen, models=models(POOL), context=context)
    return create_agent(FakeChat(), [], middleware=[middleware], context_schema=schema)


def a_middleware(given: Any) -> RouterContext:
    agent(seen := Seen(search("Ada: ?")), given).invoke(QUESTION)
    return seen.contexts[0]


def a_run_of_an_agent(given: Any) -> RouterContext:
    context = {"router_r1": given, "max_rounds": "the agent's"}
    agent(seen := Seen(search("Ada: ?")), KNOWN).invoke(QUESTION, context=context)
    return seen.contexts[0]


def a_run_of_an_agent_of_our_schema(given: Any) -> RouterContext:
    seen = Seen(search("Ada: ?"))
    agent(seen, KNOWN, RouterContext).invoke(QUESTION, context=given)
    return seen.contexts[0]


BUILT: list[Callable[[Any], RouterContext]] = [
    *(built, built_agent, routed, routed_async),
    *(an_evaluation, a_decision_model, a_middleware),
]
"""Entries that begin with the settings' own defaults."""
RUN: list[Callable[[Any], RouterContext]] = [
    *(a_run, an_async_run, a_resumed_run, alone_under_the_key, in_a_parent),
    *(in_a_parent_with_a_class, in_a_parent_with_a_model, in_a_parent_of_our_schema, a_trace),
    *(a_run_of_an_agent, a_run_of_an_agent_of_our_schema),
]
"""Entries that are given settings over those of a graph or a run."""
everywhere = pytest.mark.parametrize("entry", [*BUILT, *RUN], ids=lambda entry: entry.__name__)


@everywhere
@pytest.mark.parametrize("kind", [dict, RouterContext])
def test_what_is_named_overrides_and_the_rest_stays(entry, kind):
    known = KNOWN if entry in RUN else RouterContext()
    assert entry(kind(cost_weight=0.75, seed=3)) == replace(known, cost_weight=0.75, seed=3)


@everywhere
@pytest.mark.parametrize("given", [None, {}], ids=str)
def test_nothing_is_no_change(entry, given):
    assert entry(given) == (KNOWN if entry in RUN else RouterContext())


@everywhere
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_ronds": 1}, r"unknown key 'max_ronds' \(did you mean 'max_rounds'\?\)"),
        ({"max_rounds": -1}, "max_rounds is a whole number of at least 0 and at most 1000, not -1"),
        ({"max_rounds": "2"}, "max_rounds is a whole number"),
        (5, "is a RouterContext or a dict of settings, not int"),
        ("max_rounds=2", "is a RouterContext or a dict of settings, not str"),
        ([("max_rounds", 2)], "is a RouterContext or a dict of settings, not list"),
    ],
    ids=str,
)
def test_what_is_no_setting_is_an_error(entry, given, says):
    with pytest.raises(ConfigError, match=says):
        entry(given)


def test_a_setting_by_keyword_is_explained_too():
    for make in (RouterContext, lambda **given: replace(KNOWN, **given)):
        with pytest.raises(ConfigError, match=r"did you mean 'max_rounds'\?"):
            make(max_ronds=1)
    with pytest.raises(ConfigError, match=r"takes no 'max_ronds' \(did you mean 'max_rounds'\?\)"):
        ChatRouterR1(max_ronds=1)
    with pytest.raises(ConfigError, match="no person can approve a call here"):
        ChatRouterR1(approve_above_usd=1)


def test_pydantic_reads_a_context_as_a_graph_does():
    adapter = TypeAdapter(RouterContext)
    assert adapter.validate_json('{"seed": 4}').given == {"seed": 4}
    assert adapter.validate_python(kept := RouterContext(seed=4)) is kept
    for wrong in ('{"sed": 4}', '{"max_rounds": "2"}', "5"):
        with pytest.raises(ConfigError):
            adapter.validate_json(wrong)
    assert adapter.dump_python(kept) == kept.to_state()
    schema = adapter.json_schema()
    assert schema["properties"]["max_rounds"]["maximum"] == 1000
    assert schema == adapter.json_schema(mode="serialization")
    assert "max_rounds" in Model.model_json_schema()["$defs"]["RouterContext"]["properties"]


@dataclass(frozen=True)
class Extended(RouterContext):
    """A context with a field of the user's own, and a default."""

    user: str = "nobody"
    seed: int = 5


class ByHand(RouterContext):
    """A context with an `__init__` that is written by hand."""

    def __init__(self, user: str, **knobs: Any) -> None:
        super().__init__(**knobs)
        object.__setattr__(self, "user", user)


@pytest.mark.parametrize("copied", [lambda c: c, copy.deepcopy, copy.copy])
@pytest.mark.parametrize(
    ("given", "names"),
    [
        (Extended(), {"seed": 5}),
        (Extended(user="ada"), {"seed": 5}),
        (Extended(0.5, user="ada"), {"seed": 5, "cost_weight": 0.5}),
        (ByHand("ada", cost_weight=0.5), {"cost_weight": 0.5}),
        (ByHand("ada"), {}),
        (replace(RouterContext(), seed=1), {**RouterContext().to_state(), "seed": 1}),
    ],
)
def test_a_subclass_overrides_only_what_its_maker_names(given, names, copied):
    given = copied(given)
    assert given.given == names
    assert a_run(given).to_state() == {**KNOWN.to_state(), **names}
    graph = parent(type(given), router(seen := Seen(), KNOWN).compile())
    graph.invoke(QUESTION, context=given)
    assert seen.contexts[0].to_state() == {**KNOWN.to_state(), **names}


def test_a_typo_of_a_subclass_is_explained():
    with pytest.raises(ConfigError, match=r"did you mean 'max_rounds'\?\).*, user"):
        Extended(max_ronds=1)
    with pytest.raises(ConfigError, match=r"did you mean 'max_rounds'\?\)"):
        ByHand("ada", max_ronds=1)


@pytest.mark.parametrize(
    "entry",
    [*(entry for entry in [*BUILT, *RUN] if entry is not a_trace)],
    ids=lambda e: e.__name__,
)
def test_who_summarises_is_a_candidate_of_the_pool(entry):
    with pytest.raises(ConfigError, match="keep: no candidate 'Nobody'"):
        entry({"keep": "summary:Nobody"})


def test_who_summarises_is_checked_when_it_is_built():
    wrong = {"keep": "summary:Nobody"}
    with pytest.raises(ConfigError, match="keep: no candidate 'Nobody'"):
        router(Seen(), wrong)
    with pytest.raises(ConfigError, match="keep: no candidate 'Nobody'"):
        agent(Seen(), wrong)
    from router_r1_graph import RouterDecisionModel

    with pytest.raises(ConfigError, match="keep: no candidate 'Nobody'"):
        RouterDecisionModel(pool=POOL, context=wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"cost_weight": "0.9"}, {"max_rounds": True}, {"max_rounds": 2.0}, {"keep": 5}],
    ids=str,
)
def test_a_chat_router_refuses_what_a_graph_refuses(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))) as graphs:
        built(wrong)
    with pytest.raises(ConfigError) as fields:
        ChatRouterR1(**wrong)
    assert str(fields.value) == str(graphs.value)


def test_who_summarises_need_be_no_label_of_a_decision():
    needs("agents")
    from langchain_core.decisions import Choice

    from router_r1_graph import RouterDecisionModel

    model = RouterDecisionModel(
        pool="embedded", controller="cheapest", context={"keep": "summary:Magnivor"}
    )
    which = Choice(instructions="Which?", criteria={"Vantegro": None})
    decided = model.invoke({"state": "?", "questions": {"model": which}})
    assert decided.choices["model"].choice == "Vantegro"


def test_a_key_that_is_no_text_is_named():
    with pytest.raises(ConfigError, match="unknown key '1'"):
        built({1: 2})


def test_a_context_that_is_another_class_is_refused_alone_and_left_alone_inside():
    @dataclass
    class Other:
        max_rounds: int = 1

    with pytest.raises(ConfigError, match=r"context is a RouterContext or a dict .*, not Other"):
        a_run(Other())
    graph = parent(Other, router(seen := Seen(), KNOWN).compile())
    graph.invoke(QUESTION, context=Other())
    assert seen.contexts == [KNOWN]


def test_a_decision_model_explains_fields_that_it_has_not():
    needs("agents")
    from router_r1_graph import RouterDecisionModel

    with pytest.raises(ConfigError, match="takes no 'budget_usd'; pass it in context="):
        RouterDecisionModel(pool=POOL, budget_usd=1)
    with pytest.raises(ConfigError, match=r"takes no 'contxt' \(did you mean 'context'\?\)"):
        RouterDecisionModel(pool=POOL, contxt={})


def test_nobody_approves_a_call_of_an_evaluation():
    with pytest.raises(ConfigError, match="approve_above_usd: no person"):
        an_evaluation({"approve_above_usd": 1})


def test_an_agent_that_is_resumed_without_a_context_keeps_its_settings():
    needs("agents")
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    from router_r1_graph import RouterMiddleware

    @tool
    def look(path: str) -> str:
        """Look at a file."""
        return path

    class Calls(FakeChat):
        def bind_tools(self, tools: Any, **_: Any) -> Calls:
            return self

        def _result(self, query: str) -> Any:
            result = super()._result(query)
            if len(self.queries) == 1:
                call = {"name": "look", "args": {"path": "a"}, "id": "1"}
                old = result.generations[0].message
                result.generations[0].message = AIMessage(
                    "", tool_calls=[call], usage_metadata=old.usage_metadata
                )
            return result

    seen = Seen(search("Ada: ?"))
    middleware = RouterMiddleware(POOL, seen, models={"Ada": Calls()}, context=KNOWN)
    made = create_agent(
        FakeChat(),
        [look],
        middleware=[middleware],
        checkpointer=InMemorySaver(),
        interrupt_before=["tools"],
    )
    thread: Any = {"configurable": {"thread_id": "1"}}
    made.invoke(QUESTION, thread, context={"router_r1": {"budget_usd": 2.0}})
    state = made.invoke(None, thread)
    assert seen.contexts == [replace(KNOWN, budget_usd=2.0)] * 2
    assert state["router_r1"]["context"]["budget_usd"] == 2.0
    made.invoke(QUESTION, thread)
    assert seen.contexts[-1] == KNOWN


def test_a_served_request_takes_settings_under_the_key_too():
    needs("serve")
    import openai

    from served import ask, serving_at

    def given(**extra: Any) -> Mapping[str, Any]:
        seen.contexts.clear()
        ask(url, "?", extra_body=extra)
        (context,) = seen.contexts
        return context.to_state()

    seen = Seen()
    model = ChatRouterR1(pool=POOL, controller=seen, models=models(POOL), max_rounds=2)
    with serving_at(model) as url:
        knobs = given(router_r1={"cost_weight": 0.75, "max_rounds": 1, "seed": None})
        assert knobs == {**RouterContext().to_state(), "cost_weight": 0.75, "max_rounds": 1}
        assert given(router_r1={"max_rounds": 3})["max_rounds"] == 2  # the operator's cap
        assert given(router_r1={"seed": 3}, seed=4)["seed"] == 4
        for nothing in (None, {}):
            assert given(router_r1=nothing)["max_rounds"] == 2
        for wrong, says in (
            ({"max_ronds": 1}, r"unknown key 'max_ronds' \(did you mean 'max_rounds'\?\)"),
            ({"max_rounds": -1}, "max_rounds is a whole number"),
            ({"router_r1": {"max_rounds": 1}}, "unknown key 'router_r1'; allowed: cost_weight"),
            ({"approve_above_usd": 1}, "no person can approve a call here"),
            (5, "router_r1 has to be an object, not 5"),
        ):
            with pytest.raises(openai.BadRequestError, match=says) as caught:
                ask(url, "?", extra_body={"router_r1": wrong})
            assert caught.value.param == "router_r1"
            assert "approve_above_usd" not in str(caught.value).partition("unknown key")[2][20:]
        with pytest.raises(openai.BadRequestError, match=r"'cots' \(did you mean 'cost'\?\)"):
            ask(url, "?", model="router-r1:cots=0.8")


def test_a_trace_of_messages_alone_says_what_to_give():
    controller = ScriptedController([answer()])
    agent = create_router_r1_agent(
        POOL, controller, models=models(POOL), checkpointer=InMemorySaver()
    )
    thread: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(TraceError, match=r"get_state\(config\)\.values"):
        Trace.from_state(agent.invoke(QUESTION, thread))
    assert Trace.from_state(agent.get_state(thread).values).answer == "42"
    with pytest.raises(TraceError, match="has not finished"):
        Trace.from_state({"messages": [AIMessage("hello")]})
