"""Controllers that are rules, on the embedded pool and on one made for the purpose."""

from __future__ import annotations

from collections import Counter

import pytest

from facts_file import write_facts
from router_r1_graph import (
    CandidatePool,
    ControllerError,
    RandomController,
    create_router_r1,
    parse_controller,
)
from router_r1_graph.answers import exact_match
from router_r1_graph.budget import Left
from router_r1_graph.context import RouterContext
from router_r1_graph.controllers.controller import View
from router_r1_graph.ledger import total
from router_r1_graph.simulation import Question, World, generate
from yaml_pool import bills

POOL = CandidatePool.embedded()
HAMLET = "What is the currency of the country where the author of Hamlet was born?"


def ask(spec: str, question: str, pool: CandidatePool = POOL, **context):
    graph = create_router_r1(pool, parse_controller(spec, pool)).compile()
    return graph.invoke({"question": question}, context=context)


def simulated(*candidates: dict) -> CandidatePool:
    """Return a pool of candidates that know all of literature and biography, or what they say."""
    common = {"provider": "simulated", "benchmarks": {"literature": 1.0, "biography": 1.0}}
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
    records = [{**common, **prices, "name": f"C{i}", **c} for i, c in enumerate(candidates)]
    return CandidatePool.model_validate({"candidates": records})


def asked(result) -> list[tuple[str, str]]:
    return [(bill["candidate"], bill["query"]) for bill in bills(result)]


# ----------------------------------------------------------------- constant, cheapest, random


@pytest.mark.parametrize("name", [candidate.name for candidate in POOL.candidates])
def test_constant_asks_its_candidate_once_and_repeats_the_reply(name):
    result = ask(f"constant:{name}", "Who wrote Hamlet?")
    assert asked(result) == [(name, "Who wrote Hamlet?")]
    assert (result["stop_reason"], result["round"]) == ("answered", 1)
    reply = bills(result)[0]["reply"]
    assert result["answer"] == "unknown" or result["answer"] in reply


def test_constant_takes_any_case_and_alias():
    pool = simulated({"name": "Ada", "aliases": ["Lady Lovelace"]}, {"name": "Bob"})
    assert asked(ask("constant:lady lovelace", "Who wrote Hamlet?", pool))[0][0] == "Ada"


def test_constant_repeats_the_bare_answer():
    pool = simulated({"options": {"style": "rambling"}})
    assert ask("constant:C0", "Who wrote Hamlet?", pool)["answer"] == "William Shakespeare"


def test_constant_in_another_pool_ends_the_run_in_order():
    controller = parse_controller("constant:Ada", simulated({"name": "Ada"}))
    graph = create_router_r1(simulated({"name": "Bob"}), controller).compile()
    assert graph.invoke({"question": "Who wrote Hamlet?"})["stop_reason"] == "controller_error"


