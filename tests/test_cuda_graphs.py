"""Passes over slots sample what a batch does. With a GPU they are recorded; without, only run."""

from __future__ import annotations

import logging
from random import Random

import pytest

from extras import needs

needs("local")

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from router_r1_graph.controllers.policy import cuda_graphs
from router_r1_graph.controllers.policy.forward import Forward
from router_r1_graph.controllers.policy.generation import Generator
from router_r1_graph.controllers.policy.sampling import Sample
from tiny_policy import make_llama

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
END = frozenset(range(5))


@pytest.fixture(scope="module")
def model():
    return make_llama(hidden_size=96, intermediate_size=192).to(DEVICE)


@pytest.fixture
def graphed(monkeypatch):
    """Take slots on a CPU, too."""
    alike = property(lambda self: self.uniform and self._attends_alike)
    monkeypatch.setattr(Forward, "graphs", alike)
    monkeypatch.setattr(Forward, "shares", False)


def conversations(model, *, rounds: int = 3, rows: int = 13):
    """Return the ids and log-probabilities of several turns of some conversations, and counts."""
    generator = Generator(model, pad_id=0, stop_ids=END)
    draws = Random(1)
    contexts = [
        tuple(draws.randrange(5, 300) for _ in range(draws.randrange(5, 300))) for _ in range(rows)
    ]
    contexts[1] = contexts[0]  # samples of one question
    known, found = [0] * rows, []
    for number in range(rounds):
        turns = [
            Sample(
                context,
                known=size,
                max_new_tokens=40 + 10 * place,
                temperature=float(place % 4 > 0),
                random=Random(f"{place}/{number}"),
            )
            for place, (context, size) in enumerate(zip(contexts, known, strict=True))
        ]
        generator.generate(turns)
        found.append([(turn.ids, turn.logprobs) for turn in turns])
        known = [len(turn.so_far) for turn in turns]
        contexts = [(*turn.so_far, *range(10, 10 + 3 * p + 1)) for p, turn in enumerate(turns)]
    return found, (generator.prefilled_tokens, generator.reused_tokens)


def same(one, other) -> None:
    for ours, theirs in zip(one, other, strict=True):
        assert [ids for ids, _ in ours] == [ids for ids, _ in theirs]
        for (_, a), (_, b) in zip(ours, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-4)


@pytest.mark.long
def test_slots_sample_what_a_batch_does(model, monkeypatch, graphed, caplog):
    found, counts = conversations(model)
    monkeypatch.setattr(Forward, "graphs", False)
    expected, as_before = conversations(model)
    assert counts == as_before
    assert sum(len(ids) for turns in found for ids, _ in turns) > 500
    same(found, expected)
    assert not caplog.records  # on a GPU, all was recorded


@pytest.mark.long
def test_slots_make_room_while_rows_are_read(model, monkeypatch, graphed, caplog):
    expected, _ = conversations(model)
    monkeypatch.setattr(cuda_graphs, "_ROWS", 1)
    monkeypatch.setattr(cuda_graphs, "_COLUMNS", 16)
    found, _ = conversations(model)
    same(found, expected)
    assert not caplog.records


def test_they_are_taken_where_there_is_a_gpu_only(model):
    forward = Forward(model)
    assert forward.uniform
    assert forward.graphs == (DEVICE == "cuda")


def test_layers_that_remember_other_things_are_not_recorded():
    config = Gemma3TextConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    )
    assert not Forward(Gemma3ForCausalLM(config).eval()).uniform


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_what_cannot_be_recorded_is_computed_as_it_is(model, monkeypatch, caplog):
    expected, _ = conversations(model)
    compute = cuda_graphs.Slots._compute

    def waits(self, rows, columns):
        logits = compute(self, rows, columns)
        logits.sum().item()  # no graph may wait for the GPU
        return logits

    monkeypatch.setattr(cuda_graphs.Slots, "_compute", waits)
    with caplog.at_level(logging.WARNING):
        found, _ = conversations(model)
    same(found, expected)
    assert "CUDA graph" in caplog.text
