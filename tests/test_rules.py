"""Cascade, vote, and the answers that rules find in replies to whole questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fakes import FakeChat, make_pool
from router_r1_graph import ControllerError, create_router_r1, parse_controller
from router_r1_graph.answers import bare_answer
from router_r1_graph.controllers.rules import is_doubtful
from yaml_pool import bills

FRANCE = "What is the capital of France?"
UNSURE = "I'm not entirely sure, but it may be Lyon."


def ask(spec: str, replies: Mapping[str, Any], prices: Mapping[str, float] = {}, **context: Any):
    """Ask candidates with these replies; each is dearer than the one before, or at these prices."""
    usd = {name: prices.get(name, float(i + 1)) for i, name in enumerate(replies)}
    pool = make_pool(
        *({"name": n, "input_usd_per_mtok": p, "output_usd_per_mtok": p} for n, p in usd.items())
    )
    chats = {name: FakeChat(text=text) for name, text in replies.items()}
    graph = create_router_r1(pool, parse_controller(spec, pool), models=chats).compile()
    return graph.invoke({"question": FRANCE}, context=context)


def asked(result) -> list[str]:
    assert {bill["query"] for bill in bills(result)} <= {FRANCE}
    return [bill["candidate"] for bill in bills(result)]


# ------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<answer>Paris</answer>", "Paris"),
        ("I cannot say for sure: <answer>Paris</answer>", "Paris"),
        ("As far as I can tell, the answer is Paris.", "Paris"),
        ("Paris is the capital of France", "Paris is the capital of France"),
        ("I do not know.", ""),
        ("<answer>unknown</answer>", ""),
        ("n/a", ""),
        ("<answer>N/A.</answer>", ""),
        *((symbol, symbol) for symbol in ("Na", "NA", "na", "Na+", "No", "None", "Nana")),
        ("<answer>Na</answer>", "Na"),
        ("The answer is Na.", "Na"),
        ("<answer>I Don't Know How She Does It</answer>", "I Don't Know How She Does It"),
        ("<answer>I don't know how she does it</answer>", ""),
        ("<answer> </answer>", ""),
        ("", ""),
    ],
)
def test_a_bare_answer_is_the_tagged_one_else_that_of_the_prose(reply, answer):
    assert bare_answer(reply) == answer


ABBREVIATED = (
    *("Mt. Everest", "Sgt. Pepper's Lonely Hearts Club Band", "approx. 42 km", "Ft. Worth"),
    *("Gen. Lee", "Prof. Moriarty", "No. 5", "Jan. 5, 1920", "Kramer vs. Kramer", "Lt. Col. North"),
    *("Scott Pilgrim vs. The World", "Warner Bros. Pictures", "Op. 27 No. 2", "the U.S. Open"),
    *("Blvd. Haussmann", "Dr. No", "Fig. 3", "c. 1900", "Symphony no. 9", "5 sq. miles", "42"),
    *("Washington D.C. in 1800", "Samuel L. Jackson", "Lynx", "3.14", "Yahoo! in 1995"),
)


@pytest.mark.parametrize("answer", ABBREVIATED)
@pytest.mark.parametrize(
    "after", ["", ". It is known.", ".\nMore.", ", but I'm not sure.", "; yes"]
)
def test_a_stop_after_an_abbreviation_does_not_end_the_answer(answer, after):
    assert bare_answer(f"The answer is {answer}{after or '.'}") == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The answer is Rome. Italy has many cities.", "Rome"),
        ("The answer is Lima. It is in Peru.", "Lima"),
        ("The answer is Malcolm X. He was a minister.", "Malcolm X"),
        ("The answer is B. I am sure.", "B"),
        ("The answer is no. 5 is odd.", "no"),
        ("The answer is 42. 6 times 7 is 42.", "42"),
        ("The answer is NBC. Fox came later.", "NBC"),
        ("the answer is paris. it is in france", "paris"),
        ("The answer is **Paris.** Ask more.", "Paris"),
        ("I can't say for sure, but the answer is Paris.", "Paris"),
        ("I can\u2019t say for sure but the answer is Paris.", "Paris"),
        ("The answer is Paris. I cannot tell you more about the date.", "Paris"),
        ("I cannot find an error. The answer is Paris.", "Paris"),
        (r"\boxed{Paris}. I could not find a second source.", "Paris"),
        (r"I don't know a proof. $\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        ("The answer is unknown to me, but the final answer is Paris.", "Paris"),
        ("The answer is unknown.", ""),
        ("The answer is not known to me.", ""),
        ("The answer is that I do not know.", ""),
        (r"\boxed{\text{unknown}}", ""),
        ("I don't know what the answer is to that question.", ""),
        ("I cannot say whether the answer is Paris.", ""),
        ("I don\u2019t know.", ""),
    ],
)
def test_a_stated_answer_counts_whatever_hedge_stands_beside_it(reply, answer):
    assert bare_answer(reply) == answer


def test_a_long_reply_is_read():
    # In quadratic time this would take hours, which pytest-timeout does not allow.
    parts = ("the answer is ", "the answer is unknown, ", "I do not know what the answer is ")
    more = ("the answer is that I do not know, ", r"\boxed{", "{", ". ", "a.", "Mt. ", "A", " ")
    for part in (*parts, *more):
        text = part * (10**6 // len(part))
        assert len(bare_answer(r"\boxed{" + text)) <= len(text) + 7
        assert len(bare_answer("The answer is " + text)) <= len(text) + 14


@pytest.mark.parametrize("spec", ["constant:Ada", "cheapest", "cascade", "vote"])
def test_rules_over_whole_questions_take_the_tagged_answer(spec):
    reply = "The capital of France is Paris.\n<answer>Paris</answer>"
    assert ask(spec, {"Ada": reply})["answer"] == "Paris"


@pytest.mark.parametrize(
    "reply",
    [
        UNSURE,
        "I don't have access to real-time information.",
        "Could you please provide more context?",
        "I need more specific details.",
        "I'm not aware of any such town.",
        "<answer></answer>",
    ],
)
def test_what_guesses_declines_or_asks_back_is_doubtful(reply):
    assert is_doubtful(reply)


@pytest.mark.parametrize("reply", ["Paris", "The capital is Paris. It has more than a river."])
def test_a_plain_reply_is_not_doubtful(reply):
    assert not is_doubtful(reply)


# ------------------------------------------------------------------------------- cascade


def test_a_cascade_stops_at_the_first_sure_answer_of_the_cheapest():
    result = ask("cascade", {"Dear": "Rome", "Cheap": "Paris"}, {"Dear": 9, "Cheap": 1})
    assert (asked(result), result["answer"]) == (["Cheap"], "Paris")
    assert (result["stop_reason"], result["round"]) == ("answered", 1)


@pytest.mark.parametrize("first", [UNSURE, "I do not know.", "", ConnectionError("refused")])
def test_a_cascade_goes_on_after_a_doubtful_a_declining_and_a_failed_reply(first):
    result = ask("cascade", {"Ada": first, "Bob": "Paris", "Cyd": "Rome"})
    assert (asked(result), result["answer"]) == (["Ada", "Bob"], "Paris")


def test_a_cascade_without_a_sure_answer_takes_the_dearest_doubtful_one():
    doubtful = {"Ada": "Possibly <answer>Lyon</answer>", "Bob": "Perhaps <answer>Paris</answer>"}
    result = ask("cascade", {**doubtful, "Cyd": "I do not know."})
    assert (asked(result), result["answer"]) == (["Ada", "Bob", "Cyd"], "Paris")


def test_a_cascade_in_which_all_fail_answers_unknown():
    failing = {name: ConnectionError("refused") for name in ("Ada", "Bob")}
    assert ask("cascade", failing)["answer"] == "unknown"


def test_a_cascade_ends_with_the_rounds():
    names = ("Ada", "Bob", "Cyd")
    result = ask("cascade", {n: f"Possibly <answer>{n}</answer>" for n in names}, max_rounds=2)
    assert (asked(result), result["answer"]) == (["Ada", "Bob"], "Bob")
    assert result["stop_reason"] == "round_limit"


def test_a_cascade_ends_with_the_money():
    result = ask("cascade", {"Ada": UNSURE, "Bob": "Paris"}, {"Bob": 9e5}, budget_usd=0.1)
    assert (asked(result), result["stop_reason"]) == (["Ada"], "budget_usd")
    assert result["answer"] == UNSURE


# ---------------------------------------------------------------------------------- vote


def test_a_vote_asks_all_at_once_and_takes_the_answer_of_most():
    result = ask("vote", {"Ada": "paris.", "Bob": "<answer>Paris</answer>", "Cyd": "Rome"})
    assert asked(result) == ["Ada", "Bob", "Cyd"]
    assert (result["answer"], result["round"]) == ("Paris", 1)


def test_a_vote_of_n_asks_the_n_cheapest():
    prices = {"Ada": 3, "Bob": 2, "Cyd": 1}
    result = ask("vote:2", {"Ada": "Rome", "Bob": "Paris", "Cyd": "Paris"}, prices)
    assert asked(result) == ["Cyd", "Bob"]


def test_a_tied_vote_goes_to_the_dearer():
    prices = {"Ada": 1, "Bob": 9, "Cyd": 2}
    assert ask("vote", {"Ada": "Rome", "Bob": "Paris", "Cyd": "Oslo"}, prices)["answer"] == "Paris"


def test_a_tied_vote_of_one_price_goes_to_the_earlier():
    assert ask("vote", {"Ada": "Rome", "Bob": "Paris"}, {"Ada": 1, "Bob": 1})["answer"] == "Rome"


def test_who_fails_or_declines_does_not_vote():
    replies = {"Ada": "Paris", "Bob": ConnectionError("refused"), "Cyd": "I do not know."}
    assert ask("vote", replies)["answer"] == "Paris"


def test_a_vote_without_votes_answers_unknown():
    assert ask("vote", {"Ada": "I do not know.", "Bob": ""})["answer"] == "unknown"


def test_more_voters_than_calls_in_a_round_vote_in_several():
    names = [f"C{i}" for i in range(6)]
    result = ask("vote", dict.fromkeys(names, "Paris"), max_calls_per_round=4)
    assert (asked(result), result["round"]) == (names, 2)
    assert result["answer"] == "Paris"


def test_votes_are_counted_when_the_rounds_are_over():
    names = [f"C{i}" for i in range(6)]
    result = ask("vote", dict.fromkeys(names, "Paris"), max_calls_per_round=2, max_rounds=1)
    assert (asked(result), result["answer"]) == (names[:2], "Paris")


# --------------------------------------------------------------------------------- specs


@pytest.mark.parametrize("spec", ["cascade", "vote", "vote:1", "vote:2"])
def test_a_rules_name_is_its_spec(spec):
    assert parse_controller(spec, make_pool()).name == spec


@pytest.mark.parametrize("count", ["0", "3", "-1", "two", "1.5", "²"])
def test_an_impossible_number_of_voters_is_refused(count):
    with pytest.raises(ControllerError, match=r"voters are a whole number from 1 to 2"):
        parse_controller(f"vote:{count}", make_pool())


def test_a_cascade_takes_no_argument():
    with pytest.raises(ControllerError, match="unknown controller 'cascade:2'"):
        parse_controller("cascade:2", make_pool())
