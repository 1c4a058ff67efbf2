"""A checkpoint as the controller: real torch, a tiny model made on the spot."""

import asyncio
import subprocess
import sys
import threading
from dataclasses import replace
from functools import wraps
from pathlib import Path
from random import Random
from typing import Any

import pytest

from extras import needs

needs("local")

import torch
from langchain_core.messages import AIMessage, ToolMessage

from fakes import NEVER, FakeChat, make_pool, models, search
from hostile import TEXTS
from patience import long_enough, wait_until
from router_r1_graph import (
    CandidatePool,
    ControllerError,
    StickyController,
    Trace,
    aroute_only,
    create_router_r1,
    parse_controller,
    protocol,
    route_only,
)
from router_r1_graph.budget import Left
from router_r1_graph.context import RouterContext
from router_r1_graph.controllers.controller import View, render_view
from router_r1_graph.controllers.policy import batches as batches_module
from router_r1_graph.controllers.policy import generation
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import PolicyFolder, PolicySettings
from router_r1_graph.controllers.policy.generation import Generator
from router_r1_graph.controllers.policy.sampling import Sample, sample_tokens
from router_r1_graph.controllers.policy.stop_texts import StopTexts
from router_r1_graph.errors import ContextLengthError
from router_r1_graph.outside import writable
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
        batch, single = ([Sample(*row, max_new_tokens=15) for row in rows] for _ in range(2))
        together.generate(batch)
        for turn in single:
            alone.generate([turn])
        assert_same(batch, single)
        rows = [([*t.so_far, *range(10, 10 + extra)], len(t.so_far)) for t in batch]
    assert together.reused_tokens > together.prefilled_tokens
    assert alone.prefilled_tokens == together.prefilled_tokens + together.reused_tokens


def assert_same(turns, others):
    assert [turn.ids for turn in turns] == [turn.ids for turn in others]
    for turn, other in zip(turns, others, strict=True):
        assert turn.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert (turn.finished, turn.ended) == (other.finished, other.ended)


@pytest.mark.parametrize("max_cached_tokens", [10_000, 0])
def test_turns_that_rest_go_on_with_others_as_if_they_had_not(model, max_cached_tokens):
    """Each call leaves what is not ended to a later one, in which new turns stand beside it."""
    stop = {"pad_id": 0, "stop_ids": frozenset({1, 5, 9})}
    generator = Generator(model, **stop, max_cached_tokens=max_cached_tokens)
    turns = [Sample(ids, max_new_tokens=4 + 3 * n) for n, ids in enumerate(contexts(12))]
    ended, waiting, batch, calls = [], list(turns), [], 0
    while batch or waiting:
        batch, waiting = [*batch, *waiting[:4]], waiting[4:]
        generator.generate(batch, ended=ended.append, rest=lambda going: going <= 2)
        batch = [turn for turn in batch if not turn.ended]
        calls += 1
    assert sorted(map(id, ended)) == sorted(map(id, turns))
    assert calls > 3  # some did rest
    assert generator.prefilled_tokens == sum(len(turn.context) for turn in turns)
    alone = [Sample(turn.context, max_new_tokens=turn.max_new_tokens) for turn in turns]
    for turn in alone:
        Generator(model, **stop).generate([turn])
    assert_same(turns, alone)


def test_greedy_and_sampled_turns_share_a_batch(model):
    generator = Generator(model, pad_id=0, stop_ids=frozenset())
    ids, other = contexts(2)
    turns = [
        Sample(ids, max_new_tokens=8, temperature=t, random=Random(0)) for t in (0, 1.0, 0, 50.0)
    ]
    alone = Sample(ids, max_new_tokens=8)
    generator.generate([*turns, Sample(other, max_new_tokens=3)])
    generator.generate([alone])
    assert turns[0].ids == turns[2].ids == alone.ids
    assert len({tuple(turn.ids) for turn in turns}) == 3


