"""Worlds made of questions with their sub-questions, from a file of our own and from real ones."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from extras import needs

needs("eval")
needs("train")

from router_r1_graph import ConfigError
from router_r1_graph.answers import exact_match, is_abstention, normalize_answer
from router_r1_graph.candidates import Candidate
from router_r1_graph.controllers.embedded import world_of
from router_r1_graph.evaluation.plan import Evaluation
from router_r1_graph.evaluation.program import evaluate
from router_r1_graph.evaluation.questions import Reader
from router_r1_graph.simulation import (
    Decomposed,
    World,
    best_plan,
    decomposed_questions,
    generate,
    known_world,
    read,
    reply_text_and_tokens,
)
from router_r1_graph.simulation.nearest import Nearest
from router_r1_graph.simulation.structure import folded
from training.data_config import DataConfig
from training.items import draw_items, knowing
from training.pools import draw_pool
from training.rollouts import roll_out
from training.teacher import TeacherController

DATA = Path(__file__).parent / "data"
OWN = str(DATA / "decomposed.jsonl")
REAL = Path(__file__).parents[2] / "shared" / "data" / "qa"
WORLD = known_world(OWN)


def candidate(name: str, usd: float, benchmarks: dict[str, float], **options: Any) -> Candidate:
    return Candidate(
        name=name,
        provider="simulated",
        input_usd_per_mtok=usd,
        output_usd_per_mtok=usd,
        benchmarks=benchmarks,
        options={"elsewhere": 0.0, "facts": OWN, **options},
    )


def everything(name: str, world: World, **options: Any) -> Candidate:
    return candidate(name, 1, dict.fromkeys(world.domains, 1.0), **options)


def question(beginning: str) -> Decomposed:
    return next(asked for asked in WORLD.asked if asked.question.startswith(beginning))


DYNAMITE = question("What is the capital of the country in which the inventor")


def test_a_question_has_its_facts_domains_and_rounds() -> None:
    hobbit = question("When was the university founded")
    assert [leaf.question for leaf in hobbit.leaves()] == [
        "Who wrote The Hobbit?",
        "At which university was J. R. R. Tolkien a professor?",
        "When was the University of Oxford founded?",
    ]
    sides = question("Did the authors of Frankenstein")
    assert [len(calls) for calls in sides.rounds()] == [2, 2]
    assert [leaf.answer for leaf in sides.leaves()][2:] == ["no", "yes"]
    assert [len(calls) for calls in DYNAMITE.rounds()] == [1, 1, 1]
    assert {leaf.domain for leaf in question("In which year was the director").leaves()} == {"film"}
    assert question("What is the last letter").domain == "letters"
    baltic = question("What are the capitals")
    assert baltic.several
    assert baltic.gold[0] == "Estonia: Tallinn, Latvia: Riga, Lithuania: Vilnius"


def test_files_and_evaluations_agree_on_questions_and_gold() -> None:
    read_by_evaluation = {q.id: (q.question, q.gold) for q in Reader([OWN]).read()}
    assert read_by_evaluation == {asked.id: (asked.question, asked.gold) for asked in WORLD.asked}


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("who is it that painted THE NIGHT WATCH", "Rembrandt Harmenszoon van Rijn"),
        ("Hi! Which country was Alfred Nobel born in?", "Sweden"),
        ("what is the capital city of sweden", "Stockholm"),
        ("The Night Watch was painted by whom?", "Rembrandt Harmenszoon van Rijn"),
        ("whats the highset mountain in the alps", "Mont Blanc"),
        ("wimbledon 1988 womens singles winner", "Steffi Graf"),
        ("How many titles in Grand Slam singles has Stefan Edberg won?", "6"),
        ("Who was the US president in June 2007?", "George W. Bush"),
        ("Neil Armstrong's forename: which letter is last?", "l"),
        ("What is the capital of Norway?", None),
        ("What is the population of Sweden?", None),
        ("In which city was Wolfgang Amadeus Mozart born?", None),
        ("How many Grand Slam singles titles did Boris Becker win?", None),
        ("Who won the men's singles at Wimbledon in 1989?", None),
        ("Who was the sister of Alex Van Halen?", None),
        ("Who directed the 1962 film Psycho?", None),
        ("What is the first letter of the last name of Neil Armstrong?", None),
        ("What is the date ten days before 9 November 1989?", None),
        ("Good morning!", None),
        ("", None),
    ],
)
def test_a_query_is_answered_by_what_it_asks_and_by_no_neighbour(
    query: str, answer: str | None
) -> None:
    found = read(WORLD, query)
    assert (found.answer if isinstance(found, Decomposed) else found) == answer


def test_a_candidate_knows_by_domain_and_replies_as_everywhere() -> None:
    knows = candidate("Ada", 1, {"people": 1.0})
    born = "In which country was Alfred Nobel born?"
    assert reply_text_and_tokens(knows, born).answer == "Sweden"
    assert reply_text_and_tokens(knows, "Who painted The Night Watch?").answer is None
    assert is_abstention(reply_text_and_tokens(knows, "Who painted The Night Watch?").text)
    guesses = candidate("Bob", 1, {}, unknown="wrong")
    guess = reply_text_and_tokens(guesses, born)
    assert guess.answer in {fact.object for fact in WORLD.facts} - {"Sweden"}
    assert not guess.knows


def test_a_whole_question_takes_all_its_facts_and_hops_or_its_own_rate() -> None:
    whole = DYNAMITE.question
    assert reply_text_and_tokens(everything("A", WORLD, hops=3), whole).answer == "Stockholm"
    assert reply_text_and_tokens(everything("A", WORLD, hops=2), whole).answer is None
    without = candidate("A", 1, {"geography": 1.0, "people": 1.0}, hops=3)
    assert reply_text_and_tokens(without, whole).answer is None
    rates = [everything(f"C{n}", WORLD, whole=0.3) for n in range(40)]
    right = [
        reply_text_and_tokens(one, asked.question).knows for one in rates for asked in WORLD.asked
    ]
    assert 0.22 < sum(right) / len(right) < 0.38


def test_the_oracle_asks_the_cheapest_who_know_in_rounds_or_the_whole_question() -> None:
    chemist = candidate("Chemist", 1, {"science": 1.0})
    atlas = candidate("Atlas", 1, {"geography": 1.0})
    who = candidate("Who", 2, {"people": 1.0, "geography": 1.0})
    sage = everything("Sage", WORLD, hops=3).model_copy(update={"input_usd_per_mtok": 90.0})
    ask = (DYNAMITE.question, [*DYNAMITE.gold])
    plan = best_plan(*ask, [chemist, atlas, who, sage], WORLD)
    assert [name for calls in plan.rounds for name, _ in calls] == ["Chemist", "Who", "Atlas"]
    assert (plan.answer, plan.reachable) == ("Stockholm", True)
    whole = best_plan(*ask, [chemist, atlas, who, sage], WORLD, max_rounds=2)
    assert whole.rounds == ((("Sage", DYNAMITE.question),),)
    assert not best_plan(*ask, [chemist, atlas], WORLD).reachable
    baltic = question("What are the capitals")
    all_at_once = best_plan(baltic.question, baltic.gold, [atlas], WORLD)
    assert [len(calls) for calls in all_at_once.rounds] == [1, 3]
    two = best_plan(baltic.question, baltic.gold, [atlas], WORLD, max_calls=2)
    assert [len(calls) for calls in two.rounds] == [1, 2, 1]


def test_questions_are_split_by_their_text_and_have_one_answer() -> None:
    train, test = (decomposed_questions(WORLD, split) for split in ("train", "test"))
    assert len(train) + len(test) == len(WORLD.asked) - 1  # the Baltic states have three capitals
    assert not {q.id for q in train} & {q.id for q in test}
    assert generate(WORLD, split="train", n=5, seed=1) == generate(
        WORLD, split="train", n=5, seed=1
    )
    assert {q.hops for q in generate(WORLD, split="all", n=5, seed=1, hops=3)} == {3}
    with pytest.raises(ConfigError, match="1 of its 16 have answers of several entries"):
        generate(WORLD, split="all", n=99, seed=1)
    with pytest.raises(ConfigError, match="cannot be permuted"):
        WORLD.permuted(1)


PART = {"question": "Who wrote Emma?", "answer": "Jane Austen"}
LINE = {"question": "Who wrote it?", "gold": "Jane Austen", "decomposition": [PART]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no question in it"),
        ("[1]", "line 1: a line is a JSON object"),
        ("{", "line 1: not JSON"),
        (LINE | {"gold": None}, "line 1: no gold answer; looked for in"),
        (LINE | {"gold": ""}, "line 1: gold: is empty"),
        (LINE | {"question": " "}, "line 1: question: is empty"),
        (LINE | {"question": "a\u0007?"}, "line 1: question: contains a character that cannot"),
        ({"question": "Q?", "gold": "x", "decompositon": []}, "did you mean 'decompositon'"),
        (LINE | {"decomposition": []}, "line 1: decomposition: at least 1 entry is wanted"),
        (LINE | {"decomposition": [{"question": "Q?"}]}, r"decomposition\[0\].answer: is missing"),
        (LINE | {"decomposition": [PART | {"answer": []}]}, r"decomposition\[0\].answer: is empty"),
        (LINE | {"decomposition": [PART | {"question": 3}]}, r"question: a text is wanted"),
        (
            LINE | {"decomposition": [PART | {"decomposition": [PART | {"answer": None}]}]},
            r"decomposition\[0\].decomposition\[0\].answer: is empty",
        ),
        (LINE | {"domain": ""}, "line 1: domain: is empty"),
    ],
)
def test_a_broken_line_is_named_with_its_field(tmp_path: Path, text: Any, message: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        World.from_decomposed(file)


def test_a_fact_that_two_questions_need_has_one_answer(tmp_path: Path, caplog: Any) -> None:
    other = LINE | {"question": "And who?", "decomposition": [PART | {"answer": "Somebody else"}]}
    file = tmp_path / "questions.jsonl"
    file.write_text(f"{json.dumps(LINE)}\n{json.dumps(other)}\n", encoding="utf-8")
    world = World.from_decomposed(file)
    assert [fact.object for fact in world.facts] == ["Jane Austen"]
    assert "1 sub-question has two answers" in caplog.text
    with pytest.raises(ConfigError, match="cannot be read"):
        World.from_decomposed(tmp_path / "none.jsonl")


def test_training_draws_pools_that_know_the_domains_of_the_file() -> None:
    data = DataConfig(facts=("embedded", OWN))
    items = draw_items(data, 60, seed=3)
    of_file = [item for item in items if item.id.startswith(OWN)]
    assert len(of_file) == 30  # more than there are: they come again
    for item in of_file:
        assert world_of(item.pool) is WORLD
        assert {name for c in item.pool.candidates for name in c.benchmarks} == {*WORLD.domains}
    held_out = {item.question for item in draw_items(data, 60, seed=3, split="test")}
    assert held_out
    assert not held_out & {item.question for item in items}
    with pytest.raises(ValueError, match=r"takes the place of data\.worlds"):
        DataConfig(facts=(OWN,), worlds=2)


def test_the_teacher_splits_a_question_of_a_file() -> None:
    items = draw_items(DataConfig(facts=(OWN,), max_rounds=(8,)), 16, seed=3)
    teacher = TeacherController(0, give_up=0, give_up_after=0)
    traces = roll_out(items, teacher, name="teacher")
    asked = {leaf.question for one in WORLD.asked for leaf in one.leaves()}
    assert {call.query for trace in traces for call in trace.calls} <= asked
    assert sum(exact_match(trace.answer, trace.gold) for trace in traces) > 3


def evaluated(file: str, limit: int) -> dict[str, float]:
    """Return the exact match of the controls with four drawn candidates over a file."""
    pool = knowing(
        draw_pool(random.Random(7), size=4, domains=known_world(file).domains), facts=file
    )
    questions = Reader([file], limit=limit).read()
    rows = evaluate(Evaluation(pool=pool, questions=questions, controllers=())).rows
    return {row.controller: row.measures["exact_match"].mean for row in rows}


def test_an_evaluation_of_such_a_file_knows_its_oracle() -> None:
    scores = evaluated(OWN, limit=8)
    assert scores["oracle"] > 0.8
    assert scores["oracle"] == max(scores.values())


@pytest.fixture(scope="module", params=["morehopqa_150.jsonl", "fanoutqa_dev.jsonl"])
def real(request: pytest.FixtureRequest) -> str:
    if not (REAL / request.param).exists():
        pytest.skip("no shared data beside this checkout")
    return str(REAL / request.param)


def test_whoever_knows_all_is_right_in_real_sub_questions(real: str) -> None:
    knows = everything("All", known_world(real), facts=real, hops=1).model_copy(
        update={"max_tokens": 1000}
    )
    facts = known_world(real).facts
    right = [reply_text_and_tokens(knows, f.subject).answer == f.object for f in facts]
    assert sum(right) / len(right) >= 0.95


def test_real_sub_questions_in_other_words_are_understood(real: str) -> None:
    with (DATA / "rewordings.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"] == Path(real).stem]
    found = [(row, read(known_world(real), row["wording"])) for row in rows]
    right = [
        isinstance(asked, Decomposed)
        and normalize_answer(asked.answer).startswith(normalize_answer(row["answer"]))
        for row, asked in found
    ]
    assert sum(right) / len(right) >= 0.85, [
        row["wording"] for (row, _), ok in zip(found, right, strict=True) if not ok
    ]
    wrong = sum(asked is not None for _, asked in found) - sum(right)
    assert wrong / len(right) <= 0.02


def test_nobody_gets_the_answer_of_a_neighbour(real: str) -> None:
    """Of a fact whose own text is not there, and of facts about invented subjects."""
    facts = random.Random(5).sample(known_world(real).facts, 300)
    invented = [(_renamed(fact.subject), fact) for fact in facts]
    asked = [(query, fact) for query, fact in invented if query != fact.subject]
    assert len(asked) > 150
    found = [read(known_world(real), query) for query, _ in asked]
    assert sum(one is not None for one in found) / len(asked) <= 0.02
    index = Nearest([f.subject for f in facts], [folded(f.object) for f in facts])
    neighbours = [index.find(f.subject, without=number) for number, f in enumerate(facts)]
    wrong = [
        (facts[number].subject, facts[other].subject)
        for number, other in enumerate(neighbours)
        if other is not None and folded(facts[other].object) != folded(facts[number].object)
    ]
    assert len(wrong) / len(facts) <= 0.02, wrong


def _renamed(query: str) -> str:
    """Return a query about somebody with an invented name."""
    return re.sub(r"(?<=\w )[A-Z][\w.'-]+(?: [A-Z][\w.'-]+)*", "Zorvane Quillmar", query, count=1)


def test_real_questions_run_for_nothing_and_the_oracle_is_nearly_always_right(real: str) -> None:
    scores = evaluated(real, limit=12)
    assert scores["oracle"] == max(scores.values())
    assert scores["oracle"] >= (0.95 if "morehop" in real else 0.3)