def test_cheapest_asks_whoever_has_the_lowest_prices():
    pool = simulated(
        {"name": "Dear"},
        {"name": "Cheap", "input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.2},
        {"name": "Middling", "input_usd_per_mtok": 0.05, "output_usd_per_mtok": 0.4},
    )
    assert [name for name, _ in asked(ask("cheapest", "Who wrote Hamlet?", pool))] == ["Cheap"]


def test_cheapest_asks_the_cheapest_of_the_embedded_pool():
    assert [name for name, _ in asked(ask("cheapest", HAMLET))] == ["Vantegro"]


@pytest.mark.parametrize("spec", ["constant:Magnivor", "cheapest", "random"])
def test_who_makes_one_call_makes_none_where_none_is_left(spec):
    result = ask(spec, HAMLET, max_rounds=0)
    assert (result["answer"], result["stop_reason"]) == ("unknown", "round_limit")
    assert asked(result) == []


def drawn(controller: RandomController, question: str, seed: int = 0) -> str:
    view = View(question, POOL, RouterContext(seed=seed), Left(4))
    return controller.choose(view).name


def test_random_draws_the_same_for_the_same_seed_and_question():
    questions = [f"Question {i}?" for i in range(50)]
    draws = [[drawn(RandomController(seed=7), q) for q in questions] for _ in range(2)]
    assert draws[0] == draws[1]


def test_random_draws_otherwise_for_another_seed_of_controller_or_run():
    questions = [f"Question {i}?" for i in range(50)]
    seeds = [(0, 0), (1, 0), (0, 1)]
    draws = {tuple(drawn(RandomController(a), q, b) for q in questions) for a, b in seeds}
    assert len(draws) == 3


def test_random_draws_every_candidate_about_equally_often():
    counts = Counter(drawn(RandomController(), f"Question {i}?") for i in range(800))
    assert counts.keys() == {candidate.name for candidate in POOL.candidates}
    assert min(counts.values()) > 60  # 100 are expected; less than 60 is a chance of 1 in 100,000
    assert max(counts.values()) < 140


# -------------------------------------------------------------------------------- keyword


def test_keyword_splits_a_question_and_answers_it_right():
    result = ask("keyword", HAMLET)
    assert result["answer"] == "pound sterling"
    assert (result["stop_reason"], result["round"]) == ("answered", 3)
    assert [name for name, _ in asked(result)] == ["Quillora", "Ancestil", "Vantegro"]


def test_keyword_asks_both_sides_of_a_comparison_at_once():
    result = ask("keyword", "Who was born earlier, the author of Dracula or the author of Emma?")
    assert result["answer"] == "Jane Austen"
    assert result["round"] == 2
    assert [query for _, query in asked(result)[:2]] == ["Who wrote Dracula?", "Who wrote Emma?"]


def test_keyword_asks_the_cheapest_of_those_whose_strengths_fit():
    pool = simulated(
        {"name": "Dear", "strengths": ["literature"], "benchmarks": {"literature": 1.0}},
        {
            "name": "Cheap",
            "strengths": ["literature"],
            "benchmarks": {"literature": 0.99},
            "output_usd_per_mtok": 0.5,
        },
        {"name": "Elsewhere", "strengths": ["geography"], "output_usd_per_mtok": 0.1},
    )
    assert asked(ask("keyword", "Who wrote Hamlet?", pool))[0][0] == "Cheap"


def test_keyword_without_fitting_strengths_asks_the_best_score():
    pool = simulated(
        {"name": "Low", "benchmarks": {"literature": 0.5}, "output_usd_per_mtok": 0.1},
        {"name": "High", "benchmarks": {"literature": 0.9}},
        {"name": "Other", "strengths": ["geography"], "benchmarks": {"geography": 1.0}},
    )
    assert asked(ask("keyword", "Who wrote Hamlet?", pool))[0][0] == "High"


def test_keyword_goes_on_to_the_next_that_fits_after_an_abstention():
    blank = {"benchmarks": {"literature": 0.0}, "strengths": ["literature"]}
    pool = simulated(
        {"name": "Blank", **blank, "output_usd_per_mtok": 0.1},
        {"name": "Elsewhere", "strengths": ["film"], "output_usd_per_mtok": 0.1},
        {"name": "Knows", "strengths": ["literature"]},
    )
    result = ask("keyword", "Who wrote Hamlet?", pool)
    assert [name for name, _ in asked(result)] == ["Blank", "Knows"]
    assert (result["answer"], result["stop_reason"]) == ("William Shakespeare", "answered")


def test_keyword_gives_up_when_everybody_has_abstained():
    blank = {"benchmarks": {"literature": 0.0}, "options": {"elsewhere": 0.0}}
    result = ask("keyword", "Who wrote Hamlet?", simulated(blank, blank))
    assert [name for name, _ in asked(result)] == ["C0", "C1"]
    assert (result["answer"], result["stop_reason"]) == ("unknown", "answered")


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Please explain the film history of Poland.", "Screen"),
        ("Any geography books for children?", "Atlas"),
        ("How are you?", "Cheap"),
    ],
)
def test_keyword_asks_any_other_question_whole_of_the_best_matching_strengths(question, name):
    pool = simulated(
        {"name": "Atlas", "strengths": ["geography"], "benchmarks": {}},
        {"name": "Screen", "strengths": ["film", "music"], "benchmarks": {}},
        {"name": "Cheap", "benchmarks": {}, "output_usd_per_mtok": 0.1},
    )
    assert asked(ask("keyword", question, pool))[0] == (name, question)


def test_keyword_asks_whose_strengths_share_most_words():
    pool = simulated(
        {"name": "One", "strengths": ["history"], "output_usd_per_mtok": 0.1},
        {"name": "Two", "strengths": ["history", "music"]},
    )
    assert asked(ask("keyword", "Tell me the history of music.", pool))[0][0] == "Two"


# --------------------------------------------------------------------------------- oracle

SPECS = ["keyword", "cheapest", "random", "constant:Magnivor", "constant:Hearthwyn"]


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return generate(World.embedded(), split="test", n=40, seed=0)


@pytest.fixture(scope="module")
def results(questions) -> dict[str, list[tuple[bool, float]]]:
    """Return for each controller, question by question: whether it was right, and its cost."""
    answered = {}
    for spec in [*SPECS, "oracle"]:
        graph = create_router_r1(POOL, parse_controller(spec, POOL)).compile()
        runs = [graph.invoke({"question": question.text}) for question in questions]
        answered[spec] = [
            (exact_match(run["answer"], question.gold) == 1, total(run["ledger"])["cost_usd"])
            for run, question in zip(runs, questions, strict=True)
        ]
    return answered