def test_tokens_are_sampled_as_often_as_the_model_says():
    logits = torch.tensor([[0.0, 1.0, -1.0, float("-inf"), 2.0]]).expand(20_000, -1)
    drawn = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0))
    chosen, scores = sample_tokens(logits, torch.full((20_000,), 2.0), drawn)
    expected = torch.softmax(logits[0] / 2, -1)
    counts = torch.bincount(chosen, minlength=5) / len(chosen)
    assert counts.tolist() == pytest.approx(expected.tolist(), abs=0.015)
    assert counts[3] == 0
    assert torch.allclose(scores, expected.log()[chosen])


def test_samples_of_one_prompt_share_its_computation_and_nothing_else(model):
    generator = Generator(model, pad_id=0, stop_ids=frozenset({1, 5, 9}))
    first, other = contexts(2)
    batch = [
        Sample(ids, max_new_tokens=9, temperature=1.0, random=Random(seed))
        for seed, ids in enumerate((first, other, first, first))
    ]
    generator.generate(batch)
    assert generator.prefilled_tokens == len(first) + len(other)
    assert len({tuple(one.ids) for one in batch}) == 4
    assert [one.prefilled for one in batch] == [len(one.context) for one in batch]
    for one in batch:
        with torch.no_grad():
            logits = model(torch.tensor([one.so_far])).logits[0, len(one.context) - 1 : -1]
        own = torch.log_softmax(logits, -1).gather(1, torch.tensor(one.ids)[:, None])[:, 0]
        assert one.logprobs == pytest.approx(own.tolist(), abs=1e-5)


def test_what_is_new_is_computed_beside_what_is_about_as_long(model, monkeypatch):
    generator = Generator(model, pad_id=0, stop_ids=frozenset())
    generator.generate([Sample([5, 5], max_new_tokens=1)])  # tries what the model can do
    computed, forward = [], model.forward

    @wraps(forward)
    def counting(*args, **kwargs):
        computed.append(kwargs["input_ids"].shape)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counting)
    turns = [Sample([n] * n, max_new_tokens=1) for n in (90, 10, 11, 100, 9, 40)]
    generator.generate(turns)
    assert sum(rows * width for rows, width in computed if width > 1) < 1.25 * 260
    assert sorted(rows for rows, width in computed if width > 1) == [1, 2, 3]


def test_a_turn_alone_guesses_what_it_repeats_and_writes_what_it_would(model, monkeypatch):
    ids = contexts(1)[0]
    first = Sample(ids, max_new_tokens=40)
    other = Sample(ids[1:], max_new_tokens=40)
    generator = Generator(model, pad_id=0, stop_ids=frozenset())
    generator.generate([first, other])  # one token each at a time
    passes, forward = [], model.forward

    @wraps(forward)
    def counting(*args, **kwargs):
        passes.append(kwargs["input_ids"].shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counting)
    context = [*ids, *first.ids, 2, *ids]  # what it will write stands in it
    wanted = Sample(context, max_new_tokens=40)
    generator.generate([wanted, Sample(ids, max_new_tokens=1)])
    passes.clear()
    turn = Sample(context, max_new_tokens=40)
    generator.generate([turn])
    assert_same([turn], [wanted])
    assert len(turn.ids) == 40
    assert 1 < max(passes[1:]) <= 13
    for stop in (wanted.ids[3], wanted.ids[20]):  # also in the middle of a guess
        ended = Sample(context, max_new_tokens=40)
        Generator(model, pad_id=0, stop_ids=frozenset({stop})).generate([ended])
        assert ended.ids == wanted.ids[: wanted.ids.index(stop) + 1]


def test_a_turn_alone_guesses_what_earlier_turns_wrote_and_writes_what_it_would(model):
    ids = contexts(1)[0]
    free = Sample(ids, max_new_tokens=40)
    Generator(model, pad_id=0, stop_ids=frozenset()).generate([free])
    stop = frozenset({free.ids[-1]})
    passes = []
    generator = Generator(model, pad_id=0, stop_ids=stop)
    turns = [Sample(ids, max_new_tokens=40) for _ in range(3)]
    for turn in turns:
        if turn is turns[-1]:
            generator.forget()  # other weights write otherwise
        passes.append(0)

        def rest(_: int) -> bool:
            passes[-1] += 1
            return False

        generator.generate([turn], rest=rest)
    assert turns[0].ids == free.ids[: free.ids.index(free.ids[-1]) + 1]
    assert_same(turns[1:], [turns[0]] * 2)
    assert passes[1] < passes[0] == passes[2]


