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
from router_r1_graph.context import RouterContext
from router_r1_graph.controllers import generation
from router_r1_graph.controllers.generation import Generator
from router_r1_graph.controllers.policy import PolicyController, StopTexts
from router_r1_graph.controllers.policy_folder import PolicyFolder, PolicySettings
from router_r1_graph.controllers.protocol import render_view
from router_r1_graph.state import Left, View
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
        ("{", "Invalid JSON"),
        ("[1]", "object"),
        ('{"stop": ["x"], "max_tokens": 3}', r"max_tokens: unknown key \(did you mean 'max_new"),
        ('{"max_new_tokens": "many"}', r"max_new_tokens: .*integer \(value: 'many'\)"),
        ('{"max_new_tokens": 0}', "max_new_tokens: .*greater"),
        ('{"stop": "</answer>"}', "stop: .*array"),
        ('{"stop": [""]}', r"stop\.0: .*1 character"),
        ("\udcff", "Invalid JSON"),
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
    stop = StopTexts(tokenizer, ("</answer>",))
    assert as_one in stop.ids
    assert tokenizer.eos_token_id in stop.ids
    assert as_one not in spelled
    assert [stop.ends(spelled[: n + 1]) for n in range(len(spelled))] == [
        n == len(spelled) - 1 for n in range(len(spelled))
    ]


@pytest.mark.parametrize("text", ["fin ", "日本", "e"])
def test_a_stop_text_may_end_in_anything(tokenizer, text):
    stop = StopTexts(tokenizer, (text,))
    ids = tokenizer.encode("so " + text, add_special_tokens=False)
    assert stop.ends(ids)
    assert not stop.ends(ids[:-1])


def test_a_turn_that_cannot_have_ended_is_not_decoded(tokenizer):
    decoded = []

    class Counting:
        eos_token_id = tokenizer.eos_token_id
        encode = tokenizer.encode

        def decode(self, ids):
            decoded.append(list(ids))
            return tokenizer.decode(ids)

    stop = StopTexts(Counting(), ("</answer>",))
    ids = tokenizer.encode("the long and winding road " * 4, add_special_tokens=False)
    for n in range(len(ids)):
        assert not stop.ends(ids[: n + 1])
    assert all(len(one) == 1 for one in decoded)
    assert len(decoded) == len(set(ids))


def test_a_sampled_turn_ends_where_the_stop_text_is_spelled_out(model, tokenizer, monkeypatch):
    spelled = [i for part in ("a</ans", "wer>", "b") for i in tokenizer.encode(part)]
    policy = controller(model, tokenizer, settings={})
    script = iter(spelled)

    def say(logits, temperature, random):
        return torch.tensor([next(script)]), torch.tensor([0.0])

    monkeypatch.setattr(generation, "_sample", say)
    (one,) = policy.generator.generate([([5], 0)], max_new_tokens=30, temperature=0)
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
