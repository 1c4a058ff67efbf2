"""The limits of a run: each ends it in an answer made from what is known, and none is overspent."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import ToolMessage

from fakes import NEVER, FakeChat, PaidController, answer, make_pool, models, search
from patience import long_enough
from router_r1_graph import (
    CandidatePool,
    ChatModelController,
    ControllerSettings,
    RouterContext,
    ScriptedController,
    StickyController,
    create_router_r1,
)
from router_r1_graph.ledger import total

QUESTION = {"question": "What is the capital of France?"}


def run(
    controller: Any,
    pool: CandidatePool | None = None,
    given: Any = None,
    how: str = "invoke",
    **context: Any,
) -> dict[str, Any]:
    pool = pool or make_pool()
    graph = create_router_r1(pool, controller, models=given or models(pool)).compile()
    if how == "invoke":
        result = graph.invoke(QUESTION, context=context)
    else:
        result = asyncio.run(graph.ainvoke(QUESTION, context=context))
    assert type(result["stop_reason"]) is str  # no enum: a strict serializer would refuse it
    return result


both_ways = pytest.mark.parametrize("how", ["invoke", "ainvoke"])


def bills(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [m.artifact for m in result["scratchpad"] if getattr(m, "artifact", None)]


def observations(result: dict[str, Any]) -> list[str]:
    return [m.text for m in result["scratchpad"] if isinstance(m, ToolMessage)]


# -------------------------------------------------------------------------------------- rounds


@pytest.mark.parametrize("rounds", [0, 1, 2, 4, 7])
def test_after_the_last_round_the_controller_is_made_to_answer(rounds):
    queries = iter(range(100))
    controller = ScriptedController(
        lambda view: answer("at last") if view.must_answer else search(f"Ada: {next(queries)}")
    )
    result = run(controller, max_rounds=rounds)
    assert (result["stop_reason"], result["answer"]) == ("round_limit", "at last")
    assert result["round"] == rounds
    assert len(bills(result)) == rounds


def test_a_controller_that_answers_in_time_has_answered():
    result = run(ScriptedController([search("Ada: ?"), answer()]), max_rounds=2)
    assert (result["stop_reason"], result["round"]) == ("answered", 1)


def test_a_call_after_the_last_round_is_not_made_and_the_last_reply_is_the_answer():
    pool = make_pool()
    ada = FakeChat(text=lambda query: f"reply {query}")
    script = [search("Ada: one"), search("Ada: two"), search("Ada: three")]
    result = run(ScriptedController(script), pool, models(pool, Ada=ada), max_rounds=2)
    assert (result["stop_reason"], result["answer"]) == ("round_limit", "reply two")
    assert ada.queries == ["one", "two"]


@pytest.mark.parametrize("turn", ["no tags at all", "<answer> </answer>", "<think> hm", ""])
def test_nothing_that_can_be_read_is_invalid(turn):
    result = run(ScriptedController([search("Ada: ?"), turn]), max_rounds=3)
    assert (result["stop_reason"], result["answer"]) == ("invalid", "Paris")
    assert result["round"] == 3


def test_a_mistake_costs_a_round_and_is_told():
    result = run(ScriptedController(["<search> Ada </search>", answer()]))
    assert observations(result) == [
        "not done: a colon after the candidate is missing\n(left: 3 rounds)"
    ]
    assert (result["stop_reason"], result["round"]) == ("answered", 1)


def test_the_prompt_names_the_whole_budget_and_the_observations_what_is_left():
    chat = FakeChat(text=lambda text: answer() if "(left: " in text else search("Ada: ?"))
    run(ChatModelController(chat), max_rounds=2, budget_usd=1.0, deadline_seconds=60)
    assert "2 rounds, $1.000000, 60.0 s" in chat.queries[0]
    assert "(left: 1 round, $0.99998" in chat.queries[1]


# --------------------------------------------------------------------------------------- calls


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_more_calls_than_a_round_allows_are_refused_with_the_reason(limit):
    turn = search("Ada: 1", "Bob: 2", "Ada: 3")
    result = run(ScriptedController([turn, answer()]), max_calls_per_round=limit)
    assert [b["query"] for b in bills(result)] == ["1", "2", "3"][:limit]
    refused = [text for text in observations(result) if text.startswith("not done")]
    assert len(refused) == 3 - limit
    assert all(f"at most {limit} call" in text for text in refused)


# ----------------------------------------------------------------------------------------- USD

DEAR = {"name": "Ada", "input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1e4, "max_tokens": 100}


def test_a_call_that_could_cost_more_than_is_left_is_not_made():
    """Ada's worst case is 100 tokens, 1 USD; the fake reply takes 5 of them, 0.05 USD."""
    pool = make_pool(DEAR)
    ada = FakeChat()
    result = run(
        ScriptedController([search("Ada: ?"), answer("in time")]),
        pool,
        {"Ada": ada},
        budget_usd=0.99,
    )
    assert ada.queries == []
    assert (result["stop_reason"], result["answer"]) == ("budget_usd", "in time")
    assert observations(result) == [
        "not done: may cost $1.000000, and only $0.990000 are left"
        "\n(left: 0 rounds, $0.990000; answer now)"
    ]


