"""Whom a controller would ask: probabilities, other scores, and what a descriptor does to them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from extras import missing, needs
from in_process import cli
from openai_server import Reply as Completion
from openai_server import Status
from router_r1_graph import (
    CandidatePool,
    ControllerError,
    RouterContext,
    ScriptedController,
    StopReason,
    aroute_only,
    parse_controller,
    protocol,
    route_only,
)
from yaml_pool import ONE_DOLLAR, yaml_pool

HAMLET = "What is the currency of the country where the author of Hamlet was born?"
POOL = CandidatePool.embedded()
NAMES = [candidate.name for candidate in POOL.candidates]
needs_torch = pytest.mark.skipif(bool(missing("local")), reason="needs the extra 'local'")


@pytest.fixture(scope="module")
def policy() -> Any:
    needs("local")
    return parse_controller("policy:demo", POOL)


@pytest.mark.parametrize(
    ("spec", "unit"),
    [
        *[("keyword", None), ("oracle", None), ("constant:Hearthwyn", None), ("vote", None)],
        *[("random", "probability"), ("cheapest", "usd_per_mtok"), ("cascade", "usd_per_mtok")],
        pytest.param("policy:demo", "probability", marks=needs_torch),
    ],
)
async def test_a_controller_tells_the_numbers_that_it_has_and_asks_nobody(spec, unit):
    routing = route_only(POOL, spec, HAMLET)
    assert routing == await aroute_only(POOL, spec, messages=[HumanMessage(HAMLET)]) or unit
    assert routing.stop_reason is None
    assert routing.calls
    for call in routing.calls:
        assert call.worst_case_usd is not None
        if unit is None:
            assert call.choice is None
            continue
        assert call.choice is not None
        assert call.choice.unit == unit
        assert list(call.choice.values) == NAMES
        if unit == "probability":
            assert sum(call.choice.values.values()) == pytest.approx(1)
        if spec != "random":
            assert call.choice.best == call.candidate


def test_a_fitted_controller_tells_its_utilities():
    needs("eval")
    import numpy as np

    from router_r1_graph.controllers.learned import LearnedController
    from router_r1_graph.controllers.learned.matrix import ScoreMatrix

    questions = ["a sonnet", "a ballad", "an acid", "a salt"]
    pool = CandidatePool.model_validate(
        {"candidates": [{"name": "Chemist"}, {"name": "Poet", "output_usd_per_mtok": 9}]}
    )
    scores = np.array([[0.0, 1], [0, 1], [1, 0], [1, 0]])
    matrix = ScoreMatrix(tuple(questions), pool, scores, np.full((4, 2), np.nan))
    controller = LearnedController.fit("knn", matrix, options={"k": 1})
    for cost_weight, asked in ((0.0, "Poet"), (0.9, "Chemist")):
        context = RouterContext(cost_weight=cost_weight)
        (call,) = route_only(pool, controller, "a sonnet", context=context).calls
        assert call.choice is not None
        assert (call.candidate, call.choice.best, call.choice.unit) == (asked, asked, "utility")


def test_what_a_run_would_refuse_is_marked_and_what_ends_it_is_named(tmp_path, serve):
    turn = "<search> Nobody: x? </search> <search> Quillora: y? </search> <search> : </search>"
    dear = " <search> Magnivor: z? </search>"
    scripted = ScriptedController([turn + dear])
    routing = route_only(POOL, scripted, "q?", context=RouterContext(budget_usd=0.001))
    nobody, quillora, magnivor = routing.calls
    assert "no candidate 'Nobody'" in nobody.refused
    assert (quillora.refused, quillora.candidate, quillora.query) == ("", "Quillora", "y?")
    assert "may cost" in magnivor.refused
    (mistake,) = routing.mistakes
    assert "the candidate is missing" in mistake
    answers = ScriptedController(["<think> Known. </think> <answer> 42 </answer>"])
    routing = route_only(POOL, answers, "q?")
    assert (routing.stop_reason, routing.answer, routing.calls) == (StopReason.ANSWERED, "42", ())
    context = RouterContext(max_rounds=0)
    assert route_only(POOL, scripted, "q?", context=context).stop_reason is StopReason.ROUND_LIMIT
    # A chat model is billed, sees the conversation, and its failure is a value.
    server = serve([Completion(turn, 100, 10), Status(404)])
    pool = yaml_pool(tmp_path, server, {"Ada": {}}, controller=ONE_DOLLAR)
    said = [HumanMessage("Who was Ada?"), AIMessage("A countess."), HumanMessage("Born when?")]
    routing = route_only(pool, "pool", messages=said)
    assert routing.question == "Born when?"
    assert routing.ledger["controller"]["cost_usd"] == pytest.approx(120e-6)
    told = [message["content"] for message in server.requests[0].body["messages"]]
    assert told[:2] == ["Who was Ada?", "A countess."]
    routing = route_only(pool, "pool", "Born when?")
    assert routing.stop_reason is StopReason.CONTROLLER_ERROR
    assert "not_found" in routing.error
    assert {request.model for request in server.requests} == {"controller"}
    with pytest.raises(ControllerError, match=r"explain: .* tells no probabilities"):
        route_only(pool, "pool", "Born when?", explain=True)


def test_the_greedy_choice_of_the_shipped_policy_is_its_most_likely_candidate(policy):
    from router_r1_graph.controllers.embedded import demo_questions

    calls = [
        call
        for question in demo_questions(6, 0)
        for call in route_only(POOL, policy, question.text).calls
    ]
    assert len(calls) >= 6
    for call in calls:
        assert call.choice is not None
        assert call.choice.best == call.candidate
        assert sum(call.choice.values.values()) == pytest.approx(1)
        assert 0.5 < call.choice.pool_probability <= 1


def plain_logprob(model: Any, context: list[int], ending: list[int]) -> float:
    """Return how likely an ending is, by one forward pass without a cache."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([context + ending])).logits[0].float()
    logprobs = logits.log_softmax(-1)
    places = range(len(context) - 1, len(context) + len(ending) - 1)
    return sum(logprobs[place, token].item() for place, token in zip(places, ending, strict=True))


