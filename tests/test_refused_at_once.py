"""Calls at once to a model that refuses something for the first time: each gets its reply."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from fakes import answer, search
from openai_server import Malformed, Reply, Request, Status
from router_r1_graph import CandidatePool, ControllerSettings, create_router_r1, parse_controller
from router_r1_graph.candidates.call import aask, ask
from test_given_models import Claude, given
from yaml_pool import bills, scripted, yaml_pool

AT_ONCE = 4
WAYS = ["threads", "tasks"]


def together(refuses: Callable[[Request], bool], refusal: Any) -> Callable[[Request], Any]:
    """Refuse all that is sent before anybody has been refused."""
    everybody = threading.Barrier(AT_ONCE)

    def reply(request: Request) -> Any:
        if not refuses(request):
            return Reply("Paris")
        everybody.wait(timeout=300)
        return refusal

    return reply


def run_at_once(graph: Any, way: str, streamed: bool = False, **given: Any) -> list[dict[str, Any]]:
    """Ask the same question `AT_ONCE` times."""
    question: Any = given or {"question": "What is the capital of France?"}
    modes: Any = ["messages", "values"]  # LangGraph has chat models stream then

    async def one() -> Any:
        if not streamed:
            return await graph.ainvoke(question)
        return [part async for part in graph.astream(question, stream_mode=modes)][-1][1]

    def in_thread(_: int) -> Any:
        if not streamed:
            return graph.invoke(question)
        return list(graph.stream(question, stream_mode=modes))[-1][1]

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(one() for _ in range(AT_ONCE)))

    if way == "tasks":
        return asyncio.run(all_of_them())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(in_thread, range(AT_ONCE)))


def refused(words: str, **error: Any) -> Status:
    return Status(400, words, **error)


REFUSALS = {
    "temperature": (
        lambda request: "temperature" in request.body,
        refused("'temperature' is not supported with this model."),
    ),
    "max_tokens": (
        lambda request: "max_tokens" in request.body,
        refused("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
    ),
    "temperature 0": (
        lambda request: request.body.get("temperature") == 0,
        refused("`temperature` must be strictly positive"),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("ours", name) for name in REFUSALS),
        *((kind, name) for kind in ("given", "azure") for name in REFUSALS if name != "max_tokens"),
    ],  # LangChain's clients send another name of the limit
)
def test_what_calls_at_once_are_refused_is_sent_again_without(serve, tmp_path, kind, name, way):
    server = serve(together(*REFUSALS[name]))
    pool = yaml_pool(tmp_path, server, temperature=0.0, max_tokens=50)
    models = None
    if kind != "ours":
        models = {"Ada": given(server, kind, temperature=0.0, max_tokens=50)}
    graph = create_router_r1(pool, parse_controller("constant:Ada", pool), models=models).compile()
    for state in run_at_once(graph, way):
        assert [(bill["reply"], bill["error"], bill["attempts"]) for bill in bills(state)] == [
            ("Paris", None, 1)
        ]
    assert len(server.requests) == 2 * AT_ONCE


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "refusal",
    [
        refused("Streaming is not supported for this model"),
        Malformed(
            json.dumps({"choices": [{"message": {"content": "Paris"}, "finish_reason": "stop"}]})
        ),
    ],
)
def test_streams_at_once_of_a_model_that_has_none_are_asked_for_the_whole_or_have_it(
    serve, tmp_path, refusal, way
):
    server = serve(together(lambda request: bool(request.body.get("stream")), refusal))
    graph = scripted(yaml_pool(tmp_path, server), search("Ada: ?"), answer())
    for state in run_at_once(graph, way, streamed=True):
        assert [(bill["ok"], bill["reply"]) for bill in bills(state)] == [(True, "Paris")]
    # A whole reply in place of a stream is paid already.
    again = isinstance(refusal, Status)
    assert len(server.requests) == (2 if again else 1) * AT_ONCE


@pytest.mark.parametrize("way", WAYS)
def test_replies_at_once_of_a_model_that_only_streams_are_asked_for_as_streams(
    serve, tmp_path, way
):
    refusal = refused("This model only supports streaming")
    server = serve(together(lambda request: not request.body.get("stream"), refusal))
    graph = scripted(yaml_pool(tmp_path, server), search("Ada: ?"), answer())
    for state in run_at_once(graph, way):
        assert [(bill["ok"], bill["reply"]) for bill in bills(state)] == [(True, "Paris")]
    assert len(server.requests) == 2 * AT_ONCE


@pytest.mark.parametrize("way", WAYS)
def test_system_messages_at_once_are_merged_where_a_template_knows_none(serve, tmp_path, way):
    def has_system(request: Request) -> bool:
        return any(message["role"] == "system" for message in request.body["messages"])

    server = serve(together(has_system, refused("System role not supported")))
    pool = yaml_pool(tmp_path, server)
    graph = create_router_r1(pool, parse_controller("constant:Ada", pool)).compile()
    messages = [SystemMessage("Answer in German."), HumanMessage("Capital of France?")]
    for state in run_at_once(graph, way, messages=messages):
        assert [(bill["ok"], bill["reply"]) for bill in bills(state)] == [(True, "Paris")]
    assert len(server.requests) == 2 * AT_ONCE


class AtOnce(Claude):
    """Refuses when everybody has asked."""

    together: Any

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        if self.temperature is not None:
            self.together.wait(timeout=300)
        return super()._generate(*args, **kwargs)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self._generate, *args, **kwargs)


@pytest.mark.parametrize("way", WAYS)
def test_another_client_that_is_refused_at_once_goes_again_without(way):
    settings = ControllerSettings(base_url=f"http://{way}-at-once.test", max_retries=0)
    claude = AtOnce(
        words="`temperature` is deprecated for this model.",
        refuses=["temperature"],
        temperature=0.0,
        together=threading.Barrier(AT_ONCE),
    )
    prompt = [HumanMessage("?")]

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(aask(claude, prompt, settings) for _ in range(AT_ONCE)))

    if way == "tasks":
        replies = asyncio.run(all_of_them())
    else:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            replies = list(pool.map(lambda _: ask(claude, prompt, settings), range(AT_ONCE)))
    assert [(reply.text, reply.error, reply.attempts) for reply in replies] == [
        ("Paris", None, 1)
    ] * AT_ONCE


def test_what_is_refused_again_though_it_is_left_out_is_an_error(serve, tmp_path):
    """A server whose words name a parameter that is not sent any more is asked no third time."""
    server = serve(Status(400, "'temperature' is not supported with this model."))
    pool: CandidatePool = yaml_pool(tmp_path, server, temperature=0.5)
    graph = create_router_r1(pool, parse_controller("constant:Ada", pool)).compile()
    for state in run_at_once(graph, "threads"):
        assert [bill["error"]["kind"] for bill in bills(state)] == ["bad_request"]
    assert len(server.requests) <= 2 * AT_ONCE
