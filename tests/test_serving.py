"""The router behind OpenAI's API, asked over loopback by the clients that people use."""

import asyncio
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any

import openai
import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from fakes import NEVER, FakeChat, PaidController, TypingChat, answer, make_pool, search
from in_process import cli
from openai_server import Cut, Malformed, Reply
from patience import wait_until
from router_r1_graph import (
    ChatModelController,
    ChatRouterR1,
    ReplyError,
    ScriptedController,
    Turn,
)
from router_r1_graph.candidates.images import IMAGE_ALONE
from router_r1_graph.serving.knobs import knobs_in_name, misspelt
from router_r1_graph.serving.messages import to_messages
from served import HAMLET, ask, client_of, get, serving_at
from yaml_pool import yaml_pool

from router_r1_graph.serving.connections import limited  # isort: skip - `served` needs the extra

IMAGE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"},
}


@pytest.fixture(scope="module")
def url():
    with serving_at() as url:
        yield url


class HeldChat(FakeChat):
    """Replies when `go` is set."""

    go: threading.Event

    async def _agenerate(self, messages, stop=None, run_manager=None, **_):
        self.queries.append(str(messages[-1].text))
        while not self.go.is_set():  # noqa: ASYNC110 - it is set by another thread
            await asyncio.sleep(0.01)
        return self._result(str(messages[-1].text))


def held_model():
    """A router whose one candidate replies when it may, and says in `queries` what it was asked."""
    pool = make_pool("Ada")
    ada = HeldChat(go=threading.Event())
    controller = ScriptedController([search("Ada: what?"), answer()])
    return ChatRouterR1(pool=pool, controller=controller, models={"Ada": ada}), ada


# ------------------------------------------------------------------------------------ answers


def test_the_openai_client_gets_an_answer_with_its_bill(url):
    completion = ask(url)
    assert completion.choices[0].message.content == "pound sterling"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens > 0
    bill = completion.router_r1
    assert bill["stop_reason"] == "answered"
    assert bill["calls"] == 3 == sum(line["calls"] for line in bill["candidates"].values())
    assert 0 < bill["cost_usd"] == completion.usage.cost < 0.001
    (cut,) = ask(url, max_tokens=2).choices
    assert (cut.message.content, cut.finish_reason) == ("pound", "length")


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_has_the_answer_then_the_bill_then_the_usage(url, usage):
    chunks = ask(url, stream=True, stream_options={"include_usage": usage})
    *said, last = [chunk for chunk in chunks if chunk.choices]
    assert "".join(chunk.choices[0].delta.content for chunk in said) == "pound sterling"
    assert len(said) == 3  # the role, then a word each
    assert last.choices[0].finish_reason == "stop"
    assert last.router_r1["calls"] == 3
    assert len({chunk.id for chunk in chunks}) == 1
    assert (chunks[-1].usage is not None) == usage
    # With it, OpenAI's other chunks say that theirs is null; without it, none has the field.
    assert all(("usage" in chunk.model_fields_set) == usage for chunk in chunks)
    assert not usage or chunks[-1].usage.total_tokens > 0


def typing_model(*texts, **options):
    """A router whose controller is a chat model that writes these turns piece by piece."""
    chat = TypingChat(texts=[list(text) for text in texts], **options)
    pool = make_pool("Ada")
    controller = ChatModelController(chat)
    return ChatRouterR1(pool=pool, controller=controller, models={"Ada": FakeChat()}), chat


def test_it_answers_in_one_event_loop_after_another():
    testclient = pytest.importorskip("starlette.testclient")
    app = pytest.importorskip("router_r1_graph.serving").create_app(ChatRouterR1())
    client = testclient.TestClient(app)  # a loop for each request
    asked = {"model": "router-r1", "messages": [{"role": "user", "content": HAMLET}]}
    replies = [client.post("/v1/chat/completions", json=asked) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 200]


def test_a_stream_has_the_answer_while_it_is_being_written():
    asks = ["<search> Ada: what? </search>"]
    model, chat = typing_model(
        asks, ["<answer> forty", " two", " or so", "</answer>"], wait=" or so"
    )
    with serving_at(model) as url, client_of(url) as client:
        said = [{"role": "user", "content": HAMLET}]
        told = []
        for chunk in client.chat.completions.create(model="router-r1", messages=said, stream=True):
            told += [chunk.choices[0].delta.content or ""]
            if told == ["", "forty", " two"]:
                assert "router_r1_in_flight 1.0" in get(f"{url}/metrics")
                chat.go.set()
        assert chat.go.is_set()
        assert "".join(told) == "forty two or so"
        assert chunk.choices[0].finish_reason == "stop"
        assert chunk.router_r1["calls"] == 1
        metrics = get(f"{url}/metrics")
    assert "router_r1_in_flight 0.0" in metrics
    assert f"router_r1_cost_usd_total {chunk.router_r1['cost_usd']}" in metrics
    assert 'router_r1_calls_total{candidate="Ada"} 1.0' in metrics


def test_a_stream_whose_answer_is_not_taken_ends_in_an_error():
    model, _ = typing_model(["<answer> for", "<think>"], ["<answer> yes </answer>"])
    with (
        serving_at(model) as url,
        pytest.raises(openai.APIError, match="not the beginning of the final") as e,
    ):
        ask(url, stream=True)
    assert e.value.code == "controller_error"


def test_a_stream_that_fails_before_its_first_piece_has_a_status():
    model = ChatRouterR1(controller=PaidController([ReplyError("auth", "the key is wrong")]))
    with serving_at(model) as url:
        with pytest.raises(openai.InternalServerError) as caught:
            ask(url, stream=True)
        with pytest.raises(openai.BadRequestError):
            ask(url, stream=True, extra_body={"keep": "summary:Nobody"})
    assert caught.value.status_code == 502


def test_a_client_that_goes_away_in_the_middle_of_an_answer_takes_the_run_with_it():
    model, chat = typing_model(["<answer> forty", " two", " or so", "</answer>"], wait=" or so")
    with serving_at(model, max_concurrency=1, queue=0) as url:
        with client_of(url) as client:
            said = [{"role": "user", "content": HAMLET}]
            stream = client.chat.completions.create(model="router-r1", messages=said, stream=True)
            assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "forty"]
            stream.close()
        assert chat.given_up.wait(100)
        wait_until(lambda: "router_r1_in_flight 0.0" in get(f"{url}/metrics"))
        chat.texts.append(["<answer> 42 </answer>"])
        assert ask(url).choices[0].message.content == "42"  # there is room again


async def test_langchain_openai_asks_it_in_a_chain(url):
    model = ChatOpenAI(model="router-r1", base_url=f"{url}/v1", api_key="x", max_retries=0)
    message = await model.ainvoke(HAMLET)
    assert message.text == "pound sterling"
    assert message.usage_metadata["total_tokens"] > 0
    assert message.response_metadata["token_usage"]["cost"] > 0
    chain = ChatPromptTemplate([("system", "Be brief."), ("human", "{q}")]) | model
    pieces = [piece async for piece in (chain | StrOutputParser()).astream({"q": HAMLET})]
    assert "".join(pieces) == "pound sterling"
    assert len([piece for piece in pieces if piece]) == 2