def test_a_call_whose_worst_case_is_just_what_is_left_is_made():
    pool = make_pool(DEAR)
    result = run(ScriptedController([search("Ada: ?"), answer()]), pool, budget_usd=1.0)
    assert (result["stop_reason"], len(bills(result))) == ("answered", 1)


def test_the_query_counts_in_the_worst_case():
    pool = make_pool({"name": "Ada", "input_usd_per_mtok": 1e4, "output_usd_per_mtok": 0})
    script = ScriptedController([search("Ada: " + "x" * 1000), answer()])
    assert bills(run(script, pool, budget_usd=10.0)) == []
    assert len(bills(run(script, pool, budget_usd=11.0))) == 1


def test_parallel_calls_reserve_their_worst_cases_together():
    pool = make_pool(DEAR, {**DEAR, "name": "Bob"}, {**DEAR, "name": "Eve"})
    turn = search("Ada: ?", "Bob: ?", "Eve: ?")
    result = run(ScriptedController([turn, search("Eve: ?"), answer()]), pool, budget_usd=2.5)
    assert [b["candidate"] for b in bills(result)] == ["Ada", "Bob", "Eve"]
    # Eve could not be asked with the other two, but after they had cost what they really did.
    assert result["stop_reason"] == "answered"


def test_a_cheaper_call_of_the_same_round_is_still_made():
    pool = make_pool(DEAR, {**DEAR, "name": "Bob", "output_usd_per_mtok": 1.0})
    turn = search("Ada: ?", "Bob: ?")
    result = run(ScriptedController([turn, answer()]), pool, budget_usd=0.5)
    assert [b["candidate"] for b in bills(result)] == ["Bob"]


def test_what_a_call_did_not_cost_can_be_spent_later():
    pool = make_pool(DEAR)
    script = [search(f"Ada: {n}") for n in range(4)] + [answer()]
    result = run(ScriptedController(script), pool, budget_usd=1.1)
    assert [b["cost_usd"] for b in bills(result)] == [pytest.approx(0.05)] * 3
    assert result["stop_reason"] == "budget_usd"  # 0.95 was left for a fourth one


def test_a_controllers_turn_that_could_cost_too_much_is_not_taken():
    controller = PaidController([search("Ada: ?"), answer()], usd=0.4)
    result = run(controller, budget_usd=0.7)
    assert len(controller.views) == 1
    assert (result["stop_reason"], result["answer"]) == ("budget_usd", "Paris")
    assert total(result["ledger"])["controller_cost_usd"] == pytest.approx(0.4)


def test_a_controllers_own_turn_is_paid_before_its_calls():
    controller = PaidController([search("Ada: ?"), answer()], usd=0.4)
    result = run(controller, make_pool(DEAR), budget_usd=1.3)
    assert bills(result) == []
    assert "only $0.900000 are left" in observations(result)[0]


def test_a_chat_model_as_the_controller_reserves_its_whole_prompt_and_longest_turn():
    settings_ = ControllerSettings(output_usd_per_mtok=1e3, max_tokens=1000)
    controller = ChatModelController(FakeChat(text=answer()), settings_)
    assert run(controller, budget_usd=0.99)["stop_reason"] == "budget_usd"
    result = run(controller, budget_usd=1.01)
    assert result["stop_reason"] == "answered"
    assert total(result["ledger"])["controller_cost_usd"] == pytest.approx(0.005)


def test_with_no_budget_at_all_nothing_that_costs_is_asked():
    pool = make_pool()
    ada = FakeChat()
    controller = PaidController([search("Ada: ?")], usd=0.1)
    result = run(controller, pool, models(pool, Ada=ada), budget_usd=0)
    assert (result["stop_reason"], ada.queries, controller.views) == ("budget_usd", [], [])
    assert result["answer"] == ""


