"""The questions that come with the training programs: `training/data`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router_r1_graph.answers import exact_match, normalize_answer
from router_r1_graph.candidates import Candidate
from router_r1_graph.simulation import (
    decomposed_questions,
    known_world,
    reply_text_and_tokens,
)
from training.data_config import DataConfig
from training.items import draw_items

DATA = Path(__file__).parents[1] / "training" / "data"
DECOMPOSED = str(DATA / "decomposed.jsonl")
ROWS = {
    path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for path in DATA.glob("*.jsonl")
}
WORLD = known_world(DECOMPOSED)
CALCULATION = re.compile(r"What is (\d+) (minus|plus) (\d+)\?")


def texts(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        for asked in (row, *row.get("decomposition", ())):
            yield normalize_answer(asked["question"]) or asked["question"]


@pytest.mark.parametrize(
    ("name", "train", "test"), [("decomposed", 1401, 60), ("nothing_to_route", 240, 100)]
)
def test_nothing_is_asked_in_training_and_in_test(name: str, train: int, test: int) -> None:
    rows = ROWS[name]
    assert Counter(row["split"] for row in rows) == {"train": train, "test": test}
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["question"] for row in rows}) == len(rows)
    trained, held_out = (
        {*texts([row for row in rows if row["split"] == split])} for split in ("train", "test")
    )
    assert not trained & held_out


def test_kinds_of_nothing_to_route_are_in_both_splits() -> None:
    rows = ROWS["nothing_to_route"]
    kinds = {
        split: {row["kind"] for row in rows if row["split"] == split} for split in ("train", "test")
    }
    assert kinds["train"] == kinds["test"]
    assert all(row["reply"] is None or row["reply"].strip() for row in rows)
    unanswerable = {"opinion", "unknowable", "future", "empty", "nonsense", "chat"}
    assert not any(row["reply"] for row in rows if row["kind"] in unanswerable)


def test_whoever_knows_everything_answers_each_question_and_sub_question() -> None:
    knows = Candidate(
        name="All",
        provider="simulated",
        input_usd_per_mtok=1,
        output_usd_per_mtok=1,
        benchmarks=dict.fromkeys(WORLD.domains, 1.0),
        options={"facts": DECOMPOSED, "hops": 5, "elsewhere": 0.0},
    )
    for asked in WORLD.asked:
        for part in (asked, *asked.leaves()):
            assert exact_match(reply_text_and_tokens(knows, part.question).text, part.gold), part
        if CALCULATION.fullmatch(asked.parts[-1].question):
            assert asked.rounds()[-1] == [asked.parts[-1]]  # its numbers come first
    assert not any(asked.several for asked in WORLD.asked)
    assert len(WORLD.domains) == 20


def test_sub_questions_lead_to_the_answer() -> None:
    for row in ROWS["decomposed"]:
        assert_coherent(row)


def test_yes_is_right_as_often_as_no() -> None:
    for split in ("train", "test"):
        said = Counter(
            row["gold"][0]
            for row in ROWS["decomposed"]
            if row["task"] in ("both", "decision") and row["split"] == split
        )
        assert 0.4 <= said["yes"] / said.total() <= 0.6


def assert_coherent(row: dict[str, Any]) -> None:
    parts, gold, task = row["decomposition"], row["gold"], row["task"]
    answers = [part["answer"] for part in parts]
    assert len({part["question"] for part in parts}) == len(parts) <= 5
    assert len({*map(normalize_answer, gold)} - {""}) == len(gold)
    for part in parts:
        if found := CALCULATION.fullmatch(part["question"]):
            one, sign, other = found.groups()
            assert int(part["answer"]) == int(one) + int(other) * (1 if sign == "plus" else -1)
            assert {one, other} <= {*answers}
    match task:
        case "chain" | "difference" | "sum" | "single":
            assert exact_match(answers[-1], gold)
            for number, answer in enumerate(answers[:-1]):
                later = " ".join(texts(parts[number + 1 :]))
                assert normalize_answer(answer) in later, answer
        case "both":
            assert len(parts) in (2, 4)
            same = len({*answers[-2:]}) == 1 and answers[-1] != "no"
            assert gold == ["yes" if same else "no"]
        case "decision":
            assert gold in (["yes"], ["no"])
        case "comparison":
            assert answers[-1] != answers[-2]
            assert is_named(row, gold)
        case _:
            assert task == "filter"
            assert is_named(row, gold)


def is_named(row: dict[str, Any], gold: list[str]) -> bool:
    """Say whether the question, or the answer to a sub-question, names the answer."""
    said = normalize_answer(
        " ".join([row["question"], *(p["answer"] for p in row["decomposition"])])
    )
    return any(normalize_answer(right) in said for right in gold)


def test_splits_of_the_file_are_those_of_training() -> None:
    ids = {row["id"] for row in ROWS["decomposed"] if row["split"] == "test"}
    assert {asked.id for asked in decomposed_questions(WORLD, "test")} == ids
    data = DataConfig(facts=(DECOMPOSED,))
    held_out = draw_items(data, 60, seed=1, split="test")
    assert {item.id.rsplit("/", 1)[-1] for item in held_out} == ids
    drawn = {item.id.rsplit("/", 1)[-1] for item in draw_items(data, 1401, seed=1)}
    assert not drawn & ids
