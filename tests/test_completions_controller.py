"""A policy behind a completions endpoint: a real server on loopback, a tiny model behind it."""

import asyncio
import json
import logging
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, replace

import httpx
import pytest

from extras import needs

needs("local")

from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage

from openai_server import Completion, Cut, EmptyChoices, Hang, Malformed, Status, Wire
from router_r1_graph import (
    CandidatePool,
    ChatRouterR1,
    ConfigError,
    ControllerError,
    RouterContext,
    Trace,
    create_router_r1,
    parse_controller,
)
from router_r1_graph.budget import Left
from router_r1_graph.candidates import ModelSettings, guard
from router_r1_graph.candidates.call import aask, ask
from router_r1_graph.candidates.failures import classify
from router_r1_graph.controllers.controller import View
from router_r1_graph.controllers.policy.completion import status_error
from router_r1_graph.controllers.policy.completions import CompletionsController
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import PolicySettings
from router_r1_graph.controllers.policy.request import CompletionRequest
from router_r1_graph.controllers.policy.sampling import Sample
from tiny_policy import make_model, make_tokenizer
from training.export import rollout_row
from yaml_pool import both_ways

SETTINGS = PolicySettings(max_new_tokens=12)
KEY = "nvapi_q8Zr2Lw5Tn0Vb7Xc"


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(tokenizer)


@pytest.fixture
def local(model, tokenizer):
    return PolicyController(model, tokenizer, SETTINGS)


@pytest.fixture
def samples(model, tokenizer):
    """Return how a server answers that holds the tiny model: greedily, token by token."""
    generator, lock = PolicyController(model, tokenizer, SETTINGS).generator, threading.Lock()

    def answer(request, **how):
        body = request.body
        one = Sample(
            body["prompt"], max_new_tokens=body["max_tokens"], temperature=body["temperature"]
        )
        with lock:
            generator.generate([one])
        ids = one.ids
        return Completion(
            tokenizer.decode(ids),
            ids,
            one.logprobs,
            finish_reason="stop" if one.finished else "length",
            usage={"prompt_tokens": len(body["prompt"]), "completion_tokens": len(ids)},
            **how,
        )

    return answer


def controller(server, tokenizer, **settings):
    options = {"model": "m", "max_retries": 0, "timeout_seconds": 60, **settings}
    return CompletionsController(
        tokenizer, ModelSettings(base_url=server.base_url, **options), SETTINGS
    )


def graph_of(policy):
    return create_router_r1(CandidatePool.embedded(), policy).compile()


def run(policy, how="invoke", question="Who wrote Hamlet?", **context):
    asked = getattr(graph_of(policy), how)({"question": question}, context=context)
    return asked if how == "invoke" else asyncio.run(asked)


def turns(result):
    return [m for m in result["scratchpad"] if isinstance(m, AIMessage)]


def tokens(result):
    return [m.additional_kwargs["tokens"] for m in turns(result)]


def same_tokens(result, other):
    assert len(tokens(result)) == len(tokens(other)) == 5
    for one, two in zip(tokens(result), tokens(other), strict=True):
        assert one["input_ids"] == two["input_ids"]
        assert one["output_ids"] == two["output_ids"]
        assert one["logprobs"] == pytest.approx(two["logprobs"], abs=1e-6)
    assert [m.text for m in turns(result)] == [m.text for m in turns(other)]


@pytest.mark.sampled(3)
@both_ways
@pytest.mark.parametrize("ids_as", ["token_ids", "token_id:N"])
def test_over_http_and_in_process_a_run_is_the_same_tokens(
    serve, samples, tokenizer, local, how, ids_as
):
    server = serve(lambda request: samples(request, ids_as=ids_as))
    served = run(controller(server, tokenizer), how)
    same_tokens(served, run(local))
    context = []
    for request, turn in zip(server.requests, tokens(served), strict=True):
        assert request.path == "/v1/completions"
        assert request.body["prompt"] == [*context, *turn["input_ids"]]
        context = [*request.body["prompt"], *turn["output_ids"]]