def test_it_lists_its_model_and_describes_it_with_knobs_too(url):
    with client_of(url) as client:
        assert [model.id for model in client.models.list()] == ["router-r1"]
        assert client.models.retrieve("router-r1").id == "router-r1"
        assert client.models.retrieve("router-r1:rounds=1").id == "router-r1:rounds=1"
        for name in ("gpt-4.1", "router-r1:latest"):
            with pytest.raises(openai.NotFoundError) as caught:
                client.models.retrieve(name)
            assert caught.value.code == "model_not_found"


@pytest.fixture
def watched():
    """A router that answers at once, and the views of its controller."""
    views = []

    def script(view):
        views.append(view)
        return answer()

    return ChatRouterR1(controller=ScriptedController(script), max_calls_per_round=3), views


def test_the_conversation_and_the_knobs_of_a_request_reach_the_run(watched):
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Who wrote Hamlet?"}]},
        {"role": "assistant", "tool_calls": [tool_call("{oops"), tool_call("{}")]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Shakespeare"}]},
        {"role": "user", "content": [{"type": "text", "text": "Where was he born?"}]},
    ]
    knobs = {"cost_weight": 0.9, "budget_usd": 0.01, "max_rounds": 2, "deadline_seconds": 20}
    model, views = watched
    with serving_at(model) as url, client_of(url) as client:
        client.chat.completions.create(
            model="router-r1", messages=said, temperature=0.3, extra_body=knobs, user="me"
        )
        ask(url, model="router-r1:cost=0.8,rounds=2,keep=vote", extra_body={"max_rounds": 1})
    view, named = views
    assert view.question == "Where was he born?"
    texts = [m.text for m in view.conversation]
    assert [t for t in texts if t in ("Who wrote Hamlet?", "Shakespeare")] == [
        "Who wrote Hamlet?",
        "Shakespeare",
    ]
    assert {name: getattr(view.context, name) for name in knobs} == knobs
    assert (view.context.temperature, view.context.max_calls_per_round) == (0.3, 3)
    found = named.context
    assert (found.cost_weight, found.max_rounds, found.keep) == (0.8, 1, "vote")


def tool_call(arguments):
    return {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}


def test_what_the_operator_has_set_is_a_cap(watched):
    model, views = watched
    caps = {"budget_usd": 0.5, "max_rounds": 3, "cost_weight": 0.6, "keep": "vote", "seed": 7}
    model = model.model_copy(update={"max_tokens": 2, **caps})
    more = {"budget_usd": 9, "max_rounds": 9, "cost_weight": 0.1, "keep": "all", "seed": 8}
    less = {"budget_usd": 0.1, "max_rounds": 0, "cost_weight": 1, "deadline_seconds": 5}
    with serving_at(model) as url:
        ask(url)
        cut = ask(url, extra_body=more, max_tokens=100)
        ask(url, extra_body={**less, "max_calls_per_round": 9})
    plain, greedy, modest = (view.context for view in views)
    assert {name: getattr(plain, name) for name in caps} == caps
    assert {name: getattr(greedy, name) for name in caps} == {**caps, "seed": 8}
    assert {name: getattr(modest, name) for name in less} == less
    assert modest.max_calls_per_round == 3  # the fixture's own
    assert cut.choices[0].finish_reason == "stop"


NULLS = "tools tool_choice response_format stop n seed max_tokens audio stream stream_options"
NULLS += " budget_usd web_search_options functions keep prediction"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"},
        {"stop": [], "max_tokens": -1, "max_completion_tokens": -2, "n": 1, "logprobs": False},
        {"functions": [], "function_call": "none", "modalities": ["text"], "logit_bias": {}},
        {"top_k": 40, "min_p": 0.1, "min_tokens": 1, "mirostat": 2, "n_keep": 4, "num_ctx": 9},
        {"chat_template_kwargs": {}, "usage": {"include": True}, "chat_id": "x", "id": "y"},
        {"max_tokens": "100", "stream": "false", "function_call": "auto", "think": False},
        dict.fromkeys(NULLS.split()),
        {"stream_options": {"include_usage": None, "include_obfuscation": False}},
        {"tools": [{"type": None, "function": {"name": "f"}}], "tool_choice": "none"},
        {"store": True, "metadata": {"a": "b"}, "service_tier": "flex", "user": "me"},
        {"reasoning_effort": "low", "prediction": {"type": "content", "content": "x"}},
        {"parallel_tool_calls": True, "verbosity": "low", "safety_identifier": "x"},
    ],
)
def test_neutral_fields_and_nulls_change_nothing(url, fields):
    reply = ask(url, extra_body=fields)
    assert reply.choices[0].message.content == "pound sterling"
    assert reply.choices[0].finish_reason == "stop"


MISSPELT = {
    "budget_usd": "budgt budget usd_budget bugdet budget-usd budgetUsd max_budget budget_limit "
    "max_cost cost_limit maxCost max_cost_usd costUsd",
    "deadline_seconds": "deadlin dedline deadline_s deadline_sec deadline_ms max_seconds",
    "max_rounds": "rounds rounds_max maxRounds MAX_ROUNDS maxrounds ruonds",
    "max_rounds' or 'max_calls_per_round": "round max_round rouns",
    "max_calls_per_round": "call max_calls",
    "cost_weight": "cost cost_wt weight",
    "answer_style": "stye style answerStyle",
    "max_conversation_tokens": "max_conversation conversation_tokens",
    "approve_above_usd": "approve_above aprove_above_usd",
    "router_r1": "routerr1 router-r1",
}


@pytest.mark.parametrize(
    ("field", "meant"), [(f, meant) for meant, fields in MISSPELT.items() for f in fields.split()]
)
def test_a_limit_that_is_mistyped_is_refused_and_what_was_meant_is_said(url, field, meant):
    body = json.dumps({"model": "router-r1", "messages": HELLO, field: 0}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}/v1/chat/completions", body, timeout=100)
    with caught.value as response:
        error = json.load(response)["error"]
    assert error["message"] == f"{field}: unknown field (did you mean '{meant}'?)"
    assert (response.code, error["param"]) == (400, field)


HELLO = [{"role": "user", "content": "hello"}]
# Of vLLM, SGLang, llama.cpp, Ollama, OpenRouter, LiteLLM, Mistral, Perplexity, and chat UIs.
OTHERS = """
top_k min_p top_a typical_p tfs_z min_tokens mirostat mirostat_tau n_keep num_keep num_ctx n_predict
num_predict n_probs repetition_penalty repeat_penalty repeat_last_n length_penalty use_beam_search
skip_special_tokens stop_token_ids ignore_eos guided_json structured_outputs add_generation_prompt
echo documents chat_template chat_template_kwargs mm_processor_kwargs priority request_id cache_salt
return_tokens_as_token_ids truncate_prompt_tokens thinking_token_budget thinking_budget bad_words
reasoning_budget enable_thinking max_new_tokens max_tokens_to_sample max_length max_context_length
context_length context think keep_alive options format raw images models provider route transforms
plugins include_reasoning thinking usage session_id chat_id id features variables model_item files
background_tasks tool_servers tool_ids params citations safe_prompt random_seed prompt_mode
search_parameters return_images search_recency_filter fallbacks num_retries timeout api_base api_key
mock_response drop_params caching cache tags user_id conversation_id thread_id project contents
candidate_count safety_settings system grammar json_schema slot_id cache_prompt samplers lora voice
speed quality height width host memory candidateCount
"""