def spender(price_in: float, price_out: float, max_tokens: int) -> dict[str, Any]:
    return {
        "input_usd_per_mtok": price_in,
        "output_usd_per_mtok": price_out,
        "max_tokens": max_tokens,
    }


PRICES = st.floats(0, 1e4)
SPENDERS = st.lists(st.builds(spender, PRICES, PRICES, st.integers(1, 500)), min_size=1, max_size=3)
ROUNDS = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.text("ab ", min_size=1, max_size=30)), max_size=5),
    min_size=1,
    max_size=4,
)


@given(SPENDERS, ROUNDS, st.floats(0, 20), st.floats(0, 2))
def test_no_run_ever_spends_more_than_its_budget(spenders, rounds, budget, controller_usd):
    """Even where each reply takes all of its tokens, and each byte of a query is a token."""
    pool = make_pool(*({"name": f"C{n}", **s} for n, s in enumerate(spenders)))
    greedy = {c.name: GreedyChat(output_tokens=c.max_tokens) for c in pool.candidates}
    script = [
        search(*(f"C{which % len(spenders)}: x{query}" for which, query in calls))
        for calls in rounds
    ]
    controller = PaidController(script, usd=controller_usd)
    result = run(controller, pool, greedy, budget_usd=budget)
    spent = total(result["ledger"])["cost_usd"]
    assert spent <= budget * (1 + 1e-9)
    asked = sum(len(chat.queries) for chat in greedy.values())
    assert asked == sum(line["calls"] for line in result["ledger"]["candidates"].values())


class GreedyChat(FakeChat):
    """Reports a token for each byte that it is sent, and 60 for the chat template."""

    def _result(self, query: str) -> Any:
        result = super()._result(query)
        usage = result.generations[0].message.usage_metadata
        usage["input_tokens"] = len(query.encode()) + 60
        return result


# ------------------------------------------------------------------------------------- seconds


def in_time_for_a_reply(result: dict[str, Any]) -> bool:
    return any(bill["ok"] for bill in bills(result))


@both_ways
def test_the_deadline_ends_a_slow_call(how):
    pool = make_pool()

    def attempt(seconds):
        given = models(pool, Ada=FakeChat(delay=NEVER), Bob=FakeChat(text="Lyon"))
        controller = ScriptedController([search("Ada: ?", "Bob: ?")])
        return run(controller, pool, given, how, deadline_seconds=seconds)

    start = time.perf_counter()
    result = long_enough(0.3, attempt, begun=in_time_for_a_reply)
    assert (result["stop_reason"], result["answer"]) == ("deadline", "Lyon")
    errors = {b["candidate"]: b["error"] and b["error"]["kind"] for b in bills(result)}
    assert errors == {"Ada": "timeout", "Bob": None}
    assert time.perf_counter() - start > 0.29


@both_ways
def test_the_deadline_is_of_the_clock_on_the_wall_also_for_calls_that_wait_for_their_turn(how):
    pool = make_pool()
    turn = search("Ada: 1?", "Bob: 2?", "Ada: 3?", "Bob: 4?")
    config = {"max_concurrency": 1}
    given: dict[str, FakeChat] = {}

    def attempt(seconds):  # one call fits, two do not
        given.update({name: FakeChat(delay=seconds * 5 / 8) for name in ("Ada", "Bob")})
        graph = create_router_r1(pool, ScriptedController([turn]), models=given).compile()
        context = RouterContext(deadline_seconds=seconds)
        if how == "invoke":
            return graph.invoke({"question": "?"}, config, context=context)
        return asyncio.run(graph.ainvoke({"question": "?"}, config, context=context))

    result = long_enough(0.4, attempt, begun=in_time_for_a_reply)
    assert result["stop_reason"] == "deadline"
    assert [b["ok"] for b in bills(result)] == [True, False, False, False]
    # When the second was given up, there was no time left in which the others could be asked.
    assert given["Ada"].queries == ["1?"]
    assert given["Bob"].queries in (["2?"], [])  # [] where the machine was slow


@both_ways
def test_the_deadline_ends_a_slow_controller(how):
    chat = FakeChat(text=answer(), delay=NEVER)

    def attempt(seconds):
        return run(ChatModelController(chat), how=how, deadline_seconds=seconds)

    result = long_enough(0.3, attempt, begun=lambda _: chat.queries)
    assert (result["stop_reason"], result["answer"]) == ("deadline", "")
    assert result["ledger"]["controller"]["failed_calls"] == 1