@both_ways
def test_a_run_that_asks_candidates_sends_their_replies_as_they_were_encoded_once(
    serve, tokenizer, local, how
):
    said = ["<search> Magnivor: Who wrote Hamlet? </search>", "<answer> W. S. </answer>"]
    sampled = [answer_ids(tokenizer, text) for text in said]
    server = serve([Completion("", ids, [-0.1] * len(ids)) for ids in sampled])
    result = run(controller(server, tokenizer), how)
    assert (result["answer"], result["stop_reason"]) == ("W. S.", "answered")
    (observation,) = (m for m in result["scratchpad"] if isinstance(m, ToolMessage))
    first, second = (request.body["prompt"] for request in server.requests)
    assert second == [*first, *sampled[0], *local.codec.observation_ids([observation])]


async def test_questions_at_once_are_requests_at_once(serve, samples, tokenizer, local):
    barrier = threading.Barrier(3, timeout=60)

    def together(request):
        barrier.wait()
        return samples(request)

    questions = [{"question": f"Who wrote book {n}?"} for n in range(3)]
    server = serve(together)
    served = await graph_of(controller(server, tokenizer)).abatch(questions)
    # Each waited for two others, or the barrier had broken.
    assert not barrier.broken
    assert len(server.requests) == sum(m.type == "ai" for s in served for m in s["scratchpad"])
    for one, other in zip(served, await graph_of(local).abatch(questions), strict=True):
        same_tokens(one, other)


def test_the_trace_of_a_served_policy_is_training_data(serve, samples, tokenizer, local):
    pool = CandidatePool.embedded()
    served = run(controller(serve(samples), tokenizer))
    traces = [
        Trace.from_state(result, pool=pool, controller="x") for result in (served, run(local))
    ]
    rows = [rollout_row(trace, local.codec) for trace in traces]
    for key in ("prompt_ids", "completion_ids", "env_mask"):
        assert rows[0][key] == rows[1][key]
    assert rows[0]["logprobs"] == pytest.approx(rows[1]["logprobs"], abs=1e-6)


def test_a_server_is_asked_for_the_ids_the_stop_text_and_the_plain_distribution(
    serve, samples, tokenizer
):
    server = serve(samples)
    run(controller(server, tokenizer))
    body = server.requests[0].body
    assert body["stop"] == ["<information", "</answer>"]
    assert body["stop_token_ids"] == [tokenizer.eos_token_id]
    assert body["include_stop_str_in_output"] is body["return_token_ids"] is True
    assert (body["top_p"], body["top_k"], body["logprobs"]) == (1.0, -1, 1)
    assert "stream" not in body


def test_a_runs_temperature_reaches_the_server(serve, tokenizer):
    server = serve(Completion("<answer> x </answer>"))
    run(controller(server, tokenizer), temperature=0.7)
    assert server.requests[0].body["temperature"] == 0.7


def test_a_runs_seed_reaches_the_server_where_it_samples(serve, tokenizer):
    server = serve(Completion("<answer> x </answer>"))
    policy = controller(server, tokenizer)

    def first_body(**knobs):
        before = len(server.requests)
        run(policy, **knobs)
        return server.requests[before].body

    assert "seed" not in first_body()
    seeds = [first_body(temperature=0.7, seed=seed)["seed"] for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


# ------------------------------------------------------------------------- servers without ids


def answer_ids(tokenizer, text="<answer> Paris </answer>"):
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    ("text", "stop_reason"),
    [("<answer> Paris </answer>", "</answer>"), ("<answer> Paris ", "</answer>")],
)
def test_a_text_without_ids_is_encoded_once_and_said_so(
    serve, tokenizer, caplog, text, stop_reason
):
    server = serve(Completion(text, ids_as="none", stop_reason=stop_reason))
    result = run(controller(server, tokenizer))
    assert result["answer"] == "Paris"
    assert tokens(result)[0]["output_ids"] == answer_ids(tokenizer)
    assert tokens(result)[0]["logprobs"] == []
    assert "gives no token ids" in caplog.text