def test_no_field_of_openai_or_of_another_server_is_taken_for_a_misspelt_setting():
    from openai.types.chat import completion_create_params as chat
    from openai.types.responses import response_create_params as responses

    kinds = [
        *(chat.CompletionCreateParamsStreaming, chat.CompletionCreateParamsNonStreaming),
        *(responses.ResponseCreateParamsStreaming, responses.ResponseCreateParamsNonStreaming),
    ]
    openais = {name for kind in kinds for name in kind.__annotations__}
    assert {"max_completion_tokens", "max_tool_calls", "conversation", "store"} <= openais
    refused = {name: misspelt(name) for name in {*openais, *OTHERS.split()} if misspelt(name)}
    assert refused == {"seed": ["seed"], "temperature": ["temperature"]}  # our settings too


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("round", "'max_rounds' or 'max_calls_per_round'"),
        ("roundz", "'max_rounds' or 'max_calls_per_round'"),
        ("per", "'max_calls_per_round'"),
        ("tokens", "'max_information_tokens' or 'max_conversation_tokens' or 'memory_tokens'"),
        ("usd_budget", "'budget_usd'"),
    ],
)
def test_a_word_of_a_name_that_could_mean_another_setting_is_refused(url, word, meant):
    with pytest.raises(openai.BadRequestError, match=rf"called '{word}' \(did you mean {meant}\?"):
        ask(url, model=f"router-r1:{word}=1")


def test_a_setting_in_a_models_name_has_a_word_that_is_its_own():
    given = "cost=0.8,rounds=2,calls=3,budget=1,deadline=9,style=full,max_rounds=4"
    assert knobs_in_name(f"router-r1:{given}") == {
        **{"cost_weight": 0.8, "max_rounds": 4, "max_calls_per_round": 3, "budget_usd": 1},
        **{"deadline_seconds": 9, "answer_style": "full"},
    }


# What chat UIs ask on their own, in other words than theirs.
CHORES = [
    ["### Task:\nCreate a short, 2-4 word title with one emoji that sums up the chat history.\n"],
    ["Please write a title of five words or less for this conversation, without punctuation."],
    ["### Task:\nGenerate 2 broad tags for the main themes of the chat history."],
    ["### Task:\nSuggest 3 follow-up questions that the user may ask next in this conversation."],
    ["From the chat history so far, give this chat a short name. No quotes, please."],
    ["hello", "Hi!", "Write a four word title summing up our conversation. Only the title."],
    [("system", "You summarise. Produce a concise title for the conversation."), "user: hello"],
    ["Read this conversation and give:\n1. its language\n2. A title of five words or less"],
    ["你需要将这段对话总结为一个标题"],
    [("system", "You are a title generator. You output nothing but a thread title."), "hello"],
]
NO_CHORES = [
    ["Who wrote Hamlet?"],
    ["Give me the title of the film with the conversation in a diner."],
    ["How does a chat UI write a title for a conversation?"],
    ["Write a Python function that generates a title for a conversation."],
    ["### Task:\nAnswer the user's question by the context.\n<chat_history>a title</chat_history>"],
    [("system", "Be kind. Always suggest follow-up questions for the conversation."), "Who?"],
    ["Write a title for this conversation.", "A talk", "Who wrote Hamlet?"],
]


def as_messages(texts):
    roles = ["user", "assistant"] if isinstance(texts[0], str) else ["system", "user"]
    return [
        {"role": roles[n % 2], "content": text if isinstance(text, str) else text[1]}
        for n, text in enumerate(texts)
    ]


def test_what_chat_uis_ask_on_their_own_takes_one_call():
    pool, ada = make_pool("Ada", "Bob"), FakeChat()
    bob = FakeChat()
    turns = [search("Bob: one?"), search("Bob: two?"), answer()]
    model = ChatRouterR1(
        pool=pool, controller=ScriptedController(turns), models={"Ada": ada, "Bob": bob}
    )
    with serving_at(model, chores="constant:Ada") as url, client_of(url) as client:
        for texts in CHORES:
            reply = client.chat.completions.create(model="router-r1", messages=as_messages(texts))
            assert reply.router_r1["calls"] == 1, texts
        assert (len(ada.queries), len(bob.queries)) == (len(CHORES), 0)
        told = ada.queries[5]  # all that it is about
        assert told.startswith("User: hello\n\nAssistant: Hi!\n\nWrite a four word title")
        for texts in NO_CHORES:
            client.chat.completions.create(model="router-r1", messages=as_messages(texts))
        assert len(ada.queries) == len(CHORES)
    with serving_at(model, chores="") as url:
        assert ask(url, CHORES[0][0]).router_r1["calls"] == 2


