"""A key is nowhere but in the header of a request, however careless the server that got it."""

from __future__ import annotations

import json
import logging
import re
import traceback
from base64 import b64encode
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langsmith import Client, tracing_context
from pydantic import ValidationError

from openai_server import EmptyChoices, Malformed, Reply, Status, Wire
from router_r1_graph import CandidatePool, create_router_r1, parse_controller
from router_r1_graph.candidates import Candidate
from router_r1_graph.candidates.keys import beginning, scrub
from router_r1_graph.candidates.providers import make_chat_model
from router_r1_graph.candidates.tool import pool_tools
from router_r1_graph.errors import PoolError
from router_r1_graph.trace import Trace, write_traces
from yaml_pool import bills, both_ways, run, scripted, yaml_pool

SEARCH = "<search> Ada: Capital of France? </search>"
ANSWER = "<answer> Paris </answer>"
# Neither looks like the other: one form is known by its beginning, one only by its value.
KEYS = ["sk-proj-q8Zr2Lw5Tn0Vb7Xc", "nvapi_q8Zr2Lw5Tn0Vb7Xc"]
each_key = pytest.mark.parametrize("key", KEYS)

CARELESS = {
    "an error": Status(401, "Incorrect API key", echo_authorization=True),
    "an error that is retried": Status(500, "For", retry_after=0, echo_authorization=True),
    "a body that is not JSON": lambda request: Malformed(f"got {request.headers}"),
    "an error under status 200": lambda request: Malformed(
        json.dumps({"error": {"message": f"bad {request.headers['authorization']}"}})
    ),
    "the reply itself": lambda request: Reply(f"Paris {request.headers['authorization']}"),
}
careless = pytest.mark.parametrize("answer", CARELESS.values(), ids=CARELESS)


class Listener(BaseCallbackHandler):
    """Keeps all that a tracer is told of: what LangSmith would be sent."""

    run_inline = True

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.texts: list[str] = []

    def on_llm_error(self, error: BaseException, **details: Any) -> None:
        self.errors.append(error)
        self.texts += [repr(details), "".join(traceback.format_exception(error))]

    on_tool_error = on_chain_error = on_llm_error

    def on_chat_model_start(self, serialized: Any, messages: Any, **details: Any) -> None:
        self.texts += [json.dumps(serialized), repr(messages), repr(details)]

    def on_tool_start(self, serialized: Any, input_str: str, **details: Any) -> None:
        self.texts += [json.dumps(serialized), input_str, repr(details)]

    def on_tool_end(self, output: Any, **details: Any) -> None:
        self.texts += [repr(output), repr(details)]

    def on_chain_end(self, outputs: Any, **details: Any) -> None:
        self.texts += [repr(outputs), repr(details)]


def keyed_pool(folder, server, monkeypatch, key, **more):
    monkeypatch.setenv("CANDIDATE_API_KEY", key)
    return yaml_pool(folder, server, api_key_env="CANDIDATE_API_KEY", max_retries=1, **more)


def held_by(error: BaseException) -> list[str]:
    """Return as text all that hangs on an exception: attributes, causes and contexts."""
    texts, todo, seen = [], [error], set()
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        texts += [str(thing), repr(thing)]
        if isinstance(thing, BaseException):
            todo += [thing.args, thing.__cause__, thing.__context__]
        if isinstance(thing, dict):
            todo += thing.values()
        elif isinstance(thing, list | tuple):
            todo += thing
        else:
            todo.append(getattr(thing, "__dict__", ()))
        # A request and a response of httpx show no header and no body in their repr.
        todo += [bytes(getattr(thing, name, b"")) for name in ("_content",)]
        todo += [getattr(getattr(thing, "headers", None), "raw", ())]
    return texts


