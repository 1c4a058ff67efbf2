"""The HTTP clients of endpoints: one event loop after another, proxies, TLS read once."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from langchain_core.messages import HumanMessage

from fakes import FakeChat, answer, search
from openai_server import Reply, Wire
from router_r1_graph import CandidatePool, ChatRouterR1, ScriptedController, create_router_r1
from router_r1_graph.candidates import Candidate
from router_r1_graph.candidates.call import aask
from router_r1_graph.candidates.connections import LoopAwareClient, clients_of
from yaml_pool import bills, both_ways, run, scripted, yaml_pool


def pool_at(address, **settings):
    candidate = {
        "name": "Ada",
        "base_url": address,
        "input_usd_per_mtok": 1,
        "output_usd_per_mtok": 1,
        "max_retries": 0,
        **settings,
    }
    return CandidatePool.model_validate({"candidates": [candidate]})


def asking(pool):
    return create_router_r1(pool, ScriptedController([search("Ada: q"), answer()])).compile()


async def errors_of(graph, count=8):
    """Ask as often at once; return the errors of all calls."""
    states = await asyncio.gather(*(graph.ainvoke({"question": "q"}) for _ in range(count)))
    return [m.artifact["error"] for s in states for m in s["scratchpad"] if m.type == "tool"]


def test_event_loop_after_event_loop_asks_over_connections_of_its_own(serve):
    server = serve(Reply("Paris"))
    graph = asking(pool_at(server.base_url))
    for _ in range(4):  # the second one would find the first one's connections
        assert asyncio.run(errors_of(graph)) == [None] * 8


def test_other_clients_that_keep_connections_of_a_dead_loop_are_asked_again():
    class Stale(FakeChat):  # as LangChain's clients of Anthropic and Ollama do
        dead: int = 3

        async def _agenerate(self, *args, **kwargs):
            self.dead -= 1
            if self.dead >= 0:
                raise ConnectionError("lost") from RuntimeError("Event loop is closed")
            return await super()._agenerate(*args, **kwargs)

    reply = asyncio.run(aask(Stale(), [HumanMessage("?")], Candidate(name="Ada", max_retries=0)))
    assert (reply.ok, reply.attempts) == (True, 1)


def test_event_loops_of_several_threads_at_once(serve):
    server = serve(Reply("Paris"))
    graph = asking(pool_at(server.base_url))
    errors = []

    def work():
        for _ in range(4):
            errors.extend(asyncio.run(errors_of(graph, 1)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [None] * 16


def test_the_chat_model_may_be_asked_in_loop_after_loop(serve):
    server = serve(Reply("Paris"))
    router = ChatRouterR1(pool=pool_at(server.base_url), controller="constant:Ada")
    assert [asyncio.run(router.ainvoke("q")).text for _ in range(4)] == ["Paris"] * 4


def test_connections_of_an_event_loop_are_kept_and_go_with_it(serve):
    server = serve(Reply("Paris"))
    graph = asking(pool_at(server.base_url))
    _, client = clients_of(server.base_url, None)
    assert isinstance(client, LoopAwareClient)

    async def twice():
        await graph.ainvoke({"question": "q"})
        first = dict(client._of_loop)
        await graph.ainvoke({"question": "q"})
        assert dict(client._of_loop) == first
        assert len(first) == 1

    for _ in range(3):
        asyncio.run(twice())


@both_ways
@pytest.mark.parametrize("stream", [False, True])
def test_a_redirection_is_followed_or_named(serve, tmp_path, how, stream):
    other = serve(Reply("Paris"))
    where = f"{other.base_url}/chat/completions"
    codes = {"one": 307, "two": 308, "three": 301, "four": 302}
    server = serve(lambda r: Wire(code=codes[r.prompt], headers={"location": f"{where}?key=x"}))
    pool = yaml_pool(tmp_path, server, options={"streaming": stream}, max_retries=1)
    calls = [f"<search> Ada: {name} </search>" for name in codes]
    first, second, *lost = bills(run(scripted(pool, "".join(calls), answer()), how))
    assert (first["reply"], second["reply"], other.count()) == ("Paris", "Paris", 2)
    assert all("authorization" in request.headers for request in server.requests)
    assert not any("authorization" in request.headers for request in other.requests)
    for bill in lost:
        assert (bill["error"]["kind"], bill["attempts"]) == ("not_found", 1)
        assert f"redirects to {where}: set base_url" in bill["error"]["message"]


def test_tls_is_set_up_once_for_all_addresses():
    one, _ = clients_of("https://one.example/v1", None)
    same, _ = clients_of("https://one.example/v1", None)
    assert one is same
    from router_r1_graph.candidates import connections

    assert connections._tls() is connections._tls()


class Proxy(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.asked.append(self.path)
        self.send_error(502, "the proxy has been asked")

    def log_message(self, *args):
        pass


@pytest.fixture
def proxy():
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("run", ["sync", "async"])
@pytest.mark.parametrize("told", ["option", "OPENAI_PROXY", "HTTP_PROXY"])
def test_requests_go_through_the_proxy_that_is_named(proxy, monkeypatch, told, run):
    url = f"http://127.0.0.1:{proxy.server_port}"
    settings = {}
    if told == "option":
        settings["options"] = {"openai_proxy": url}
    else:
        monkeypatch.setenv(told, url)
    graph = asking(
        pool_at(f"http://far-{told.lower().replace('_', '-')}-{run}.example/v1", **settings)
    )
    question = {"question": "q"}
    if run == "sync":
        state = graph.invoke(question)
    else:
        state = asyncio.run(graph.ainvoke(question))
    [reply] = [m.artifact for m in state["scratchpad"] if m.type == "tool"]
    assert reply["error"]["kind"] == "server_error"
    assert len(proxy.asked) == 1
    assert proxy.asked[0].endswith(".example/v1/chat/completions")
