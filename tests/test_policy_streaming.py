"""A policy's tokens in LangGraph's `stream_mode="messages"`, as a chat model's come."""

import asyncio
import threading
from collections import defaultdict

import pytest

from extras import needs

needs("local")

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk

from router_r1_graph import CandidatePool, ChatRouterR1, create_router_r1
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import PolicySettings
from router_r1_graph.controllers.policy.streaming import Increments
from tiny_policy import make_model, make_tokenizer
from yaml_pool import both_ways

MODES = ["messages", "values"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(tokenizer)


@pytest.fixture
def policy(model, tokenizer):
    return PolicyController(model, tokenizer, PolicySettings(max_new_tokens=12))


def graph_of(policy):
    return create_router_r1(CandidatePool.embedded(), policy).compile()


async def collect(graph, question, config=None):
    stream = graph.astream({"question": question}, config, stream_mode=MODES)
    return [part async for part in stream]


def stream(graph, how, question="Who wrote Hamlet?", config=None):
    if how == "ainvoke":
        return asyncio.run(collect(graph, question, config))
    return list(graph.stream({"question": question}, config, stream_mode=MODES))


def turns(parts):
    state = [part for mode, part in parts if mode == "values"][-1]
    return [m for m in state["scratchpad"] if isinstance(m, AIMessage)]


def streamed(parts):
    """Return what was streamed of the think node: id -> messages."""
    by_id = defaultdict(list)
    for mode, part in parts:
        if mode == "messages" and part[1]["langgraph_node"] == "think":
            by_id[part[0].id].append(part[0])
    return by_id


@both_ways
def test_a_turn_comes_token_by_token_and_adds_up_to_its_text(policy, how):
    parts = stream(graph_of(policy), how)
    chunks = streamed(parts)
    assert list(chunks) == [turn.id for turn in turns(parts)]
    for turn in turns(parts):
        assert len(chunks[turn.id]) > 5
        assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks[turn.id])
        assert "".join(chunk.text for chunk in chunks[turn.id]) == turn.text


@both_ways
def test_streaming_changes_no_token(policy, how):
    graph = graph_of(policy)
    quiet = graph.invoke({"question": "Who wrote Hamlet?"})["scratchpad"]
    expected = [m.additional_kwargs["tokens"] for m in quiet if isinstance(m, AIMessage)]
    found = [m.additional_kwargs["tokens"] for m in turns(stream(graph, how))]
    for kind in ("input_ids", "output_ids"):
        assert [turn[kind] for turn in found] == [turn[kind] for turn in expected]
    for turn, other in zip(found, expected, strict=True):  # what was read before is rounded apart
        assert turn["logprobs"] == pytest.approx(other["logprobs"], abs=1e-5)


def test_the_first_token_is_told_before_the_last_is_sampled(policy):
    steps, told, one_told = [], [], threading.Event()
    forward = policy.model.forward

    def counting(*args, **kwargs):
        steps.append(len(told))
        if len(steps) == 6:  # a small model is quicker than the thread that is told
            one_told.wait(60)
        return forward(*args, **kwargs)

    policy.model.forward = counting
    try:
        for message, _ in graph_of(policy).stream({"question": "?"}, stream_mode="messages"):
            told.append(message)
            one_told.set()
            if len(told) == 1:
                assert len(steps) < 12
    finally:
        del policy.model.forward


async def test_questions_at_once_do_not_mix(policy):
    graph = graph_of(policy)
    questions = ["Who wrote Hamlet?", "Which river flows through Quillora?", "7"]
    sizes = []
    generate = policy.generator.generate

    def recording(turns, **kwargs):
        sizes.append(len(turns))
        generate(turns, **kwargs)

    policy.generator.generate = recording
    runs = await asyncio.gather(*(collect(graph, question) for question in questions))
    assert max(sizes) == 3
    for parts in runs:
        chunks = streamed(parts)
        assert list(chunks) == [turn.id for turn in turns(parts)]
        for turn in turns(parts):
            assert "".join(chunk.text for chunk in chunks[turn.id]) == turn.text


async def test_one_that_streams_shares_a_batch_with_one_that_does_not(policy):
    graph = graph_of(policy)
    parts, quiet = await asyncio.gather(
        collect(graph, "Who wrote Hamlet?"), graph.ainvoke({"question": "7"})
    )
    assert all(turn.id for turn in turns(parts))
    assert not any(m.id for m in quiet["scratchpad"] if isinstance(m, AIMessage))


class Tracer(BaseCallbackHandler):
    """Counts the model runs that a tracer is told of."""

    runs = 0

    def on_chat_model_start(self, *args, **kwargs):
        self.runs += 1


@both_ways
def test_a_tracer_and_a_usage_counter_are_told_of_nothing_twice(policy, how):
    tracer, usage = Tracer(), UsageMetadataCallbackHandler()
    parts = stream(graph_of(policy), how, config={"callbacks": [tracer, usage]})
    assert streamed(parts)
    assert tracer.runs == 0
    assert usage.usage_metadata == {}


async def test_events_name_the_controller(policy):
    events = [
        event
        async for event in graph_of(policy).astream_events({"question": "?"}, version="v2")
        if event["event"] == "on_chat_model_stream"
    ]
    assert {event["name"] for event in events} == {"policy"}
    assert {event["metadata"]["langgraph_node"] for event in events} == {"think"}


def test_a_failing_model_ends_the_stream_with_the_run(policy):
    def broken(turns, **kwargs):
        raise RuntimeError("out of memory")

    policy.generator.generate = broken
    parts = stream(graph_of(policy), "invoke")
    assert parts[-1][1]["stop_reason"] == "controller_error"
    assert not streamed(parts)


@both_ways
def test_an_answer_is_told_by_a_chat_model_while_it_is_sampled(policy, tokenizer, how):
    turn = "<think> known </think> <answer> William Shakespeare, I believe </answer>"
    script = tokenizer.encode(turn, add_special_tokens=False)
    policy.settings = PolicySettings(max_new_tokens=len(script))
    forward, sampled, told, starts = policy.model.forward, [], [], []

    def reciting(*args, **kwargs):
        out = forward(*args, **kwargs)
        if kwargs["logits_to_keep"] == 0:  # not the prompt
            sampled.append(len(told))
            first, *_ = positions = kwargs["position_ids"][0].tolist()
            starts.append(first)
            for column, position in enumerate(positions):  # several where the policy guesses
                if position - starts[0] < len(script):
                    out.logits[:, column, script[position - starts[0]]] = 1e9
        return out

    async def awaited():
        async for chunk in model.astream("Who wrote Hamlet?"):
            told.append(chunk.text)

    model = ChatRouterR1(controller=policy)
    policy.model.forward = reciting
    try:
        if how == "ainvoke":
            asyncio.run(awaited())
        else:
            for chunk in model.stream("Who wrote Hamlet?"):
                told.append(chunk.text)
    finally:
        del policy.model.forward
    assert "".join(told) == "William Shakespeare, I believe"
    assert 2 < sampled[-1] < len(told)


def told(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    growing = Increments()
    parts = [growing.of(tokenizer.decode(ids[: n + 1]).strip()) for n in range(len(ids))]
    return [*parts, growing.rest(text.strip())]


@pytest.mark.parametrize("text", ["naïve 日本 \N{GRINNING FACE}!", "  a  b  ", "", "x\ufffd", "é"])
def test_characters_of_several_tokens_come_whole(tokenizer, text):
    parts = told(tokenizer, text)
    assert "".join(parts) == text.strip()
    assert not any("\ufffd" in part for part in parts[:-1])