LIKE = {
    "candidates": [
        # Each begins like another, one is written by its alias, one in letters of several tokens.
        {"name": "Ada", "aliases": ["Countess"], "input_usd_per_mtok": 2, "latency_seconds": 0.4},
        {"name": "Ada 2", "benchmarks": {"maps": 0.9, "law": 0.2}, "strengths": ["maps", "trees"]},
        {"name": "Émile Ōta", "usd_per_call": 0.001, "strengths": ["poems"]},
    ]
}
CHAT = "{% for m in messages %}{{ m.content }}\n{% endfor %}<think>\n"
TURNS = [
    "<think> x </think> <search> Ada 2: one? </search>\n<search>Ada: two: three? </search>",
    "  x </think><search>\n Émile Ōta : four? </search> <search> COUNTESS: five </search>",
    "x </think> <search> Nobody:six? </search>",
]


@pytest.mark.long
@pytest.mark.parametrize(("chat", "most_tokens"), [(None, 300), (CHAT, 100_000)])
def test_probabilities_and_effects_are_those_of_plain_forward_passes(
    chat, most_tokens, monkeypatch
):
    needs("local")
    import math

    from router_r1_graph import Left, PolicyController, Reply, View
    from router_r1_graph.controllers.controller import render_view
    from router_r1_graph.controllers.policy import scoring
    from tiny_policy import make_model, make_tokenizer

    monkeypatch.setattr(scoring, "_MOST_TOKENS", most_tokens)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = chat
    model = make_model(tokenizer)
    tiny = PolicyController(model, tokenizer)
    pool = CandidatePool.model_validate(LIKE)
    view = View("Who?", pool, RouterContext(), Left(4))
    for text in TURNS:
        ids = [*tokenizer.encode(text), tokenizer.eos_token_id]
        tokens = {"input_ids": [], "output_ids": ids, "logprobs": [0.0] * len(ids)}
        turn = Reply(text, message=AIMessage(text, additional_kwargs={"tokens": tokens}))
        choices, effects = tiny.weigh(view, turn), tiny.explain(view, turn)
        calls = protocol.parse(text).calls
        assert len(choices) == len(effects) == len(calls)
        prompt = tiny.codec.prompt_ids(view)
        for call, choice, told in zip(calls, choices, effects, strict=True):
            before, written = text[: call.at], call.candidate
            after = text[call.at + len(written) :].partition(":")[0] + ":"
            logprobs = {}
            for candidate in pool.candidates:
                name = written if candidate is pool.find(written) else candidate.name
                whole = tokenizer.encode(before + name + (after if name == written else ":"))
                start = tokenizer.encode(before.rstrip())  # a space may be a part of the name
                assert whole[: len(start)] == start
                logprobs[candidate.name] = plain_logprob(model, prompt + start, whole[len(start) :])
            total = sum(map(math.exp, logprobs.values()))
            for name, logprob in logprobs.items():
                assert choice.values[name] == pytest.approx(math.exp(logprob) / total, rel=1e-3)
            assert choice.pool_probability == pytest.approx(total, rel=1e-3)
            # Each part is taken out by itself: as if the candidate did not have it.
            for effect in told:
                other = without(effect.candidate, effect.part)
                less = tiny.weigh(View("Who?", other, RouterContext(), Left(4)), turn)
                now = less[calls.index(call)].values[effect.candidate]
                assert effect.probability == pytest.approx(now, rel=1e-4)
                was = choice.values[effect.candidate]
                assert effect.change == pytest.approx(now - was, abs=1e-6)
                assert effect.without == other.find(effect.candidate).describe_briefly()
            assert [(effect.candidate, effect.part) for effect in told] == [
                *[("Ada", "price"), ("Ada", "latency")],
                *[("Ada 2", "maps"), ("Ada 2", "law"), ("Ada 2", "trees")],
                *[("Émile Ōta", "price"), ("Émile Ōta", "poems")],
            ]
    for name, read in tiny.reading(pool).items():
        assert f"- {name}: {read}\n" in render_view(tiny.codec.template, view)


