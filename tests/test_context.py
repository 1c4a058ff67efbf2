"""The knobs of a run, whatever a caller or a parent graph hands over."""

from __future__ import annotations

import copy
import math
import pickle
import re
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from typing_extensions import TypedDict

from fakes import answer, make_pool, models
from router_r1_graph import ConfigError, RouterContext, ScriptedController, create_router_r1
from router_r1_graph.context import as_context
from router_r1_graph.controllers.controller import View

DEFAULT = RouterContext(max_rounds=7, cost_weight=0.25)


@dataclass(frozen=True)
class Namespaced:
    """A parent's context with a place for ours."""

    router_r1: Any = None
    max_rounds: int = 99  # the parent's own, of another meaning


@dataclass(frozen=True)
class Flat:
    """A parent's context that shares some of our names, with meanings and types of its own."""

    user: str = "ada"
    max_rounds: int = 2
    budget_usd: float | None = 0.5
    seed: int | None = None
    keep: bool = True


def inside(given: object) -> RouterContext:
    """Return the knobs of a run in a parent graph with this context."""
    return as_context(given, DEFAULT, parents=True)


def test_no_context_is_the_default():
    assert as_context(None, DEFAULT) is DEFAULT


@pytest.mark.parametrize("kind", [dict, RouterContext])
def test_a_dict_and_a_context_are_laid_over_what_is_known(kind):
    assert as_context(kind(max_rounds=1), DEFAULT) == replace(DEFAULT, max_rounds=1)
    assert as_context(kind(), DEFAULT) == DEFAULT


def test_a_whole_context_is_taken_as_it_is():
    for mine in (replace(DEFAULT, seed=3), RouterContext.from_state({"seed": 3})):
        assert as_context(mine, DEFAULT) is mine


def test_a_context_knows_what_it_was_given_in_every_copy():
    mine = RouterContext(0.75, seed=3)
    for one in (mine, copy.copy(mine), copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert one == mine
        assert one.given == {"cost_weight": 0.75, "seed": 3}
    assert mine.to_state() == {**RouterContext().to_state(), **mine.given}


def test_a_parents_own_fields_are_not_ours_whatever_they_are_called():
    assert inside(Flat()) == DEFAULT
    assert inside({"user": "ada", "seed": None, "keep": True}) == DEFAULT


def test_what_is_under_router_r1_has_to_be_knobs():
    with pytest.raises(ConfigError, match="router_r1 is a RouterContext or a dict of settings"):
        inside({"router_r1": 3})


@pytest.mark.parametrize("mine", [{"seed": 3}, replace(DEFAULT, seed=3)])
def test_what_stands_under_router_r1_is_taken(mine):
    expected = replace(DEFAULT, seed=3)
    assert inside(Namespaced(mine)) == expected
    assert inside({"router_r1": mine, "max_rounds": 99}) == expected


def test_an_empty_router_r1_is_the_default():
    assert inside({"router_r1": {}, "max_rounds": 99}) == DEFAULT


def test_an_unknown_key_under_router_r1_suggests_the_nearest():
    with pytest.raises(ConfigError) as raised:
        inside({"router_r1": {"max_round": 3}})
    assert str(raised.value) == (
        "context: unknown key 'max_round' (did you mean 'max_rounds'?); allowed: "
        + ", ".join(f.name for f in fields(RouterContext))
    )


@pytest.mark.parametrize(
    ("knob", "value", "says"),
    [
        ("cost_weight", -0.1, "cost_weight is a number of at least 0 and at most 1, not -0.1"),
        ("cost_weight", 1.1, "cost_weight is a number of at least 0 and at most 1, not 1.1"),
        ("cost_weight", math.nan, "not nan"),
        ("cost_weight", None, "not None"),
        ("cost_weight", "0.5", "not '0.5'"),
        ("max_rounds", -1, "max_rounds is a whole number of at least 0 and at most 1000, not -1"),
        ("max_rounds", 1001, "not 1001"),
        ("max_rounds", 2.0, "not 2.0"),
        ("max_rounds", True, "not True"),
        ("max_rounds", None, "not None"),
        ("max_calls_per_round", 0, "max_calls_per_round is a whole number of at least 1"),
        ("budget_usd", -1e-9, "at least 0 and at most 1000000000000, not -1e-09"),
        ("budget_usd", math.nan, "not nan"),
        ("budget_usd", 1e300, "budget_usd is a number of at least 0 and at most 1000000000000"),
        ("approve_above_usd", math.inf, "at most 1000000000000, not inf"),
        (
            "deadline_seconds",
            -1,
            "deadline_seconds is a number of at least 0 and at most 2147483647",
        ),
        ("deadline_seconds", 1e300, "at least 0 and at most 2147483647, not 1e+300"),
        ("max_rounds", 10**400, "max_rounds is a whole number of at least 0 and at most 1000, not"),
        ("seed", 10**30, "seed is a whole number of at least -9223372036854775808 and at most 9"),
        ("max_information_tokens", 0, "max_information_tokens is a whole number of at least 1"),
        ("temperature", 2.5, "temperature is a number of at least 0 and at most 2, not 2.5"),
        ("seed", "x", "seed is a whole number"),
    ],
)
def test_a_knob_out_of_range_is_named_with_its_range_and_value(knob, value, says):
    with pytest.raises(ConfigError) as raised:
        RouterContext(**{knob: value})
    assert says in str(raised.value)
    assert str(raised.value).startswith(knob)


@pytest.mark.parametrize("knob", ["budget_usd", "deadline_seconds", "temperature"])
def test_no_limit_is_none(knob):
    assert getattr(RouterContext(**{knob: None}), knob) is None


def test_a_range_is_checked_in_a_dict_too():
    with pytest.raises(ConfigError, match="max_rounds"):
        as_context({"max_rounds": -1})
    with pytest.raises(ConfigError, match="max_rounds"):
        inside({"router_r1": {"max_rounds": -1}})


# ------------------------------------------------------------------------------ through a graph


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (
            {"budget_usd": 0.0},
            r"the key 'budget_usd', .* context=\{\"router_r1\": \{\"budget_usd\": 0",
        ),
        ({"deadline_seconds": 1}, r"context=\{\"router_r1\": \{\"deadline_seconds\": 1\}\}"),
        (
            {"routerr1": {"budget_usd": 0.0}},
            r"the key 'routerr1', .* context=\{\"router_r1\": \{\.\.\.\}",
        ),
        ({"router_r1": {"seed": 3}, "budget_usd": "the parent's"}, ""),
        ({"max_rounds": 0, "seed": None, "router": {}, "router_r2": "x", "budget_usd": None}, ""),
        (None, ""),
    ],
)
def test_the_log_says_once_which_limit_of_a_parent_is_not_read(context, says, caplog, monkeypatch):
    monkeypatch.setattr("router_r1_graph.context.beside._said", set())  # of this process
    for _ in range(2):
        router, _ = seen()
        parent = StateGraph(MessagesState).add_node("router", router).add_edge(START, "router")
        parent.compile().invoke({"messages": [("user", "?")]}, context=context)
    assert len(caplog.messages) == bool(says)
    assert re.search(says, caplog.text)


