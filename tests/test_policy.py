"""A checkpoint as the controller: real torch, a tiny model made on the spot."""

import asyncio

import pytest
import torch
from langchain_core.messages import AIMessage, ToolMessage

from router_r1_graph import (
    CandidatePool,
    ControllerError,
    Trace,
    create_router_r1,
    parse_controller,
    protocol,
)
from router_r1_graph.controllers.generation import Generator
from router_r1_graph.controllers.policy import PolicyController
from router_r1_graph.controllers.policy_folder import PolicySettings
from tiny_policy import make_model, make_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(tokenizer)


def controller(model, tokenizer, **options):
    settings = PolicySettings(max_new_tokens=12, **options.pop("settings", {}))
    return PolicyController(model, tokenizer, settings, **options)


def graph_of(policy):
    return create_router_r1(CandidatePool.embedded(), policy).compile()


def ids_of(result):
    return [
        (m.additional_kwargs["tokens"]["input_ids"], m.additional_kwargs["tokens"]["output_ids"])
        for m in result["scratchpad"]
        if isinstance(m, AIMessage)
    ]


def contexts(count):
    rng = torch.Generator().manual_seed(3)
    lengths = torch.randint(3, 30, (count,), generator=rng).tolist()
    return [torch.randint(2, 300, (n,), generator=rng).tolist() for n in lengths]


def test_a_batch_with_caches_samples_what_each_would_alone(model):
    together = Generator(model, pad_id=0, stop_ids=frozenset({1, 5, 9}))
    alone = Generator(model, pad_id=0, stop_ids=frozenset({1, 5, 9}), max_cached_tokens=0)
    rows = [(ids, 0) for ids in contexts(6)]
    for extra in range(1, 4):
        batch = together.generate(rows, max_new_tokens=15, temperature=0)
        single = [alone.generate([(i, 0)], max_new_tokens=15, temperature=0)[0] for i, _ in rows]
        assert [one.ids for one in batch] == [one.ids for one in single]
        for one, other in zip(batch, single, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        ended = [[*ids, *one.ids] for (ids, _), one in zip(rows, batch, strict=True)]
        rows = [([*ids, *range(10, 10 + extra)], len(ids)) for ids in ended]
    assert together.reused_tokens > together.prefilled_tokens
    assert alone.prefilled_tokens == together.prefilled_tokens + together.reused_tokens


def test_samples_of_one_prompt_share_its_computation_and_nothing_else(model):
    generator = Generator(model, pad_id=0, stop_ids=frozenset({1, 5, 9}))
    first, other = contexts(2)
    random = torch.Generator().manual_seed(0)
    requests = [(first, 0), (other, 0), (first, 0), (first, 0)]
    batch = generator.generate(requests, max_new_tokens=9, temperature=1.0, random=random)
    assert generator.prefilled_tokens == len(first) + len(other)
    assert len({tuple(one.ids) for one in batch}) == 4
    for (ids, _), one in zip(requests, batch, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([ids + one.ids])).logits[0, len(ids) - 1 : -1]
        own = torch.log_softmax(logits, -1).gather(1, torch.tensor(one.ids)[:, None])[:, 0]
        assert one.logprobs == pytest.approx(own.tolist(), abs=1e-5)


def test_logprobs_are_those_of_the_model_at_the_sampling_temperature(model):
    ids = contexts(1)[0]
    generator = Generator(model, pad_id=0, stop_ids=frozenset())
    random = torch.Generator().manual_seed(0)
    one = generator.generate([(ids, 0)], max_new_tokens=8, temperature=0.7, random=random)[0]
    with torch.no_grad():
        logits = model(torch.tensor([ids + one.ids])).logits[0, len(ids) - 1 : -1] / 0.7
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(one.ids)[:, None])[:, 0]
    assert one.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_cache_never_holds_more_than_it_may(model):
    generator = Generator(model, pad_id=0, stop_ids=frozenset(), max_cached_tokens=60)
    generator.generate([(i, 0) for i in contexts(8)], max_new_tokens=5, temperature=0)
    kept = sum(rows[0][0].shape[1] for rows in generator._cache.values())
    assert 0 < kept <= 60
    generator.forget()
    assert not generator._cache


