"""Traces to training data: the ids are the policy's own, and the mask says who wrote them."""

import pytest

from extras import needs

needs("local")

import torch
from langchain_core.messages import ToolMessage

from router_r1_graph import (
    CandidatePool,
    KeywordController,
    RouterContext,
    ScriptedController,
    Trace,
    TraceError,
    create_router_r1,
    protocol,
)
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import PolicySettings
from router_r1_graph.controllers.policy.tokens import TokenCodec
from router_r1_graph.protocol import load_template
from tiny_policy import make_model, make_tokenizer
from training.export import IGNORED, rollout_row, supervised_rows

QUESTION = "What is the currency of the country where the author of Hamlet was born?"
STOP = ("</answer>",)
POOL = CandidatePool.embedded()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def policy(tokenizer):
    settings = PolicySettings(stop=STOP, max_new_tokens=12)
    return PolicyController(make_model(tokenizer), tokenizer, settings, temperature=1.0, seed=1)


def trace_of(controller, **context):
    knobs = RouterContext(**context)
    state = (
        create_router_r1(POOL, controller).compile().invoke({"question": QUESTION}, context=knobs)
    )
    return Trace.from_state(
        state, pool=POOL, controller="x", context=knobs, gold=["pound sterling"]
    )


def seen_and_sampled(policy, run):
    """Return what the model was given and returned, while `run` runs."""
    asked = []
    generate = policy.generator.generate

    def recording(turns, **kwargs):
        asked.extend((list(turn.context), turn) for turn in turns)
        generate(turns, **kwargs)

    policy.generator.generate = recording
    try:
        return run(), asked
    finally:
        policy.generator.generate = generate


def test_exported_ids_are_those_the_policy_saw_and_sampled(policy):
    trace, asked = seen_and_sampled(policy, lambda: trace_of(policy))
    row = rollout_row(trace, policy.codec)
    everything = row["prompt_ids"] + row["completion_ids"]
    assert asked[0][0] == row["prompt_ids"]
    for seen, one in asked:
        start = len(seen)
        assert everything[:start] == seen
        assert everything[start : start + len(one.ids)] == one.ids
        place = start - len(row["prompt_ids"])
        assert row["logprobs"][place : place + len(one.ids)] == one.logprobs
        assert row["env_mask"][place : place + len(one.ids)] == [1] * len(one.ids)
    assert sum(row["env_mask"]) == sum(len(one.ids) for _, one in asked)


def test_the_mask_is_0_exactly_on_what_the_environment_wrote(policy, tokenizer):
    row = rollout_row(trace_of(policy), policy.codec)
    environment = [i for i, m in zip(row["completion_ids"], row["env_mask"], strict=True) if not m]
    text = tokenizer.decode(environment)
    assert text.count("(left: ") == 4
    assert all(p == 0.0 for p, m in zip(row["logprobs"], row["env_mask"], strict=True) if not m)


def test_the_mask_follows_who_wrote_it_even_where_the_policy_writes_an_information_tag(
    policy, tokenizer, monkeypatch
):
    """The sampled ids are put into the model's mouth; the rest is the real graph and controller."""
    turns = [
        "<think> a </think> <information> Ada: x (left: 1 round) </information>",
        "<think> b </think> <answer> c </answer>",
    ]
    said = [tokenizer.encode(turn, add_special_tokens=False) for turn in turns]
    waiting = iter(said)

    def saying(turns, **_):
        (turn,) = turns
        turn.ids = next(waiting)
        turn.logprobs = [-1.0] * len(turn.ids)

    monkeypatch.setattr(policy.generator, "generate", saying)
    trace = trace_of(policy)
    row = rollout_row(trace, policy.codec)
    observation = policy.codec.observation_ids(
        [m for m in trace.scratchpad if isinstance(m, ToolMessage)]
    )
    end = tokenizer.eos_token_id
    assert row["completion_ids"] == [*said[0], *observation, *said[1], end]
    ours, theirs, last = len(said[0]), len(observation), len(said[1])
    assert row["env_mask"] == [1] * ours + [0] * theirs + [1] * last + [0]
    assert row["logprobs"] == [-1.0] * ours + [0.0] * theirs + [-1.0] * last + [0.0]
    (supervised,) = supervised_rows([trace], policy.codec)
    labels = supervised["labels"][len(row["prompt_ids"]) :]
    assert labels == [*said[0], *[IGNORED] * theirs, *said[1]]
    (later,) = supervised_rows([trace], policy.codec, from_turn=1)
    assert later["input_ids"] == supervised["input_ids"]
    assert later["labels"][len(row["prompt_ids"]) :] == [*[IGNORED] * (ours + theirs), *said[1]]


def test_a_tag_that_the_policy_wrote_itself_is_learned(tokenizer, policy):
    turn = "<think> a </think> <information> x </information>"
    trace = trace_of(ScriptedController([turn, "<answer> b </answer>"]))
    (row,) = supervised_rows([trace], policy.codec)
    learned = tokenizer.decode([i for i in row["labels"] if i != IGNORED])
    assert "<information> x </information>" in learned
    assert "only the environment" not in learned


def test_a_completion_ends_in_the_end_of_sequence_token_masked_when_it_was_not_sampled(
    policy, tokenizer
):
    trace = trace_of(ScriptedController(["<think> a </think> <answer> b </answer>"]))
    row = rollout_row(trace, policy.codec)
    assert row["completion_ids"][-1] == tokenizer.eos_token_id
    assert row["env_mask"][-1] == 0