def test_logprobs_are_those_of_the_model_at_the_sampling_temperature(model):
    ids = contexts(1)[0]
    generator = Generator(model, pad_id=0, stop_ids=frozenset())
    one = Sample(ids, max_new_tokens=8, temperature=0.7, random=Random(0))
    generator.generate([one])
    with torch.no_grad():
        logits = model(torch.tensor([ids + one.ids])).logits[0, len(ids) - 1 : -1] / 0.7
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(one.ids)[:, None])[:, 0]
    assert one.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_cache_never_holds_more_than_it_may(model):
    generator = Generator(model, pad_id=0, stop_ids=frozenset(), max_cached_tokens=60)
    generator.generate([Sample(ids, max_new_tokens=5) for ids in contexts(8)])
    assert len(generator.kept) > 0
    assert 0 < generator.kept.tokens <= 60
    generator.forget()
    assert (len(generator.kept), generator.kept.tokens) == (0, 0)


def test_the_ids_on_the_messages_are_what_the_model_saw_and_sampled(model, tokenizer):
    policy = controller(model, tokenizer)
    asked = []
    generate = policy.generator.generate

    def recording(turns, **kwargs):
        asked.extend(turns)
        generate(turns, **kwargs)

    policy.generator.generate = recording
    turns = ids_of(graph_of(policy).invoke({"question": "Who wrote Hamlet?"}))
    assert len(turns) == len(asked) == 5
    context = []
    for (added, sampled), turn in zip(turns, asked, strict=True):
        seen = list(turn.context)
        assert seen == [*context, *added]
        assert sampled == turn.ids
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
    questions = [{"question": f"Who wrote book {n}?"} for n in range(3)]
    graph = graph_of(controller(model, tokenizer))
    one_by_one = [ids_of(graph.invoke(question)) for question in questions]
    together = graph_of(controller(model, tokenizer))
    assert [ids_of(r) for r in asyncio.run(together.abatch(questions))] == one_by_one


async def test_questions_that_think_at_once_share_a_batch(model, tokenizer):
    policy = controller(model, tokenizer)
    batches = []
    generate = policy.generator.generate

    def recording(turns, **kwargs):
        batches.append(list(turns))
        generate(turns, **kwargs)

    policy.generator.generate = recording
    await graph_of(policy).abatch([{"question": f"Question {n}?"} for n in range(8)])
    assert len({turn for batch in batches for turn in batch}) == 8 * 5
    assert max(map(len, batches)) == 8
    assert len(batches) < 20  # of 40 turns; at least 5


async def test_a_question_that_comes_later_joins_those_that_are_being_answered(model, tokenizer):
    policy = controller(model, tokenizer)
    policy.settings = PolicySettings(max_new_tokens=60, max_context_tokens=4000)
    policy.generator.stop_ids = frozenset()
    begun, sizes, forward = threading.Event(), [], model.forward

    @wraps(forward)
    def held(*args, **kwargs):
        sizes.append(len(kwargs["input_ids"]))
        if len(sizes) == 4:  # in the middle of the first
            begun.set()
            wait_until(lambda: policy._batches._waiting)
        return forward(*args, **kwargs)

    graph = graph_of(policy)
    knobs = RouterContext(max_rounds=1)
    model.forward = held
    try:
        first = asyncio.create_task(graph.ainvoke({"question": "Who?"}, context=knobs))
        await asyncio.to_thread(begun.wait)
        results = [await graph.ainvoke({"question": "When?"}, context=knobs), await first]
    finally:
        model.forward = forward
    assert 1 in sizes
    assert 2 in sizes
    again = [await graph.ainvoke({"question": q}, context=knobs) for q in ("When?", "Who?")]
    assert [ids_of(result) for result in results] == [ids_of(result) for result in again]