@pytest.mark.parametrize(
    ("finish_reason", "ends"), [("stop", True), ("length", False)], ids=["ended", "cut"]
)
def test_a_text_that_ended_by_itself_gets_the_end_token_and_a_cut_one_does_not(
    serve, tokenizer, finish_reason, ends
):
    server = serve(
        Completion("so<|end|>" if ends else "so", ids_as="none", finish_reason=finish_reason)
    )
    ids = tokens(run(controller(server, tokenizer)))[0]["output_ids"]
    assert ids == [*answer_ids(tokenizer, "so"), *([tokenizer.eos_token_id] if ends else [])]


@pytest.mark.parametrize(
    "text", ["<answer> Paris </answer>", "<answer> Paris"], ids=["whole", "open"]
)
def test_llama_cpp_gives_ids_beside_the_log_probabilities(serve, tokenizer, caplog, text):
    content = [{"id": i, "token": "?", "logprob": -0.5} for i in answer_ids(tokenizer, text)]
    choice = {"text": text, "logprobs": {"content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": None}
    result = run(controller(serve(Wire({"choices": [choice], "usage": usage})), tokenizer))
    (turn,) = tokens(result)
    assert (result["answer"], turn["output_ids"]) == ("Paris", answer_ids(tokenizer))
    assert len(turn["logprobs"]) == (len(content) if text.endswith(">") else 0)
    assert result["ledger"]["controller"]["input_tokens"] == 9
    assert "gives no token ids" not in caplog.text


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (422, {"detail": [{"loc": ["body", "prompt"], "msg": "Input should be a valid string"}]}),
        (422, {"detail": "Unexpected fields in the request: {'top_k', 'return_token_ids'}"}),
        (
            500,
            {"error": {"message": "[{'loc': ('body', 'prompt', 'str'), 'type': 'string_type'}]"}},
        ),
    ],
    ids=["prompt", "fields", "llama-cpp-python"],
)
def test_a_server_that_takes_no_ids_is_named_as_such_after_one_request(
    serve, tokenizer, code, says
):
    server = serve(Wire(says, code=code))
    result = run(controller(server, tokenizer, max_retries=2))
    assert re.match(r"bad_request: .*http://.*takes no token ids.*llama-server", result["error"])
    assert server.count() == 1


def test_ids_without_a_log_probability_each_have_none(serve, tokenizer):
    server = serve(Completion("", answer_ids(tokenizer), [-0.5]))
    (turn,) = tokens(run(controller(server, tokenizer)))
    assert turn["output_ids"] == answer_ids(tokenizer)
    assert turn["logprobs"] == []


# -------------------------------------------------------------------------------------- money


def test_what_a_turn_costs_is_on_the_bill_and_bounded_before(serve, tokenizer):
    ids = answer_ids(tokenizer)
    server = serve(Completion("", ids, [-0.1] * len(ids)))  # reports no usage: ids are counted
    policy = controller(server, tokenizer, input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    result = run(policy)
    line = result["ledger"]["controller"]
    prompt = len(server.requests[0].body["prompt"])
    assert (line["input_tokens"], line["output_tokens"]) == (prompt, len(ids))
    assert line["cost_usd"] == pytest.approx((prompt + 2 * len(ids)) / 1e6)
    most = (prompt + 2 * SETTINGS.max_new_tokens) / 1e6
    poor = run(policy, budget_usd=most * 0.9)
    assert (poor["stop_reason"], server.count()) == ("budget_usd", 1)


def test_without_a_price_a_turn_is_free(serve, tokenizer):
    policy = controller(serve(Completion("x")), tokenizer)
    view = View("?", CandidatePool.embedded(), RouterContext(), Left(4))
    assert policy.worst_case_usd(view) == 0


# ----------------------------------------------------------------------------------- failures


@both_ways
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Status(401, "Incorrect API key"), "auth: .*Incorrect API key"),
        (Status(404, "no model m"), "not_found: .*no model m"),
        (Status(429, "Slow down"), "rate_limited: .*Slow down"),
        (Status(503), "server_error: .*503"),
        (Status(400, "maximum context length is 20 tokens"), "context_length: .*maximum context"),
        (Hang(), "timeout: .*(no reply within|timed out)"),  # ours or the client's, at once
        (Cut(), "connection: "),
        (Cut("mid_body"), "connection: "),
        (Malformed(), "malformed: .*not a completion.*Bad gateway"),
        (Malformed('{"error": {"message": "worker died"}}'), "server_error: .*worker died"),
        (Malformed('{"choices": [{"token_ids": [-1]}]}'), "malformed: .*token_ids"),
        (Malformed("[]"), "malformed: "),
        (EmptyChoices(), "empty: .*no choices"),
    ],
)
def test_a_failing_server_is_a_controller_error(serve, tokenizer, how, answer, error):
    seconds = 0.5 if isinstance(answer, Hang) else 60
    result = run(controller(serve(answer), tokenizer, timeout_seconds=seconds), how)
    assert result["stop_reason"] == "controller_error"
    assert re.match(error, result["error"])


