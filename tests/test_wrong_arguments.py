"""Wrong Python arguments are refused at once, in words, wherever they may be given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from extras import needs
from fakes import FakeChat
from router_r1_graph import (
    CandidatePool,
    ChatRouterR1,
    CheapestController,
    ConfigError,
    ConstantController,
    ControllerError,
    PoolError,
    RuleController,
    StickyController,
    VoteController,
    candidate_tool,
    create_router_r1,
    create_router_r1_agent,
    parse_controller,
    pool_tools,
    route_only,
)

POOL = CandidatePool.embedded()
NO_POOLS = [
    (None, "nothing"),
    (3, "3"),
    ({"a": 1}, "a mapping of 1"),
    ([POOL.candidates[0]], "a list of 1"),
    (b"embedded", "b'embedded'"),
]
ENTRANCES: list[Callable[[Any], Any]] = [
    CandidatePool.from_yaml,
    create_router_r1,
    create_router_r1_agent,
    pool_tools,
    lambda pool: route_only(pool, "keyword", "?"),
    lambda pool: parse_controller("keyword", pool),
    lambda pool: ConstantController("Quillora", pool),
]


@pytest.mark.parametrize("enter", ENTRANCES)
@pytest.mark.parametrize(("pool", "shown"), NO_POOLS)
def test_what_is_no_pool_is_named_with_what_a_pool_may_be(enter, pool, shown):
    with pytest.raises(PoolError, match=rf"^pool: a pool file, .*\]\) is wanted, not {shown}$"):
        enter(pool)


def test_the_pool_and_the_models_of_an_agent_are_checked_too():
    needs("agents")
    from router_r1_graph import RouterDecisionModel, RouterMiddleware

    for make in (RouterMiddleware, lambda pool: RouterDecisionModel(pool=pool)):
        with pytest.raises(PoolError, match=r"^pool: .* is wanted, not 3$"):
            make(3)  # type: ignore[no-untyped-call]
    with pytest.raises(PoolError, match=r"^models: Quillora: a chat .* is wanted, not 'gpt'$"):
        RouterMiddleware("embedded", models={"Quillora": "gpt"})  # type: ignore[dict-item]


def test_the_pool_of_an_evaluation_is_checked_too():
    needs("eval")
    from router_r1_graph import Evaluation

    with pytest.raises(PoolError, match=r"^pool: .* is wanted, not 3$"):
        Evaluation(3, [], [])  # type: ignore[arg-type]
    assert Evaluation("embedded", [], []).pool == POOL  # type: ignore[arg-type]


def test_the_pool_of_a_chat_model_is_the_same_or_what_its_dump_says():
    with pytest.raises(PoolError, match=r"^pool: .* is wanted, not 3$"):
        ChatRouterR1(pool=3)  # type: ignore[arg-type]
    dumped = ChatRouterR1(pool="embedded").model_dump(include={"pool"})  # type: ignore[arg-type]
    assert ChatRouterR1.model_validate(dumped).pool.candidates == POOL.candidates


def test_a_pool_may_be_named_at_every_entrance():
    assert [tool.name for tool in pool_tools("embedded")] == [c.slug for c in POOL.candidates]
    assert ConstantController("quillora", "embedded").name == "constant:quillora"
    assert parse_controller(None, "embedded").name == "keyword"


@pytest.mark.parametrize(
    ("wrong", "kind", "says"),
    [
        (
            lambda: create_router_r1("embedded", replies=3),  # type: ignore[arg-type]
            ConfigError,
            r"^replies: a ReplyStore or its file is wanted, not 3$",
        ),
        (
            lambda: route_only("embedded", "keyword", "?", replies=["x"]),  # type: ignore[arg-type]
            ConfigError,
            r"^replies: .*, not a list of 1$",
        ),
        (
            lambda: candidate_tool("Quillora"),  # type: ignore[arg-type]
            PoolError,
            r"^candidate: a Candidate is wanted, such as .*, not 'Quillora'$",
        ),
        (
            lambda: candidate_tool(POOL.candidates[0], 0),  # type: ignore[arg-type]
            PoolError,
            r"^models: Quillora: a chat model, tool, retriever or graph is wanted, not 0$",
        ),
        (
            lambda: create_router_r1("embedded", models=[FakeChat()]),  # type: ignore[arg-type]
            PoolError,
            r"^models: a dict by candidates' names is wanted, not a list of 1$",
        ),
        (
            lambda: pool_tools("embedded", {5: FakeChat()}),  # type: ignore[dict-item]
            PoolError,
            r"^models: no candidate '5'; candidates: Quillora, ",
        ),
        (
            lambda: StickyController("keyword"),  # type: ignore[arg-type]
            ControllerError,
            r"^sticky: .* such as 'sticky:keyword', not 'keyword'$",
        ),
        (
            lambda: parse_controller(5, POOL),  # type: ignore[arg-type]
            ControllerError,
            r"^controller: a spec such as 'keyword' is wanted, not 5$",
        ),
        (
            lambda: ChatRouterR1(formatter="Quilora"),
            ConfigError,
            r"^formatter: no candidate 'Quilora' \(did you mean 'Quillora'\?\)",
        ),
        (
            lambda: ChatRouterR1().model_copy(update={"max_round": 0}),
            ConfigError,
            r"^ChatRouterR1 takes no 'max_round' \(did you mean 'max_rounds'\?\)",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_wanted(wrong, kind, says):
    with pytest.raises(kind, match=says):
        wrong()


@pytest.mark.parametrize(("voters", "shown"), [(0, "0"), (-1, "-1"), ("x", "'x'"), (True, "true")])
def test_voters_are_a_whole_number_from_1(voters, shown):
    says = rf"^vote: the voters are a whole number from 1, or None for all, not {shown}$"
    with pytest.raises(ControllerError, match=says):
        VoteController(voters)
    assert [VoteController(n).name for n in (None, 1)] == ["vote", "vote:1"]


class Dearest(RuleController):
    """A rule of a user's own."""

    name = "dearest"

    def turn(self, view: Any) -> str:
        """Ask the last one."""
        return f"<search> {view.pool.by_price[-1].name}: {view.question} </search>"


def test_sticky_begins_with_any_controller():
    sticky = StickyController(Dearest())
    (call,) = route_only("embedded", sticky, "Who wrote Hamlet?").calls
    assert (sticky.name, call.candidate) == ("sticky:dearest", POOL.by_price[-1].name)
    assert StickyController(CheapestController()).name == "sticky:cheapest"


def test_an_app_is_made_of_a_chat_model():
    needs("serve")
    from router_r1_graph import create_app

    says = r"^create_app: a ChatRouterR1 is wanted, such as .*, not 'embedded'$"
    with pytest.raises(ConfigError, match=says):
        create_app("embedded")  # type: ignore[arg-type]