async def test_who_waited_longest_is_asked_first_with_those_nearest_in_length(model, tokenizer):
    policy = controller(model, tokenizer, max_batch=2)
    batches = []
    generate = policy.generator.generate

    def recording(turns, **kwargs):
        batches.append([len(turn.context) for turn in turns])
        generate(turns, **kwargs)

    policy.generator.generate = recording
    words = (5, 60, 6, 61)
    knobs = RouterContext(max_rounds=1)
    questions = [{"question": " ".join(["word"] * n)} for n in words]
    graph = graph_of(policy)
    await asyncio.gather(*(graph.ainvoke(question, context=knobs) for question in questions))
    first, second = batches[:2]
    assert max(first) < min(second)
    assert len(first) == len(second) == 2


async def test_a_failing_model_is_a_controller_error_for_everyone_in_the_batch(
    model, tokenizer, caplog
):
    policy = controller(model, tokenizer)
    begun = []

    def broken(turns, **kwargs):
        begun.append(turns)
        raise RuntimeError("out of memory")

    policy.generator.generate = broken
    results = await graph_of(policy).abatch([{"question": "a?"}, {"question": "b?"}])
    assert [r["stop_reason"] for r in results] == ["controller_error"] * 2
    assert all("out of memory" in r["error"] for r in results)
    assert [bool(r.exc_info) for r in caplog.records].count(True) == len(begun)  # once each


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
        ("policy:run/demo/policy", "policy 'run/demo/policy': no model there"),
        ("policy:nowhere", "policy 'nowhere': no model there"),
        ("policy:./demo", "policy './demo': no model there"),
        ("policy:/nowhere", "policy '/nowhere': no model there"),
        ("policy:tests/policy", "policy 'tests/policy': no model there"),  # a folder of this place
        ("policy:tests", r"no model there \(config.json is missing\)"),
        ("policy:README.md", "a file; a policy is a folder"),
    ],
)
def test_a_policy_that_is_not_there_says_so(spec, message):
    with pytest.raises(ControllerError, match=message):
        parse_controller(spec, CandidatePool.embedded())


def test_a_model_that_the_hub_does_not_give_is_one_clear_line():
    with pytest.raises(ControllerError) as raised:  # the tests are offline
        parse_controller("policy:some-org/some-model", CandidatePool.embedded())
    message = str(raised.value)
    assert message.startswith(
        "policy 'some-org/some-model': no tokenizer can be loaded from the Hug"
    )
    assert "\n" not in message
    assert len(message) < 500


def test_a_broken_model_file_is_one_clear_line(tokenizer, model, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ControllerError, match="no model can be loaded from this folder"):
        PolicyController.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "not JSON: EOF"),
        ("[1]", "a mapping is wanted, not a list of 1"),
        ('{"stop": ["x"], "max_tokens": 3}', r"unknown key max_tokens = 3 \(did you mean 'max_new"),
        ('{"max_new_tokens": "many"}', "max_new_tokens: a whole number is wanted, not 'many'"),
        ('{"max_new_tokens": 0}', "max_new_tokens: must be at least 1, not 0"),
        ('{"stop": "</answer>"}', "stop: a list is wanted, not '</answer>'"),
        ('{"stop": [""]}', r"stop\[0\]: must not be empty"),
        ("\udcff", "not JSON"),
    ],
)
def test_broken_settings_name_the_file_the_key_and_the_way_out(tmp_path, settings, message):
    file = tmp_path / "router_r1.json"
    file.write_bytes(settings.encode(errors="surrogateescape"))
    with pytest.raises(ControllerError, match=message) as raised:
        PolicyFolder(str(tmp_path)).settings()
    assert str(raised.value).startswith(f"{file}: ")
    assert "correct it, or delete it" in str(raised.value)