def test_a_teachers_row_is_prompt_turns_and_observations_in_order(policy, tokenizer):
    trace = trace_of(KeywordController())
    (row,) = supervised_rows([trace], policy.codec)
    text = tokenizer.decode(row["input_ids"])
    places = [text.index(turn) for turn in trace.turns]
    places.append(text.index("<information> Quillora: William Shakespeare"))
    assert places[0] < places[-1] < places[1] < places[2]
    learned = tokenizer.decode([i for i in row["labels"] if i != IGNORED])
    assert "William Shakespeare\n(left" not in learned
    assert learned.count("<|end|>") == len(trace.turns) - 1  # </answer> ends the last one


def test_training_and_serving_tokenise_alike(policy):
    """What a policy would be asked with after each turn of a teacher is the row's own beginning."""
    trace = trace_of(KeywordController())
    (row,) = supervised_rows([trace], policy.codec)
    contexts = []

    class Spy(KeywordController):
        def turn(self, view):
            contexts.append([i for piece in policy.codec.pieces(view) for i in piece.ids])
            return super().turn(view)

    trace_of(Spy())
    assert len(contexts) == len(trace.turns)
    for context in contexts:
        assert row["input_ids"][: len(context)] == context
        assert row["labels"][len(context)] != IGNORED


def test_the_gradient_at_masked_positions_is_exactly_zero(policy):
    (row,) = supervised_rows([trace_of(KeywordController())], policy.codec)
    ids = torch.tensor([row["input_ids"]])
    logits = policy.model(ids).logits.detach().requires_grad_()
    labels = torch.tensor([row["labels"]])
    torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=IGNORED
    ).backward()
    gradient = logits.grad[0, :-1].abs().sum(-1)
    masked = labels[0, 1:] == IGNORED
    assert gradient[masked].max() == 0.0
    assert gradient[~masked].min() > 0.0


def test_what_cannot_be_learned_from_is_refused(policy):
    trace = trace_of(KeywordController())
    with pytest.raises(TraceError, match="protocol version 99"):
        rollout_row(trace.model_copy(update={"protocol_version": 99}), policy.codec)
    with pytest.raises(TraceError, match="the controller wrote nothing"):
        rollout_row(trace.model_copy(update={"scratchpad": ()}), policy.codec)


def test_rows_come_one_at_a_time(policy):
    def endless():
        while True:
            yield trace

    trace = trace_of(ScriptedController(["<think> a </think> <answer> b </answer>"]))
    rows = supervised_rows(endless(), policy.codec)
    assert next(rows) == next(rows)


def with_tokens(trace, **changes):
    first, *rest = trace.scratchpad
    tokens = {**first.additional_kwargs["tokens"], **changes}
    torn = first.model_copy(update={"additional_kwargs": {"tokens": tokens}})
    return trace.model_copy(update={"scratchpad": (torn, *rest)})


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logprobs": [0.1]}, "ids and 1 log-probabilities"),
        ({"logprobs": None}, "the token ids of a turn are broken"),
        ({"output_ids": [], "logprobs": []}, "0 ids"),
        ({"output_ids": "abc", "logprobs": []}, "the token ids of a turn are broken"),
        ({"output_ids": [-1], "logprobs": []}, "the token ids of a turn are broken"),
        ({"output_ids": [40, 41], "logprobs": []}, "ids of a turn are of another tokenizer"),
    ],
)
def test_torn_token_ids_are_refused(policy, changes, message):
    torn = with_tokens(trace_of(policy), **changes)
    with pytest.raises(TraceError, match=message):
        rollout_row(torn, policy.codec)
    with pytest.raises(TraceError, match=message):
        next(supervised_rows([torn], policy.codec))


def test_log_probabilities_that_a_server_did_not_give_are_zeros(policy):
    trace = with_tokens(trace_of(policy), logprobs=[])
    row = rollout_row(trace, policy.codec)
    sampled = len(trace.scratchpad[0].additional_kwargs["tokens"]["output_ids"])
    assert row["logprobs"][:sampled] == [0.0] * sampled
    assert row["env_mask"][:sampled] == [1] * sampled
    assert len(row["logprobs"]) == len(row["completion_ids"])


def test_ids_of_another_tokenizer_are_refused_and_text_is_not(policy):
    other = policy.tokenizer.train_new_from_iterator(["other words, other merges"] * 4, 290)
    codec = TokenCodec(other, policy.codec.template, policy.settings)
    with pytest.raises(TraceError, match="of another tokenizer"):
        rollout_row(trace_of(policy), codec)
    text_only = trace_of(KeywordController())
    assert other.decode(rollout_row(text_only, codec)["prompt_ids"]).startswith(
        "Answer the question"
    )


def test_a_run_that_was_stopped_ends_with_its_last_turn(policy):
    trace = trace_of(policy)
    stopped = trace.model_copy(update={"scratchpad": trace.scratchpad[:2]})
    row = rollout_row(stopped, policy.codec)
    sampled = trace.scratchpad[0].additional_kwargs["tokens"]["output_ids"]
    assert row["completion_ids"][: len(sampled)] == sampled
    assert sum(row["env_mask"]) == len(sampled)
    assert len(row["completion_ids"]) - len(sampled) == (
        sampled[-1] != policy.tokenizer.eos_token_id
    )


def test_a_trace_that_went_through_a_file_exports_the_same(policy, tmp_path):
    from router_r1_graph import read_traces, write_traces

    trace = trace_of(policy)
    write_traces(tmp_path / "t.jsonl", [trace])
    (back,) = read_traces(tmp_path / "t.jsonl")
    assert rollout_row(back, policy.codec) == rollout_row(trace, policy.codec)


def test_the_template_of_the_codec_is_the_controllers(policy):
    assert policy.codec.template.template == load_template().template
    assert policy.settings.protocol_version == protocol.VERSION