TITLE = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
SAVE = {"type": "function", "function": {"name": "save", "parameters": TITLE}}
AS_JSON = {"type": "json_schema", "json_schema": {"name": "title", "schema": TITLE}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chores", ["cheapest", "constant:Ada"])
@pytest.mark.parametrize(
    ("form", "reply", "told"),
    [
        ({"tools": [SAVE]}, Reply("A talk"), "A talk"),
        ({"tools": [SAVE]}, Reply("A ta", finish_reason="length"), "A ta"),
        ({"tools": [SAVE]}, Reply("", tool_calls=[("save", {"title": "x"})]), "save"),
        (
            {"tools": [SAVE], "tool_choice": "required"},
            Reply("", tool_calls=[("save", {"title": "x"})]),
            "save",
        ),
        ({"tools": [SAVE], "tool_choice": "none"}, Reply("A talk"), "A talk"),
        (
            {"response_format": AS_JSON},
            Reply("", tool_calls=[("title", {"title": "x"})]),
            '{"title": "x"}',
        ),
        ({"response_format": {"type": "json_object"}}, Reply('{"title": 1}'), '{"title": 1}'),
    ],
)
def test_a_chat_uis_own_prompt_takes_one_call_in_a_form_too(
    serve, tmp_path, stream, chores, form, reply, told
):
    server = serve({"ada": reply, "bob": Reply("1"), "cy": Reply("2")})
    prices = {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 2.0}
    names = {"Ada": {"input_usd_per_mtok": 1.0}, "Bob": prices, "Cy": prices}
    model = ChatRouterR1(
        pool=yaml_pool(tmp_path, server, names), controller="constant:Bob", formatter="Cy"
    )
    if chores == "cheapest":  # whoever gives forms answers
        model.formatter = None
    texts = ["Who?", "Bo.", "Write a title of five words for this conversation."]
    with serving_at(model, chores=chores) as url, client_of(url) as client:
        asked = {"model": "router-r1", "messages": as_messages(texts), **form, "max_tokens": 50}
        if stream:
            chunks = list(client.chat.completions.create(**asked, stream=True))
            choices = [chunk.choices[0] for chunk in chunks]
            text = "".join(choice.delta.content or "" for choice in choices)
            calls = [call for choice in choices for call in choice.delta.tool_calls or ()]
            end, bill = choices[-1].finish_reason, chunks[-1].router_r1
        else:
            whole = client.chat.completions.create(**asked)
            said, end = whole.choices[0].message, whole.choices[0].finish_reason
            text, calls, bill = said.content, said.tool_calls, whole.router_r1
    assert (calls[0].function.name if calls else text) == told
    assert end == ("tool_calls" if calls else reply.finish_reason)
    (request,) = server.requests
    said = "User: Who?\n\nAssistant: Bo.\n\nWrite a title of five words for this conversation."
    assert request.prompt.startswith(said)
    assert "the answer" not in request.prompt
    assert bill["cost_usd"] > 0
    assert list(bill["candidates"]) == ["Ada"]


def test_a_chat_uis_own_prompt_takes_one_call_in_the_responses_api_too(serve, tmp_path):
    server = serve({"ada": Reply("", tool_calls=[("title", {"title": "x"})])})
    model = ChatRouterR1(pool=yaml_pool(tmp_path, server), controller="constant:Ada")
    form = {"format": {"type": "json_schema", "name": "title", "schema": TITLE}}
    with serving_at(model) as url, client_of(url) as client:
        asked = "Write a title of five words for this conversation."
        whole = client.responses.create(model="router-r1", input=asked, text=form)
    assert (whole.output_text, len(server.requests)) == ('{"title": "x"}', 1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_form_that_is_not_kept_to_is_in_the_metrics_and_the_error_says_what_it_cost(
    serve, tmp_path, stream
):
    server = serve({"ada": Reply("1"), "bob": Reply("No.", cost=0.25)})
    pool = yaml_pool(tmp_path, server, {"Ada": {}, "Bob": {}})
    model = ChatRouterR1(pool=pool, controller="constant:Ada", formatter="Bob")
    with serving_at(model) as url:
        with pytest.raises(openai.InternalServerError, match="called no tool") as caught:
            ask(url, tools=[SAVE], tool_choice="required", stream=stream)
        assert caught.value.body["router_r1"] == {"cost_usd": 0.25}
        assert "router_r1_cost_usd_total 0.25" in get(f"{url}/metrics")


def test_a_budget_that_cannot_pay_a_chat_uis_own_prompt_is_told(serve, tmp_path):
    pool = yaml_pool(tmp_path, serve({"ada": Reply("1")}), input_usd_per_mtok=1.0)
    with serving_at(ChatRouterR1(pool=pool, controller="constant:Ada")) as url:
        asked = {"tools": [SAVE], "extra_body": {"budget_usd": 1e-9}}
        with pytest.raises(openai.BadRequestError, match="budget_usd: 1e-09 cannot pay Ada"):
            ask(url, "Write a title for this conversation.", **asked)


def test_thoughts_in_earlier_replies_are_left_out():
    parts = [{"type": "thinking", "thinking": "Lyon?"}, {"type": "text", "text": "Paris"}]
    (read,) = to_messages([{"role": "assistant", "content": parts}])
    assert read.content == parts[1:]


def test_the_responses_api_gives_texts_streams_and_its_limits(url):
    with client_of(url) as client:
        whole = client.responses.create(model="router-r1", instructions="Be brief.", input=HAMLET)
        # The client takes what it gets; this reads it strictly.
        type(whole).model_validate(whole.model_dump())
        assert (whole.output_text, whole.status) == ("pound sterling", "completed")
        assert whole.usage.total_tokens > 0 < whole.router_r1["cost_usd"]
        items = [
            {"role": "user", "content": [{"type": "input_text", "text": "Who?"}]},
            {"type": "reasoning", "id": "r", "summary": []},
            *whole.model_dump()["output"],
            {"type": "message", "role": "user", "content": HAMLET},
        ]
        again = {"model": "router-r1", "input": items, "store": False, "metadata": None}
        events = list(client.responses.create(**{**again, "stream": True}, extra_body={"top_k": 1}))
        assert [e.sequence_number for e in events] == list(range(len(events)))
        deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
        assert deltas == ["pound ", "sterling"]
        assert events[-1].type == "response.completed"
        assert events[-1].response.output_text == "pound sterling"
        short = client.responses.create(model="router-r1", input=HAMLET, max_output_tokens=1)
        assert (short.output_text, short.status) == ("poun", "incomplete")
        assert short.incomplete_details.reason == "max_output_tokens"
        for wrong, param in (
            ({"previous_response_id": "resp_1"}, "previous_response_id"),
            ({"background": True}, "background"),
            ({"input": []}, "input"),
            ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
            ({"input": [{"role": "user", "content": [IMAGE]}]}, "input.0.content"),
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                client.responses.create(**{"model": "router-r1", "input": "x", **wrong})
            assert caught.value.param.startswith(param)


class SeeingChat(FakeChat):
    """Keeps the whole content of what it is asked."""

    async def _agenerate(self, messages, stop=None, run_manager=None, **_):
        self.queries.append(messages[-1].content)
        return self._result("a cat")


def test_images_reach_a_candidate_that_takes_them():
    pool, ada = make_pool("Ada"), SeeingChat()
    able = pool.candidates[0].model_copy(update={"image_inputs": True})
    pool = pool.model_copy(update={"candidates": (able,)})
    model = ChatRouterR1(pool=pool, controller="constant:Ada", models={"Ada": ada})
    url_of_it = IMAGE["image_url"]["url"]
    kinds = {"type": "input_image", "image_url": url_of_it, "detail": "low"}
    with serving_at(model) as url, client_of(url) as client:
        said = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]}]
        client.chat.completions.create(model="router-r1", messages=said)
        said = [{"role": "user", "content": [{"type": "input_text", "text": "And this?"}, kinds]}]
        client.responses.create(model="router-r1", input=said)
        alone = [{"role": "user", "content": [IMAGE]}, {"role": "assistant", "content": "A cat"}]
        ask(url, [IMAGE])
        said = [*alone, {"role": "user", "content": "Its breed?"}]
        client.chat.completions.create(model="router-r1", messages=said)
        with pytest.raises(openai.BadRequestError, match="of type 'input_audio' cannot be read"):
            ask(url, [{"type": "input_audio", "input_audio": {}}])
        photograph = {"url": "data:image/jpeg;base64," + "A" * 5_000_000}
        ask(url, [{"type": "image_url", "image_url": photograph}])
    assert ada.queries.pop()[1]["image_url"] == photograph
    questions = ("What is this?", "And this?", IMAGE_ALONE, "Its breed?")
    for (text, image), question in zip(ada.queries, questions, strict=True):
        assert (text["text"], image) == (question, IMAGE)


def test_the_responses_api_ends_a_broken_stream_in_a_failure():
    model, _ = typing_model(["<answer> for", "<think>"], ["<answer> yes </answer>"])
    with serving_at(model) as url, client_of(url) as client:
        *_, last = client.responses.create(model="router-r1", input=HAMLET, stream=True)
    assert (last.type, last.response.status) == ("response.failed", "failed")


def test_web_pages_may_ask_from_origins_that_are_allowed(url):
    def preflight(url, method="OPTIONS"):
        headers = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
        request = urllib.request.Request(f"{url}/v1/responses", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=100) as response:
            return response.headers["access-control-allow-origin"]

    with serving_at(allow_origins=["https://chat.example"], api_key="k") as allowing:
        assert preflight(allowing) == "https://chat.example"
    with pytest.raises(urllib.error.HTTPError) as caught:
        preflight(url)
    caught.value.close()
    for path in ("/health", "/v1/models", "/metrics"):
        head = urllib.request.Request(f"{url}{path}", method="HEAD")
        with urllib.request.urlopen(head, timeout=100) as response:
            assert response.status == 200