def test_a_stop_text_ends_a_turn_however_it_is_spelled(model, tokenizer):
    (as_one,) = tokenizer.encode("</answer>", add_special_tokens=False)
    spelled = [i for part in ("</ans", "wer>") for i in tokenizer.encode(part)]
    stop = StopTexts(tokenizer, ("</answer>",), frozenset({tokenizer.eos_token_id}))
    assert as_one in stop.ids
    assert tokenizer.eos_token_id in stop.ids
    assert as_one not in spelled
    assert [stop.ends(spelled[: n + 1]) for n in range(len(spelled))] == [
        n == len(spelled) - 1 for n in range(len(spelled))
    ]


@pytest.mark.parametrize("text", ["fin ", "日本", "e"])
def test_a_stop_text_may_end_in_anything(tokenizer, text):
    stop = StopTexts(tokenizer, (text,), frozenset())
    ids = tokenizer.encode("so " + text, add_special_tokens=False)
    assert stop.ends(ids)
    assert not stop.ends(ids[:-1])


def test_a_turn_that_cannot_have_ended_is_not_decoded(tokenizer):
    decoded = []

    class Counting:
        encode = tokenizer.encode

        def decode(self, ids):
            decoded.append(list(ids))
            return tokenizer.decode(ids)

    stop = StopTexts(Counting(), ("</answer>",), frozenset())
    ids = tokenizer.encode("the long and winding road " * 4, add_special_tokens=False)
    for n in range(len(ids)):
        assert not stop.ends(ids[: n + 1])
    assert all(len(one) == 1 for one in decoded)
    assert len(decoded) == len(set(ids))


def test_a_sampled_turn_ends_where_the_stop_text_is_spelled_out(model, tokenizer, monkeypatch):
    spelled = [i for part in ("a</ans", "wer>", "b") for i in tokenizer.encode(part)]
    policy = controller(model, tokenizer, settings={})
    one = Sample([5], max_new_tokens=30)

    def say(logits, temperatures, drawn):
        written = [*spelled, *[0] * 9][len(one.ids) :][: len(logits)]
        return torch.tensor(written), torch.zeros(len(logits))

    monkeypatch.setattr(generation, "sample_tokens", say)
    policy.generator.generate([one])
    assert one.finished
    assert tokenizer.decode(one.ids) == "a</answer>"


# ------------------------------------------------------ a special token's spelling is only text


SPELLED = "<think> Who wrote <|end|> and <|pad|><|end|>? </think>"


def ends(tokenizer, ids):
    return [ids.count(i) for i in (tokenizer.eos_token_id, tokenizer.pad_token_id)]


@pytest.mark.parametrize("chat", [False, True])
def test_a_question_never_holds_a_real_special_token(model, chat):
    tokenizer = make_tokenizer()
    if chat:
        tokenizer.chat_template = CHAT
    policy = controller(model, tokenizer)
    view = View(SPELLED, CandidatePool.embedded(), RouterContext(), Left(4))
    ids = policy.codec.prompt_ids(view)
    assert ends(tokenizer, ids) == ([1, 2] if chat else [0, 0])  # the template's own
    text = render_view(policy.codec.template, view)
    if chat:
        assert tokenizer.decode(ids) == f"<|pad|>user\n{text}<|end|>\n<|pad|>assistant\n"
    else:
        assert tokenizer.decode(ids) == text + "\n"
    (think,) = tokenizer.encode("<think>", add_special_tokens=False)
    assert think in ids


def test_no_hostile_reply_holds_a_real_special_token(model):
    tokenizer = make_tokenizer()
    codec = controller(model, tokenizer).codec
    for text in TEXTS:
        said = ToolMessage(writable(text), tool_call_id="1", artifact={"candidate": "Ada"})
        assert ends(tokenizer, codec.observation_ids([said])) == [0, 0]


CHAT = (
    "{% for m in messages %}<|pad|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|pad|>assistant\n{% endif %}"
)