@both_ways
@each_key
@careless
def test_a_key_is_in_no_state_log_or_callback(
    serve, tmp_path, monkeypatch, caplog, how, key, answer
):
    server = serve(answer)
    pool = keyed_pool(tmp_path, server, monkeypatch, key)
    listener = Listener()
    caplog.set_level(logging.DEBUG)  # of the root: this library, langchain, openai, httpx
    result = run(scripted(pool, SEARCH, ANSWER), how, {"callbacks": [listener]})
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    assert len(bills(result)) == 1
    assert caplog.records
    for text in [repr(result), str(result), caplog.text, *listener.texts]:
        assert key not in text


@each_key
@careless
def test_a_key_is_in_no_checkpoint_and_no_trace(serve, tmp_path, monkeypatch, key, answer):
    pool = keyed_pool(tmp_path, serve(answer), monkeypatch, key)
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite")) as saver:
        graph = scripted(pool, SEARCH, ANSWER, checkpointer=saver)
        result = run(graph, "invoke", {"configurable": {"thread_id": "1"}})
    trace = Trace.from_state(result, pool=pool, controller="scripted")
    write_traces(tmp_path / "trace.jsonl", [trace])
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert b"Capital of France?" in written["checkpoints.sqlite"]
    assert b"Capital of France?" in written["trace.jsonl"]
    for data in written.values():
        assert key.encode() not in data


async def test_a_key_is_in_no_checkpoint_of_an_async_run(serve, tmp_path, monkeypatch):
    pool = keyed_pool(tmp_path, serve(CARELESS["an error"]), monkeypatch, KEYS[0])
    file = tmp_path / "checkpoints.sqlite"
    async with AsyncSqliteSaver.from_conn_string(str(file)) as saver:
        graph = scripted(pool, SEARCH, ANSWER, checkpointer=saver)
        await graph.ainvoke({"question": "?"}, {"configurable": {"thread_id": "1"}})
    assert b"Incorrect API key" in file.read_bytes()
    assert KEYS[0].encode() not in file.read_bytes()


@both_ways
@each_key
def test_what_a_callback_is_told_of_an_error_holds_no_key(serve, tmp_path, monkeypatch, how, key):
    pool = keyed_pool(tmp_path, serve(CARELESS["an error"]), monkeypatch, key)
    listener = Listener()
    run(scripted(pool, SEARCH, ANSWER), how, {"callbacks": [listener]})
    (error,) = listener.errors
    assert "Incorrect API key" in str(error)
    for text in held_by(error):
        assert key not in text


@both_ways
@pytest.mark.parametrize("key", ["q8Zr2Lw5Tn0Vb7Xc\n", "q8Zr2Lw5Tn0Vb7Xc\N{HORIZONTAL ELLIPSIS}"])
def test_a_key_that_no_header_can_hold_is_not_shown_either(serve, tmp_path, monkeypatch, how, key):
    pool = keyed_pool(tmp_path, serve(Reply("Paris")), monkeypatch, key)
    listener = Listener()
    result = run(scripted(pool, SEARCH, ANSWER), how, {"callbacks": [listener]})
    for text in [repr(result), *listener.texts, *map(repr, listener.errors)]:
        assert key[:-1] not in text


def test_a_controllers_key_is_nowhere_either(serve, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CONTROLLER_API_KEY", KEYS[1])
    server = serve({"controller": Status(401, "Incorrect", echo_authorization=True)})
    pool = yaml_pool(tmp_path, server, controller={"api_key_env": "CONTROLLER_API_KEY"})
    listener = Listener()
    caplog.set_level(logging.DEBUG)
    graph = create_router_r1(pool, parse_controller("pool", pool)).compile()
    result = run(graph, "invoke", {"callbacks": [listener]})
    assert result["stop_reason"] == "controller_error"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEYS[1]}"
    for text in [repr(result), caplog.text, *listener.texts]:
        assert KEYS[1] not in text