def test_its_openapi_document_is_valid(url):
    document = json.loads(get(f"{url}/openapi.json"))
    assert document["components"]["schemas"]["ChatRequest"]["properties"]["budget_usd"]
    assert "/v1/models/{name}" in document["paths"]
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(document)


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"budget_usd": -1}, "budget_usd", "at least 0"),
        ({"cost_weight": "much"}, "cost_weight", "a number"),
        ({"max_rounds": 1.5}, "max_rounds", "whole number"),
        ({"deadline_seconds": True}, "deadline_seconds", "a number"),
        ({"budget_us": 1}, "budget_us", "did you mean 'budget_usd'"),
        ({"temperature": 3}, "temperature", "at most 2"),
        ({"keep": "some"}, "keep", "all, vote, or summary:CANDIDATE"),
        ({"keep": "summary:Nobody"}, "keep", "no candidate 'Nobody'"),
        ({"candidate_context": "all"}, "candidate_context", "query, question, memory"),
        ({"approve_above_usd": 1}, "approve_above_usd", "unknown field"),
        ({"tools": [{"type": "function"}]}, "tools", "no function"),
        ({"tool_choice": "required"}, "tool_choice", "no tool to call"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_schema"),
        ({"functions": [{"name": "f"}]}, "functions", "only []"),
        ({"logprobs": True}, "logprobs", "only False"),
        ({"deadline": 3}, "deadline", "did you mean 'deadline_seconds'"),
        ({"model": "router-r1:cost=2"}, "cost_weight", "at most 1"),
        ({"model": "router-r1:tokens=2"}, "model", "no setting is called 'tokens'"),
        ({"stop": ""}, "stop.0", "at least 1 character"),
        ({"stop": ["a", ""]}, "stop.1", "at least 1 character"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"n": 2}, "n", "n: only 1"),
        ({"stream": "perhaps"}, "stream", "stream has to be true or false, not 'perhaps'"),
        ({"stream_options": 5}, "stream_options", "has to be an object, not 5"),
        (
            {"stream_options": {"include_usage": "x"}},
            "stream_options.include_usage",
            "true or false",
        ),
        ({"stop": 5}, "stop", "stop has to be a text, or a list of texts, not 5"),
        ({"stop": [5]}, "stop.0", "stop.0 has to be a text, not 5"),
        ({"max_tokens": 1.5}, "max_tokens", "max_tokens has to be a whole number, not 1.5"),
        ({"tool_choice": 5}, "tool_choice", "tool_choice has to be a text or an object, not 5"),
        ({"tools": {}}, "tools", "tools has to be a list, not {}"),
        ({"tools": [{}]}, "tools", "it needs the type 'function'"),
        ({"tools": [{"type": "function", "function": {"name": 5}}]}, "tools", "a text, not 5"),
        ({"response_format": "json"}, "response_format", "has to be an object, not 'json'"),
        ({"router_r1": 5}, "router_r1", "router_r1 has to be an object, not 5"),
        ({"model": 5}, "model", "model has to be 'router-r1', not 5"),
        ({"model": None}, "model", "model is missing: it has to be 'router-r1'"),
        ({"messages": []}, "messages", "a list with a message of role 'user', which holds"),
        ({"messages": "hi"}, "messages", "a list with a message of role 'user', which holds"),
        ({"messages": ["hi"]}, "messages.0", "messages.0 has to be an object, not 'hi'"),
        (
            {"messages": [{"role": "system", "content": "x"}]},
            "messages",
            "messages: there is no question: there has to be a message of role 'user'",
        ),
        ({"messages": [{"role": "bard", "content": "x"}]}, "messages.0", "bard"),
        ({"messages": [{"role": "user"}]}, "messages.0", "content is missing"),
        (
            {"messages": [{"role": "user", "content": {"type": "text", "text": "x"}}]},
            "messages.0",
            "content has to be a text or a list of parts, not {",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0", "tool_call_id is missing"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0", "content has to be a text"),
        (
            {"messages": [{"role": "user", "content": "x", "name": [1]}]},
            "messages.0",
            "name has to be a text, not [1]",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a"}}]}]},
            "messages.0",
            "a tool call needs an id, and a function with a name and arguments",
        ),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0", "name is missing"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "no question"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content", "'text'"),
    ],
)
def test_a_bad_value_is_refused_by_name(url, given, param, words):
    with pytest.raises(openai.BadRequestError, match=re.escape(words)) as caught:
        ask(url, extra_body=given)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert not re.search(PYDANTICS, str(caught.value))


PYDANTICS = r"Input should|valid (list|string|dict|int|bool)|after validation|Field required|Dict"
"""Words of other tools, which no client of OpenAI's API knows."""


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 100_000, b"\xff", b'{"model": "router-r1"}'])
def test_a_body_that_is_no_request_is_refused(url, body):
    request = urllib.request.Request(f"{url}/v1/chat/completions", body)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=100)
    with caught.value as response:
        assert response.code == 400
        assert set(json.load(response)["error"]) == {"message", "type", "param", "code"}


def test_another_model_or_path_is_not_found(url):
    with client_of(url) as client, pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(
            model="gpt-4.1", messages=[{"role": "user", "content": "hi"}]
        )
    assert caught.value.code == "model_not_found"
    with (
        client_of(url) as client,
        pytest.raises(openai.NotFoundError, match="nothing under this path"),
    ):
        client.embeddings.create(model="router-r1", input="x")


def test_a_controller_that_fails_is_a_bad_gateway():
    model = ChatRouterR1(controller=PaidController([ReplyError("auth", "the key is wrong")]))
    with serving_at(model) as url, pytest.raises(openai.InternalServerError) as caught:
        ask(url)
    assert (caught.value.status_code, caught.value.code) == (502, "controller_error")


def test_our_own_bug_is_a_500_that_tells_nothing():
    model, _ = held_model()
    model._graph = None  # what no request can bring about
    with serving_at(model) as url, pytest.raises(openai.InternalServerError) as caught:
        ask(url)
    assert caught.value.status_code == 500
    assert "NoneType" not in str(caught.value)


def test_with_a_key_only_those_who_have_it_are_answered():
    with serving_at(api_key="correct horse") as url:
        for key in ("wrong", "correct hors"):
            headers = {"Authorization": f"Bearer {key}"}
            with client_of(url) as client, pytest.raises(openai.AuthenticationError) as caught:
                client.models.list(extra_headers=headers)
            assert caught.value.code == "invalid_api_key"
            with client_of(url) as client, pytest.raises(openai.AuthenticationError):
                client.chat.completions.create(
                    model="other", messages=[], extra_headers=headers, extra_body={"n": 9}
                )
        with client_of(url, "correct horse") as client:
            assert client.models.list().data
        assert json.loads(get(f"{url}/health")) == {"status": "ok"}


# --------------------------------------------------------------------------------- many at once