def seen(**kwargs: Any) -> tuple[Any, list[RouterContext]]:
    """Return a graph, and the contexts that its controller sees."""
    contexts: list[RouterContext] = []

    def script(view: View) -> str:
        contexts.append(view.context)
        return answer()

    pool = make_pool()
    graph = create_router_r1(pool, ScriptedController(script), models=models(pool), **kwargs)
    return graph.compile(), contexts


@pytest.mark.parametrize("context", [{"max_rounds": 2}, RouterContext(max_rounds=2)])
def test_a_run_takes_its_context(context):
    graph, contexts = seen(context=DEFAULT)
    graph.invoke({"question": "?"}, context=context)
    assert [c.max_rounds for c in contexts] == [2]


def test_a_dict_means_the_same_alone_and_inside_and_under_its_key():
    knobs = {"cost_weight": 0.75}
    alone, seen_alone = seen(context=DEFAULT)
    alone.invoke({"question": "?"}, context=knobs)
    alone.invoke({"question": "?"}, context={"router_r1": knobs, "user": "ada"})
    inside, seen_inside = seen(context=DEFAULT)
    parent = StateGraph(MessagesState).add_node("router", inside).add_edge(START, "router")
    parent.compile().invoke({"messages": [("user", "?")]}, context={"router_r1": knobs})
    assert [*seen_alone, *seen_inside] == 3 * [replace(DEFAULT, cost_weight=0.75)]


def test_a_typo_is_a_clear_error_everywhere():
    graph, _ = seen()
    parent = StateGraph(MessagesState).add_node("router", graph).add_edge(START, "router").compile()
    says = r"unknown key 'budget' \(did you mean 'budget_usd'\?\)"
    with pytest.raises(ConfigError, match=says):
        graph.invoke({"question": "?"}, context={"budget": 1})
    with pytest.raises(ConfigError, match=says):
        parent.invoke({"messages": [("user", "?")]}, context={"router_r1": {"budget": 1}})


def test_a_run_without_a_context_takes_the_graphs():
    graph, contexts = seen(context=DEFAULT)
    graph.invoke({"question": "?"})
    assert contexts == [DEFAULT]


@pytest.mark.parametrize(
    ("schema", "context", "expected"),
    [
        (Namespaced, Namespaced({"seed": 3}), replace(DEFAULT, seed=3)),
        (Namespaced, {"router_r1": {"seed": 3}}, replace(DEFAULT, seed=3)),
        (Flat, Flat(), DEFAULT),
        (None, {"max_rounds": 1, "seed": None}, DEFAULT),
        (None, {"router_r1": {"max_rounds": 1}}, replace(DEFAULT, max_rounds=1)),
        (None, RouterContext(max_rounds=1), replace(DEFAULT, max_rounds=1)),
        (RouterContext, {"max_rounds": 1}, replace(DEFAULT, max_rounds=1)),
        (RouterContext, {"router_r1": {"max_rounds": 1}}, replace(DEFAULT, max_rounds=1)),
        (Flat, None, DEFAULT),
    ],
)
def test_a_parents_context_reaches_the_router_inside(schema, context, expected):
    class Parent(TypedDict):
        question: str
        answer: str

    router, contexts = seen(context=DEFAULT)
    parent = StateGraph(Parent, context_schema=schema)
    parent.add_node("router", router)
    parent.add_edge(START, "router")
    assert parent.compile().invoke({"question": "?"}, context=context)["answer"] == "42"
    assert contexts == [expected]