def without(name: str, part: str) -> CandidatePool:
    """Return the pool as it is without one part of a descriptor."""
    candidates = json.loads(json.dumps(LIKE["candidates"]))
    (one,) = [candidate for candidate in candidates if candidate["name"] == name]
    keys = {"price": ("input_usd_per_mtok", "usd_per_call"), "latency": ("latency_seconds",)}
    for key in keys.get(part, ()):
        one.pop(key, None)
    one.get("benchmarks", {}).pop(part, None)
    one["strengths"] = [strength for strength in one.get("strengths", []) if strength != part]
    return CandidatePool.model_validate({"candidates": candidates})


@needs_torch
def test_the_command_shows_probabilities_and_effects_and_asks_nobody():
    shown = cli("ask", HAMLET, "--route-only", "--explain")
    assert shown.returncode == 0, shown.stderr
    assert "Quillora" in shown.stdout
    assert "reply  " not in shown.stdout
    for words in (
        "asked\n",
        "no candidate was asked",
        "bill      total  $0",
        "Occlusion",
        "without: ",
    ):
        assert words in shown.stdout
    found = json.loads(cli("ask", HAMLET, "--route-only", "--explain", "--json").stdout)
    (call,) = found["calls"]
    assert call["candidate"] == "Quillora"
    assert list(call["choice"]["values"]) == NAMES
    assert {effect["part"] for effect in call["effects"]} >= {"price", "literature", "art"}
    assert found["descriptors"]["Quillora"] == "price level 3, literature 9, art 9"
    # A whole run is explained turn by turn.
    run = json.loads(cli("ask", HAMLET, "--explain", "--json").stdout)
    assert run["answer"] == "pound sterling"
    asked = [call["candidate"] for turn in run["explained"] for call in turn["calls"]]
    assert asked == [call["candidate"] for call in run["calls"]]
    first = run["explained"][0]["calls"][0]["choice"]["values"]
    assert first == pytest.approx(call["choice"]["values"], rel=1e-4)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--explain", "--controller", "keyword"], "explain: keyword tells no probabilities"),
        (["--route-only", "--explain", "--controller", "vote"], "explain: vote tells no"),
        (["--route-only", "--trace", "x.jsonl"], "--trace: with --route-only there is no run"),
    ],
)
def test_what_cannot_be_shown_is_one_line_before_anything_is_asked(args, message):
    run = cli("ask", "q?", *args)
    assert (run.returncode, run.stdout) == (2, "")
    assert message in run.stderr.splitlines()[-1]


def test_a_controller_without_numbers_says_so():
    run = cli("ask", HAMLET, "--route-only", "--controller", "keyword")
    assert (
        "keyword does not tell how likely the others were; only its choice is known" in run.stdout
    )


def test_of_very_many_calls_the_first_are_told_and_the_others_counted():
    routing = route_only(POOL, ScriptedController(["<search> Nobody: x? </search>" * 4000]), "q?")
    assert len(routing.calls) == 17
    assert all(call.refused for call in routing.calls)
    assert routing.calls[-1].refused.startswith("and 3984 more")
    assert routing.mistakes == ()