def test_who_comes_when_all_places_are_taken_is_told_to_come_back():
    model, ada = held_model()
    with serving_at(model, max_concurrency=1, queue=1) as url:
        with ThreadPoolExecutor(3) as threads:
            asked = [threads.submit(ask, url) for _ in range(3)]
            wait(asked, return_when=FIRST_COMPLETED)  # the others are answered when Ada may reply
            ada.go.set()
            done = [future.exception() for future in asked]
        refused = [error for error in done if error]
        assert len(refused) == 1
        assert isinstance(refused[0], openai.RateLimitError)
        assert refused[0].response.headers["retry-after"] == "1"
        assert len(ada.queries) == 2
        assert ask(url).choices[0].message.content == "42"  # there is room again


def test_questions_are_answered_side_by_side_while_the_server_stays_awake():
    model, ada = held_model()
    with serving_at(model, max_concurrency=8) as url, ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, url) for _ in range(8)]
        wait_until(lambda: len(ada.queries) == 8)  # all of them, and none has been answered
        get(f"{url}/health")
        assert not any(future.done() for future in asked)
        ada.go.set()
        assert all(future.result().choices for future in asked)


def test_metrics_count_requests_money_and_calls():
    with serving_at() as url:
        bill = ask(url).router_r1
        with pytest.raises(openai.BadRequestError):
            ask(url, extra_body={"max_rounds": -1})
        text = get(f"{url}/metrics")
    assert 'router_r1_requests_total{status="200"} 1.0' in text
    assert 'router_r1_requests_total{status="400"} 1.0' in text
    assert "router_r1_in_flight 0.0" in text
    assert "router_r1_seconds_count 1.0" in text
    usd = float(re.search(r"^router_r1_cost_usd_total (\S+)", text, re.M)[1])
    assert usd == pytest.approx(bill["cost_usd"])
    for name, line in bill["candidates"].items():
        assert f'router_r1_calls_total{{candidate="{name}"}} {line["calls"]}.0' in text


@pytest.mark.parametrize("stream", [True, False])
def test_what_may_be_billed_is_on_the_metrics_by_who_was_asked(serve, tmp_path, stream):
    lost = {"ada": Malformed(), "controller": [Reply("<search> Ada: Capital? </search>"), Cut()]}
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    pool = yaml_pool(tmp_path, serve(lost), controller=prices, **prices)
    with serving_at(ChatRouterR1(pool=pool, controller="pool")) as url:
        with pytest.raises(openai.InternalServerError):
            ask(url, stream=stream)
        text = get(f"{url}/metrics")
    found = re.findall(r'^router_r1_uncertain_usd_total\{candidate="(\w+)"\} (\S+)', text, re.M)
    assert {name: float(usd) > 0 for name, usd in found} == {"Ada": True, "controller": True}


class Cancelled(FakeChat):
    """Hangs, and says when its call is given up."""

    asked: threading.Event
    given_up: threading.Event
    loop: Any = None

    async def _agenerate(self, messages, stop=None, run_manager=None, **_):
        self.loop = asyncio.get_running_loop()
        self.asked.set()
        try:
            await asyncio.sleep(NEVER)
        except asyncio.CancelledError:
            self.given_up.set()
            raise


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_takes_its_run_with_it(stream):
    pool = make_pool("Ada")
    ada = Cancelled(asked=threading.Event(), given_up=threading.Event())
    controller = ScriptedController([search("Ada: what?"), answer()])
    model = ChatRouterR1(pool=pool, controller=controller, models={"Ada": ada})
    said = [{"role": "user", "content": "6 x 7?"}]
    body = json.dumps({"model": "router-r1", "messages": said, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving_at(model) as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            connection.sendall(head.encode() + body)
            assert ada.asked.wait(100)
        assert ada.given_up.wait(100)
        wait_until(lambda: 'requests_total{status="499"} 1.0' in get(f"{url}/metrics"))
        wait_until(lambda: "router_r1_in_flight 0.0" in get(f"{url}/metrics"))


def hanging_after_a_paid_call():
    pool = make_pool({"name": "Ada", "usd_per_call": 1.0}, {"name": "Bob", "usd_per_call": 1.0})
    script = [search("Ada: what?"), search("Bob: what?"), answer()]
    bob = Cancelled(asked=threading.Event(), given_up=threading.Event())
    controller, models = ScriptedController(script), {"Ada": FakeChat(), "Bob": bob}
    return bob, ChatRouterR1(pool=pool, controller=controller, models=models)


@pytest.mark.parametrize("stream", [True, False])
def test_what_was_paid_for_a_client_that_left_is_on_the_metrics(stream):
    bob, model = hanging_after_a_paid_call()
    with serving_at(model) as url:
        body = chat_body(stream=stream)
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            connection.sendall(body)
            assert bob.asked.wait(100)
        wait_until(lambda: 'stop_reasons_total{reason="cancelled"} 1.0' in get(f"{url}/metrics"))
        metrics = get(f"{url}/metrics")
    assert "router_r1_cost_usd_total 1.0" in metrics
    assert 'router_r1_calls_total{candidate="Ada"} 1.0' in metrics
    assert 'router_r1_failed_calls_total{candidate="Bob",kind="cancelled"} 1.0' in metrics


def chat_body(**fields):
    """Return a request to chat completions as it goes over the wire."""
    said = [{"role": "user", "content": "6 x 7?"}]
    body = json.dumps({"model": "router-r1", "messages": said, **fields}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("controller", ["vote", "cascade", "constant:Ada"])
def test_an_outage_has_a_status_and_its_cause(controller, stream):
    pool = make_pool("Ada", "Bob")
    down = dict.fromkeys(("Ada", "Bob"), FakeChat(text=ConnectionError("nobody is there")))
    model = ChatRouterR1(pool=pool, controller=controller, models=down)
    with serving_at(model) as url:
        with pytest.raises(openai.InternalServerError, match="nobody is there") as raised:
            ask(url, stream=stream)
        metrics = get(f"{url}/metrics")
    assert (raised.value.status_code, raised.value.code) == (503, "no_reply")
    assert 'router_r1_stop_reasons_total{reason="no_reply"} 1.0' in metrics
    assert 'router_r1_failed_calls_total{candidate="Ada",kind="connection"} 1.0' in metrics
    assert 'router_r1_requests_total{status="503"} 1.0' in metrics


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("controller", "ada", "knobs", "code", "cause"),
    [
        (
            "constant:Ada",
            FakeChat(delay=NEVER),
            {"deadline_seconds": 0.5},
            "deadline",
            "no candidate replied: timeout",
        ),
        (
            ChatModelController(FakeChat(delay=NEVER)),
            FakeChat(),
            {"deadline_seconds": 0.5},
            "deadline",
            "the controller never replied: timeout|the time was up before anybody was asked",
        ),
        (
            "constant:Ada",
            FakeChat(),
            {"deadline_seconds": 1e-9},
            "deadline",
            "the time was up before anybody was asked",
        ),
        (
            ScriptedController([search("Ada: q?"), "garbage"]),
            FakeChat(text=ConnectionError("gone")),
            {"max_rounds": 1},
            "invalid",
            "no candidate replied: connection: ConnectionError: gone",
        ),
    ],
    ids=["deadline", "deadline of the controller", "nobody asked", "invalid"],
)
def test_an_outage_is_refused_whatever_ends_the_run(controller, ada, knobs, code, cause, stream):
    pool = make_pool("Ada")
    model = ChatRouterR1(pool=pool, controller=controller, models={"Ada": ada}, **knobs)
    with serving_at(model) as url:
        with pytest.raises(openai.InternalServerError, match=cause) as raised:
            ask(url, stream=stream)
        metrics = get(f"{url}/metrics")
    assert (raised.value.status_code, raised.value.code) == (503, code)
    assert f'router_r1_stop_reasons_total{{reason="{code}"}} 1.0' in metrics
    assert 'router_r1_requests_total{status="503"} 1.0' in metrics


def test_a_controller_that_gives_up_at_the_deadline_is_ended_by_it():
    class GivesUp(PaidController):
        def decide(self, view, config=None):
            time.sleep(view.left.seconds)
            return super().decide(view, config)  # which counts less time than has gone by

    controller = GivesUp([ReplyError("timeout", "late")])
    given = {"Ada": FakeChat()}
    model = ChatRouterR1(
        pool=make_pool("Ada"), controller=controller, models=given, deadline_seconds=0.1
    )
    assert model.invoke("6 x 7?").response_metadata["stop_reason"] == "deadline"


def test_an_answer_that_a_deadline_ends_is_no_outage():
    late = PaidController([search("Ada: q?"), ReplyError("timeout", "late")])
    given = {"Ada": FakeChat(text="I do not know."), "Bob": FakeChat(text=ConnectionError("gone"))}
    model = ChatRouterR1(pool=make_pool("Ada", "Bob"), controller=late, models=given)
    message = model.invoke("6 x 7?")
    assert message.response_metadata["stop_reason"] == "controller_error"
    assert "unanswered" not in message.response_metadata
    slow = ScriptedController([search("Ada: q?", "Bob: q?")])
    given["Bob"] = FakeChat(delay=NEVER)
    model = ChatRouterR1(
        pool=make_pool("Ada", "Bob"), controller=slow, models=given, deadline_seconds=1
    )
    with serving_at(model) as url:
        assert ask(url).choices[0].message.content == "I do not know."


@pytest.mark.parametrize("stream", [True, False])
def test_a_run_that_the_end_of_the_server_cuts_off_ends_in_an_error_of_the_api(stream):
    bob, model = hanging_after_a_paid_call()
    stops = []
    with serving_at(model, stops=stops) as url, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, url, stream=stream)
        assert bob.asked.wait(100)
        bob.loop.call_soon_threadsafe(stops[0])
        with pytest.raises(openai.InternalServerError, match="shutting down") as raised:
            asked.result(100)
        assert raised.value.status_code == 503


def test_a_body_that_the_end_of_the_server_cuts_off_ends_in_an_error_of_the_api():
    bob, model = hanging_after_a_paid_call()
    stops = []
    with serving_at(model, stops=stops) as url, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, url)
        assert bob.asked.wait(100)
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            connection.sendall(chat_body()[:-1])  # its last byte never comes
            connection.settimeout(20)  # less than a body may take
            bob.loop.call_soon_threadsafe(stops[0])
            said = b""
            while b"shutting_down" not in said and (part := connection.recv(1 << 16)):
                said += part  # head and body may come apart
        with pytest.raises(openai.InternalServerError):
            asked.result(100)
    assert said.startswith(b"HTTP/1.1 503")
    assert b"shutting_down" in said


