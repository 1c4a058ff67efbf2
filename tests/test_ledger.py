"""The bill, exact to the token and the dollar against servers that say what they charge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from openai_server import Reply, Status
from router_r1_graph import ReplyError, create_router_r1, parse_controller
from router_r1_graph.candidates import reply as replies
from router_r1_graph.ledger import (
    WHERE_ANY,
    LedgerLine,
    added,
    charge_candidates,
    charge_controller,
    most_paid_usd,
    new_ledger,
    price_usd,
    total,
)
from yaml_pool import ONE_DOLLAR, both_ways, run, scripted, yaml_pool

ANSWER = "<answer> Paris </answer>"
PRICES = {
    "Ada": {"input_usd_per_mtok": 0.05, "output_usd_per_mtok": 0.4},
    "Bob": {"input_usd_per_mtok": 3.0, "output_usd_per_mtok": 15.0},
}
CONTROLLER = {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0}
# What `test_a_run_with_everything_in_it` below is served.
SERVED = {
    "controller": [
        Reply("<search> Ada: one? </search> <search> Bob: two? </search>", 101, 31),
        Reply("<search> Ada: three? </search>", 307, 37),
        Reply(ANSWER, 503, 41, reasoning_tokens=29),
    ],
    "ada": [Reply("1", 11, 2), Reply("3", 13, 3)],
    "bob": Reply("2", 17, 5, reasoning_tokens=4),
}


SOME = pytest.approx(500, abs=500)  # seconds: anything from 0 on that a test can take


def line(**given: Any) -> dict[str, Any]:
    zero = {name: 0 for name in LedgerLine.__annotations__ if name not in WHERE_ANY}
    return {**zero, **given, "seconds": SOME, "cost_usd": close(given)}


def close(given: Mapping[str, Any]) -> Any:
    return pytest.approx(given.get("cost_usd", 0.0), rel=1e-12, abs=0)


@both_ways
def test_a_run_is_billed_to_the_token_line_by_line(serve, tmp_path, how):
    pool = yaml_pool(tmp_path, serve(SERVED), PRICES, CONTROLLER)
    result = run(create_router_r1(pool, parse_controller("pool", pool)).compile(), how)
    assert result["answer"] == "Paris"
    ledger = result["ledger"]
    assert ledger["controller"] == line(
        calls=3,
        input_tokens=101 + 307 + 503,
        output_tokens=31 + 37 + 41,
        reasoning_tokens=29,
        cost_usd=(911 * 2 + 109 * 8) / 1e6,
    )
    assert ledger["candidates"] == {
        "Ada": line(
            calls=2, input_tokens=24, output_tokens=5, cost_usd=(24 * 0.05 + 5 * 0.4) / 1e6
        ),
        "Bob": line(
            calls=1,
            input_tokens=17,
            output_tokens=5,
            reasoning_tokens=4,
            cost_usd=(17 * 3 + 5 * 15) / 1e6,
        ),
    }


@both_ways
def test_the_totals_are_the_sums_of_the_lines(serve, tmp_path, how):
    pool = yaml_pool(tmp_path, serve(SERVED), PRICES, CONTROLLER)
    result = run(create_router_r1(pool, parse_controller("pool", pool)).compile(), how)
    totals = total(result["ledger"])
    controller = (911 * 2 + 109 * 8) / 1e6
    candidates = (24 * 0.05 + 5 * 0.4 + 17 * 3 + 5 * 15) / 1e6
    assert totals["controller_cost_usd"] == pytest.approx(controller)
    assert totals["candidates_cost_usd"] == pytest.approx(candidates)
    assert totals["cost_usd"] == pytest.approx(controller + candidates)
    assert (totals["input_tokens"], totals["output_tokens"]) == (911 + 24 + 17, 109 + 5 + 5)
    assert (totals["calls"], totals["failed_calls"]) == (3, 0)


@both_ways
def test_the_final_message_carries_the_bill(serve, tmp_path, how):
    pool = yaml_pool(tmp_path, serve(SERVED), PRICES, CONTROLLER)
    result = run(create_router_r1(pool, parse_controller("pool", pool)).compile(), how)
    bill = result["messages"][-1].response_metadata["router_r1"]
    totals = dict(total(result["ledger"]))
    # The ledger says who was paid, and what the store saved where it had a reply.
    for name in ("candidates_cost_usd", "controller_cost_usd", "stored_calls", "saved_usd"):
        totals.pop(name)
    assert bill == {"stop_reason": "answered", "rounds": 2, **totals}


@both_ways
def test_failures_and_retries_are_counted_for_whom_they_befell(serve, tmp_path, how):
    soon = Status(500, retry_after=0)
    server = serve(
        {
            "ada": [soon, Reply("1", 11, 2), soon, soon, soon, Reply("3", 13, 3)],
            "bob": Status(401),
        }
    )
    pool = yaml_pool(tmp_path, server, PRICES, max_retries=2)
    turns = [
        "<search> Ada: one? </search> <search> Bob: two? </search>",
        "<search> Ada: three? </search>",  # fails for good after two retries
        "<search> Ada: three? </search>",
    ]
    result = run(scripted(pool, *turns, ANSWER), how)
    ada, bob = (result["ledger"]["candidates"][name] for name in ("Ada", "Bob"))
    assert (ada["calls"], ada["failed_calls"], ada["retries"]) == (3, 1, 1 + 2)
    assert (bob["calls"], bob["failed_calls"], bob["retries"]) == (1, 1, 0)
    assert (ada["input_tokens"], ada["output_tokens"]) == (11 + 13, 2 + 3)
    assert (bob["input_tokens"], bob["cost_usd"]) == (0, 0)
    totals = total(result["ledger"])
    assert (totals["calls"], totals["failed_calls"]) == (4, 2)
    assert server.count() == totals["calls"] + ada["retries"]


@both_ways
def test_the_controllers_retries_and_failures_are_on_its_own_line(serve, tmp_path, how):
    soon = Status(503, retry_after=0)
    server = serve([soon, Reply("<search> Ada: one? </search>", 7, 3), soon, soon])
    pool = yaml_pool(tmp_path, server, controller={"max_retries": 1})
    server.answer = {"controller": server.answer, "ada": Reply("1")}
    result = run(create_router_r1(pool, parse_controller("pool", pool)).compile(), how)
    assert result["stop_reason"] == "controller_error"
    controller = result["ledger"]["controller"]
    assert (controller["calls"], controller["failed_calls"], controller["retries"]) == (2, 1, 2)
    assert (controller["input_tokens"], controller["output_tokens"]) == (7, 3)
    assert total(result["ledger"])["failed_calls"] == 0  # of the candidates


@both_ways
@pytest.mark.parametrize("cost", [0.00123, 0, 0.0])
def test_the_cost_that_a_provider_reports_wins_over_the_list_price(serve, tmp_path, how, cost):
    server = serve(Reply("Paris", 1000, 1000, cost=cost))
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    result = run(scripted(pool, "<search> Ada: one? </search>", ANSWER), how)
    assert result["ledger"]["candidates"]["Ada"] == line(
        calls=1, input_tokens=1000, output_tokens=1000, cost_usd=cost
    )


@both_ways
def test_the_controllers_reported_cost_wins_too(serve, tmp_path, how):
    server = serve(Reply(ANSWER, 1000, 1000, cost=0.002))
    pool = yaml_pool(tmp_path, server, controller=CONTROLLER)
    result = run(create_router_r1(pool, parse_controller("pool", pool)).compile(), how)
    assert result["ledger"]["controller"]["cost_usd"] == pytest.approx(0.002)
    assert result["ledger"]["candidates"] == {}


def test_a_streamed_reply_is_billed_like_any_other(serve, tmp_path):
    pool = yaml_pool(tmp_path, serve(SERVED), PRICES, CONTROLLER)
    graph = create_router_r1(pool, parse_controller("pool", pool)).compile()
    *_, (mode, streamed) = graph.stream({"question": "?"}, stream_mode=["messages", "values"])
    assert mode == "values"
    expected = {"controller": (911, 109, 29), "Ada": (24, 5, 0), "Bob": (17, 5, 4)}
    lines = {"controller": streamed["ledger"]["controller"], **streamed["ledger"]["candidates"]}
    kinds = ("input_tokens", "output_tokens", "reasoning_tokens")
    assert {who: tuple(bill[kind] for kind in kinds) for who, bill in lines.items()} == expected


def test_a_streamed_replys_reported_cost_wins_too(serve, tmp_path):
    pool = yaml_pool(tmp_path, serve(Reply("Paris", cost=0.00123)), **ONE_DOLLAR)
    graph = scripted(pool, "<search> Ada: one? </search>", ANSWER)
    *_, (_, streamed) = graph.stream({"question": "?"}, stream_mode=["messages", "values"])
    assert streamed["ledger"]["candidates"]["Ada"]["cost_usd"] == pytest.approx(0.00123)


@both_ways
def test_an_unknown_price_counts_as_nothing(serve, tmp_path, how):
    pool = yaml_pool(tmp_path, serve(Reply("Paris", 1000, 1000)))
    result = run(scripted(pool, "<search> Ada: one? </search>", ANSWER), how)
    assert result["ledger"]["candidates"]["Ada"] == line(
        calls=1, input_tokens=1000, output_tokens=1000
    )


@both_ways
def test_seconds_count_calls_in_parallel_once(serve, tmp_path, how):
    server = serve({"ada": Reply("1", delay=0.3), "bob": Reply("2", delay=0.2)})
    pool = yaml_pool(tmp_path, server, PRICES)
    turn = "<search> Ada: one? </search> <search> Bob: two? </search>"
    ledger = run(scripted(pool, turn, ANSWER), how)["ledger"]
    ada, bob = (ledger["candidates"][name]["seconds"] for name in ("Ada", "Bob"))
    assert ada >= 0.3
    assert bob >= 0.2
    assert ledger["seconds"] == pytest.approx(max(ada, bob))


@both_ways
def test_seconds_of_one_round_after_another_add_up(serve, tmp_path, how):
    server = serve({"ada": Reply("1", delay=0.1), "bob": Reply("2", delay=0.2)})
    pool = yaml_pool(tmp_path, server, PRICES)
    turns = ["<search> Ada: one? </search>", "<search> Bob: two? </search>", ANSWER]
    ledger = run(scripted(pool, *turns), how)["ledger"]
    ada, bob = (ledger["candidates"][name]["seconds"] for name in ("Ada", "Bob"))
    assert ledger["seconds"] == pytest.approx(ada + bob)
    assert ledger["seconds"] >= 0.3


@both_ways
def test_the_same_question_again_costs_nothing(serve, tmp_path, how):
    server = serve(Reply("Paris", 11, 2))
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    turn = "<search> Ada: one? </search> <search> Ada: one? </search>"
    result = run(scripted(pool, turn, turn, ANSWER), how)
    observed = [message.artifact for message in result["scratchpad"] if message.type == "tool"]
    assert [bill["cached"] for bill in observed] == [False, True, True, True]
    assert [bill["reply"] for bill in observed] == ["Paris"] * 4
    assert [bill["cost_usd"] for bill in observed[1:]] == [0, 0, 0]
    assert server.count() == 1
    assert result["ledger"]["candidates"]["Ada"] == line(
        calls=1, input_tokens=11, output_tokens=2, cost_usd=15 / 1e6
    )


@both_ways
def test_the_same_question_costs_nothing_after_another_call_was_refused(serve, tmp_path, how):
    server = serve(Reply("Paris"))
    turns = [
        "<search> Ada: one? </search>",
        "<search> Ada: two? </search> <search> Ada: three? </search>",  # the latter is one too many
        "<search> Ada: one? </search>",
    ]
    graph = scripted(yaml_pool(tmp_path, server), *turns, ANSWER)
    result = run(graph, how, max_calls_per_round=1)
    assert result["scratchpad"][-2].artifact["cached"]
    assert result["answer"] == "Paris"
    assert server.count() == 2


@both_ways
def test_a_candidate_that_draws_its_replies_is_asked_and_paid_again(serve, tmp_path, how):
    server = serve([Reply("Paris", 11, 2), Reply("Lyon", 11, 3)])
    pool = yaml_pool(tmp_path, server, temperature=0.7)
    turn = "<search> Ada: one? </search>"
    result = run(scripted(pool, turn, turn, ANSWER), how)
    assert server.count() == 2
    ada = result["ledger"]["candidates"]["Ada"]
    assert (ada["calls"], ada["output_tokens"]) == (2, 5)


@both_ways
def test_a_refused_call_is_on_no_bill(serve, tmp_path, how):
    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server)
    result = run(scripted(pool, "<search> Nobody: one? </search>", ANSWER), how)
    assert result["ledger"]["candidates"] == {}
    assert server.count() == 0


BILL = {
    **{"candidate": "Ada", "ok": False, "attempts": 4, "input_tokens": 7, "output_tokens": 11},
    **{"reasoning_tokens": 13, "cost_usd": 0.5, "seconds": 2.0},
}
LINE = {
    **{"calls": 1, "failed_calls": 1, "retries": 3, "input_tokens": 7, "output_tokens": 11},
    **{
        "reasoning_tokens": 13,
        "cost_usd": 0.5,
        "seconds": 2.0,
        "stored_calls": 0,
        "saved_usd": 0.0,
    },
}
STORED = {
    **{"candidate": "Bob", "ok": True, "attempts": 0, "input_tokens": 17, "output_tokens": 19},
    **{"reasoning_tokens": 23, "cost_usd": 0.0, "seconds": 4.0, "stored": True, "saved_usd": 0.25},
    **{"cached_input_tokens": 3, "cache_loss_usd": 0.125},
}
STORED_LINE = {
    **{"calls": 1, "failed_calls": 0, "retries": 0, "input_tokens": 17, "output_tokens": 19},
    **{"reasoning_tokens": 23, "cost_usd": 0.0, "seconds": 4.0, "stored_calls": 1},
    **{"saved_usd": 0.25, "cached_input_tokens": 3, "cache_loss_usd": 0.125},
}


def twice(line):
    return {name: 2 * amount for name, amount in line.items()}


def test_a_bill_is_added_to_its_line_and_runs_to_runs():
    once = charge_candidates(new_ledger(), [BILL, STORED])
    assert once["candidates"] == {"Ada": LINE, "Bob": STORED_LINE}
    assert once["seconds"] == 4.0
    again = charge_candidates(once, [STORED, BILL])
    assert again["candidates"] == {"Ada": twice(LINE), "Bob": twice(STORED_LINE)}
    assert again["seconds"] == 8.0
    assert charge_candidates(again, []) == again
    fallback = charge_candidates(new_ledger(), [{**STORED, "instead_of": BILL}])
    assert fallback == {**once, "seconds": 6.0}
    assert added(once, once) == again
    assert added(new_ledger(), once) == added(once, new_ledger()) == once

    reply = replies.Reply(
        **{"input_tokens": 7, "output_tokens": 11, "reasoning_tokens": 13, "cost_usd": 0.5},
        **{"seconds": 2.0, "attempts": 4, "error": ReplyError("server", "no")},
    )
    whole = charge_controller(once, reply)
    assert (whole["controller"], whole["candidates"]) == (LINE, once["candidates"])
    assert whole["seconds"] == 6.0
    assert added(whole, once)["controller"] == LINE
    assert added(whole, once)["seconds"] == 10.0
    assert total(whole) == {
        **{"cost_usd": 1.0, "candidates_cost_usd": 0.5, "controller_cost_usd": 0.5},
        **{"input_tokens": 31, "output_tokens": 41, "seconds": 6.0, "calls": 2, "failed_calls": 1},
        **{"stored_calls": 1, "saved_usd": 0.25, "cached_input_tokens": 3, "cache_loss_usd": 0.125},
    }
    assert price_usd(total(whole)) == 1.25


def test_the_most_that_is_paid_counts_what_no_provider_confirmed():
    line = new_ledger()["controller"]
    assert most_paid_usd({**line, "cost_usd": 0.25}) == 0.25
    assert most_paid_usd({**line, "cost_usd": 0.25, "uncertain_usd": 0.5}) == 0.75


def test_a_line_of_an_earlier_release_has_no_stored_calls():
    """Its lines lack what was not known then, and are added up all the same."""
    known = {name: LINE[name] for name in LINE if name not in ("stored_calls", "saved_usd")}
    old = {"controller": known, "candidates": {"Ada": known}, "seconds": 4.0}
    assert (total(old)["stored_calls"], total(old)["saved_usd"], price_usd(known)) == (0, 0.0, 0.5)
    assert added(old, old)["candidates"] == {"Ada": twice(LINE)}
    assert charge_candidates(old, [BILL])["candidates"] == {"Ada": twice(LINE)}
    assert added(old, old)["controller"] == twice(LINE)
