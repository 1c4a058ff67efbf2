"""What contexts begin with in common: found, computed once, and attended to by all of them."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from random import Random

import pytest

from extras import needs

needs("local")

import torch
from transformers import MistralConfig, MistralForCausalLM, PreTrainedConfig
from transformers.models.llama.modeling_llama import LlamaAttention

from renamed import rename
from router_r1_graph.controllers.policy.forward import Forward
from router_r1_graph.controllers.policy.generation import Generator
from router_r1_graph.controllers.policy.guesses import Guesses
from router_r1_graph.controllers.policy.prefixes import Prefixes
from router_r1_graph.controllers.policy.sampling import Sample
from tiny_policy import SIZES, make_llama
from training.machine import attention_for_training


def some(rng, count):
    return [rng.randrange(8, 300) for _ in range(count)]


def own_logprobs(model, turn):
    with torch.no_grad():
        logits = model(torch.tensor([turn.so_far])).logits[0, len(turn.context) - 1 : -1]
    if turn.temperature:
        logits = logits / turn.temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(turn.ids)[:, None])[:, 0].tolist()


def turns_of(rng, begin, count, **options):
    """Turns that begin alike; every second one is greedy."""
    return [
        Sample(
            [*begin, *some(rng, rng.randrange(1, 30))],
            max_new_tokens=rng.randrange(3, 40),
            temperature=0.8 * (number % 2),
            random=Random(number),
            **options,
        )
        for number in range(count)
    ]


def test_shared_prefixes_change_no_logprob():
    model, rng = make_llama(), Random(1)
    generator = Generator(model, pad_id=0, stop_ids=frozenset([7]))
    turns = [
        *turns_of(rng, some(rng, 150), 9),
        *turns_of(rng, some(rng, 90), 5),
        *turns_of(rng, some(rng, 70), 1),  # nobody else begins so
    ]
    rng.shuffle(turns)
    generator.generate(turns)
    contexts = sum(len(turn.context) for turn in turns)
    assert generator.prefilled_tokens < contexts / 2
    assert generator.prefilled_tokens + generator.reused_tokens == contexts
    assert sum(turn.prefilled for turn in turns) == generator.prefilled_tokens
    # The next turn of each question reads on, and only what is new.
    later = [
        Sample(
            [*turn.so_far, *some(rng, 1 + rng.randrange(9))], len(turn.so_far), max_new_tokens=12
        )
        for turn in turns
    ]
    generator.generate(later)
    assert max(turn.prefilled for turn in later) <= 10
    one = Sample([*turns[0].context[:60], *some(rng, 5)], max_new_tokens=12)
    generator.generate([one])
    for turn in (*turns, *later, one):
        assert turn.logprobs == pytest.approx(own_logprobs(model, turn), abs=1e-4)
    assert model.config._attn_implementation == "sdpa"


def test_a_turn_that_rests_keeps_its_prefix():
    model, rng = make_llama(), Random(2)
    generator = Generator(model, pad_id=0, stop_ids=frozenset([7]))
    turns = turns_of(rng, some(rng, 100), 6)
    generator.generate(turns, rest=lambda going: True)  # one token each
    before = generator.prefilled_tokens
    generator.generate([turn for turn in turns if not turn.ended])
    assert generator.prefilled_tokens == before
    for turn in turns:
        assert turn.logprobs == pytest.approx(own_logprobs(model, turn), abs=1e-4)


def test_questions_one_after_the_other_share_what_they_begin_with():
    model, rng = make_llama(), Random(3)
    generator = Generator(model, pad_id=0, stop_ids=frozenset([7]))
    begin = some(rng, 200)
    read = []
    for _ in range(4):
        turn = Sample([*begin, *some(rng, 12)], max_new_tokens=8)
        generator.generate([turn])
        read.append(turn.prefilled)
        assert turn.logprobs == pytest.approx(own_logprobs(model, turn), abs=1e-4)
    assert read == [212, 212, 20, 20]  # the second one shows what they have in common: 192


def test_layers_that_forget_share_nothing():
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=64)).eval()
    rng = Random(4)
    generator = Generator(model, pad_id=0, stop_ids=frozenset([7]))
    turns = turns_of(rng, some(rng, 100), 4)
    generator.generate(turns)
    assert [turn.prefilled for turn in turns] == [len(turn.context) for turn in turns]


def test_a_model_that_does_not_name_its_attention_shares_nothing(monkeypatch):
    model, rng = make_llama(), Random(4)
    missed = rename(monkeypatch, PreTrainedConfig, "_attn_implementation")
    generator = Generator(model, pad_id=0, stop_ids=frozenset([7]))
    turns = turns_of(rng, some(rng, 100), 4)
    generator.generate(turns)
    assert missed
    assert [turn.prefilled for turn in turns] == [len(turn.context) for turn in turns]
    assert turns[0].logprobs == pytest.approx(own_logprobs(model, turns[0]), abs=1e-4)
    with attention_for_training(model, bf16=True):  # which has a model keep the one it has
        assert model(torch.tensor([[9]])).logits.isfinite().all()


def test_an_attention_of_its_own_shares_nothing(monkeypatch):
    model, rng = make_llama(), Random(4)
    forward = LlamaAttention.forward

    def biased(self, *args, **kwargs):
        kwargs.pop("shared", None)  # a model that attends in another way
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaAttention, "forward", biased)
    generator = Generator(model, pad_id=0, stop_ids=frozenset([7]))
    turns = turns_of(rng, some(rng, 100), 4)
    generator.generate(turns)
    assert [turn.prefilled for turn in turns] == [len(turn.context) for turn in turns]
    assert turns[0].logprobs == pytest.approx(own_logprobs(model, turns[0]), abs=1e-4)


def test_rounding_is_not_taken_for_another_attention():
    model = make_llama().bfloat16()
    for weights in model.parameters():  # as large as those of a trained model: rounding shows
        weights.data *= 3
    assert Forward(model).shares
    model.float()
    # As accelerate does: seen from outside of the forward pass, there is no autocast.
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    assert Forward(model).shares


@pytest.mark.parametrize("keep", [1, 3, 6, 0])
def test_the_last_matrix_multiplies_what_is_in_one_piece(keep):
    model, seen = make_llama().requires_grad_(False), []
    head = model.get_output_embeddings()
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous()))
    ids = torch.tensor([some(Random(row), 6) for row in range(4)])
    positions = torch.arange(6).expand_as(ids)
    with torch.no_grad():
        logits, _ = Forward(model)(ids, positions, None, keep=keep)
        torch.testing.assert_close(logits, model(ids).logits[:, -keep:])
    assert seen == [True, True]


def test_prefixes_are_as_long_as_four_others_allow():
    rng = Random(5)
    pool, instructions = some(rng, 160), some(rng, 80)
    samples = [(*pool, *some(rng, 9)) for _ in range(8)]
    others = [(*instructions, *some(rng, 50)) for _ in range(8)]
    alone = (*pool[:30], *some(rng, 100))
    found = Prefixes(10_000).of([*samples, *others, alone])
    assert {len(prefix) for prefix in found[:8]} == {160}
    assert {len(prefix) for prefix in found[8:16]} == {80}
    assert found[16] is None
    assert len({id(prefix) for prefix in found}) == 3


def test_the_oldest_prefixes_are_dropped():
    rng = Random(6)
    begins = [some(rng, 96) for _ in range(4)]
    prefixes = Prefixes(200)
    first = [prefixes.of([(*begin, 1, 2), (*begin, 3, 4)])[0] for begin in begins]
    again = prefixes.of([(*begins[-1], 5, 6)])[0]
    assert again is first[-1]
    assert prefixes.of([(*begins[0], 5, 6)])[0] is not first[0]
    assert Prefixes(0).of([(*begins[0], 1, 2), (*begins[0], 3, 4)]) == [None, None]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_guesses_change_nothing_that_is_sampled(monkeypatch, count):
    model, rng = make_llama(), Random(7)
    begin = some(rng, 20) * 5  # it repeats itself: everything is guessed

    def sampled():
        turns = turns_of(Random(8), begin, count)
        reads = []
        generator = Generator(model, pad_id=0, stop_ids=frozenset([7]))
        generator.generate(turns, rest=lambda going: reads.append(going) and False)
        return [(turn.ids, turn.logprobs) for turn in turns], reads

    guessed, passes = sampled()
    monkeypatch.setattr(Guesses, "of", lambda *_: ())
    plain, each = sampled()
    assert sum(passes) < sum(each)  # turns that repeat themselves end after fewer passes
    for (ids, logprobs), (others, expected) in zip(guessed, plain, strict=True):
        assert ids == others
        assert logprobs == pytest.approx(expected, abs=1e-4)


def test_two_samplers_may_hold_one_model():
    model, begin = make_llama(), some(Random(9), 100)
    turns = [turns_of(Random(seed), begin, 4) for seed in range(6)]
    samplers = [Generator(model, pad_id=0, stop_ids=frozenset([7])) for _ in turns]
    with ThreadPoolExecutor() as threads:
        list(threads.map(Generator.generate, samplers, turns))
    for turn in chain(*turns):
        assert turn.logprobs == pytest.approx(own_logprobs(model, turn), abs=1e-4)