def test_connections_that_say_nothing_are_closed_and_the_most_silent_first():
    def connect(url, said=b""):
        port = int(url.rpartition(":")[2])
        connection = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        connection.sendall(said)
        connection.settimeout(100)
        return connection

    def closed(connection):
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True

    half = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-a: "
    with ExitStack() as opened, serving_at(http=limited(header_seconds=0.1)) as url:
        assert closed(connect(url))
        assert closed(connect(url, half))
        assert "ok" in get(f"{url}/health")
    with ExitStack() as opened, serving_at(http=limited(2, header_seconds=NEVER)) as url:
        first = connect(url)
        connect(url, half)
        assert "ok" in get(f"{url}/health")  # the third
        assert closed(first)
        assert "ok" in get(f"{url}/health")


CHAT = "v1/chat/completions"


@pytest.mark.parametrize(
    ("method", "path", "body", "encoding", "says"),
    [
        ("POST", "chat/completions", b"{}", "", "404.*: POST /chat/completions; .* ends in /v1"),
        ("POST", f"v1/{CHAT}", b"{}", "", "404.*: POST /v1/v1/chat.* has /v1/chat/completions"),
        ("POST", "v1/embeddings", b"{}", "", "404.*has /v1/chat/completions, /v1/responses"),
        ("GET", "api/tags", None, "", "404.*: GET /api/tags"),
        ("GET", CHAT, None, "", "405.*this path takes POST"),
        ("POST", CHAT, gzip.compress(b"{}", mtime=0), "gzip", "415.*the body is compressed"),
        ("POST", CHAT, gzip.compress(b"{}", mtime=0), "", "415.*the body is compressed"),
        ("POST", CHAT, zlib.compress(b"{}"), "deflate", "415.*the body is compressed"),
        ("POST", CHAT, b"(\xb5/\xfd", "zstd", "415.*the body is compressed"),
        ("POST", CHAT, b"{", "identity", "400.*the body is not JSON"),
        ("POST", CHAT, b" " * 20_000_000, "", "413.*longer than 4194304 bytes"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_request_that_cannot_be_read_is_told_why(url, method, path, body, encoding, says):
    request = urllib.request.Request(f"{url}/{path}", body, method=method)
    if encoding:
        request.add_header("Content-Encoding", encoding)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=100)
    assert re.match(says, f"{caught.value.code} {json.load(caught.value)['error']['message']}")


FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": "f"}}, "tool_choice", "mode"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": ["f"]}}},
            "tool_choice",
            "a list of objects",
        ),
        ({"tool_choice": {"type": "allowed_tools", "tools": 5}}, "tool_choice", "a list"),
        ({"tool_choice": {"type": "function", "function": "g"}}, "tool_choice", "no tool"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools", "a free text"),
    ],
)
def test_a_tool_choice_that_cannot_be_read_is_told_why(url, fields, param, says):
    with pytest.raises(openai.BadRequestError, match=says) as caught:
        ask(url, extra_body={"tools": [FUNCTION], **fields})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tools": [{"type": "custom", "name": "c"}]}, "tools", "a free text"),
        ({"text": {"format": "json"}}, "text", "its format is an object"),
        ({"text": {"format": {"type": "x"}}}, "text.format", "text.format: type is 'text'"),
        (
            {"text": {"format": {"type": "json_schema"}}},
            "text.format",
            "text.format: schema is missing",
        ),
        ({"metadata": 5}, "metadata", "metadata has to be an object, not 5"),
        ({"instructions": []}, "instructions", r"instructions has to be a text, not \[\]"),
        ({"input": 5}, "input", "the question: a text, or a list with a message of role 'user'"),
        ({"input": ["Who?"]}, "input.0", "input.0 has to be an object, not 'Who"),
        ({"input": ""}, "input", "the question: a text, or a list with a message of role 'user'"),
        (
            {"input": [{"role": "system", "content": "x"}]},
            "input",
            "input: there is no question: there has to be a message of role 'user'",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input.0", "needs a call_id, a name"),
        ({"input": [{"type": "function_call_output"}]}, "input.0", "call_id is missing"),
        (
            {"input": [{"type": "function_call_output", "call_id": "1", "output": "sun"}]},
            "input",
            "no question",
        ),
    ],
)
def test_the_responses_api_says_which_field_cannot_be_read(url, fields, param, says):
    with client_of(url) as client, pytest.raises(openai.BadRequestError, match=says) as caught:
        client.responses.create(model="router-r1", input=HAMLET, extra_body=fields)
    assert caught.value.param == param
    assert not re.search(PYDANTICS, str(caught.value))