@both_ways
@pytest.mark.parametrize("usage", [{"prompt_tokens": 10, "completion_tokens": 5}, None])
def test_a_turn_that_cannot_be_read_is_on_the_bill(serve, tokenizer, how, usage):
    body = {"choices": [{"token_ids": [-1]}], "usage": usage}
    policy = controller(serve(Malformed(json.dumps(body))), tokenizer)
    line = run(policy, how)["ledger"]["controller"]
    assert (line["input_tokens"], line["output_tokens"]) == ((10, 5) if usage else (0, 0))
    assert line.get("uncertain_attempts", 0) == (usage is None)


@both_ways
def test_a_turn_without_an_end_is_left_alone_at_its_limit(serve, tokenizer, how, monkeypatch):
    monkeypatch.setattr(guard, "MOST_BYTES", 2**16)
    policy = controller(serve(Malformed('{"choices": ["' + "x" * 2**20)), tokenizer)
    result = run(policy, how)
    assert result["error"].startswith("malformed: OverlongReplyError: the reply has more than")
    assert result["ledger"]["controller"]["uncertain_attempts"] == 1


@both_ways
def test_nobody_there_is_a_connection_error(serve, tokenizer, how):
    server = serve(Status(500))
    policy = controller(server, tokenizer)
    server.__exit__(None)
    assert run(policy, how)["error"].startswith("connection: ")


@both_ways
def test_what_may_go_away_is_tried_again(serve, samples, tokenizer, local, how):
    failures = iter([Status(503, retry_after=0), Cut()])
    server = serve(lambda request: next(failures, None) or samples(request))
    result = run(controller(server, tokenizer, max_retries=2), how)
    same_tokens(result, run(local))
    assert result["ledger"]["controller"]["retries"] == 2


def test_a_context_that_is_too_long_is_not_sent(serve, tokenizer):
    server = serve(Completion("x"))
    policy = CompletionsController(
        tokenizer, ModelSettings(base_url=server.base_url), PolicySettings(max_context_tokens=50)
    )
    assert "max_context_tokens = 50" in run(policy)["error"]
    assert not server.requests


@both_ways
@pytest.mark.parametrize(
    "answer",
    [
        Status(401, "Incorrect API key", echo_authorization=True),
        lambda request: Malformed(f"got {request.headers}"),
        lambda request: Completion(f"key {request.headers['authorization']}", ids_as="none"),
    ],
    ids=["an error", "a body that is not JSON", "the reply itself"],
)
def test_the_key_is_sent_and_shown_nowhere(serve, tokenizer, monkeypatch, caplog, how, answer):
    monkeypatch.setenv("SERVER_API_KEY", KEY)
    server = serve(answer)
    caplog.set_level(logging.DEBUG)
    result = run(controller(server, tokenizer, api_key_env="SERVER_API_KEY"), how)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    for text in [repr(result), caplog.text]:
        assert KEY not in text
    assert not any(m.additional_kwargs for m in turns(result))  # no ids that spell it either