@both_ways
def test_the_seconds_of_all_rounds_count_together(how):
    queries = iter(range(100))
    controller = ScriptedController(lambda view: search(f"Ada: {next(queries)}"))
    pool = make_pool()

    def attempt(seconds):
        given = models(pool, Ada=FakeChat(delay=seconds * 0.4))
        return run(controller, pool, given, how, deadline_seconds=seconds, max_rounds=20)

    result = long_enough(0.25, attempt, begun=in_time_for_a_reply)
    assert (result["stop_reason"], result["answer"]) == ("deadline", "Paris")
    assert 1 <= len(bills(result)) <= 3


def test_the_seconds_of_parallel_calls_count_once():
    pool = make_pool("Ada", "Bob", "Eve")
    controller = ScriptedController([search("Ada: ?", "Bob: ?", "Eve: ?"), answer()])
    limits = []

    def attempt(seconds):  # enough for one after another of two calls, not of three
        limits.append(seconds)
        given = {c.name: FakeChat(delay=seconds * 0.4) for c in pool.candidates}
        return run(controller, pool, given, deadline_seconds=seconds)

    result = long_enough(0.5, attempt, begun=lambda result: result["stop_reason"] == "answered")
    lines = result["ledger"]["candidates"].values()
    assert sum(line["seconds"] for line in lines) >= 1.2 * limits[-1]
    assert result["ledger"]["seconds"] == pytest.approx(max(line["seconds"] for line in lines))
    assert result["ledger"]["seconds"] < limits[-1]
    assert result["stop_reason"] == "answered"


def test_what_the_controller_took_is_not_left_for_its_calls():
    pool = make_pool()
    ada = FakeChat(delay=NEVER)
    controller = PaidController([search("Ada: ?")], seconds=NEVER - 0.2)
    result = run(controller, pool, models(pool, Ada=ada), deadline_seconds=NEVER)
    assert result["stop_reason"] == "deadline"


@both_ways
def test_a_call_for_which_no_time_is_left_is_not_sent(how):
    pool = make_pool()
    ada = FakeChat()
    controller = PaidController([search("Ada: ?")], seconds=11)
    result = run(controller, pool, models(pool, Ada=ada), how, deadline_seconds=10)
    assert (result["stop_reason"], ada.queries) == ("deadline", [])
    assert bills(result)[0]["error"]["kind"] == "timeout"


def test_with_no_seconds_at_all_nothing_is_asked():
    controller = PaidController([search("Ada: ?")])
    result = run(controller, deadline_seconds=0)
    assert (result["stop_reason"], controller.views, bills(result)) == ("deadline", [], [])


# ------------------------------------------------------------------------- tokens of information


def test_only_the_observation_is_cut():
    pool = make_pool()
    long = FakeChat(text="word " * 1000, output_tokens=90)
    controller = PaidController([search("Ada: ?"), answer()])
    result = run(controller, pool, models(pool, Ada=long), max_information_tokens=10)
    observation = observations(result)[0].removesuffix("\n(left: 3 rounds)")
    assert observation == "word word word word word word word [... cut]"
    assert result["ledger"]["candidates"]["Ada"]["output_tokens"] == 90
    assert controller.views[1].question == QUESTION["question"]
    assert result["scratchpad"][1].text == search("Ada: ?")


def test_a_long_query_and_a_long_turn_are_not_cut():
    pool = make_pool()
    ada = FakeChat()
    query = "word " * 1000 + "?"
    result = run(
        ScriptedController([search(f"Ada: {query}"), answer("long " * 1000 + "answer")]),
        pool,
        models(pool, Ada=ada),
        max_information_tokens=1,
    )
    assert ada.queries == [query]
    assert result["answer"] == "long " * 1000 + "answer"


@pytest.mark.parametrize("text", [" " * 5000 + "x", "🦉" * 5000, "x" * 5000, "\n" * 5000 + "x"])
def test_a_reply_of_any_shape_can_be_cut(text):
    pool = make_pool()
    result = run(
        ScriptedController([search("Ada: ?"), answer()]),
        pool,
        models(pool, Ada=FakeChat(text=text)),
        max_information_tokens=3,
    )
    assert result["stop_reason"] == "answered"
    assert observations(result)[0].endswith(" [... cut]\n(left: 3 rounds)")


