"""Which calls of a turn are made, at which price, and what is refused with which reason."""

from __future__ import annotations

import re
from dataclasses import replace
from zlib import crc32

import pytest
from langchain_core.messages import AIMessage, ToolMessage

from fakes import make_pool
from router_r1_graph import RouterContext, View
from router_r1_graph.budget import Left
from router_r1_graph.candidates.reply import Reply
from router_r1_graph.decisions import of_message
from router_r1_graph.nodes.admission import admit
from router_r1_graph.protocol import parse

FREE = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 0.0, "temperature": 0.0}
POOL = make_pool(
    {"name": "Ada", "usd_per_call": 0.25, **FREE},
    {"name": "Bob 7B", "usd_per_call": 0.5, **FREE, "image_inputs": True},
    {"name": "Eve", "usd_per_call": 0.125, **FREE, "temperature": 0.7},
    {"name": "Zoe", **dict.fromkeys(("input_usd_per_mtok", "output_usd_per_mtok"))},
)
ASKS = Reply("", 3, 5, message=AIMessage("", id="turn", additional_kwargs={"kept": 1}))
IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}


def admitted(*calls, left=None, rounds=3, mistakes="", view=None, reply=ASKS, **options):
    text = "".join(f"<search> {call} </search>" for call in calls) + mistakes
    view = view or View("q?", POOL, RouterContext(max_calls_per_round=3), Left(rounds, left))
    reply = replace(reply, text=text)
    return admit(parse(text), view, reply, 1, ends_at=9.0, **options)


def refusals(admission):
    return [
        (c["id"], c["name"], c["args"], c["error"]) for c in admission.message.invalid_tool_calls
    ]