def test_the_ids_on_the_messages_are_what_the_model_saw_and_sampled(model, tokenizer):
    policy = controller(model, tokenizer)
    asked = []
    generate = policy.generator.generate

    def recording(requests, **kwargs):
        sampled = generate(requests, **kwargs)
        asked.extend((list(ids), one.ids) for (ids, _), one in zip(requests, sampled, strict=True))
        return sampled

    policy.generator.generate = recording
    turns = ids_of(graph_of(policy).invoke({"question": "Who wrote Hamlet?"}))
    assert len(turns) == len(asked) == 5
    context = []
    for (added, sampled), (seen, returned) in zip(turns, asked, strict=True):
        assert seen == [*context, *added]
        assert sampled == returned
        context = [*seen, *sampled]


def test_an_observation_is_tokenised_once_on_its_own(model, tokenizer):
    result = graph_of(controller(model, tokenizer)).invoke({"question": "Who wrote Hamlet?"})
    observations = [
        f"\n{protocol.render_observations([m])}\n"
        for m in result["scratchpad"]
        if isinstance(m, ToolMessage)
    ]
    added = [tokenizer.decode(ids) for ids, _ in ids_of(result)][1:]
    assert added == observations


def test_sync_async_and_batched_runs_are_the_same_tokens(model, tokenizer):
    questions = [{"question": f"Who wrote book {n}?"} for n in range(5)]
    graph = graph_of(controller(model, tokenizer))
    one_by_one = [ids_of(graph.invoke(question)) for question in questions]
    together = graph_of(controller(model, tokenizer))
    assert [ids_of(r) for r in asyncio.run(together.abatch(questions))] == one_by_one


async def test_questions_that_think_at_once_share_a_batch(model, tokenizer):
    policy = controller(model, tokenizer)
    sizes = []
    generate = policy.generator.generate

    def recording(requests, **kwargs):
        sizes.append(len(requests))
        return generate(requests, **kwargs)

    policy.generator.generate = recording
    await graph_of(policy).abatch([{"question": f"Question {n}?"} for n in range(16)])
    assert sum(sizes) == 16 * 5
    assert len(sizes) < 16


async def test_a_failing_model_is_a_controller_error_for_everyone_in_the_batch(model, tokenizer):
    policy = controller(model, tokenizer)

    def broken(requests, **kwargs):
        raise RuntimeError("out of memory")

    policy.generator.generate = broken
    results = await graph_of(policy).abatch([{"question": "a?"}, {"question": "b?"}])
    assert [r["stop_reason"] for r in results] == ["controller_error"] * 2
    assert all("out of memory" in r["error"] for r in results)


def test_a_context_that_is_too_long_ends_the_run_in_order(model, tokenizer):
    policy = controller(model, tokenizer, settings={"max_context_tokens": 50})
    result = graph_of(policy).invoke({"question": "Who wrote Hamlet?"})
    assert result["stop_reason"] == "controller_error"
    assert "max_context_tokens = 50" in result["error"]


def test_a_stop_text_of_several_tokens_ends_a_turn(model, tokenizer):
    ids = tokenizer.encode(" x stop!", add_special_tokens=False)
    policy = controller(model, tokenizer, settings={"stop": ("stop!",)})
    assert policy.generator.is_stop(ids)
    assert not policy.generator.is_stop(ids[:-1])


def test_a_saved_policy_is_the_same_controller(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "prompt_template.txt").write_text("$brief_candidates\n$question")
    (tmp_path / "router_r1.json").write_text(
        '{"protocol_version": 1, "stop": ["</answer>"], "max_new_tokens": 12, '
        '"max_context_tokens": 4096}'
    )
    loaded = parse_controller(f"policy:{tmp_path}", CandidatePool.embedded())
    assert isinstance(loaded, PolicyController)
    assert loaded.name == f"policy:{tmp_path}"
    here = PolicyController(
        model, tokenizer, loaded.settings, template=tmp_path / "prompt_template.txt"
    )
    question = {"question": "Who wrote Hamlet?"}
    pool = CandidatePool.embedded()
    traces = [
        Trace.from_state(graph_of(c).invoke(question), pool=pool, controller="x").turns
        for c in (loaded, here)
    ]
    assert traces[0] == traces[1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("policy", "policy needs a folder: policy:PATH"),
        ("policy:runs/nowhere", "policy 'runs/nowhere': no model there"),
    ],
)
def test_a_policy_that_is_not_there_says_so(spec, message):
    with pytest.raises(ControllerError, match=message):
        parse_controller(spec, CandidatePool.embedded())


def test_a_policy_of_another_protocol_is_refused(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "router_r1.json").write_text(
        '{"protocol_version": 99, "stop": [], "max_new_tokens": 1, "max_context_tokens": 1}'
    )
    with pytest.raises(ControllerError, match="protocol version 99"):
        PolicyController.from_pretrained(tmp_path)