@each_key
def test_a_failing_stream_does_not_show_the_key(serve, tmp_path, monkeypatch, key):
    pool = keyed_pool(tmp_path, serve(CARELESS["an error"]), monkeypatch, key)
    listener = Listener()
    graph = scripted(pool, SEARCH, ANSWER)
    parts = list(graph.stream({"question": "?"}, {"callbacks": [listener]}, stream_mode="messages"))
    assert parts
    for text in [repr(parts), *listener.texts]:
        assert key not in text
    for text in held_by(listener.errors[0]):
        assert key not in text


async def test_a_failing_async_stream_does_not_show_the_key(serve, tmp_path, monkeypatch):
    pool = keyed_pool(tmp_path, serve(CARELESS["an error"]), monkeypatch, KEYS[1])
    listener = Listener()
    graph = scripted(pool, SEARCH, ANSWER)
    config = {"callbacks": [listener]}
    parts = [
        part async for part in graph.astream({"question": "?"}, config, stream_mode="messages")
    ]
    assert parts
    for text in [repr(parts), *listener.texts, *held_by(listener.errors[0])]:
        assert KEYS[1] not in text


class Session:
    """Stands where LangSmith's HTTP session does, and keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def request(self, *args: Any, **kwargs: Any) -> Any:
        self.sent.append(repr((args, kwargs)))
        raise ConnectionError("not sent")

    def mount(self, *args: Any) -> None: ...
    def close(self) -> None: ...


@each_key
def test_langsmith_is_not_sent_the_key(serve, tmp_path, monkeypatch, key):
    pool = keyed_pool(tmp_path, serve(CARELESS["an error"]), monkeypatch, key)
    session = Session()
    client = Client(
        api_url="http://127.0.0.1:9",
        api_key="x",
        session=session,
        auto_batch_tracing=False,
        info={},
    )
    with tracing_context(enabled=True, client=client, project_name="test"):
        run(scripted(pool, SEARCH, ANSWER), "invoke")
    sent = "".join(session.sent)
    assert "Incorrect API key" in sent
    assert key not in sent


@pytest.mark.parametrize("status", [200, 500])
def test_a_long_error_that_is_full_of_keys_tells_no_half_of_one(
    serve, tmp_path, monkeypatch, status
):
    key = "Zq9Wm2Lr7Tb4Xv8Nc3Yh6Kp1" * 20
    monkeypatch.setenv("KEY", key)
    server = serve(Wire({"error": {"message": f"{key} " * 2000}}, code=status))
    pool = yaml_pool(tmp_path, server, api_key_env="KEY")
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), "invoke"))
    assert "***" in bill["error"]["message"]
    assert key[:6] not in bill["error"]["message"]


@both_ways
@each_key
@pytest.mark.parametrize("words", [1, 230])
def test_a_refusal_that_echoes_the_key_tells_nothing_of_it(
    serve, tmp_path, monkeypatch, how, key, words
):
    monkeypatch.setenv("KEY", key)

    def refuse(request):
        said = "no" * words + request.headers["authorization"].removeprefix("Bearer")
        message = {"role": "assistant", "content": None, "refusal": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Wire({"id": "x", "choices": [choice], "usage": {"prompt_tokens": 3}})

    pool = yaml_pool(tmp_path, serve(refuse), api_key_env="KEY")
    result = run(scripted(pool, SEARCH, ANSWER), how)
    (bill,) = bills(result)
    assert bill["error"]["kind"] == "declined"
    assert bill["error"]["message"].endswith("no ***")
    assert key[:9] not in repr(result)


def test_an_error_in_words_alone_tells_no_half_of_a_key(serve, tmp_path, monkeypatch):
    key = KEYS[1]
    monkeypatch.setenv("KEY", key)
    for before in range(270, 301, 5):
        words = f"internal server error: {'x' * before}"[:before]
        server = serve(Malformed(f"{words} {key} tail", content_type="text/plain"))
        pool = yaml_pool(tmp_path, server, api_key_env="KEY")
        (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), "invoke"))
        assert bill["error"]["kind"] == "server_error"
        assert bill["error"]["message"].endswith("x *** tail")


def test_the_beginning_of_a_text_is_as_long_as_wanted():
    assert beginning("a" * 20, 10) == "a" * 10
    assert beginning("a" * 5, 10) == "a" * 5
    assert beginning("x SECRET1 y", 5, "SECRET1") == "x "
    assert beginning("x SECRET1 y", 10, "SECRET1") == "x *** "


# ------------------------------------------------ other secrets, named as {env: NAME}

HEADER, QUERY, BODY = "H3aderOfSomebody+/=", "Qu3ryOfSomebody", "B0dyOfSomebody"
NAMED = {
    "default_headers": {"X-Pass": {"env": "HEADER"}},
    "default_query": {"code": {"env": "QUERY"}},
    "extra_body": {"deep": [{"pass": {"env": "BODY"}}]},
}


def echo(request):
    """Send all that came with a request back."""
    words = f"{request.headers['x-pass']} {request.path} {json.dumps(request.body)}"
    return Reply(f"Paris {words}") if "France" in str(request.body) else Status(400, words)


@both_ways
@pytest.mark.parametrize("query", ["France?", "an error"])
def test_what_an_option_takes_from_the_environment_is_kept_like_a_key(
    serve, tmp_path, monkeypatch, caplog, how, query
):
    for name, secret in (("HEADER", HEADER), ("QUERY", QUERY), ("BODY", BODY)):
        monkeypatch.setenv(name, secret)
    server, listener = serve(echo), Listener()
    pool = yaml_pool(tmp_path, server, options=NAMED)
    caplog.set_level(logging.DEBUG)
    with SqliteSaver.from_conn_string(str(tmp_path / "c.sqlite")) as saver:
        graph = scripted(pool, f"<search> Ada: {query} </search>", ANSWER)
        graph.checkpointer = saver if how == "invoke" else None
        config = {"configurable": {"thread_id": "1"}, "callbacks": [listener]}
        result = run(graph, how, config)
    request = server.requests[0]
    assert request.headers["x-pass"] == HEADER
    assert request.path.endswith(f"code={QUERY}")
    assert request.body["deep"] == [{"pass": BODY}]
    tool = pool_tools(pool)[0]
    shown = [repr(result), caplog.text, *listener.texts, repr(tool), dumps(tool.model), repr(pool)]
    shown += [file.read_bytes().decode("latin1") for file in tmp_path.iterdir()]
    shown += [pool.model_dump_json(), str(Trace.from_state(result).model_dump_json())]
    for text in shown:
        for secret in (HEADER, QUERY, BODY):
            assert secret not in text


@pytest.mark.parametrize("scheme", ["Bearer", "Basic", "Token", "ApiKey", "SSO-Key", ""])
@pytest.mark.parametrize("secret", ["t0k-9f8e7d6c5b4a", 'p"ss\\w0rd77', "\u00fcber-schl\u00fcssel"])
def test_a_server_that_tells_a_part_of_a_header_tells_no_secret(
    serve, tmp_path, monkeypatch, scheme, secret
):
    def told(request):
        return Status(401, f"{secret}, {json.dumps(secret)}")

    given = b64encode(f"me:{secret}".encode()).decode() if scheme == "Basic" else secret
    monkeypatch.setenv("MYAUTH", f"{scheme} {given}".strip())
    # Not as a header: those hold no letters beyond ASCII.
    pool = yaml_pool(tmp_path, serve(told), options={"extra_body": {"x": {"env": "MYAUTH"}}})
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), "invoke"))
    assert bill["error"]["kind"] == "auth"
    for part in (secret, secret[1:], secret[-5:], json.dumps(secret)[1:-1], given):
        assert part not in str(bill["error"]["message"])


@both_ways
@pytest.mark.parametrize("provider", ["openai", "langchain"])
def test_callbacks_see_nothing_of_how_a_server_is_reached(
    serve, tmp_path, monkeypatch, how, provider
):
    server, listener = serve([Reply("Paris"), Status(400)]), Listener()
    options = {"default_headers": {"X-Title": "My App"}, "default_query": {"api-version": "v-one"}}
    own = {"model": "openai:ada", "provider": provider} if provider == "langchain" else {}
    candidates = {"Ada": {**own, "options": options}}
    pool = keyed_pool(tmp_path, server, monkeypatch, KEYS[0], candidates=candidates)
    graph = scripted(pool, SEARCH, SEARCH.replace("?", "!"), ANSWER)
    run(graph, how, {"callbacks": [listener]}, max_calls_per_round=1)
    assert {request.headers["x-title"] for request in server.requests} == {"My App"}
    assert server.requests[0].path.endswith("api-version=v-one")
    for text in listener.texts:
        for part in ("My App", "X-Title", "v-one", "api-version", server.base_url):
            assert part not in text


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"base_url": "http://me:hunter22@host/v1"}, "base_url"),
        ({"base_url": "http://host/v1?key=hunter22"}, "base_url"),
        ({"base_url": "http://host/sk-hunter22hunter22hunter/v1"}, "base_url"),
        ({"base_url": "http://host/v1/gsk_hunter22hunter22"}, "base_url"),
        ({"base_url": "http://host/v1#sk-hunter22hunter22hunter"}, "base_url"),
        ({"base_url": "http://host/v1#key=sk%2Dhunter22hunter22hunter"}, "base_url"),
        ({"options": {"default_headers": {"X-Api-Key": "hunter22"}}}, "default_headers.X-Api-Key"),
        ({"options": {"default_headers": {"Authorization": "Bearer hunter22"}}}, "Authorization"),
        ({"options": {"default_headers": {"X-Own": "Hunter22isMine"}}}, "default_headers.X-Own"),
        ({"options": {"default_query": {"code": "hunter22"}}}, "default_query.code"),
        ({"options": {"openai_proxy": "http://me:hunter22@proxy"}}, "openai_proxy"),
        ({"options": {"extra_body": {"auth": [{"client_secret": "hunter22"}]}}}, "client_secret"),
        ({"options": {"model_kwargs": {"x": "sk-hunter22hunter22"}}}, "model_kwargs.x"),
        ({"options": {"user": {"env": "hunter22"}}}, "user"),
    ],
)
def test_a_secret_that_is_written_out_is_refused_with_the_way_to_name_it(tmp_path, settings, key):
    file = tmp_path / "pool.yaml"
    file.write_text(json.dumps({"candidates": [{"name": "Ada", **settings}]}))
    with pytest.raises(PoolError, match=re.escape(key)) as raised:
        CandidatePool.from_yaml(file)
    assert "hunter22" not in str(raised.value)
    assert "env: NAME" in str(raised.value) or "NAME of an environment variable" in str(
        raised.value
    )


NAMES_OF_SECRETS = [
    "aws_secret_access_key",
    "secret_access_key",
    "secret_key",
    "access_key",
    "accessKey",
    "private_key",
    "account_key",
    "AccountKey",
    "subscription_key",
    "azure_ad_token",
    "token",
    "hf_token",
    "hub_api_token",
    "watsonx_token",
    "auth_token",
    "client_secret",
    "clientSecret",
    "passphrase",
    "credentials",
    "password",
    "db_pwd",
    "jwt",
    "sas",
    "connection_string",
    "session_token",
]


@pytest.mark.parametrize("name", NAMES_OF_SECRETS)
@pytest.mark.parametrize("above", [(), ("model_kwargs",), ("client_kwargs", "deep")])
def test_an_option_that_is_named_like_a_secret_names_a_variable(monkeypatch, name, above):
    def options(value):
        option = {name: value}
        for outer in reversed(above):
            option = {outer: [option] if outer == "deep" else option}
        return option

    with pytest.raises(ValidationError, match=rf"{name}: a secret .*write {{env: NAME}}") as raised:
        Candidate(name="Ada", options=options("hunter22"))
    assert "hunter22" not in str(raised.value).partition("[type=")[0]
    for allowed in ({"env": "NAME"}, 7, True, None):
        assert Candidate(name="Ada", options=options(allowed))


@pytest.mark.parametrize("path", ["sk-learn/v1", "models/sk-telecom-ax/v1", "hf_hub_inference/v1"])
def test_an_address_that_only_sounds_like_a_key_is_one(path):
    assert Candidate(name="Ada", base_url=f"http://host/{path}")


@pytest.mark.parametrize(
    "settings",
    [
        {"options": {"default_headers": {"X-Signing": ["hunter22"]}}},
        {"options": {"default_headers": "hunter22"}},
        {"options": "hunter22"},
        {"options": {"timeout": {"hunter22": ["hunter22"]}}},
        {"options": {"organization": ["hunter22"]}},
        {"api_key_env": 22222222},
        {"api_kee": "sk-hunter22hunter22"},
        {"base_url": "ftp://host/hunter22"},
    ],
)
def test_no_error_of_a_pool_shows_what_may_be_a_secret(tmp_path, settings):
    record = {"name": "Ada", "base_url": "http://127.0.0.1:9/v1", **settings}
    file = tmp_path / "pool.yaml"
    file.write_text(json.dumps({"candidates": [record]}))
    with pytest.raises(PoolError) as raised:
        make_chat_model(CandidatePool.from_yaml(file).candidates[0])
    told = [str(raised.value)]
    try:
        CandidatePool.model_validate({"candidates": [record]})
    except ValidationError as error:
        told.append(str(error))
    assert not [text for text in told if "hunter22" in text or "22222222" in text]


def test_a_private_key_is_a_secret_by_any_name():
    text = json.dumps({"type": "service_account", "pem": "-----BEGIN PRIVATE KEY-----\nMIIE"})
    with pytest.raises(ValidationError, match="account_info: a secret"):
        Candidate(name="Ada", options={"account_info": text})


def test_what_only_sounds_like_a_secret_is_an_option(monkeypatch):
    options = {
        "stop_token_ids": [1, 2],
        "min_tokens": "5",
        "prompt_cache_key": "mine",
        "model_kwargs": {"stop_token": "END", "image_token": "<image>", "mask_token": "[MASK]"},
        "output_key": "answer",
        "add_bos_token": False,
        "default_headers": {"X-Title": "My App 2", "User-Agent": "MyApp/1.2.3", "Accept": "x/y"},
        "default_query": {"api-version": "2024-10-21"},
        "extra_body": {"pad_token": "<pad>", "key": "c", "tokenizer": "Qwen2Tokenizer"},
        "max_prompt_tokens": 5,
        "organization": "org-abc123",
    }
    assert Candidate(name="Ada", options=options).options == options
    own = Candidate(name="Ada", options={"default_headers": {"X": {"env": "NOT_THERE"}}})
    with pytest.raises(PoolError, match="the environment variable NOT_THERE is not set"):
        CandidatePool(candidates=(own,)).require_keys()


# ------------------------------------------------------------- what is left of an exception


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (Status(401), "OpenAIAuthenticationError"),
        (Status(429, retry_after=7), "OpenAIRateLimitError"),
        (Malformed(), "JSONDecodeError"),
        (EmptyChoices(), "NoChoiceError"),
        (Malformed('{"choices": [{"message": {"content": {"a": 1}}}]}'), "ValidationError"),
    ],
)
def test_an_error_without_a_key_keeps_its_class_and_its_words(
    serve, tmp_path, monkeypatch, answer, name
):
    pool = keyed_pool(tmp_path, serve(answer), monkeypatch, KEYS[0])
    with pytest.raises(Exception, match=r".+") as raised:
        make_chat_model(pool.candidates[0]).invoke("?")
    assert type(raised.value).__name__ == name
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_an_error_without_a_key_keeps_its_status_and_when_to_come_back(
    serve, tmp_path, monkeypatch
):
    pool = keyed_pool(tmp_path, serve(Status(429, "Slow down", 7)), monkeypatch, KEYS[0])
    with pytest.raises(Exception, match="Slow down") as raised:
        make_chat_model(pool.candidates[0]).invoke("?")
    assert raised.value.status_code == 429
    assert raised.value.response.headers["retry-after"] == "7"


def test_a_serialized_model_names_the_class_of_langchain_and_holds_no_key(
    serve, tmp_path, monkeypatch
):
    pool = keyed_pool(tmp_path, serve(Reply("Paris")), monkeypatch, KEYS[0])
    model = make_chat_model(pool.candidates[0])
    serialized = json.loads(dumps(model))
    assert serialized["id"] == ["langchain", "chat_models", "openai", "ChatOpenAI"]
    assert serialized["kwargs"]["openai_api_key"]["type"] == "secret"
    assert KEYS[0] not in dumps(model) + repr(model) + str(model)


def test_what_looks_like_a_key_is_taken_out_of_a_text():
    assert scrub("Incorrect: sk-abc123def456.") == "Incorrect: sk-***"
    assert scrub("got 'Authorization: Bearer abcdef123456'") == "got 'Authorization: Bearer ***'"
    begins = ("AIza", "sk-ant-", "sk-or-v1-", "gsk_", "xai-", "hf_", "nvapi-", "pplx-", "AKIA")
    for begin in (*begins, "vck_", "eyJ"):
        rest = "q8Zr2Lw5Tn0Vb7Xc" + (".eyJhdWQi.x" if begin == "eyJ" else "")
        assert scrub(f"key {begin}{rest}, no") in (
            f"key {begin}***, no",
            "key sk-***, no",
        )
    for before in ("x-api-key: ", "'api-key': '", "https://h/v1?key=", "Authorization: Basic "):
        assert "0123456789abcdef" not in scrub(f"{before}0123456789abcdef")
    assert scrub("at https://me:hunter22@host/v1") == "at https://***@host/v1"


@pytest.mark.parametrize(
    "text",
    ["hf_hub_download failed", "model pplx-7b-online-chat", "a task-force", "api_key_env: X"],
)
def test_what_is_no_key_stays(text):
    assert scrub(text) == text


def test_a_known_key_is_taken_out_whatever_it_looks_like():
    assert scrub("bad key hunter22!", "hunter22") == "bad key ***!"


def test_a_key_too_short_to_be_one_does_not_eat_the_message():
    assert scrub("too many tokens", "x") == "too many tokens"
    assert scrub("too many tokens", "to") == "too many tokens"


@both_ways
def test_a_key_echoed_in_a_tool_call_goes_to_nobody(serve, tmp_path, monkeypatch, how):
    key = KEYS[0]
    monkeypatch.setenv("CONTROLLER_KEY", key)

    def controller(request):
        if len(request.body["messages"]) > 1:
            return Reply("Paris")
        echoed = request.headers["authorization"]
        return Reply("", tool_calls=[("Ada", {"query": f"Use {echoed}: where is Paris?"})])

    server = serve({"controller": controller, "ada": Reply("Paris")})
    pool = yaml_pool(
        tmp_path,
        server,
        {"Ada": {}},
        controller={"protocol": "tools", "api_key_env": "CONTROLLER_KEY"},
    )
    graph = create_router_r1(pool, parse_controller("pool", pool)).compile()
    result = run(graph, how)
    trace = Trace.from_state(result, pool=pool, controller="x")
    assert len(bills(result)) == 1
    assert key not in repr(result)
    assert key not in trace.model_dump_json()
    assert key not in json.dumps([r.body for r in server.requests])
