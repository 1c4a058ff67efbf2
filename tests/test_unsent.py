"""A request that was not sent costs nothing, however its attempt ended; one that was sent may."""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import sys
import threading
from types import SimpleNamespace
from typing import ClassVar

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from pydantic import Field

from fakes import FakeChat
from openai_server import Hang
from router_r1_graph import Candidate
from router_r1_graph.candidates.call import aask, ask
from router_r1_graph.candidates.providers import make_chat_model
from router_r1_graph.candidates.sending import AbandonedError, Sending, told
from router_r1_graph.candidates.uncertain import never_sent
from yaml_pool import ONE_DOLLAR, bills, both_ways, run, scripted, yaml_pool

SEARCH, ANSWER = "<search> Ada: Capital? </search>", "<answer> Paris </answer>"
DIALS, SENDS = "connection.connect_tcp.started", "http11.send_request_headers.started"
POST, CONNECT = ({"request": SimpleNamespace(method=name)} for name in (b"POST", b"CONNECT"))


@pytest.fixture
def away():
    """The port of a socket that answers no attempt to connect, like a machine that is off."""
    taken, waiting = socket.create_server(("127.0.0.1", 0), backlog=0), []
    for _ in range(4):  # Linux answers no more while these wait to be accepted
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(taken.getsockname())
    yield taken.getsockname()[1]
    for one in (taken, *waiting):
        one.close()


@pytest.fixture
def mute():
    """The port of a socket that accepts connections, and says and reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def our_client():
    return type("Client", (), {"tells_what_it_sends": True})()


@both_ways
@pytest.mark.parametrize("stream", [False, True])
def test_a_time_limit_that_ends_while_the_connection_is_made_costs_nothing(
    serve, tmp_path, how, stream, away
):
    options = {"streaming": True} if stream else {}
    settings = {"base_url": f"http://127.0.0.1:{away}/v1", "timeout_seconds": 0.3}
    pool = yaml_pool(tmp_path, serve(Hang()), options=options, **settings, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["error"]["kind"], bill["cost_usd"]) == ("timeout", 0.0)
    assert not {"uncertain_attempts", "uncertain_usd"} & {*bill}


@both_ways
@pytest.mark.parametrize("stream", [False, True])
def test_a_time_limit_that_ends_after_the_request_was_sent_is_uncertain(
    serve, tmp_path, how, stream, mute
):
    options = {"streaming": True} if stream else {}
    settings = {"base_url": f"http://127.0.0.1:{mute}/v1", "timeout_seconds": 0.3}
    pool = yaml_pool(tmp_path, serve(Hang()), options=options, **settings, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["error"]["kind"], bill["uncertain_attempts"]) == ("timeout", 1)
    assert bill["uncertain_usd"] > 0


@both_ways
def test_a_run_does_not_end_by_its_budget_since_a_machine_is_down(serve, tmp_path, how, away):
    settings = {"base_url": f"http://127.0.0.1:{away}/v1", "timeout_seconds": 0.2}
    pool = yaml_pool(tmp_path, serve(Hang()), **settings, output_usd_per_mtok=100.0, max_tokens=9)
    result = run(scripted(pool, SEARCH, SEARCH, SEARCH, ANSWER), how, budget_usd=0.001)
    assert (result["stop_reason"], len(bills(result))) == ("answered", 3)


@both_ways
def test_of_a_model_within_other_code_nothing_is_known(serve, tmp_path, how, away):
    settings = {"base_url": f"http://127.0.0.1:{away}/v1", "timeout_seconds": 3}
    (ada,) = yaml_pool(tmp_path, serve(Hang()), **settings, **ONE_DOLLAR).candidates
    model = make_chat_model(ada)
    within = RunnableLambda(model.invoke, afunc=model.ainvoke)  # it may have asked another before
    asked = [within, [HumanMessage("Capital?")], ada]
    left = {"seconds_left": 0.3}
    reply = ask(*asked, **left) if how == "invoke" else asyncio.run(aask(*asked, **left))
    assert reply.uncertain_attempts == 1


def test_an_attempt_that_was_given_up_before_it_sent_anything_sends_nothing():
    sending = Sending()
    sending.watch(our_client())
    sending.tell(DIALS, {})
    sending.tell(SENDS, CONNECT)  # to a proxy
    assert sending.give_up()
    with pytest.raises(AbandonedError):
        sending.tell(SENDS, POST)


@pytest.mark.parametrize("told", [[], [SENDS], [DIALS, SENDS], [DIALS, SENDS, DIALS]])
def test_an_attempt_may_be_paid_unless_it_is_known_that_it_sent_nothing(told):
    sending = Sending()
    sending.watch(our_client())
    for event in told:
        sending.tell(event, POST)
    assert not sending.give_up()
    sending.tell(SENDS, POST)  # an earlier request was sent: the next ones are free to go


class SlowToConnect(FakeChat):
    """Its first request has come as far as the connection, and is about to be sent once `free`."""

    tells_what_it_sends: ClassVar[bool] = True
    began: list[str] = Field(default_factory=list)
    free: threading.Event = Field(default_factory=threading.Event)
    ends: queue.SimpleQueue = Field(default_factory=queue.SimpleQueue)

    def _generate(self, messages, stop=None, run_manager=None, **_):
        self.began.append("request")
        if len(self.began) == 1:
            told(request := httpx.Request("POST", "http://127.0.0.1"))
            request.extensions["trace"](DIALS, {})
            assert self.free.wait(60)
            try:
                request.extensions["trace"](SENDS, POST)
            finally:
                self.ends.put(sys.exc_info()[0])
        return self._result("?")

    async def _agenerate(self, messages, stop=None, run_manager=None, **_):
        return await asyncio.to_thread(self._generate, messages)


@both_ways
async def test_a_hedged_request_that_was_not_sent_costs_nothing_and_is_not_sent(how):
    ada = Candidate(
        **{"name": "Ada", "model": "slow to connect", "max_retries": 0, **ONE_DOLLAR},
        hedge_after_seconds=0.01,
    )
    model, question = (
        SlowToConnect(text="Paris", input_tokens=10, output_tokens=5),
        [HumanMessage("Capital?")],
    )
    try:
        if how == "invoke":
            reply = await asyncio.to_thread(ask, model, question, ada)
        else:
            reply = await aask(model, question, ada)
    finally:
        model.free.set()
    assert await asyncio.to_thread(model.ends.get, timeout=60) is AbandonedError
    assert (reply.text, reply.hedges, reply.uncertain_attempts) == ("Paris", 1, 0)
    assert (reply.input_tokens, reply.output_tokens) == (10, 5)
    assert reply.cost_usd == pytest.approx((10 + 2 * 5) / 1e6)


def broken(kind, cause):
    error = kind("a connection broke")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "unsent"),
    [
        (broken(httpx.ConnectError, ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]")), True),
        (broken(OSError, ssl.SSLCertVerificationError(1, "certificate verify failed")), True),
        (broken(httpx.ReadError, ssl.SSLError(1, "[SSL: BAD_RECORD_MAC]")), False),
        (broken(httpx.ReadError, ssl.SSLEOFError(8, "EOF in violation of protocol")), False),
    ],
)
def test_a_tls_connection_that_breaks_later_may_have_brought_a_reply(error, unsent):
    assert never_sent(error) == unsent