# ---------------------------------------------------------------------------- the same call twice


def asked_twice(*turns: str, temperature: float = 0.0) -> tuple[list[str], dict[str, Any]]:
    pool = make_pool({"name": "Ada", "temperature": temperature}, "Bob")
    replies = iter(["first", "second", "third"])
    ada = FakeChat(text=lambda _: next(replies))
    given = models(pool, Ada=ada)
    return ada.queries, run(ScriptedController([*turns, answer()]), pool, given)


@pytest.mark.parametrize(
    "turns",
    [
        (search("Ada: ?", "ada: ?"),),
        (search("Ada: ?"), search("Ada: ?")),
        (search("Ada: ?"), search("Bob: ?"), search("Ada: ?")),
    ],
)
def test_the_same_call_is_made_and_paid_once(turns):
    queries, result = asked_twice(*turns)
    assert queries == ["?"]
    replies = [b for b in bills(result) if b["candidate"] == "Ada"]
    assert [(b["reply"], b["cached"]) for b in replies] == [("first", False), ("first", True)]
    assert (replies[1]["cost_usd"], replies[1]["output_tokens"]) == (0, 0)
    assert result["ledger"]["candidates"]["Ada"]["calls"] == 1


@pytest.mark.parametrize(
    "turns", [(search("Ada: ?", "Ada: ?"),), (search("Ada: ?"), search("Ada: ?"))]
)
def test_the_same_call_is_made_again_where_replies_are_drawn(turns):
    queries, result = asked_twice(*turns, temperature=0.7)
    assert queries == ["?", "?"]
    assert sorted(b["reply"] for b in bills(result)) == ["first", "second"]
    assert result["ledger"]["candidates"]["Ada"]["calls"] == 2


def test_another_query_or_candidate_is_another_call():
    queries, result = asked_twice(search("Ada: ?", "Ada: ??", "Bob: ?"))
    assert sorted(queries) == ["?", "??"]  # two threads: in either order
    assert [b["cached"] for b in bills(result)] == [False] * 3


def test_a_call_that_failed_is_made_again():
    pool = make_pool()
    outcomes = iter([ConnectionError("gone"), "Paris"])
    ada = FakeChat(text=lambda _: next(outcomes))
    script = ScriptedController([search("Ada: ?"), search("Ada: ?"), search("Ada: ?"), answer()])
    result = run(script, pool, models(pool, Ada=ada))
    assert ada.queries == ["?", "?"]
    assert [(b["ok"], b["cached"]) for b in bills(result)] == [
        (False, False),
        (True, False),
        (True, True),
    ]


def test_a_repeated_call_needs_no_budget():
    pool = make_pool(DEAR)
    script = ScriptedController([search("Ada: ?"), search("Ada: ?"), answer()])
    result = run(script, pool, budget_usd=1.0)
    assert result["stop_reason"] == "answered"
    assert [b["cached"] for b in bills(result)] == [False, True]


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize(("budget", "paid"), [(None, 0.25), (0.2, 0.0)])
def test_the_decision_that_sticky_hands_on_is_on_the_bill_and_within_the_budget(how, budget, paid):
    pool, first = make_pool("Ada"), PaidController([search("Ada: ?")], usd=0.25)
    graph = create_router_r1(pool, StickyController(first), models=models(pool)).compile()
    question, context = {"question": "?"}, {"budget_usd": budget}
    if how == "invoke":
        result = graph.invoke(question, context=context)
    else:
        result = asyncio.run(graph.ainvoke(question, context=context))
    assert result["ledger"]["controller"]["cost_usd"] == paid
    assert result["stop_reason"] == ("answered" if paid else "budget_usd")


# ----------------------------------------------------------------------------- the last answer


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({"max_rounds": 1}, "round_limit"),
        ({"budget_usd": 280e-6}, "budget_usd"),  # a call costs 20, and 265 at worst
        ({"deadline_seconds": 10}, "deadline"),
    ],
)
def test_without_a_last_word_of_the_controller_the_last_good_reply_is_the_answer(context, reason):
    script = [search("Ada: ?"), search("Ada: ? again")]
    result = run(PaidController(script, seconds=6), **{"deadline_seconds": 60, **context})
    assert (result["stop_reason"], result["answer"]) == (reason, "Paris")
    assert [b["query"] for b in bills(result) if b["ok"]] == ["?"]
    assert result["messages"][-1].text == "Paris"