@pytest.mark.long
def test_the_oracle_is_right_most_often(results):
    right = {spec: sum(is_right for is_right, _ in runs) for spec, runs in results.items()}
    assert right["oracle"] == max(right.values())
    assert right["oracle"] > right["cheapest"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("spec", SPECS)
def test_the_oracle_pays_no_more_than_whoever_knows_it_too(questions, results, spec):
    # These two abstain when they do not know. The others may guess, and a guess of yes or no, or of
    # one of two sides, is cheap and sometimes right; a guess at the end of a chain never is.
    never_guesses = spec in ("constant:Magnivor", "constant:Hearthwyn")
    both = [
        (oracle_cost, cost)
        for question, (oracle_right, oracle_cost), (right, cost) in zip(
            questions, results["oracle"], results[spec], strict=True
        )
        if oracle_right and right and (never_guesses or question.kind == "chain")
    ]
    assert both
    for oracle_cost, cost in both:
        assert oracle_cost <= cost + 1e-12


@pytest.mark.parametrize("spec", SPECS)
def test_whenever_another_is_right_the_oracle_is_too(results, spec):
    assert all(
        oracle_right
        for (oracle_right, _), (right, _) in zip(results["oracle"], results[spec], strict=True)
        if right
    )


def test_the_oracle_pays_nothing_where_nobody_knows():
    blank = {"benchmarks": {}, "options": {"elsewhere": 0.0}}
    result = ask("oracle", "Who wrote Hamlet?", simulated(blank))
    assert (result["answer"], asked(result)) == ("unknown", [])


def test_the_oracle_works_with_simulated_candidates_only():
    pool = CandidatePool.model_validate({"candidates": [{"name": "Ada", "base_url": "http://x"}]})
    with pytest.raises(ControllerError, match="simulated candidates only, not Ada"):
        parse_controller("oracle", pool).decide(
            View("Who wrote Hamlet?", pool, RouterContext(), Left(4))
        )


def hostile_pool() -> CandidatePool:
    """Return the embedded pool with every candidate trying to pass for the controller."""
    angry = [
        c.model_copy(update={"options": {**c.options, "hostile": True}}) for c in POOL.candidates
    ]
    return POOL.model_copy(update={"candidates": tuple(angry)})


@pytest.mark.parametrize("spec", ["keyword", "constant:Quillora", "cheapest", "oracle"])
def test_an_answer_tag_in_a_reply_is_not_taken_for_the_answer(spec):
    result = ask(spec, "Who wrote Hamlet?", hostile_pool())
    assert any("<answer>" in bill["reply"] for bill in bills(result)) or spec == "oracle"
    assert result["answer"] != "Nobody"


def test_the_oracle_keeps_to_the_rounds_of_the_run():
    for question in generate(World.embedded(), split="test", n=30, seed=2, hops=[3, 4]):
        result = ask("oracle", question.text, max_rounds=1)
        assert result["round"] <= 1
        assert bool(bills(result)) == (result["answer"] != "unknown")


def test_the_oracle_knows_nothing_that_no_reply_has_told_it():
    questions = generate(World.embedded(), split="test", n=30, seed=2)
    right = 0
    for question in questions:
        result = ask("oracle", question.text, budget_usd=0.0001)
        hit = exact_match(result["answer"], question.gold)
        assert not hit or bills(result)
        right += hit
    assert right < 0.7 * len(questions)


def test_the_oracle_asks_again_after_a_failure():
    flaky = [
        c.model_copy(update={"options": {**c.options, "fail_rate": 0.5}, "max_retries": 0})
        for c in POOL.candidates
    ]
    pool = POOL.model_copy(update={"candidates": tuple(flaky)})
    questions = generate(World.embedded(), split="test", n=30, seed=2, hops=1)
    failed = 0
    for question in questions:
        result = ask("oracle", question.text, pool)
        failed += total(result["ledger"])["failed_calls"]
        assert exact_match(result["answer"], question.gold) or result["stop_reason"] != "answered"
    assert failed > 0


def test_the_oracle_takes_the_world_of_the_pool(tmp_path):
    write_facts(World.embedded().permuted(3), tmp_path / "facts.csv")
    options = {"facts": str(tmp_path / "facts.csv")}
    other = [c.model_copy(update={"options": {**c.options, **options}}) for c in POOL.candidates]
    pool = POOL.model_copy(update={"candidates": tuple(other)})
    world = World.from_csv(tmp_path / "facts.csv")
    questions = generate(world, split="test", n=20, seed=1, hops=1)
    hits = [exact_match(ask("oracle", q.text, pool)["answer"], q.gold) for q in questions]
    assert sum(hits) > 15
    mixed = POOL.model_copy(update={"candidates": (POOL.candidates[0], *other[1:])})
    with pytest.raises(ControllerError, match="know different facts"):
        parse_controller("oracle", mixed)