def test_the_responses_api_takes_null_types_and_gives_metadata_back(url):
    asked = [{"type": None, "role": "user", "content": HAMLET}]
    with client_of(url) as client:
        whole = client.responses.create(model="router-r1", input=asked, metadata={"a": "b"})
    assert (whole.output_text, whole.metadata) == ("pound sterling", {"a": "b"})


def test_the_list_of_models_may_end_in_a_slash(url):
    assert json.loads(get(f"{url}/v1/models/"))["data"][0]["id"] == "router-r1"


def test_the_access_log_has_who_what_and_how_long_but_no_query(caplog):
    caplog.set_level("INFO", "router_r1_graph.access")
    with serving_at() as url:
        get(f"{url}/health?key=secret")
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(f"{url}/no%0Asuch%1b[31m")
        caught.value.close()
        wait_until(lambda: len(caplog.messages) == 2)
    assert re.fullmatch(r"127.0.0.1 GET /health 200 \d+\.\d{3} s", caplog.messages[0])
    assert "GET /no%0Asuch%1B%5B31m 404" in caplog.messages[1]


def test_replies_are_recorded_and_pages_shown_by_option_only(tmp_path):
    records = tmp_path / "records.jsonl"
    with serving_at(records=records, docs=True) as url:
        ask(url)
        assert "swagger" in get(f"{url}/docs")
    assert [json.loads(line)["reply"] for line in records.read_text().splitlines()]
    with serving_at() as url:
        for path in ("docs", "redoc"):
            with pytest.raises(urllib.error.HTTPError, match="404") as caught:
                get(f"{url}/{path}")
            caught.value.close()


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "remove", "content": "x", "id": "1"}],
        [{"role": "\ud800", "content": "x"}],
        [{"role": ["user"], "content": "x"}],
        [{"role": {"user": 1}, "content": "x"}],
        [{"type": "human", "content": "x"}],
        [{"lc": 1, "type": "constructor", "id": ["langchain"], "kwargs": {"content": "x"}}],
        [{"role": "user", "content": [{"type": "\ud800"}]}],
        [{"role": "user", "content": "a"}] * 100_000,
        [{"role": "user", "content": [{"type": "text", "text": "a"}] * 10_000}],
    ],
)
def test_messages_that_nobody_may_send_are_refused(url, messages):
    for path, field in (("chat/completions", "messages"), ("responses", "input")):
        body = json.dumps({"model": "router-r1", field: messages}).encode()
        request = urllib.request.Request(f"{url}/v1/{path}", body)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=100)
        with caught.value as error:
            assert error.code == 400 or (path, messages[0].get("type")) == ("responses", "human")
            assert "message" in json.load(error)["error"]


# -------------------------------------------------------------------------------- the command


@contextmanager
def command(*args, **env):
    """Run `router-r1 serve` on a free port; yields the process and its address.

    Not forked: servers run in threads of this process, and may hold locks in that moment.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "router_r1_graph.cli", "serve", "--port", "0", *args],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
    )
    try:
        line = process.stderr.readline()
        found = re.search(r"at (http://\S+)/v1", line)
        assert found, line
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def refuses(url):
    """Return whether nobody listens there any more."""
    host, _, port = url.rpartition("/")[2].partition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_lets_the_question_in_flight_be_answered(serve, tmp_path):
    go = threading.Event()

    def held(_):
        go.wait(100)
        return Reply("Paris")

    candidates = serve(held)
    yaml_pool(tmp_path, candidates, input_usd_per_mtok=1, output_usd_per_mtok=1)
    pool = str(tmp_path / "pool.yaml")
    with command("--pool", pool, "--controller", "cheapest") as (process, url):
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(ask, url)
            wait_until(lambda: candidates.count() or asked.done())
            assert "router_r1_in_flight 1.0" in get(f"{url}/metrics")
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(url))
            assert not asked.done()
            go.set()
            assert asked.result().choices[0].message.content == "Paris"
        assert process.wait() == 0
        assert process.stderr.read() == ""


@pytest.mark.long
def test_the_key_of_the_command_comes_from_the_environment_and_its_knobs_are_caps():
    options = ["--api-key-env", "ROUTER_KEY", "--budget-usd", "0", "--controller", "keyword"]
    with command(*options, ROUTER_KEY="secret word") as (_, url):
        with pytest.raises(openai.AuthenticationError):
            ask(url)
        with client_of(url, "secret word") as client:
            said = [{"role": "user", "content": HAMLET}]
            more = {"budget_usd": 100, "max_rounds": 9}  # --max-rounds has its default: no cap
            reply = client.chat.completions.create(
                model="router-r1", messages=said, extra_body=more
            )
            assert reply.router_r1["stop_reason"] == "budget_usd"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
        (["--pool", "embeded"], "did you mean 'embedded'"),
        (["--controller", "keywrod"], "did you mean 'keyword'"),
        (["--chores", "cheapst"], "--chores: unknown controller 'cheapst'"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["--port", "TAKEN"], "another program uses it; name another port (--port"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line(args, words):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = cli("serve", *[port if arg == "TAKEN" else arg for arg in args])
    assert run.returncode == 2
    assert words in run.stderr
    assert run.stderr.count("\n") == 1


def test_without_the_extra_the_command_says_what_to_install():
    code = (
        "import sys; sys.modules['fastapi'] = None; sys.argv = ['router-r1', 'serve'];"
        "from router_r1_graph.cli import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == (
        "router-r1: router-r1 serve needs the optional extra 'serve': "
        "pip install 'router-r1-graph[serve]'\n"
    )


def test_a_stream_that_takes_long_to_begin_is_kept_open(monkeypatch):
    from router_r1_graph.serving import streams

    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.05)
    asked = threading.Event()

    class Slow:
        def decide(self, view):
            asked.wait(60)
            return Turn((), answer="Paris")

    body = json.dumps(
        {"model": "router-r1", "stream": True, "messages": [{"role": "user", "content": "?"}]}
    )
    with serving_at(ChatRouterR1(pool="embedded", controller=Slow())) as url:
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=100) as response:
            lines = [response.readline() for _ in range(4)]
            asked.set()
            rest = response.read().decode()
        assert lines.count(b": keep-alive\n") >= 1
        assert '"content": "Paris"' in rest
        assert rest.endswith("data: [DONE]\n\n")


def test_a_refusal_after_the_stream_has_begun_is_an_event(monkeypatch):
    from router_r1_graph.serving import streams

    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.05)

    class Slow:
        def decide(self, view):
            threading.Event().wait(0.3)
            raise ValueError("no")

    with serving_at(ChatRouterR1(pool="embedded", controller=Slow())) as url:
        with pytest.raises(openai.APIError, match="controller"):
            list(ask(url, stream=True))
