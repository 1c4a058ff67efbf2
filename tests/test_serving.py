"""The router behind OpenAI's API, asked over loopback by the clients that people use."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager

import openai
import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from fakes import NEVER, FakeChat, PaidController, TypingChat, answer, make_pool, search
from in_process import Command, cli
from openai_server import Reply
from patience import wait_until
from router_r1_graph import ChatModelController, ChatRouterR1, ReplyError, ScriptedController
from yaml_pool import yaml_pool

uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
serving = pytest.importorskip("router_r1_graph.serving.app", reason="needs the extra 'serve'")

HAMLET = "What is the currency of the country where the author of Hamlet was born?"


@contextmanager
def serving_at(model=None, **options):
    """Serve a router in a thread of this process; yields the address."""
    listening = serving.listen("127.0.0.1", 0)
    app = serving.create_app(model or ChatRouterR1(), **options)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def client_of(url, key="x"):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        yield client


def ask(url, question=HAMLET, **options):
    with client_of(url) as client:
        said = [{"role": "user", "content": question}]
        reply = client.chat.completions.create(
            **{"model": "router-r1", "messages": said, **options}
        )
        return list(reply) if options.get("stream") else reply


def get(url):
    with urllib.request.urlopen(url, timeout=100) as response:
        return response.read().decode()


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
    assert not usage or chunks[-1].usage.total_tokens > 0


def typing_model(*texts, **options):
    """A router whose controller is a chat model that writes these turns piece by piece."""
    chat = TypingChat(texts=[list(text) for text in texts], **options)
    pool = make_pool("Ada")
    controller = ChatModelController(chat)
    return ChatRouterR1(pool=pool, controller=controller, models={"Ada": FakeChat()}), chat


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
    with serving_at(model) as url, pytest.raises(openai.APIError, match="not the one taken") as e:
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


def test_it_lists_its_model(url):
    with client_of(url) as client:
        assert [model.id for model in client.models.list()] == ["router-r1"]


def test_the_conversation_and_the_knobs_of_a_request_reach_the_run():
    views = []

    def script(view):
        views.append(view)
        return answer()

    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who wrote Hamlet?"},
        {"role": "assistant", "content": "Shakespeare"},
        {"role": "user", "content": [{"type": "text", "text": "Where was he born?"}]},
    ]
    knobs = {"cost_weight": 0.9, "budget_usd": 0.01, "max_rounds": 2, "deadline_seconds": 20}
    model = ChatRouterR1(controller=ScriptedController(script), max_calls_per_round=3)
    with serving_at(model) as url, client_of(url) as client:
        client.chat.completions.create(
            model="router-r1", messages=said, temperature=0.3, extra_body=knobs, user="me"
        )
    (view,) = views
    assert view.question == "Where was he born?"
    assert [m.text for m in view.conversation] == ["Who wrote Hamlet?", "Shakespeare"]
    assert {name: getattr(view.context, name) for name in knobs} == knobs
    assert (view.context.temperature, view.context.max_calls_per_round) == (0.3, 3)


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
        ({"tools": [{"type": "function"}]}, "tools", "unknown field"),
        ({"n": 2}, "n", "1"),
        ({"stream": "perhaps"}, "stream", "boolean"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "bard", "content": "x"}]}, "messages.0", "bard"),
        ({"messages": [{"role": "user"}]}, "messages.0", "content"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "no question"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages.0.content",
            "'text'",
        ),
    ],
)
def test_a_bad_value_is_refused_by_name(url, given, param, words):
    with pytest.raises(openai.BadRequestError, match=re.escape(words)) as caught:
        ask(url, extra_body=given)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


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
    with client_of(url) as client, pytest.raises(openai.NotFoundError, match="Not Found"):
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


class Cancelled(FakeChat):
    """Hangs, and says when its call is given up."""

    asked: threading.Event
    given_up: threading.Event

    async def _agenerate(self, messages, stop=None, run_manager=None, **_):
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


# -------------------------------------------------------------------------------- the command


@contextmanager
def command(*args, **env):
    """Run `router-r1 serve` on a free port; yields the process and its address."""
    with Command("serve", "--port", "0", *args, env=env) as process:
        line = process.stderr.readline()
        found = re.search(r"at (http://\S+)/v1", line)
        assert found, line
        yield process, found[1]


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


def test_the_key_of_the_command_comes_from_the_environment():
    with command("--api-key-env", "ROUTER_KEY", ROUTER_KEY="secret word") as (_, url):
        with pytest.raises(openai.AuthenticationError):
            ask(url)
        with client_of(url, "secret word") as client:
            assert client.models.list().data


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
        (["--pool", "embeded"], "did you mean 'embedded'"),
        (["--controller", "keywrod"], "did you mean 'keyword'"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line(args, words):
    run = cli("serve", *args)
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
