"""Questions over a world, and their split."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from router_r1_graph.errors import ConfigError
from router_r1_graph.simulation import (
    Ask,
    Compare,
    World,
    YesNo,
    generate,
    hops,
    phrase,
    read_question,
    true_answer,
)
from router_r1_graph.simulation.meaning import topic
from router_r1_graph.simulation.questions import Question, split_of

WORLD = World.embedded()


def questions(split: str, n: int, seed: int = 0) -> list[Question]:
    return generate(WORLD, split=split, n=n, seed=seed)  # type: ignore[arg-type]


def test_the_same_arguments_give_the_same_questions() -> None:
    assert questions("train", 200) == questions("train", 200)
    assert questions("train", 200) != questions("train", 200, seed=1)


def test_there_are_enough_different_questions() -> None:
    for split, n in (("train", 5000), ("test", 2000)):
        found = questions(split, n)
        assert len({question.id for question in found}) == n
        assert len({question.text for question in found}) == n


def test_no_question_of_the_test_split_is_in_training_in_any_wording() -> None:
    train = {topic(question.structure) for question in questions("train", 4000)}
    rng = random.Random(0)
    for question in questions("test", 1500):
        other = read_question(phrase(question.structure, rng))
        assert other is not None
        assert topic(other) not in train
        assert split_of(other) == "test"


def test_turning_a_question_round_keeps_it_in_its_split() -> None:
    for question in questions("test", 500):
        match question.structure:
            case Compare(relation, sides, least):
                assert split_of(Compare(relation, sides[::-1], not least)) == "test"
            case YesNo(ask, _):
                assert split_of(ask) == "test"
                assert split_of(YesNo(ask, "anything else")) == "test"


def test_about_a_fifth_is_for_tests() -> None:
    share = Counter(split_of(question.structure) for question in questions("all", 2000))
    assert 0.15 < share["test"] / 2000 < 0.25


def test_hops_and_kinds_are_mixed() -> None:
    found = questions("train", 1000)
    assert set(Counter(question.hops for question in found).values()) == {250}
    kinds = Counter(question.kind for question in found)
    assert kinds["chain"] > 500
    assert min(kinds["compare"], kinds["yes_no"]) > 80


def test_the_number_of_hops_can_be_chosen() -> None:
    assert {q.hops for q in generate(WORLD, split="all", n=50, seed=0, hops=3)} == {3}
    assert {q.hops for q in generate(WORLD, split="all", n=50, seed=0, hops=(1, 4))} == {1, 4}


def test_what_a_question_says_about_itself_is_true() -> None:
    for question in questions("all", 1000):
        assert question.hops == hops(question.structure) == len(question.domains)
        assert question.gold == (true_answer(WORLD, question.structure),)
        assert set(question.domains) <= set(WORLD.domains)


def test_yes_is_right_as_often_as_no() -> None:
    answers = Counter(q.gold[0] for q in questions("train", 4000) if q.kind == "yes_no")
    assert set(answers) == {"yes", "no"}
    assert 0.4 < answers["yes"] / answers.total() < 0.6


def test_the_chain_of_the_readme_is_answered() -> None:
    chain = Ask("river", Ask("capital", Ask("birth_country", Ask("author", "Dracula"))))
    assert true_answer(WORLD, chain) == "the Liffey"


def test_asking_for_more_than_there_is_says_how_many_there_are(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("subject,relation,object,domain\nOslo,mayor,Ola,cities\n", encoding="utf-8")
    world = World.from_csv(path)
    assert generate(world, split="all", n=1, seed=0)[0].gold[0] in ("Ola", "yes")
    with pytest.raises(ConfigError, match=r"100 questions of the all split .* has \d"):
        generate(world, split="all", n=100, seed=0)


def test_questions_over_a_permuted_world_have_its_answers() -> None:
    world = WORLD.permuted(3)
    found = generate(world, split="test", n=200, seed=0)
    assert all(q.gold == (true_answer(world, q.structure),) for q in found)
    changed = sum(q.gold != (true_answer(WORLD, q.structure),) for q in found)
    assert changed > 100
