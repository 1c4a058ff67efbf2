"""The cheapest way to a right answer."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from facts_file import write_facts
from router_r1_graph.answers import is_abstention, short_answer
from router_r1_graph.candidates import Candidate, CandidatePool
from router_r1_graph.simulation import (
    Question,
    World,
    best_plan,
    generate,
    next_steps,
    phrase,
    relation_domain,
    reply_text_and_tokens,
)
from router_r1_graph.simulation.structure import Ask, folded

WORLD = World.embedded()
CHAIN = "In which country was the author of Dracula born?"


def candidate(name: str, usd: float, benchmarks: dict[str, float], **options: Any) -> Candidate:
    return Candidate(
        name=name,
        provider="simulated",
        input_usd_per_mtok=usd,
        output_usd_per_mtok=usd,
        benchmarks=benchmarks,
        options={"elsewhere": 0.0, **options},
    )


def right(answer: str, question: Question) -> bool:
    return folded(answer) == folded(question.gold[0])


READER = candidate("Reader", 1, {"literature": 1})
CLERK = candidate("Clerk", 1, {"biography": 1})
SAGE = candidate("Sage", 1, {"literature": 1, "biography": 1}, hops=2)


def test_cheap_specialists_are_asked_one_after_the_other() -> None:
    dear = SAGE.model_copy(update={"input_usd_per_mtok": 50.0})
    plan = best_plan(CHAIN, ["Ireland"], [dear, READER, CLERK], WORLD)
    assert plan.rounds == (
        (("Reader", "Who wrote Dracula?"),),
        (("Clerk", phrase(Ask("birth_country", "Bram Stoker"))),),
    )
    assert plan.answer == "Ireland"
    assert plan.reachable


def test_one_call_wins_where_it_is_cheaper() -> None:
    plan = best_plan(CHAIN, ["Ireland"], [READER, CLERK, SAGE], WORLD)
    assert plan.rounds == ((("Sage", CHAIN),),)


def test_a_part_with_two_hops_can_be_one_call() -> None:
    atlas = candidate("Atlas", 1, {"geography": 1})
    text = "What is the capital of the country where the author of Dracula was born?"
    plan = best_plan(text, ["Dublin"], [SAGE, atlas], WORLD)
    assert [[name for name, _ in calls] for calls in plan.rounds] == [["Sage"], ["Atlas"]]


def test_both_sides_are_asked_in_one_round() -> None:
    text = "Who was born earlier, the author of Dracula or the author of Emma?"
    plan = best_plan(text, ["Jane Austen"], [READER, CLERK], WORLD)
    assert [len(calls) for calls in plan.rounds] == [2, 2]
    assert plan.answer == "Jane Austen"


def test_what_nobody_knows_is_unreachable() -> None:
    for question in (CHAIN, "Good morning!", "Who wrote Nothing At All?"):
        plan = best_plan(question, ["Ireland"], [CLERK], WORLD)
        assert not plan.reachable
        assert (plan.rounds, plan.answer, plan.cost_usd) == ((), "", 0.0)


def test_a_lucky_guess_is_not_a_plan() -> None:
    liar = candidate("Liar", 1, {}, unknown="wrong")
    for question in generate(WORLD, split="all", n=200, seed=0):
        assert not best_plan(question.structure, question.gold, [liar], WORLD).reachable


def test_a_plan_costs_what_its_calls_cost_and_they_can_be_replayed() -> None:
    pool = CandidatePool.from_yaml("embedded").candidates
    by_name = {c.name: c for c in pool}
    for question in generate(WORLD, split="test", n=200, seed=1):
        plan = best_plan(question.structure, question.gold, pool, WORLD)
        cost = 0.0
        for calls in plan.rounds:
            for name, query in calls:
                said = reply_text_and_tokens(by_name[name], query)
                cost += by_name[name].cost_usd(said.input_tokens, said.output_tokens)
                assert said.knows
        assert cost == pytest.approx(plan.cost_usd)
        assert not plan.reachable or right(plan.answer, question)


def test_the_plans_for_questions_of_several_parts_end_in_the_gold_answer() -> None:
    kinds = dict.fromkeys(("of_three", "between", "both"), 1.0)
    questions = generate(WORLD, split="all", n=60, seed=1, kinds=kinds)  # type: ignore[arg-type]
    all_known = dict.fromkeys(WORLD.domains, 1.0)
    for question in questions:
        for hops in (1, 4):
            sage = candidate("Sage", 1, all_known, hops=hops)
            assert right(
                best_plan(question.structure, question.gold, [sage], WORLD).answer, question
            )
            assert (reply_text_and_tokens(sage, question.text).answer == question.gold[0]) is (
                hops > 1
            )


def alone(one: Candidate, questions: list[Question]) -> tuple[float, float]:
    replies = [(reply_text_and_tokens(one, question.text), question) for question in questions]
    hits = sum(right(short_answer(said.text), question) for said, question in replies)
    cost = sum(one.cost_usd(said.input_tokens, said.output_tokens) for said, _ in replies)
    return hits / len(questions), cost / len(questions)


def decomposed(pool: tuple[Candidate, ...], questions: list[Question]) -> tuple[float, float]:
    hits, cost = 0, 0.0
    for question in questions:
        known: dict[Ask, str] = {}
        while isinstance(plan := next_steps(question.structure, known), list):
            for step in plan:
                domain = relation_domain(step.relation)
                able = [one for one in pool if domain in one.strengths]
                one = min(able, key=lambda able_one: able_one.price_usd_per_mtok)
                said = reply_text_and_tokens(one, phrase(step))
                cost += one.cost_usd(said.input_tokens, said.output_tokens)
                known[step] = short_answer(said.text)
            if any(is_abstention(answer) for answer in known.values()):
                plan = ""
                break
        hits += right(str(plan), question)
    return hits / len(questions), cost / len(questions)


@pytest.mark.parametrize("name", ["embedded", "embedded_unseen"])
def test_routing_well_is_better_and_far_cheaper_than_asking_the_dearest(name: str) -> None:
    pool = CandidatePool.from_yaml(name).candidates
    questions = generate(WORLD, split="test", n=500, seed=0)
    ordered = sorted(pool, key=lambda one: one.price_usd_per_mtok)
    cheap_hits, _ = alone(ordered[0], questions)
    dear_hits, dear_cost = alone(ordered[-1], questions)
    hits, cost = decomposed(pool, questions)
    assert cheap_hits < 0.2
    assert 0.7 <= dear_hits <= 0.9
    assert hits > 0.9
    assert cost < dear_cost / 10


def test_in_a_permuted_world_the_candidates_know_its_facts(tmp_path: Path) -> None:
    world = WORLD.permuted(5)
    write_facts(world, tmp_path / "facts.csv")
    facts = str(tmp_path / "facts.csv")
    pool = [
        one.model_copy(update={"options": {**one.options, "facts": facts}})
        for one in CandidatePool.from_yaml("embedded").candidates
    ]
    questions = generate(world, split="test", n=100, seed=0)
    plans = [best_plan(q.structure, q.gold, pool, world) for q in questions]
    assert sum(plan.reachable for plan in plans) >= 95


def test_no_order_of_candidates_changes_the_cost() -> None:
    trio = [READER, CLERK, SAGE]
    costs = {
        best_plan(CHAIN, ["Ireland"], list(order), WORLD).cost_usd
        for order in product(trio, repeat=3)
        if len({one.name for one in order}) == 3
    }
    assert len(costs) == 1
