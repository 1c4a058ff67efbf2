"""The bill of a call, from whatever a provider reports and wherever it does."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.cache.memory import InMemoryCache as NodeCache
from langgraph.types import CachePolicy

from openai_server import Reply, Wire
from router_r1_graph import ChatRouterR1, ScriptedController, create_router_r1
from router_r1_graph.candidates.providers import make_chat_model
from router_r1_graph.candidates.usage import Usage, reported_usd, usage_metadata, usage_of
from yaml_pool import ONE_DOLLAR, bills, both_ways, run, scripted, yaml_pool

SEARCH, ANSWER = "<search> Ada: Capital of France? </search>", "<answer> Paris </answer>"
ASKED = [HumanMessage("What is the capital?")]  # 20 bytes: 5 tokens

# What a server reports of the reply "Paris" (2 tokens by estimate), and what it means.
REPORTED = {
    "plain": ((10, 5, 15), {}, Usage(10, 5)),
    "reasoning within": (
        (10, 50, 60),
        {"completion_tokens_details": {"reasoning_tokens": 40}},
        Usage(10, 50, 40),
    ),
    "reasoning beside (xAI)": (
        (32, 9, 135),
        {"completion_tokens_details": {"reasoning_tokens": 94}},
        Usage(32, 103, 94),
    ),
    "reasoning beside, no total": (
        (32, 9, None),
        {"completion_tokens_details": {"reasoning_tokens": 94}},
        Usage(32, 103, 94),
    ),
    "thoughts in the total only (Gemini)": ((9, 4, 19), {}, Usage(9, 10)),
    "cached": (
        (2006, 300, 2306),
        {"prompt_tokens_details": {"cached_tokens": 1920}},
        Usage(2006, 300, 0, 1920),
    ),
    "cached, DeepSeek's name": (
        (100, 5, 105),
        {"prompt_cache_hit_tokens": 64},
        Usage(100, 5, 0, 64),
    ),
    "cached beside (Anthropic)": (
        (20, 5, 25),
        {"cache_read_input_tokens": 1000, "cache_creation_input_tokens": 200},
        Usage(1220, 5, 0, 1000, 200),
    ),
    "cached beside, the total tells": (
        (300, 5, 405),
        {"prompt_tokens_details": {"cached_tokens": 100}},
        Usage(400, 5, 0, 100),
    ),
    "written": (
        (3000, 5, 3005),
        {"prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 2048}},
        Usage(3000, 5, 0, 0, 2048),
    ),
    "written, DashScope's name": (
        (3000, 5, 3005),
        {"prompt_tokens_details": {"cache_creation_input_tokens": 2048}},
        Usage(3000, 5, 0, 0, 2048),
    ),
    "reasoning beside, and much of it (Perplexity's research)": (
        (33, 7163, 7196),
        {"reasoning_tokens": 73997},
        Usage(33, 81160, 73997),
    ),
    "null details": ((10, 5, 15), {"prompt_tokens_details": None}, Usage(10, 5)),
    "texts": (("10", "5", "15"), {}, Usage(10, 5)),
    "an underscore": (("1_000", 5, 1005), {}, Usage(1000, 5)),
    "no total, and an underscore": (("1_000", 5, None), {}, Usage(5, 5, estimated=("input",))),
    "fractions": ((10.0, 4.2, 14.2), {}, Usage(10, 2, estimated=("output",))),
    "output null": ((10, None, None), {}, Usage(10, 2, estimated=("output",))),
    "output null, the total tells": ((10, None, 15), {}, Usage(10, 5)),
    "input null": ((None, 5, None), {}, Usage(5, 5, estimated=("input",))),
    "input null, the total tells": ((None, 5, 15), {}, Usage(10, 5)),
    "zeros": ((0, 0, 0), {}, Usage(5, 2, estimated=("input", "output"))),
    "nothing": ((None, None, None), {}, Usage(5, 2, estimated=("input", "output"))),
    "no numbers": (("many", [1], {}), {}, Usage(5, 2, estimated=("input", "output"))),
    "negative": ((-7, 5, -2), {}, Usage(5, 5, estimated=("input",))),
}


def usage(counts=(10, 5, 15), **more):
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {**dict(zip(names, counts, strict=True)), **more}


@pytest.mark.parametrize(("counts", "details", "means"), REPORTED.values(), ids=REPORTED)
def test_tokens_are_those_that_are_paid_and_a_missing_count_is_estimated(counts, details, means):
    told = usage_metadata(usage(counts, **details))
    assert usage_of(AIMessage("Paris", usage_metadata=told), ASKED) == means


#: What contradicts itself, what it is read as, and what is flagged.
CONTRADICTIONS = {
    "reasoning": (
        (10, 5, 15),
        {"completion_tokens_details": {"reasoning_tokens": 10**8}},
        Usage(10, 5, impossible=("100000000 reasoning tokens of 5",)),
    ),
    "reasoning, and the total agrees": (
        (10, 5, 10**7 + 15),
        {"completion_tokens_details": {"reasoning_tokens": 10**7}},
        Usage(
            *(10, 5),
            impossible=(
                "10000000 reasoning tokens of 5",
                "10000015 tokens in total, 15 in its parts",
            ),
        ),
    ),
    "total": (
        (10, 5, 10**8),
        {},
        Usage(10, 5, impossible=("100000000 tokens in total, 15 in its parts",)),
    ),
    "total alone": (
        (None, None, 10**8),
        {},
        Usage(
            *(5, 2),
            estimated=("input", "output"),
            impossible=("100000000 tokens in total, 0 in its parts",),
        ),
    ),
    "cached": (
        (10, 5, 15),
        {"prompt_tokens_details": {"cached_tokens": 10**8}},
        Usage(10, 5, impossible=("100000000 cached tokens of 10",)),
    ),
    "written": (
        (10, 5, 15),
        {"cache_creation_input_tokens": 10**8 - 1},
        Usage(10, 5, impossible=("99999999 cached tokens of 10",)),
    ),
    "parts that fit neither within nor beside": (
        (10, 5, 35),
        {"completion_tokens_details": {"reasoning_tokens": 94}},
        Usage(10, 25, impossible=("94 reasoning tokens of 25",)),
    ),
}


@pytest.mark.parametrize(
    ("counts", "details", "means"), CONTRADICTIONS.values(), ids=CONTRADICTIONS
)
def test_a_part_far_beyond_its_whole_is_flagged_and_not_paid(
    serve, tmp_path, counts, details, means
):
    report = usage(counts, **details)
    told = AIMessage("Paris", usage_metadata=usage_metadata(report))
    assert usage_of(told, ASKED) == means
    choice = {"index": 0, "message": {"content": "Paris"}, "finish_reason": "stop"}
    server = serve(Wire({"choices": [choice], "usage": report}))
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR, max_tokens=100)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), "invoke"))
    assert (bill["ok"], bill["error"]["kind"]) == (True, "missing_usage")
    assert all(doubt in bill["error"]["message"] for doubt in means.impossible)
    assert (bill["output_tokens"], bill["reasoning_tokens"]) == (means.output_tokens, 0)
    assert bill["cost_usd"] < 100e-6


@pytest.mark.parametrize(
    ("details", "means"),
    [
        ({"cache_read": 5, "cache_creation": 0, "ephemeral_1h_input_tokens": 7}, (5, 7)),
        ({"flex_cache_read": 5, "flex": 15}, (5, 0)),
    ],
)
def test_cached_tokens_are_read_in_the_words_of_other_clients(details, means):
    told = {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
    found = usage_of(AIMessage("x", usage_metadata={**told, "input_token_details": details}))
    assert (found.cached_input_tokens, found.cache_write_tokens) == means


@pytest.mark.parametrize(
    ("report", "usd"),
    [
        ({"cost": 0.5}, 0.5),
        ({"cost": "0.5"}, 0.5),
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}, 0.25),
        ({"cost": 0, "cost_details": {"upstream_inference_cost": 0.25}}, 0.25),
        ({"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}, 0.26),
        ({"cost": 0.5, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.4}}, 0.5),
        ({"cost": 0.5, "cost_details": {"upstream_inference_cost": None}}, 0.5),
        ({"cost": 0, "is_byok": False, "cost_details": None}, 0.0),
        (
            {
                "cost": 0,
                "is_byok": True,
                "cost_details": {
                    "upstream_inference_cost": None,
                    "upstream_inference_prompt_cost": 0.125,
                    "upstream_inference_completions_cost": 0.25,
                },
            },
            0.375,
        ),
        (
            {
                "cost": 0.01,
                "is_byok": True,
                "cost_details": {
                    "upstream_inference_input_cost": 0.125,
                    "upstream_inference_output_cost": 0.25,
                },
            },
            0.385,
        ),
        ({"cost": 0, "cost_details": {"upstream_inference_cost": 1e30}}, None),
        (
            {
                "cost": 0.01,
                "is_byok": True,
                "cost_details": {
                    "upstream_inference_prompt_cost": 0.125,
                    "upstream_inference_completions_cost": -1,
                },
            },
            None,
        ),
        ({"total_cost": 0.5}, 0.5),
        ({"cost": {"total_cost": 0.5, "request_cost": 0.1}}, 0.5),
        ({"estimated_cost": 0.5}, 0.5),
        ({"cost_usd": 0.5}, 0.5),
        ({"cost_usd_total": 0.5, "cost_usd_input": 0.2, "cost_usd_output": 0.3}, 0.5),
        ({"cost": {"input": 0.1, "total": 0.5}}, 0.5),
        ({"cost_in_usd_ticks": 37756000}, 0.0037756),
        ({"cost": "free"}, None),
        ({"cost": -1}, None),
        ({"cost": True}, None),
    ],
)
def test_a_reported_cost_is_read_in_the_words_of_every_gateway(report, usd):
    message = AIMessage("x", response_metadata={"token_usage": report})
    assert reported_usd(message) == (None if usd is None else pytest.approx(usd))


def chunk(text=None, finish=None, **more):
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}}]
    if finish:
        choices[0]["finish_reason"] = finish
    return {"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": choices, **more}


TEXT = [chunk("Par"), chunk("is")]
END = chunk("", "stop")
#: A stream, and its bill at 1 and 2 USD a million tokens.
STREAMS = {
    "in the last chunk": ([*TEXT, END, chunk(usage=usage())], (10, 5, 20e-6)),
    "in each chunk, growing": (
        [chunk(t, usage=usage((1000, n, 1000 + n))) for n, t in enumerate("Paris")]
        + [
            chunk("", "stop", usage=usage((1000, 200, 1200))),
            chunk(usage=usage((1000, 200, 1200))),
        ],
        (1000, 200, 1400e-6),
    ),
    "twice": ([*TEXT, chunk("", "stop", usage=usage()), chunk(usage=usage())], (10, 5, 20e-6)),
    "null until the end": (
        [*(c | {"usage": None} for c in TEXT), chunk("", "stop", usage=usage())],
        (10, 5, 20e-6),
    ),
    "a cost beside a choice": ([*TEXT, END, chunk("", usage=usage(cost=0.5))], (10, 5, 0.5)),
    "a cost beside the finish reason": (
        [*TEXT, chunk("", "stop", usage=usage(cost=0.5))],
        (10, 5, 0.5),
    ),
    "two costs": (
        [*TEXT, chunk("", "stop", usage=usage(cost=0.1)), chunk(usage=usage(cost=0.5))],
        (10, 5, 0.5),
    ),
    "a cost, then counts": (
        [*TEXT, chunk("", "stop", usage={"cost": 0.5}), chunk(usage=usage())],
        (10, 5, 0.5),
    ),
    "no delta at the end": (
        [
            *TEXT,
            chunk("", "stop") | {"choices": [{"delta": None, "finish_reason": "stop"}]},
            chunk(usage=usage()),
        ],
        (10, 5, 20e-6),
    ),
    "zeros at the end": (
        [*TEXT, chunk("", "stop", usage=usage()), chunk(usage=usage((0, 0, 0)))],
        (10, 5, 20e-6),
    ),
    "in the last choice": (
        [*TEXT, {"choices": [{"delta": {}, "finish_reason": "stop", "usage": usage()}]}],
        (10, 5, 20e-6),
    ),
    "beside the text": (
        [*TEXT, {"choices": [{"delta": {"usage": usage()}, "finish_reason": "stop"}]}],
        (10, 5, 20e-6),
    ),
    "in other words": (
        [*TEXT, END, chunk(usage={"input_tokens": 10, "output_tokens": 5, "total_tokens": 15})],
        (10, 5, 20e-6),
    ),
    "in TypeScript's words": (
        [*TEXT, END, chunk(usage={"promptTokens": 10, "completionTokens": 5})],
        (10, 5, 20e-6),
    ),
    "an empty block beside it": (
        [*TEXT, END | {"usage": {}, "x_groq": {"usage": usage()}}],
        (10, 5, 20e-6),
    ),
    "nothing at the end, and a cost of 0": (
        [*TEXT, chunk("", "stop", usage=usage(cost=0.5)), chunk(usage=usage((0, 0, 0), cost=0))],
        (10, 5, 0.5),
    ),
    "signs of life": ([None, *TEXT, "ping", {}, END, chunk(usage=usage())], (10, 5, 20e-6)),
    "under a name of Groq's": ([*TEXT, END | {"x_groq": {"usage": usage()}}], (10, 5, 20e-6)),
    "the gateway's cost beside the text (Vercel)": (
        [
            *TEXT,
            {
                "choices": [
                    {
                        "delta": {"provider_metadata": {"gateway": {"cost": "0.5"}}},
                        "finish_reason": "stop",
                    }
                ]
            },
            chunk(usage=usage()),
        ],
        (10, 5, 0.5),
    ),
    "a cost beside the usage": ([*TEXT, END, chunk(usage=usage(), cost=0.5)], (10, 5, 0.5)),
    "the whole message at the end (MiniMax)": (
        [
            *TEXT,
            {
                "object": "chat.completion",
                "choices": [{"finish_reason": "stop", "message": {"content": "Paris"}}],
                "usage": usage(),
            },
        ],
        (10, 5, 20e-6),
    ),
    "the finish reason twice": ([*TEXT, END, END, chunk(usage=usage())], (10, 5, 20e-6)),
}


def streamed(pool):
    """Run with candidates that stream, as in a chat UI; return the final state."""
    graph = scripted(pool, SEARCH, ANSWER)

    async def states():
        return [
            s async for m, s in graph.astream({"question": "?"}, stream_mode=MODES) if m == "values"
        ]

    return asyncio.run(states())[-1]


MODES = ["values", "messages"]


@pytest.mark.parametrize(("events", "paid"), STREAMS.values(), ids=STREAMS)
def test_a_stream_is_paid_once_whichever_chunks_say_what_it_costs(serve, tmp_path, events, paid):
    state = streamed(yaml_pool(tmp_path, serve(Wire(events=events)), **ONE_DOLLAR))
    (bill,) = bills(state)
    assert (bill["ok"], bill["error"], bill["reply"]) == (True, None, "Paris")
    assert (bill["input_tokens"], bill["output_tokens"]) == paid[:2]
    assert bill["cost_usd"] == pytest.approx(paid[2])


#: What a reply of the Responses API reports, and its bill at 1, 2 and (cached) 0.1 USD a million.
OF_RESPONSES = {
    "counts": ({}, (1000, 5, 200e-6)),
    "a cost": ({"cost": 0.5}, (1000, 5, 0.5)),
    "a key of one's own": (
        {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}},
        (1000, 5, 0.25),
    ),
    "its two parts": (
        {
            "cost": 0,
            "cost_details": {
                "upstream_inference_cost": None,
                "upstream_inference_input_cost": 0.125,
                "upstream_inference_output_cost": 0.25,
            },
        },
        (1000, 5, 0.375),
    ),
    "no price": ({"cost": -1}, (1000, 5, 200e-6)),
}


@pytest.mark.sampled(3)
@both_ways
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("metadata", [None, {"mine": "kept"}])
@pytest.mark.parametrize(("report", "paid"), OF_RESPONSES.values(), ids=OF_RESPONSES)
def test_a_cost_in_the_responses_api_counts(serve, tmp_path, how, stream, metadata, report, paid):
    counts = {"input_tokens": 1000, "output_tokens": 5, "total_tokens": 1005}
    details = {
        "input_tokens_details": {"cached_tokens": 900},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    text = {"type": "output_text", "text": "Paris", "annotations": []}
    said = {"type": "message", "id": "m", "role": "assistant", "content": [text]}
    head = {"id": "r", "object": "response", "created_at": 1, "model": "m", "metadata": metadata}
    body = {**head, "status": "completed", "output": [said], "usage": counts | details | report}
    delta = {"output_index": 0, "content_index": 0, "item_id": "m", "delta": "Paris"}
    events = [
        {"type": "response.created", "response": {**head, "output": [], "usage": None}},
        {"type": "response.output_text.delta", "logprobs": [], **delta},
        {"type": "response.completed", "response": body},
    ]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    options = {"use_responses_api": True, "streaming": stream}
    server = serve(Wire(body, numbered))
    pool = yaml_pool(tmp_path, server, options=options, **ONE_DOLLAR, cached_input_usd_per_mtok=0.1)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert bool(server.requests[0].body.get("stream")) == stream
    assert (bill["ok"], bill["reply"], bill["cached_input_tokens"]) == (True, "Paris", 900)
    assert (bill["input_tokens"], bill["output_tokens"]) == paid[:2]
    assert bill["cost_usd"] == pytest.approx(paid[2])
    model = make_chat_model(pool.candidates[0])
    reply = model.invoke("Capital of France?")
    assert reply.response_metadata.get("metadata") == (metadata or {})
    assert reply.usage_metadata["input_tokens"] == 1000


@pytest.mark.parametrize("stream", [False, True])
def test_cached_tokens_have_a_price_of_their_own(serve, tmp_path, stream):
    report = usage((2006, 300, 2306), prompt_tokens_details={"cached_tokens": 1920})
    choice = {"index": 0, "message": {"role": "model", "content": "Paris"}, "finish_reason": "stop"}
    first = chunk("", usage=report | {"completion_tokens": 0, "total_tokens": 2006})
    last = chunk(usage=usage((0, 300, 300), prompt_tokens_details={"cached_tokens": 0}))
    sent = Wire({"choices": [choice], "usage": report}, [first, *TEXT, END, last])
    pool = yaml_pool(tmp_path, serve(sent), **ONE_DOLLAR, cached_input_usd_per_mtok=0.1)
    state = streamed(pool) if stream else run(scripted(pool, SEARCH, ANSWER), "invoke")
    (bill,) = bills(state)
    assert bill["cost_usd"] == pytest.approx((86 * 1 + 1920 * 0.1 + 300 * 2) / 1e6)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (False, []),
        (True, [chunk("Par", "error"), chunk(usage=usage())]),  # the usage comes after the error
        (True, [chunk("Par"), {"error": {"code": 502}, "usage": usage()}]),
        (True, [chunk("Par"), {"error": "overloaded", "usage": usage()}]),
    ],
)
def test_a_failed_attempt_that_is_billed_is_on_the_bill(serve, tmp_path, stream, events):
    choice = {"finish_reason": "error", "message": {"content": "Par"}, "error": {"code": 502}}
    failed = Wire({"choices": [choice], "usage": usage()}, events)
    server = serve([failed, Reply("Paris", 10, 5)])
    pool = yaml_pool(tmp_path, server, max_retries=1, **ONE_DOLLAR)
    state = streamed(pool) if stream else run(scripted(pool, SEARCH, ANSWER), "invoke")
    (bill,) = bills(state)
    assert (bill["reply"], bill["attempts"], bill["input_tokens"]) == ("Paris", 2, 20)
    assert bill["cost_usd"] == pytest.approx(40e-6)


@both_ways
def test_a_cost_in_the_headers_is_that_of_its_own_reply(serve, tmp_path, how):
    def answer(request):  # LiteLLM's proxy; 0 = it does not know the model
        cost = {"x_litellm_response_cost": {"a": "0.25", "b": "0.5", "c": "0.0"}[request.prompt]}
        message = {"role": "assistant", "content": "Paris"}
        return Wire({"choices": [{"message": message}], "usage": usage()}, headers=cost)

    pool = yaml_pool(tmp_path, serve(answer), **ONE_DOLLAR)
    asked = "".join(f"<search> Ada: {query} </search>" for query in "abc")
    costs = [bill["cost_usd"] for bill in bills(run(scripted(pool, asked, ANSWER), how))]
    assert costs == [0.25, 0.5, pytest.approx(20e-6)]


@pytest.fixture
def langchain_cache():
    set_llm_cache(InMemoryCache())
    yield
    set_llm_cache(None)


def test_a_reply_of_langchains_cache_costs_nothing_and_says_so(serve, tmp_path, langchain_cache):
    server = serve(Reply("Paris", cost=0.5))
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    first, second = (run(scripted(pool, SEARCH, ANSWER), how) for how in ("invoke", "ainvoke"))
    assert server.count() == 1
    paid = [(b["cached"], b["cost_usd"], b["reply"]) for s in (first, second) for b in bills(s)]
    assert paid == [(False, 0.5, "Paris"), (True, 0.0, "Paris")]
    line = second["ledger"]["candidates"]["Ada"]
    assert (line["calls"], line["cost_usd"], line["retries"]) == (1, 0.0, 0)


def test_the_routers_own_answer_out_of_langchains_cache_costs_nothing(
    serve, tmp_path, langchain_cache
):
    pool = yaml_pool(tmp_path, serve(Reply("Paris", cost=0.5)))
    model = ChatRouterR1(pool=pool, controller="constant:Ada")
    told = [model.invoke("Capital of France?").response_metadata for _ in range(2)]
    assert [(m["cost_usd"], m.get("cached", False)) for m in told] == [(0.5, False), (0.0, True)]


def test_a_reply_of_langgraphs_cache_costs_nothing_and_says_so(serve, tmp_path):
    server = serve(Reply("Paris", cost=0.001))
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    builder = create_router_r1(pool, ScriptedController((SEARCH, ANSWER)))
    builder.set_node_defaults(cache_policy=CachePolicy())
    graph = builder.compile(cache=NodeCache())
    first, second = run(graph, "invoke"), run(graph, "invoke")
    assert server.count() == 1
    assert [(b["cached"], b["cost_usd"]) for s in (first, second) for b in bills(s)] == [
        (False, 0.001),
        (True, 0.0),
    ]
    assert second["ledger"]["candidates"]["Ada"]["cost_usd"] == 0.0
