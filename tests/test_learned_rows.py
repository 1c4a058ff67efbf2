"""Which traces a warm start learns from, and what it says about the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from extras import needs

needs("train")

from fakes import answer, search
from router_r1_graph import (
    CandidatePool,
    ConfigError,
    ScriptedController,
    Trace,
    create_router_r1,
)
from router_r1_graph.controllers.policy.folder import PolicySettings
from router_r1_graph.controllers.policy.tokens import TokenCodec
from router_r1_graph.protocol import load_template
from tiny_policy import make_tokenizer
from training.config import WarmStartConfig
from training.learned_rows import rows_to_learn
from training.reward_config import RewardConfig

POOL = CandidatePool.embedded()


@pytest.fixture(scope="module")
def codec():
    return TokenCodec(make_tokenizer(), load_template(None), PolicySettings(stop=("</answer>",)))


def trace(id, *turns, question="Who wrote Hamlet?", gold=("Shakespeare",)):
    graph = create_router_r1(POOL, ScriptedController(list(turns))).compile()
    state = graph.invoke({"question": question})
    return Trace.from_state(state, id=id, gold=gold)


def files(**settings):
    return WarmStartConfig(
        **{"trace_files": (Path("mine.jsonl"),), "max_length": 10_000, **settings}
    )


def test_what_cannot_be_learned_from_is_counted_named_and_left_out(codec, capsys):
    good = trace("good", answer("Shakespeare"))
    empty = good.model_copy(update={"id": "turnless", "scratchpad": ()})
    long = trace("long", search("Quillora: " + "who " * 900), answer("Shakespeare"))
    wrong = trace("wrong", answer("Marlowe"))
    unknown = trace("no-gold", answer("Marlowe"), gold=())
    limit = 3500
    rows = rows_to_learn(
        [good, empty, long, wrong, unknown], codec, files(max_length=limit), "warm_start"
    )
    assert len(rows) == 2
    out = capsys.readouterr().out
    assert "1 trace left out, which have no turn: 'turnless'" in out
    assert f"max_length = {limit} tokens: 'long'" in out
    assert "whose answer is wrong (warm_start.correct_only): 'wrong'" in out
    assert len(rows_to_learn([good, wrong], codec, files(correct_only=False), "warm_start")) == 2


@pytest.mark.parametrize(
    ("reward", "kept"),
    [
        ({}, ["exact"]),
        ({"metric": "f1"}, ["exact"]),
        ({"functions": ["contains"]}, ["exact", "sentence"]),
        ({"functions": ["exact_match", "contains"]}, ["exact", "sentence"]),
        ({"functions": ["f1", "mine:polite"]}, ["exact"]),
        ({"functions": ["mine:polite"]}, ["exact", "sentence", "wrong"]),
    ],
)
def test_the_metrics_of_the_run_tell_which_traces_are_right(codec, reward, kept):
    answers = {"exact": "Shakespeare", "sentence": "It is by Shakespeare.", "wrong": "Marlowe"}
    traces = {name: trace(name, answer(text)) for name, text in answers.items()}
    right = RewardConfig(**reward).right
    rows = rows_to_learn(traces.values(), codec, files(), "w", right=right)
    every = rows_to_learn(traces.values(), codec, files(correct_only=False), "w")
    assert rows == [row for row, name in zip(every, traces, strict=True) if name in kept]


def test_the_cheapest_trace_of_each_question_can_be_chosen(codec):
    cheap = trace("cheap", answer("Shakespeare"))
    dear = trace("dear", search("Quillora: Who wrote Hamlet?"), answer("Shakespeare"))
    other = trace("other", answer("Shakespeare"), question="Who wrote Macbeth?")
    chosen = files(best_of_question=True)
    expected = rows_to_learn([cheap, other], codec, files(), "w")
    assert rows_to_learn([dear, cheap, other], codec, chosen, "w") == expected
    assert len(rows_to_learn([dear, cheap], codec, files(max_usd=0.0), "w")) == 1


def test_of_some_traces_only_the_first_turn_is_learned(codec):
    found = [
        trace("t", search("Quillora: Who wrote Hamlet?"), answer("Shakespeare"), question=f"{n}?")
        for n in range(12)
    ]
    whole = rows_to_learn(found, codec, files(), "w")
    cut = rows_to_learn(found, codec, files(first_turns=1), "w")
    for row, first in zip(whole, cut, strict=True):
        size = len(first["input_ids"])
        assert {**first} == {name: values[:size] for name, values in row.items()}
        text = codec.tokenizer.decode(first["input_ids"])
        assert text.endswith("</search><|end|>")
        assert -100 in row["labels"][size:]
    some = rows_to_learn(found, codec, files(first_turns=0.5), "w")
    assert some != whole
    assert some != cut
    assert all(row in (a, b) for row, a, b in zip(some, whole, cut, strict=True))
    vain = [trace("v", search("Quillora: Who wrote it?"), answer("Shakespeare"), question="v?")]
    assert rows_to_learn(vain, codec, files(first_turns=1), "w") == rows_to_learn(
        vain, codec, files(), "w"
    )
    longest = max(len(row["input_ids"]) for row in cut)
    assert rows_to_learn(found, codec, files(first_turns=1, max_length=longest), "w") == cut


def test_nothing_to_learn_from_is_an_error_that_says_so(codec):
    with pytest.raises(ConfigError, match="no trace is left to learn from; see above"):
        rows_to_learn([trace("wrong", answer("Marlowe"))], codec, files(), "warm_start")


def test_the_teachers_traces_are_taken_right_or_wrong(codec):
    wrong = trace("wrong", answer("Marlowe"))
    teacher = WarmStartConfig(max_length=10_000)
    assert len(rows_to_learn([wrong], codec, teacher, "warm_start")) == 1