def test_a_call_goes_out_as_it_was_written():
    got = admitted("Ada: a", "bob 7b: b: c", left=1.0, reply=replace(ASKS, cost_usd=0.125))
    first, second = got.routed
    # 1 - 0.125 of the turn - 0.75 of the calls: the rest is shared by both.
    common = {"background": "", "needs_approval": False, "max_reply_tokens": 600, "round": 2}
    common |= {"ends_at": 9.0}
    assert {**first, "max_reply_tokens": 600} == {
        **{"id": "call_1_0", "tool": "Ada", "query": "a", "worst_case_usd": 0.25},
        **{"most_usd": 0.3125, **common},
    }
    assert first["max_reply_tokens"] == RouterContext().max_information_tokens
    assert (second["id"], second["tool"], second["query"]) == ("call_1_1", "Bob_7B", "b: c")
    assert (second["worst_case_usd"], second["most_usd"]) == (0.5, 0.5625)
    assert not got.over_budget
    doubtful = admitted("Ada: a", left=1.0, reply=replace(ASKS, uncertain_usd=0.5))
    assert doubtful.routed[0]["most_usd"] == 0.5  # the provider may bill the rest

    message = got.message
    assert [(c["id"], c["name"], c["args"]) for c in message.tool_calls] == [
        ("call_1_0", "Ada", {"query": "a"}),
        ("call_1_1", "Bob_7B", {"query": "b: c"}),
    ]
    assert {c["type"] for c in message.tool_calls} == {"tool_call"}
    assert (message.id, message.additional_kwargs) == ("turn", {"kept": 1})
    assert message.usage_metadata == {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    about = message.response_metadata["router_r1"]
    assert about.pop("decisions")
    crc = crc32(message.text.encode())
    assert about == {"cost_usd": 0.125, "seconds": 0.0, "crc32": crc, "attempts": 1}


def test_what_is_refused_keeps_its_place_and_says_why():
    got = admitted(
        *("Adda: x", "Ada: a", "Eve: e", "Ada: b", "Ada: c"),
        mistakes="<think> open <answer> z </answer>",
        left=5.0,
    )
    assert [c["id"] for c in got.message.tool_calls] == ["call_1_1", "call_1_2", "call_1_3"]
    assert refusals(got) == [
        ("call_1_0", None, "x", POOL.unknown("Adda")),
        ("call_1_4", "Ada", "c", "at most 3 calls in one round"),
        ("call_1_5", None, "", "an opening answer tag inside an unclosed think tag"),
        ("call_1_6", None, "z", "an answer beside a search is not taken; read the replies first"),
    ]
    one = View("q?", POOL, RouterContext(max_calls_per_round=1), Left(1))
    assert refusals(admitted("Ada: a", "Ada: b", view=one))[0][3] == "at most 1 call in one round"
    assert {c["type"] for c in got.message.invalid_tool_calls} == {"invalid_tool_call"}
    long = admitted(f"Adda: {'x' * 501}")
    assert refusals(long)[0][2] == "x" * 500


def test_after_the_last_round_only_the_answer_is_taken():
    got = admitted("Ada: a", rounds=0, mistakes="<answer> z </answer>")
    assert refusals(got) == [("call_1_0", "Ada", "a", "no calls are left; answer now")]
    assert (got.routed, got.over_budget) == ((), False)


@pytest.mark.parametrize(
    ("left", "paid", "made", "over"),
    [
        (0.75, 0.0, ["a", "b"], False),
        (0.75, 0.0625, ["a"], False),  # alone, b could still be paid
        (0.5, 0.0, ["a"], False),
        (0.4375, 0.0, ["a"], True),
        (0.25, 0.0, ["a"], True),
        (0.25, 0.0625, [], True),
        (None, 9.0, ["a", "b"], False),
    ],
)
def test_calls_of_a_round_reserve_their_worst_cases_together(left, paid, made, over):
    for cost in ({"cost_usd": paid}, {"saved_usd": paid}):  # a stored turn counts as a paid one
        got = admitted("Ada: a", "Bob 7B: b", left=left, reply=replace(ASKS, **cost))
        assert [route["query"] for route in got.routed] == made
        assert got.over_budget == over
        if left is None:
            assert [route["most_usd"] for route in got.routed] == [None, None]
    if left == 0.5:
        assert refusals(got)[0][1:] == (
            "Bob_7B",
            "b",
            "may cost $0.500000, and only $0.250000 are left",
        )


def test_what_was_asked_is_not_asked_again_unless_it_failed_or_is_drawn():
    def observed(name, query, ok):
        return ToolMessage("x", name=name, tool_call_id="1", artifact={"query": query, "ok": ok})

    known = (AIMessage("", id="turn"), observed("Ada", "a", True), observed("Ada", "b", False))
    known += (observed("Eve", "e", True), ToolMessage("refused", tool_call_id="2"))
    view = View("q?", POOL, RouterContext(), Left(2, 9.0), scratchpad=known)
    got = admitted("Ada: a", "Ada: b", "Eve: e", view=view)
    assert len(got.message.tool_calls) == 3
    assert [route["id"] for route in got.routed] == ["call_1_1", "call_1_2"]
    assert got.message.id is None  # another turn has it
    fresh = replace(ASKS, message=AIMessage("", id="fresh"))
    assert admitted("Ada: b", view=view, reply=fresh).message.id == "fresh"
    twice = admitted("Ada: n", "Ada: n", "Eve: n", "Eve: n", left=0.5)
    assert [route["tool"] for route in twice.routed] == ["Ada", "Eve"]


def test_images_and_instructions_go_to_whom_they_can_help():
    view = View("q?", POOL, RouterContext(), Left(2), images=(IMAGE,), instructions="Be brief.")
    told = {r["tool"]: r for r in admitted("Ada: q?", "Bob 7B: q?", "Zoe: x", view=view).routed}
    assert "images" not in told["Ada"]
    assert told["Bob_7B"]["images"] == [IMAGE]
    assert [told[name]["background"] for name in ("Ada", "Zoe")] == ["Be brief.", ""]
    assert told["Zoe"]["worst_case_usd"] is None


def test_a_worst_case_has_the_query_the_instructions_and_the_images():
    pool = make_pool({"name": "Ada", "image_inputs": True, "output_usd_per_mtok": 0.0})
    ada = pool.candidates[0]

    def worst(query, **shown):
        (route,) = admitted(f"Ada: {query}", view=View("q?", pool, RouterContext(), **shown)).routed
        return route["worst_case_usd"]

    shown = {"left": Left(2), "images": (IMAGE,), "instructions": "Be brief."}
    assert worst("q?", left=Left(2)) == ada.worst_case_usd("q?")
    assert worst("q?", **shown) == ada.worst_case_usd("Be brief.q?", 1)
    assert worst("qq?", **shown) == ada.worst_case_usd("qq?", 1)


def test_a_person_approves_what_is_dear_or_unknown():
    view = View("q?", POOL, RouterContext(approve_above_usd=0.25), Left(2))
    routed = admitted("Ada: a", "Bob 7B: b", "Zoe: z", view=view).routed
    assert [route["needs_approval"] for route in routed] == [False, True, True]


def test_who_is_asked_instead_is_new_affordable_and_needs_nobody():
    def open_to(left=None, scratchpad=(), **knobs):
        context = RouterContext(explore=0.5, **knobs)
        view = View("q?", POOL, context, Left(2, left), scratchpad=scratchpad)
        got = admitted("Ada: a", view=view)
        (decision,) = of_message(got.message)
        (route,) = got.routed
        assert POOL.find(decision.asked).slug == route["tool"]
        assert got.message.tool_calls[0]["name"] == route["tool"]
        assert sum(decision.probabilities.values()) == pytest.approx(1.0)
        assert decision.call == route["id"]
        return set(decision.probabilities)

    assert open_to() == {"Ada", "Bob 7B", "Eve", "Zoe"}
    assert open_to(left=0.5) == {"Ada", "Bob 7B", "Eve"}
    assert open_to(left=0.4375) == {"Ada", "Eve"}
    assert open_to(approve_above_usd=0.25) == {"Ada", "Eve"}
    artifact = {"query": "a", "ok": True}
    made = ToolMessage("x", name="Eve", tool_call_id="1", artifact=artifact)
    assert open_to(scratchpad=(made,)) == {"Ada", "Bob 7B", "Zoe"}
    rarely = View("q?", POOL, RouterContext(explore=1e-9), Left(2, 0.6875))
    first, second = of_message(admitted("Ada: a", "Ada: b", view=rarely).message)
    assert set(first.probabilities) == {"Ada", "Bob 7B", "Eve"}
    assert set(second.probabilities) == {"Ada", "Eve"}  # the first call has reserved its price

    class Drawing:
        def probabilities(self, view, call):
            return {"Ada": 0.375, "Eve": 0.125}

    (drawn,) = of_message(admitted("Ada: a", draws=Drawing()).message)
    assert drawn.probabilities == {"Ada": 0.75, "Eve": 0.25}
    own = admitted("Ada: a", decides=False)  # a person's
    assert of_message(own.message) == []
    assert set(of_message(admitted("Ada: a").message)[0].probabilities) == {"Ada"}


def test_a_fallback_is_paid_from_what_no_call_has_reserved():
    pool = make_pool(
        {"name": "Ada", "usd_per_call": 0.25, **FREE, "fallback": "Bob"},
        {"name": "Bob", "usd_per_call": 0.5, **FREE, "image_inputs": True},
    )

    def routed(left, query="a", pool=pool, **knobs):
        shown = {"images": (IMAGE,), "instructions": "Be brief."}
        view = View("q?", pool, RouterContext(**knobs), Left(2, left), **shown)
        (route,) = admitted(f"Ada: {query}", view=view).routed
        return route

    assert routed(1.0)["fallback"] == {"tool": "Bob", "background": "", "images": [IMAGE]}
    assert routed(1.0)["most_usd"] == 0.5
    assert "fallback" in routed(None)
    assert "fallback" not in routed(0.6875)
    assert routed(0.6875)["most_usd"] == 0.6875  # nothing is reserved for it
    assert routed(1.0, "q?")["fallback"]["background"] == "Be brief."
    blind = make_pool(*({**c.model_dump(), "image_inputs": False} for c in pool.candidates))
    assert "images" not in routed(1.0, pool=blind)["fallback"]
    assert "fallback" not in routed(1.0, approve_above_usd=0.125)


def test_a_refusal_does_not_end_the_turn():
    got = admitted("Bob 7B: b", "Ada: a", left=0.25)
    assert ([route["query"] for route in got.routed], got.over_budget) == (["a"], True)
    assert refusals(got)[0][3] == "may cost $0.500000, and only $0.250000 are left"
    got = admitted("Bob 7B: b", "Ada: a", "Ada: c", left=0.25)
    assert (len(refusals(got)), got.over_budget) == (2, True)  # though Ada could be paid later
    dear = make_pool({"name": "Ada", "usd_per_call": 2.0000015, **FREE})
    view = View("q?", dear, RouterContext(), Left(1, 2.000001))
    told = refusals(admitted("Ada: a", view=view))[0][3]
    assert told == "may cost $2.000002, and only $2.000001 are left"
    assert len(refusals(admitted("Ada: a", "Ada: b", rounds=0))) == 2
    one = View("q?", POOL, RouterContext(max_calls_per_round=1), Left(1))
    assert len(refusals(admitted("Ada: a", "Ada: b", "Ada: c", view=one))) == 2


@pytest.mark.parametrize("tag", ["<answer>", "<search>", "<think>", "</think>"])
def test_a_turn_of_very_many_mistakes_is_told_in_few_words(tag):
    got = admitted("Ada: a", mistakes=tag * 4000)
    told = [error for *_, error in refusals(got)]
    assert len(told) == 17
    assert re.fullmatch(r"and 39\d\d more searches and mistakes of this turn", told[-1])
    assert len(got.routed) == 1


def test_a_turn_of_very_many_searches_is_not_read_to_its_end():
    got = admitted("Ada: a", *["Who: is it?"] * 4000, mistakes="<answer>")
    ids, _, _, told = zip(*refusals(got), strict=True)
    assert ids == tuple(f"call_1_{n}" for n in range(1, 18))
    assert told[-1] == "and 3985 more searches and mistakes of this turn"
    assert len(got.routed) == 1