def test_no_key_is_sent_where_none_is_named(serve, tokenizer, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(Completion("x"))
    run(controller(server, tokenizer))
    assert "authorization" not in server.requests[0].headers


# ---------------------------------------------------------------------------------- streaming


@both_ways
def test_its_tokens_are_streamed_as_the_server_streams_them(serve, samples, tokenizer, local, how):
    graph = graph_of(controller(serve(samples), tokenizer))
    question = {"question": "Who wrote Hamlet?"}
    modes = ["messages", "values"]

    async def collect():
        return [part async for part in graph.astream(question, stream_mode=modes)]

    parts = (
        list(graph.stream(question, stream_mode=modes))
        if how == "invoke"
        else asyncio.run(collect())
    )
    state = [part for mode, part in parts if mode == "values"][-1]
    same_tokens(state, run(local))
    for turn in turns(state):
        chunks = [m for mode, (m, _) in (p for p in parts if p[0] == "messages") if m.id == turn.id]
        assert len(chunks) > 1
        assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
        assert "".join(chunk.text for chunk in chunks) == turn.text


@both_ways
def test_its_answer_is_told_by_a_chat_model_as_the_server_streams_it(serve, tokenizer, how):
    def says(request):
        ids = tokenizer.encode("<answer> William Shakespeare </answer>", add_special_tokens=False)
        usage = {"prompt_tokens": 1, "completion_tokens": len(ids)}
        return Completion(tokenizer.decode(ids), ids, [0.0] * len(ids), usage=usage)

    router = ChatRouterR1(controller=controller(serve(says), tokenizer))

    async def collect():
        return [chunk async for chunk in router.astream("Who wrote Hamlet?")]

    chunks = list(router.stream("?")) if how == "invoke" else asyncio.run(collect())
    texts = [chunk.text for chunk in chunks if chunk.text]
    assert texts == ["William", " Shakespeare"]  # tokens: a word has its space behind it


def test_a_stream_that_breaks_off_is_a_connection_error(serve, samples, tokenizer):
    server = serve(lambda request: replace(samples(request), finish_reason=None))
    graph = graph_of(controller(server, tokenizer))
    parts = list(graph.stream({"question": "?"}, stream_mode=["messages", "values"]))
    assert parts[-1][1]["error"].startswith("connection: ")


# -------------------------------------------------------------------------------------- specs


@pytest.fixture
def folder(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "router_r1.json").write_text(json.dumps({"max_new_tokens": 12}))
    (tmp_path / "prompt_template.txt").write_text("$brief_candidates\n$question")
    return tmp_path


def test_a_spec_names_the_server_and_the_policy(serve, folder, model, tokenizer, samples):
    server = serve(samples)
    pool = CandidatePool.embedded()
    policy = parse_controller(
        f"completions:{server.base_url}?policy={folder}&model=mine&output_usd_per_mtok=0.5", pool
    )
    assert policy.name == "completions:mine"
    assert policy.settings.output_usd_per_mtok == 0.5
    here = PolicyController(
        model, tokenizer, policy.policy, template=folder / "prompt_template.txt"
    )
    same_tokens(run(policy), run(here))
    assert server.requests[0].model == "mine"


@pytest.mark.long
def test_torch_is_not_needed(folder):
    program = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
sys.modules["torch"] = None
from router_r1_graph import CandidatePool, parse_controller
spec = "completions:http://localhost:1/v1?policy={folder}"
print(parse_controller(spec, CandidatePool.embedded()).name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == f"completions:{folder}", done.stderr


def test_a_server_is_asked_for_the_policys_path_where_no_model_is_named(serve, folder):
    pool = CandidatePool.embedded()
    policy = parse_controller(f"completions:http://localhost:1/v1?policy={folder}", pool)
    assert policy.settings.model == str(folder)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("completions", "needs an address and the policy"),
        ("completions:http://localhost:8000/v1", "needs an address and the policy"),
        ("completions:?policy=x", "needs an address and the policy"),
        ("completions:localhost/v1?policy=x", "base_url: must begin with http"),
        ("completions:http://h/v1?policy=x&modell=y", "unknown option 'modell' .*'model'"),
        ("completions:http://h/v1?policy=x&temperature=hot", "temperature: "),
        ("completions:http://h/v1?policy=x&api_key_env=sk-abc", "api_key_env: must be the NAME"),
        ("completions:http://h/v1?policy=x&api_key_env=NOT_SET", "NOT_SET is not set"),
        ("completions:http://h/v1?policy=run/x/policy", "no model there"),
    ],
)
def test_a_spec_that_cannot_be_used_says_why(spec, message):
    with pytest.raises(ConfigError, match=message):
        parse_controller(spec, CandidatePool.embedded())


