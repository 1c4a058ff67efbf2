"""The server that the tests of failing candidates rely on, seen through the clients that ask it."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI
from pytest_socket import SocketConnectBlockedError

from openai_server import (
    Behaviour,
    Cut,
    EmptyChoices,
    Hang,
    Malformed,
    OpenAIServer,
    Reply,
    Request,
    Status,
)
from patience import long_enough

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def ask(server: OpenAIServer, **options: Any) -> Any:
    """Ask with the official client; a stream comes back as the list of its chunks."""
    options = {"model": "m", "messages": QUESTION, "timeout": 60} | options
    with openai.OpenAI(base_url=server.base_url, api_key="sk-secret", max_retries=0) as client:
        completion = client.chat.completions.create(**options)
        return list(completion) if options.get("stream") else completion


def test_a_reply_carries_text_and_usage(serve):
    server = serve(Reply("Paris", input_tokens=12, output_tokens=3, reasoning_tokens=2))
    completion = ask(server)
    assert completion.choices[0].message.content == "Paris"
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (12, 3)
    assert completion.usage.completion_tokens_details.reasoning_tokens == 2


def test_requests_are_recorded(serve):
    server = serve(Reply("Paris"))
    before = time.monotonic()
    ask(server, temperature=0.5)
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert request.body["temperature"] == 0.5
    assert request.prompt == "What is the capital of France?"
    assert before <= request.time <= time.monotonic()


def test_a_server_may_report_no_usage(serve):
    server = serve(Reply("Paris", usage=False))
    assert ask(server).usage is None


def test_a_reply_may_call_tools(serve):
    server = serve(Reply("", tool_calls=[("qwen", {"query": "capital?"}), ("llama", "{broken")]))
    choice = ask(server).choices[0]
    assert choice.finish_reason == "tool_calls"
    functions = [call.function for call in choice.message.tool_calls]
    assert [(function.name, function.arguments) for function in functions] == [
        ("qwen", '{"query": "capital?"}'),
        ("llama", "{broken"),
    ]


@pytest.mark.parametrize("stop", ["<information>", ["</answer>", "<information>"]])
def test_text_ends_before_a_stop_string(serve, stop):
    server = serve(Reply("<search>a</search><information>b", finish_reason="length"))
    choice = ask(server, stop=stop).choices[0]
    assert choice.message.content == "<search>a</search>"
    assert choice.finish_reason == "stop"


def test_a_reply_can_be_late(serve):
    server = serve(Reply("Paris", delay=0.05))
    start = time.monotonic()
    ask(server)
    assert time.monotonic() - start >= 0.05


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_a_status_raises_its_own_exception(serve, code, error):
    server = serve(Status(code, "too much", error_code="context_length_exceeded"))
    with pytest.raises(error, match="too much") as raised:
        ask(server)
    assert server.count() == 1
    assert raised.value.code == "context_length_exceeded"


def test_a_status_may_say_when_to_come_back(serve):
    server = serve(Status(429, retry_after=1.5))
    with pytest.raises(openai.RateLimitError) as raised:
        ask(server)
    assert raised.value.response.headers["retry-after"] == "1.5"


def test_a_careless_server_echoes_the_key(serve):
    server = serve(Status(401, "Incorrect API key", echo_authorization=True))
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key: Bearer sk-secret"):
        ask(server)


def test_a_hanging_server_times_out_and_stops_at_once():
    def attempt(seconds: float) -> int:
        with OpenAIServer(Hang()) as server:  # for ever, if it did not stop what hangs
            with pytest.raises(openai.APITimeoutError):
                ask(server, timeout=seconds)
        return server.count()

    assert long_enough(0.1, attempt, begun=bool) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["before_headers", "mid_body"])
def test_a_cut_is_a_connection_error(serve, where, stream):
    server = serve(Cut(where))
    with pytest.raises(openai.APIConnectionError):
        ask(server, stream=stream)


def test_a_malformed_body_is_not_json(serve):
    server = serve(Malformed("<html>Bad gateway</html>"))
    with pytest.raises(ValueError, match="Expecting value"):
        ask(server)


def test_choices_may_be_empty(serve):
    server = serve(EmptyChoices())
    assert ask(server).choices == []
    assert [chunk.choices for chunk in ask(server, stream=True)] == [[]]


def test_a_stream_ends_with_usage_when_asked_for(serve):
    server = serve(Reply("Paris is the capital.", input_tokens=12))
    chunks = ask(server, stream=True, stream_options={"include_usage": True})
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Paris is the capital."
    assert len(chunks) > 4
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == 12


def test_a_stream_has_no_usage_unless_asked_for_and_may_call_tools(serve):
    server = serve(Reply("", tool_calls=[("qwen", {"query": "capital?"})]))
    chunks = ask(server, stream=True)
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[1].choices[0].delta.tool_calls[0].function.name == "qwen"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_list_is_used_in_order_and_its_last_repeats(serve):
    server = serve([Status(503), Reply("one"), Reply("two")])
    with pytest.raises(openai.InternalServerError):
        ask(server)
    assert [ask(server).choices[0].message.content for _ in range(3)] == ["one", "two", "two"]


def shout(request: Request) -> Behaviour:
    return Reply(request.prompt.upper())


def test_each_model_has_its_own_answer(serve):
    server = serve({"a": [Reply("one"), Reply("two")], "b": shout})
    assert ask(server, model="a").choices[0].message.content == "one"
    assert ask(server, model="b").choices[0].message.content == "WHAT IS THE CAPITAL OF FRANCE?"
    assert ask(server, model="a").choices[0].message.content == "two"
    with pytest.raises(openai.NotFoundError, match="'c' does not exist"):
        ask(server, model="c")
    assert (server.count("a"), server.count("b"), server.count()) == (2, 1, 4)
    with openai.OpenAI(base_url=server.base_url, api_key="x") as client:
        assert [model.id for model in client.models.list()] == ["a", "b"]


def test_a_failing_function_of_a_test_fails_the_test():
    def fail(request: Request) -> Behaviour:
        assert request.model == "other"

    with pytest.raises(AssertionError), OpenAIServer(fail) as server:
        with pytest.raises(openai.APIConnectionError):
            ask(server)


def test_requests_are_answered_in_parallel(serve):
    together = threading.Barrier(4, timeout=60)

    def wait(request: Request) -> Behaviour:
        together.wait()
        return Reply("Paris")

    model = ChatOpenAI(model="m", base_url=serve(wait).base_url, api_key="x", max_retries=0)
    assert [reply.content for reply in model.batch(["?"] * 4)] == ["Paris"] * 4


async def test_the_async_client_gets_the_same_answers(serve):
    server = serve([Status(429, retry_after=0), Reply("Paris")])
    async with openai.AsyncOpenAI(
        base_url=server.base_url, api_key="x", max_retries=0, timeout=60
    ) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="m", messages=QUESTION)
        completion = await client.chat.completions.create(model="m", messages=QUESTION)
    assert completion.choices[0].message.content == "Paris"


def test_langchain_reads_usage_and_the_cost_that_a_provider_reports(serve):
    server = serve(Reply("Paris", input_tokens=12, output_tokens=3, cost=0.0007))
    model = ChatOpenAI(model="m", base_url=server.base_url, api_key="x", max_retries=0)
    reply = model.invoke("What is the capital of France?")
    assert reply.content == "Paris"
    assert reply.usage_metadata["input_tokens"] == 12
    assert reply.response_metadata["token_usage"]["cost"] == 0.0007


# 192.0.2.1 is reserved for documentation: nothing answers there, should the guard ever fail.
def test_only_loopback_can_be_reached():
    with socket.socket() as outside:
        outside.settimeout(1)
        with (
            pytest.warns(UserWarning, match="tried to use socket"),
            pytest.raises(SocketConnectBlockedError),
        ):
            outside.connect(("192.0.2.1", 443))