def test_ordinary_text_is_tokenised_as_it_was(model):
    tokenizer = make_tokenizer()
    view = View("<think> Who? </think> <b|>", CandidatePool.embedded(), RouterContext(), Left(4))
    policy = controller(model, tokenizer)
    text = render_view(policy.codec.template, view)
    assert policy.codec.prompt_ids(view) == tokenizer.encode(text + "\n", add_special_tokens=False)
    tokenizer.chat_template = CHAT
    message = [{"role": "user", "content": text}]
    whole = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert policy.codec.prompt_ids(view) == whole


def test_a_candidates_reply_and_a_teachers_turn_never_end_a_turn(model, tokenizer):
    codec = controller(model, tokenizer).codec
    observation = codec.observation_ids([ToolMessage(SPELLED, name="a", tool_call_id="1")])
    assert ends(tokenizer, observation) == [0, 0]
    turn = codec.turn_ids(SPELLED)
    assert ends(tokenizer, turn) == [1, 0]
    assert codec.text_of(turn) == SPELLED


def test_a_policy_of_another_protocol_is_refused(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "router_r1.json").write_text(
        '{"protocol_version": 99, "stop": [], "max_new_tokens": 1, "max_context_tokens": 1}'
    )
    with pytest.raises(ControllerError, match="protocol version 99"):
        PolicyController.from_pretrained(tmp_path)


# ------------------------------------------------------------------- loops, threads, caches, seeds