def test_a_controller_without_an_address_is_refused(tokenizer):
    with pytest.raises(ControllerError, match="base_url"):
        CompletionsController(tokenizer, ModelSettings())


def test_the_words_of_an_error_hold_no_half_of_a_key():
    key = "Zq9Wm2Lr7Tb4Xv8Nc3Yh6Kp1"
    for words in range(80, 260):
        failed = status_error("x", httpx.Response(401), f"{'a ' * words}{key} b".encode())
        assert key[:6] not in classify(failed, [key]).message


def requested(server, how, listener=None):
    """Send a request of a controller's to a server, and return the reply."""
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    settings = ModelSettings(
        model="ada", base_url=server.base_url, api_key_env="ADA_KEY", max_retries=0, **prices
    )
    body = {"model": "ada", "prompt": [1, 2], "stream": listener is not None}
    tls = httpx.create_ssl_context()
    request = CompletionRequest(settings, tls, body, lambda came: AIMessage(came.text), listener)
    if how == "invoke":
        return ask(request, [], settings)
    return asyncio.run(aask(request, [], settings))


@both_ways
@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_error_of_many_spaces_brings_no_half_of_a_key_to_light(serve, monkeypatch, how, status):
    monkeypatch.setenv("ADA_KEY", KEY)
    said = "upstream says:" + " " * 4074 + KEY
    answer = Malformed(said, "text/html") if status == 200 else Page(status, said)
    error = requested(serve(answer), how).error
    assert error.kind == {200: "malformed", 400: "bad_request", 500: "server_error"}[status]
    assert KEY[:6] not in error.message


@dataclass(frozen=True)
class Page:
    """An error in words alone."""

    status: int
    words: str

    def send(self, request, http):
        http.send(self.status, self.words.encode(), content_type="text/html")


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@both_ways
@pytest.mark.parametrize(("status", "usd"), [(500, 20e-6), (400, 0.0)])
def test_the_usage_beside_a_servers_own_error_is_billed(serve, how, status, usd):
    died = Wire({"error": {"message": "the worker died"}, "usage": USAGE}, code=status)
    reply = requested(serve(died), how)
    assert not reply.ok
    assert reply.cost_usd == pytest.approx(usd)
    assert (reply.uncertain_attempts, reply.uncertain_usd) == (0, 0.0)


@both_ways
@pytest.mark.parametrize("begun", [True, False])
def test_tokens_before_an_error_are_paid(serve, how, begun):
    token = {"choices": [{"index": 0, "text": "Par", "token_ids": [5]}]}
    died = {"error": {"message": "the worker died", "code": 500}}
    server = serve(Wire(events=[token, died] if begun else [died]))
    reply = requested(server, how, listener=lambda ids: None)
    assert (reply.error.kind, reply.uncertain_attempts) == ("server_error", int(begun))


@both_ways
def test_a_redirection_costs_nothing(serve, how):
    reply = requested(serve(Wire({}, code=302, headers={"location": "/elsewhere"})), how)
    assert not reply.ok
    assert (reply.uncertain_attempts, reply.uncertain_usd) == (0, 0.0)