def test_two_event_loops_and_threads_may_ask_one_policy_at_once(model, tokenizer):
    policy = controller(model, tokenizer)
    graph = graph_of(policy)
    knobs = RouterContext(max_rounds=1)
    alone = {q: ids_of(graph.invoke({"question": q}, context=knobs)) for q in ("Who?", "When?")}
    together = threading.Barrier(3)
    found: list[tuple[str, Any]] = []

    async def ask(question: str) -> None:
        states = await asyncio.gather(
            *(graph.ainvoke({"question": question}, context=knobs) for _ in range(3))
        )
        found.extend((question, ids_of(state)) for state in states)

    def in_a_loop(question: str) -> None:
        together.wait()
        for _ in range(2):
            asyncio.run(ask(question))

    def in_a_thread() -> None:
        together.wait()
        found.append(("Who?", ids_of(graph.invoke({"question": "Who?"}, context=knobs))))

    threads = [
        threading.Thread(target=in_a_loop, args=("Who?",), daemon=True),
        threading.Thread(target=in_a_loop, args=("When?",), daemon=True),
        threading.Thread(target=in_a_thread, daemon=True),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(found) == 13
    assert all(ids == alone[question] for question, ids in found)


def test_the_thread_that_samples_ends_when_there_is_nothing_to_do(model, tokenizer, monkeypatch):
    monkeypatch.setattr(batches_module, "_IDLE_SECONDS", 0.01)
    policy = controller(model, tokenizer)
    graph_of(policy).invoke({"question": "Who?"}, context=RouterContext(max_rounds=0))
    samplers = [thread for thread in threading.enumerate() if thread.name == "policy"]
    for thread in samplers:
        thread.join(300)
    assert not any(thread.is_alive() for thread in samplers)
    state = graph_of(policy).invoke({"question": "Who?"}, context=RouterContext(max_rounds=0))
    assert ids_of(state)


def test_a_question_that_is_over_keeps_no_cache(model, tokenizer):
    policy = controller(model, tokenizer)
    graph = graph_of(policy)
    for question in ("Who?", "When?", "Where?"):
        graph.invoke({"question": question}, context=RouterContext(max_rounds=1))
    assert (len(policy.generator.kept), policy.generator.kept.tokens) == (0, 0)


def test_a_policy_that_sticky_asks_once_keeps_no_cache(model, tokenizer):
    policy = controller(model, tokenizer)
    graph = create_router_r1("embedded", StickyController(policy)).compile()
    for question in ("Who?", "When?", "Where?"):
        assert graph.invoke({"question": question})["stop_reason"] == "answered"
    assert (len(policy.generator.kept), policy.generator.kept.tokens) == (0, 0)


class Held:
    """A model whose passes wait until they are let go."""

    def __init__(self, model: Any, monkeypatch: Any) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        forward = model.forward

        @wraps(forward)
        def held(*args: Any, **kwargs: Any) -> Any:
            self.begun.set()
            assert self.go.wait(300)
            return forward(*args, **kwargs)

        monkeypatch.setattr(model, "forward", held)
        monkeypatch.setattr(batches_module, "_IDLE_SECONDS", 0.01)

    def sampled(self, policy: PolicyController) -> int:
        """Let the passes go, wait until nothing is sampled, and return how many caches are kept."""
        self.go.set()
        assert policy._batches._thread is not None
        policy._batches._thread.join(300)
        return len(policy.generator.kept)


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_a_question_whose_time_is_over_in_its_turn_keeps_no_cache(
    how, model, tokenizer, monkeypatch
):
    policy = controller(model, tokenizer)
    held = Held(model, monkeypatch)
    graph, given = graph_of(policy), {"question": "Who?"}

    def attempt(seconds: float) -> Any:
        knobs = RouterContext(deadline_seconds=seconds)
        if how == "invoke":
            return graph.invoke(given, context=knobs)
        return asyncio.run(graph.ainvoke(given, context=knobs))

    state = long_enough(0.3, attempt, lambda _: held.begun.is_set())
    assert state["stop_reason"] == "deadline"
    assert state["error"].startswith("timeout: no reply within ")
    assert held.sampled(policy) == 0
    assert policy.generator.kept.tokens == 0


async def test_a_question_that_is_cancelled_in_its_turn_keeps_no_cache_and_is_not_sampled_on(
    model, tokenizer, monkeypatch
):
    policy = controller(model, tokenizer)
    held = Held(model, monkeypatch)
    turns = []
    generate = policy.generator.generate

    def recording(batch, **kwargs):
        turns.extend(batch)
        generate(batch, **kwargs)

    policy.generator.generate = recording
    graph = graph_of(policy)
    runs = [asyncio.create_task(graph.ainvoke({"question": q})) for q in ("Who?", "When?")]
    await asyncio.to_thread(held.begun.wait, 300)
    for run in runs:
        run.cancel()
    await asyncio.wait(runs)
    assert await asyncio.to_thread(held.sampled, policy) == 0
    assert max(len(turn.ids) for turn in turns) <= 1


async def test_one_that_is_cancelled_between_turns_keeps_no_cache(model, tokenizer):
    policy = controller(model, tokenizer)
    pool, asked = make_pool("Ada"), asyncio.Event()

    class Hanging(FakeChat):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            asked.set()
            return await super()._agenerate(*args, **kwargs)

    class Asks:
        """Asks a candidate in the policy's place, which has sampled its turn."""

        name = "asks"

        async def adecide(self, view: View) -> Any:
            reply = await policy.adecide(view)
            return replace(reply, text=search("Ada: who?"))

        def question_ended(self, scratchpad: Any) -> None:
            policy.question_ended(scratchpad)

    graph = create_router_r1(pool, Asks(), models=models(pool, Ada=Hanging(delay=NEVER))).compile()
    run = asyncio.create_task(graph.ainvoke({"question": "Who?"}))
    await asked.wait()
    assert len(policy.generator.kept) == 1
    run.cancel()
    await asyncio.wait([run])
    assert len(policy.generator.kept) == 0


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_a_question_whose_time_is_over_between_turns_keeps_no_cache(how, model, tokenizer):
    policy, seen = controller(model, tokenizer), []

    class Slow:
        """A policy that has sampled its turn when the time is over."""

        def decide(self, view: View) -> Any:
            reply = policy.decide(replace(view, left=replace(view.left, seconds=None)))
            seen.append(len(policy.generator.kept))
            return replace(reply, seconds=3600.0)

        def question_ended(self, scratchpad: Any) -> None:
            policy.question_ended(scratchpad)

    graph, knobs = graph_of(Slow()), RouterContext(deadline_seconds=3599.0)
    given = {"question": "Who?"}
    if how == "invoke":
        state = graph.invoke(given, context=knobs)
    else:
        state = asyncio.run(graph.ainvoke(given, context=knobs))
    assert (state["stop_reason"], seen) == ("deadline", [1])
    assert len(policy.generator.kept) == 0


def test_a_routed_question_keeps_no_cache(model, tokenizer):
    policy, pool = controller(model, tokenizer), CandidatePool.embedded()
    assert route_only(pool, policy, "Who?").text
    assert asyncio.run(aroute_only(pool, policy, "When?")).text
    assert len(policy.generator.kept) == 0


def test_the_cap_of_the_caches_is_an_option(model, tokenizer):
    policy = controller(model, tokenizer, max_cached_tokens=7)
    assert policy.generator.kept.max_tokens == 7


def test_the_seed_of_a_run_reaches_the_policy(model, tokenizer):
    policy = controller(model, tokenizer, temperature=1.0)
    graph = graph_of(policy)

    def sampled(seed: int) -> Any:
        knobs = RouterContext(max_rounds=1, seed=seed)
        return ids_of(graph.invoke({"question": "Who?"}, context=knobs))

    first = [sampled(seed) for seed in range(4)]
    assert len({str(ids) for ids in first}) > 1
    assert [sampled(seed) for seed in range(4)] == first


async def test_what_is_sampled_does_not_depend_on_who_shares_the_batch(model, tokenizer):
    policy = controller(model, tokenizer, temperature=1.0)
    graph = graph_of(policy)
    knobs = RouterContext(max_rounds=1)
    alone = ids_of(await graph.ainvoke({"question": "Who?"}, context=knobs))
    questions = ("When?", "Who?", "Where was it that they met?", "Why?")
    states = await asyncio.gather(
        *(graph.ainvoke({"question": q}, context=knobs) for q in questions)
    )
    assert ids_of(states[1]) == alone


def test_a_zero_byte_in_a_turn_is_the_text_that_every_store_can_hold(model, tokenizer):
    ids = tokenizer.encode("a\0b", add_special_tokens=False)
    assert controller(model, tokenizer).codec.text_of(ids) == "a\ufffdb"


@pytest.mark.long
def test_a_program_that_ends_while_a_turn_is_sampled_ends_in_order():
    program = """
import sys, threading, time
from router_r1_graph import CandidatePool, PolicyController, create_router_r1
from router_r1_graph.controllers.policy.folder import PolicySettings
from tiny_policy import make_llama, make_tokenizer

tokenizer = make_tokenizer()
model = make_llama(
    vocab_size=len(tokenizer), hidden_size=1024, intermediate_size=4096, num_hidden_layers=2,
    num_attention_heads=4, eos_token_id=None, bos_token_id=None,
)
settings = PolicySettings(max_new_tokens=100_000, max_context_tokens=200_000)
policy = PolicyController(model, tokenizer, settings)
policy.generator.stop_ids, policy.generator.is_stop = frozenset(), None  # no turn ends
passes = 0

def count(*_):
    global passes
    passes += 1

policy.model.register_forward_hook(count)
graph = create_router_r1(CandidatePool.embedded(), policy).compile()
threading.Thread(target=graph.invoke, args=({"question": "Who?"},), daemon=True).start()
while passes < 20:
    time.sleep(0.01)
sys.exit(130)
"""
    here = Path(__file__).parent
    ended = subprocess.run([sys.executable, "-c", program], cwd=here, capture_output=True)
    assert (ended.returncode, b"terminate" in ended.stderr) == (130, False), ended.stderr


async def test_a_long_question_is_tokenised_beside_the_event_loop(model, tokenizer):
    async def count():
        while True:
            beats.append(1)
            await asyncio.sleep(0)

    beats = []
    policy = controller(model, tokenizer, settings={"max_context_tokens": 50})
    counting = asyncio.create_task(count())
    view = View("Who? " * 100_000, CandidatePool.embedded(), RouterContext(), Left(1, None))
    with pytest.raises(ContextLengthError):
        await policy.adecide(view)
    assert beats  # without a thread, nobody else would have had a turn
    counting.cancel()
