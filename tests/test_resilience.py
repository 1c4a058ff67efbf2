"""The layer around each call: limits, breaker, retries, hedges and fallbacks, and who shares them.

Redis is the server that ROUTER_R1_REDIS names (`.ci/run` starts one).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sqlite3
import threading
import time
import uuid
from collections import Counter
from contextlib import closing, suppress

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import Field

from fakes import FakeChat
from in_process import cli, forked
from openai_server import Cut, Hang, Reply, Status, Wire
from patience import wait_until
from router_r1_graph import (
    Candidate,
    CandidatePool,
    ConfigError,
    PoolError,
)
from router_r1_graph.candidates.call import aask, ask
from router_r1_graph.candidates.pool import STORED
from router_r1_graph.candidates.resilience import store, stores
from router_r1_graph.candidates.resilience.endpoint import endpoint_of
from router_r1_graph.candidates.resilience.endpoint_state import EndpointState, admit, settle
from router_r1_graph.candidates.resilience.fallback import fallback_of
from router_r1_graph.candidates.resilience.settings import Resilience
from router_r1_graph.candidates.resilience.stores import SqliteStore, open_store
from router_r1_graph.serving.endpoints import EndpointCollector
from yaml_pool import ONE_DOLLAR, bills, both_ways, run, scripted, yaml_pool

SEARCH = "<think> Ask. </think> <search> Ada: Capital of France? </search>"
ANSWER = "<think> I know. </think> <answer> Paris </answer>"
REDIS = os.environ.get("ROUTER_R1_REDIS")
QUESTION = [HumanMessage("?")]


def candidate(**settings) -> Candidate:
    """Return a candidate whom no other test knows."""
    given = {"name": "Ada", "model": uuid.uuid4().hex, "max_retries": 0, **ONE_DOLLAR}
    return Candidate.model_validate(given | settings)


def by(how: str, model, settings: Candidate, **options):
    """Ask as the graph does, synchronously or not."""
    if how == "invoke":
        return ask(model, QUESTION, settings, **options)
    return asyncio.run(aask(model, QUESTION, settings, **options))


def kinds(replies) -> list[str]:
    return [reply.error.kind if reply.error else "ok" for reply in replies]


async def until(known) -> None:
    """Wait for an event that nobody tells of; pytest-timeout ends a wait that has no end."""
    while not known():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


class Gated(FakeChat):
    """Replies when it is let to; an exception as text is raised."""

    free: asyncio.Event = Field(default_factory=asyncio.Event)
    inside: int = 0
    most: int = 0

    async def _agenerate(self, messages, stop=None, run_manager=None, **_):
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.free.wait()
            return self._result("?")
        finally:
            self.inside -= 1


# ------------------------------------------------------------------------------ the arithmetic


def waits(settings: Resilience, record: EndpointState, now: float, count: int) -> list[float]:
    return [admit(record, settings, now, str(n), 1e9).wait for n in range(count)]


def test_a_burst_goes_at_once_and_the_next_ones_wait_in_turn():
    each_second, record = Resilience(requests_per_minute=60), EndpointState()
    assert waits(each_second, record, 1000, 9) == pytest.approx([0] * 5 + [1, 2, 3, 4])
    assert waits(each_second, record, 1004, 1) == pytest.approx([1])
    assert waits(each_second, record, 1064, 6) == pytest.approx([0] * 5 + [1])
    rarely = Resilience(requests_per_minute=0.5)
    assert waits(rarely, EndpointState(), 1000, 3) == pytest.approx([0, 120, 240])
    # Who cannot wait so long takes no turn.
    assert admit(record, each_second, 1064, "late", 1.5).late == pytest.approx(2)
    assert waits(each_second, record, 1064, 1) == pytest.approx([2])


def test_tokens_are_paid_off_before_the_next_request():
    limit, record = Resilience(tokens_per_minute=600), EndpointState()
    assert waits(limit, record, 1000, 1) == [0]
    settle(record, limit, 1000, "0", "up", 100)  # ten seconds' worth, of which five are a burst
    assert waits(limit, record, 1000, 1) == pytest.approx([5])
    assert waits(limit, record, 1005, 1) == [0]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_no_limit_is_passed(seed):
    """Attempts begin, end, fail and are lost in any order: a lost one's place comes back."""
    draw = random.Random(seed)
    limits = Resilience(
        max_concurrency=draw.randint(1, 4),
        breaker_failures=draw.randint(1, 3),
        breaker_probes=draw.randint(1, 2),
        timeout_seconds=10,
    )
    record, now, under_way = EndpointState(), 1000.0, {}
    for attempt in map(str, range(400)):
        now += draw.choice([0, 0.5, 8])
        under_way = {a: until for a, until in under_way.items() if until >= now}
        was = record.breaker(now)
        verdict = admit(record, limits, now, attempt, 1e9)
        record = EndpointState.loads(record.dumps())
        if verdict.admitted:
            under_way[attempt] = now + 15
        assert was != "open" or not verdict.admitted
        assert len(under_way) <= limits.max_concurrency
        assert len(record.probes) <= limits.breaker_probes
        if under_way and draw.random() < 0.6:
            ended = draw.choice(list(under_way))
            del under_way[ended]
            settle(record, limits, now, ended, draw.choice(["up", "down", "unknown"]))
    now += 1000
    assert admit(record, limits, now, "last", 1e9).admitted


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"failures": "x"}', '{"places": [1]}'])
def test_a_record_that_is_none_limits_nothing(text):
    assert EndpointState.loads(text) == EndpointState()


# ------------------------------------------------------------------------------------- stores


@pytest.fixture(params=["memory", "sqlite", "redis"])
def place(request, tmp_path):
    """Where limits are kept: each of the stores."""
    if request.param == "sqlite":
        return str(tmp_path / "limits.sqlite")
    if request.param == "redis":
        pytest.importorskip("redis")
        if not REDIS:
            pytest.skip("no Redis: ROUTER_R1_REDIS names no server (.ci/run starts one)")
        return REDIS
    return "memory"


async def test_calls_in_flight_never_exceed_their_places_and_all_are_made(place):
    ada = candidate(max_concurrency=3, limits_store=place)
    model = Gated()
    calls = [asyncio.create_task(aask(model, QUESTION, ada)) for _ in range(40)]
    await until(lambda: model.inside == 3)
    for call in calls[10:20]:  # those who are cancelled give up their turn, or their place
        call.cancel()
    calls[0].cancel()
    model.free.set()
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(reply, asyncio.CancelledError) for reply in replies) == 11
    assert all(reply.ok for reply in replies if not isinstance(reply, BaseException))
    assert model.most == 3
    endpoint = endpoint_of(ada)
    await asyncio.to_thread(wait_until, lambda: not endpoint.store.read(endpoint.key).places)
    assert (endpoint.gate.waiting, endpoint.gate.enter_at_once()) == (0, True)


async def test_who_is_cancelled_while_a_store_is_busy_leaves_no_place_taken(tmp_path):
    ada = candidate(max_concurrency=1, limits_store=str(tmp_path / "limits.sqlite"))
    endpoint, model = endpoint_of(ada), Gated()
    with closing(sqlite3.connect(tmp_path / "limits.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        call = asyncio.create_task(aask(model, QUESTION, ada))
        await until(lambda: endpoint.store._queued)
        call.cancel()
        await asyncio.wait([call])
        other.execute("COMMIT")
    model.free.set()
    assert (await aask(model, QUESTION, ada)).ok
    read = endpoint.store.read
    await asyncio.to_thread(wait_until, lambda: read(endpoint.key).places == {})


def test_threads_wait_for_a_place_in_turn():
    ada = candidate(max_concurrency=1, limits_store="memory")
    replies = []
    model = FakeChat(delay=0.01)
    threads = [
        threading.Thread(target=lambda: replies.append(ask(model, QUESTION, ada))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds(replies) == ["ok"] * 5


async def test_a_breaker_opens_lets_one_probe_through_and_closes(place, monkeypatch):
    ada = candidate(
        breaker_failures=2, breaker_seconds=3000, limits_store=place, requests_per_minute=6000
    )
    down = FakeChat(text=ConnectionError("gone"))
    seen = kinds([await aask(down, QUESTION, ada) for _ in range(3)])
    assert seen == ["connection", "connection", "circuit_open"]
    assert len(down.queries) == 2
    endpoint = endpoint_of(ada)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3001)
    back = Gated()
    probe = asyncio.create_task(aask(back, QUESTION, ada))
    await until(lambda: back.inside)
    beside = await asyncio.gather(*(aask(back, QUESTION, ada) for _ in range(5)))
    assert kinds(beside) == ["circuit_open"] * 5
    assert beside[0].attempts == 0
    assert "circuit breaker" in beside[0].error.message
    back.free.set()
    assert (await probe).ok
    after = await asyncio.gather(*(aask(back, QUESTION, ada) for _ in range(5)))
    assert (kinds(after), back.most >= 1) == (["ok"] * 5, True)
    assert await asyncio.to_thread(endpoint.store.read, endpoint.key) is not None


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
def test_processes_share_what_they_know(place):
    ada = candidate(max_concurrency=1000, limits_store=place)
    endpoint = endpoint_of(ada)

    def take_places():
        for _ in range(25):
            entered(endpoint_of(ada))

    processes = [forked(take_places) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(endpoint.store.read(endpoint.key).places) == 75


def held_places(place: str, **settings):
    """Return an endpoint with two of forty places taken, and the permits."""
    ada = candidate(max_concurrency=40, limits_store=place, **settings)
    endpoint = endpoint_of(ada)
    return endpoint, [entered(endpoint) for _ in range(2)]


def entered(endpoint):
    """Return a permit of an endpoint, waiting for its store."""
    steps = endpoint.enter("Ada", 60.0)
    with pytest.raises(StopIteration) as end:
        outcome = next(steps)
        while True:
            outcome = steps.send(outcome.future.result())
    return end.value.value


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
def test_a_settlement_for_which_nobody_waits_goes_with_the_next_attempt(place, monkeypatch):
    hold_for_ever(monkeypatch)
    endpoint, (first, second) = held_places(place)
    steps = count_steps(endpoint.store, monkeypatch)
    first.settle("up", 10)
    second.settle("up", 10)
    assert not steps
    entered(endpoint)
    assert sum(steps.values()) == 1
    assert len(endpoint.store.read(endpoint.key).places) == 1


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
def test_a_store_holds_few_settlements_back(place, monkeypatch):
    hold_for_ever(monkeypatch)
    endpoint = endpoint_of(candidate(max_concurrency=1000, limits_store=place))
    permits = [entered(endpoint) for _ in range(40)]
    there = type(endpoint.store)(place)  # as another process sees it
    for permit in permits:
        permit.settle("up")
    wait_until(lambda: len(there.read(endpoint.key).places) <= store._MOST_HELD)
    assert endpoint.store.read(endpoint.key).places == {}


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
def test_a_settlement_without_a_next_attempt_is_written_in_time(place, monkeypatch):
    monkeypatch.setattr(store, "HOLD_SECONDS", 0.05)
    endpoint, (first, second) = held_places(place)
    there = type(endpoint.store)(place)  # as another process sees it
    first.settle("up")
    second.settle("up")
    wait_until(lambda: not there.read(endpoint.key).places)
    assert not endpoint.store._held


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
def test_where_attempts_come_seldom_nothing_is_held_back(place, monkeypatch):
    monkeypatch.setattr(store, "HOLD_SECONDS", 0.0)
    endpoint, (first, second) = held_places(place)
    first.settle("up")
    wait_until(lambda: endpoint.key in endpoint.store._alone)
    monkeypatch.setattr(store, "HOLD_SECONDS", 3600.0)
    second.settle("up")
    assert not endpoint.store._held
    entered(endpoint).settle("up")  # the next attempt came soon: so may another one
    assert endpoint.store._held


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
@pytest.mark.parametrize("how", ["scarce", "down", "up again", "many tokens"])
def test_a_settlement_for_which_others_may_wait_is_written_at_once(place, how, monkeypatch):
    hold_for_ever(monkeypatch)
    endpoint, permits = held_places(place, breaker_failures=2, tokens_per_minute=600)
    there = type(endpoint.store)(place)  # as another process sees it
    if how == "scarce":
        permits.append(entered(endpoint))
    settled = "down" if how in ("down", "up again") else "up"
    permits[0].settle(settled, 6000 if how == "many tokens" else 0)
    places = len(permits) - 1
    wait_until(lambda: len(there.read(endpoint.key).places) == places)
    seen = there.read(endpoint.key)
    assert seen.failures == (settled == "down")
    assert (seen.tokens_until > time.time() + 60) == (how == "many tokens")
    if how == "up again":
        permits[1].settle("up")
        wait_until(lambda: not there.read(endpoint.key).places)
        assert there.read(endpoint.key).failures == 0
    assert not endpoint.store._held


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
def test_what_is_held_back_is_written_before_somebody_looks_or_the_server_ends(place, monkeypatch):
    hold_for_ever(monkeypatch)
    endpoint, (first, second) = held_places(place)
    first.settle("up")
    assert len(endpoint.store.read(endpoint.key).places) == 1
    second.settle("up")
    stores.flush_stores()
    there = type(endpoint.store)(place)
    assert there.read(endpoint.key).places == {}


def test_a_look_that_fails_loses_nothing_that_is_held_back(monkeypatch):
    pytest.importorskip("redis")
    monkeypatch.setattr(stores, "_opened", {})
    endpoint, permits = held_places("redis://127.0.0.1:1/0")
    for permit in permits:
        permit.settle("up")
        with pytest.raises(OSError, match="redis"):
            endpoint.store.read(endpoint.key)
    wait_until(lambda: not endpoint.store._memory.read(endpoint.key).places)


def test_without_another_thread_nothing_is_held_back(tmp_path, monkeypatch):
    endpoint, (first, second) = held_places(str(tmp_path / "limits.sqlite"))

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        first.settle("up")
    assert not endpoint.store._held
    second.settle("up")
    wait_until(lambda: not endpoint.store.read(endpoint.key).places)


def test_a_process_that_ends_writes_what_it_has_held_back(tmp_path):
    place = str(tmp_path / "limits.sqlite")
    endpoint, _ = held_places(place)

    def settle_one() -> None:
        entered(endpoint).settle("up")

    process = forked(settle_one)
    process.join()
    assert process.exitcode == 0
    assert len(endpoint.store.read(endpoint.key).places) == 2


def hold_for_ever(monkeypatch) -> None:
    """Let stores that are opened from now on hold changes back until somebody takes them along."""
    monkeypatch.setattr(store, "HOLD_SECONDS", 3600.0)
    monkeypatch.setattr(stores, "_opened", {})


def count_steps(kept, monkeypatch) -> Counter[str]:
    """Return a count of a store's steps that have been made, from now on."""
    steps: Counter[str] = Counter()

    def counted(name, make):
        def step(key, change):
            done = make(key, change)
            steps[name] += 1
            return done

        return step

    for name in ("_now_or_later", "_change"):
        monkeypatch.setattr(kept, name, counted(name, getattr(kept, name)))
    return steps


def test_models_and_keys_have_limits_of_their_own():
    one = candidate(max_concurrency=1, base_url="https://one.example/v1", limits_store="memory")
    others = [{"model": "other"}, {"api_key_env": "OTHER_KEY"}, {"base_url": "http://two/v1"}]
    keys = {endpoint_of(one.model_copy(update=other)).key for other in others}
    assert len(keys | {endpoint_of(one).key}) == 4
    assert endpoint_of(one.model_copy(update={"name": "Eve"})).key == endpoint_of(one).key
    assert endpoint_of(candidate()) is None


def test_a_store_that_fails_limits_each_process_by_itself_and_says_so_once(tmp_path, caplog):
    file = tmp_path / "limits.sqlite"
    ada = candidate(max_concurrency=2, limits_store=str(file))
    assert by("invoke", FakeChat(), ada).ok
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE endpoints")
        connection.commit()
    assert by("ainvoke", FakeChat(), ada).ok
    assert by("invoke", FakeChat(), ada).ok
    assert caplog.text.count("limits are not shared") == 1


@pytest.mark.parametrize("step", range(8))
def test_two_processes_make_the_same_new_file_at_any_moment(tmp_path, step):
    file, steps = tmp_path / "limits.sqlite", []

    def make() -> None:  # as the other process does it
        with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute(f"PRAGMA application_id = {stores._APPLICATION_ID}")
            other.execute(
                "CREATE TABLE IF NOT EXISTS endpoints (key TEXT PRIMARY KEY, record TEXT)"
            )
            other.execute("COMMIT")

    class Watched(SqliteStore):
        def _connect(self, patience: float) -> sqlite3.Connection:
            connection = super()._connect(patience)
            connection.set_trace_callback(self._begins)
            return connection

        def _begins(self, statement: str) -> None:
            steps.append(statement)
            if len(steps) == step + 1:
                with suppress(sqlite3.OperationalError):  # locked: its turn is after this one
                    make()

    Watched(str(file))
    assert "SELECT count(*) FROM sqlite_master" in steps
    ada = candidate(max_concurrency=1, limits_store=str(file))
    assert by("invoke", FakeChat(), ada).ok
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT count(*) FROM endpoints").fetchone() == (1,)


def test_a_redis_that_is_not_there_stops_no_call(caplog):
    pytest.importorskip("redis")
    ada = candidate(max_concurrency=2, limits_store="redis://127.0.0.1:1/0")
    assert by("ainvoke", FakeChat(), ada).ok
    assert "limits are not shared" in caplog.text


def test_another_programs_database_is_left_alone(tmp_path):
    file = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="another program's database"):
        open_store(str(file))
    assert file.read_bytes() == before
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(ConfigError, match="cannot be used"):
        open_store(str(tmp_path / "text"))


# ---------------------------------------------------------------------------------- one call


@both_ways
def test_a_call_whose_turn_comes_after_the_deadline_is_not_made(serve, tmp_path, how):
    server = serve(Reply("Paris", input_tokens=5, output_tokens=5))
    pool = yaml_pool(tmp_path, server, requests_per_minute=0.5, limits_store="memory")
    other = SEARCH.replace("Capital", "Where is the capital")
    first, second = bills(run(scripted(pool, SEARCH, other, ANSWER), how, deadline_seconds=60.0))
    assert first["ok"]
    assert (second["error"]["kind"], second["attempts"]) == ("rate_limited", 0)
    assert "its own limit" in second["error"]["message"]
    assert server.count() == 1


@both_ways
def test_a_retry_keeps_to_the_limit_and_half_an_answer_is_paid_and_asked_again(
    serve, tmp_path, how
):
    half = Wire(
        events=[
            {"choices": [{"index": 0, "delta": {"content": "Par"}}]},
            {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2}},
        ],
        body={
            "choices": [{"message": {"content": "Pa"}, "finish_reason": "error"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2},
        },
    )
    server = serve([Status(503, retry_after=0), half, Reply("Paris", 10, 5)])
    limits = {"requests_per_minute": 6000, "max_concurrency": 1, "limits_store": "memory"}
    pool = yaml_pool(tmp_path, server, max_retries=2, **limits, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["reply"], bill["attempts"], server.count()) == ("Paris", 3, 3)
    assert (bill["input_tokens"], bill["output_tokens"]) == (20, 7)


@both_ways
@pytest.mark.parametrize(
    ("failure", "retry_on", "attempts", "uncertain"),
    [
        (Cut(), ["rate_limited", "server_error"], 1, 1),
        (Cut(), ["connection"], 2, 2),
        (Status(500, retry_after=0), ["connection"], 1, 0),
        (Status(500, retry_after=0), ["server_error"], 2, 0),
        (Status(429, error_code="insufficient_quota"), ["rate_limited"], 1, 0),
        (Status(429, retry_after=0), [], 1, 0),
    ],
)
def test_only_what_may_be_asked_twice_is_and_what_may_be_billed_is_told(
    serve, tmp_path, how, failure, retry_on, attempts, uncertain
):
    server = serve(failure)
    pool = yaml_pool(tmp_path, server, max_retries=1, retry_on=retry_on)
    result = run(scripted(pool, SEARCH, ANSWER), how)
    (bill,) = bills(result)
    assert (bill["attempts"], server.count()) == (attempts, attempts)
    assert bill.get("uncertain_attempts", 0) == uncertain
    assert result["ledger"]["candidates"]["Ada"].get("uncertain_attempts", 0) == uncertain


@both_ways
@pytest.mark.parametrize("limits", [{}, {"max_concurrency": 2, "breaker_failures": 3}])
def test_a_hedge_answers_for_a_slow_request_and_both_are_billed(serve, tmp_path, how, limits):
    server = serve([Hang(), Reply("Paris", 10, 5)])
    hedged = {"hedge_after_seconds": 0.05, "limits_store": "memory", **limits}
    pool = yaml_pool(tmp_path, server, **hedged, **ONE_DOLLAR)
    result = run(scripted(pool, SEARCH, ANSWER), how)
    (bill,) = bills(result)
    assert (bill["reply"], bill["attempts"], bill["hedges"], server.count()) == ("Paris", 2, 1, 2)
    # Nobody knows what the one that was given up will cost: as much as the other.
    assert (bill["input_tokens"], bill["output_tokens"]) == (20, 10)
    assert bill["cost_usd"] == pytest.approx(2 * (10 + 2 * 5) / 1e6)
    assert bill["uncertain_attempts"] == 1
    line = result["ledger"]["candidates"]["Ada"]
    assert (line["calls"], line["retries"], line["hedges"]) == (1, 1, 1)


@both_ways
def test_a_hedge_takes_no_place_that_is_not_free(serve, tmp_path, how):
    server = serve(Reply("Paris", delay=0.3))
    hedged = {"hedge_after_seconds": 0.05, "limits_store": "memory", "max_concurrency": 1}
    (bill,) = bills(run(scripted(yaml_pool(tmp_path, server, **hedged), SEARCH, ANSWER), how))
    assert (bill["ok"], bill["attempts"], server.count()) == (True, 1, 1)


@both_ways
def test_a_hedge_that_fails_first_does_not_decide(serve, tmp_path, how):
    server = serve([Reply("Paris", 10, 5, delay=0.4), Status(500)])
    pool = yaml_pool(tmp_path, server, hedge_after_seconds=0.05, **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, SEARCH, ANSWER), how))
    assert (bill["reply"], bill["attempts"], bill["input_tokens"]) == ("Paris", 2, 10)


async def test_a_cancelled_hedge_leaves_no_request_behind():
    ada = candidate(hedge_after_seconds=0.01, max_concurrency=2, limits_store="memory")
    model = Gated()
    call = asyncio.create_task(aask(model, QUESTION, ada))
    await until(lambda: model.inside == 2)
    call.cancel()
    await asyncio.wait([call])
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert model.inside == 0
    endpoint = endpoint_of(ada)
    assert endpoint.store.read(endpoint.key).places == {}


# ---------------------------------------------------------------------------------- fallback

LADDER = {
    "Ada": {"fallback": "Bob", **ONE_DOLLAR},
    "Bob": ONE_DOLLAR,
    "Eve": ONE_DOLLAR,
}


@both_ways
def test_a_fallback_replies_is_billed_and_the_controller_is_told(serve, tmp_path, how):
    server = serve({"ada": Status(503), "bob": Reply("Paris", 10, 5), "eve": Reply("Rome")})
    graph = scripted(yaml_pool(tmp_path, server, LADDER), SEARCH, ANSWER)
    result = run(graph, how)
    (bill,) = bills(result)
    assert (bill["candidate"], bill["reply"]) == ("Bob", "Paris")
    assert bill["instead_of"]["error"]["kind"] == "server_error"
    lines = result["ledger"]["candidates"]
    assert {name: (line["calls"], line["failed_calls"]) for name, line in lines.items()} == {
        "Ada": (1, 1),
        "Bob": (1, 0),
    }
    told = next(m for m in result["scratchpad"] if m.type == "tool")
    assert "instead of Ada, which could not be reached: server_error" in told.text
    assert (server.count("ada"), server.count("bob"), server.count("eve")) == (1, 1, 0)


@pytest.mark.parametrize(
    ("context", "bob", "failure"),
    [
        ({"budget_usd": 0.00125}, ONE_DOLLAR, Status(503)),  # enough for Ada alone
        ({"approve_above_usd": 0.002}, {"output_usd_per_mtok": 10}, Status(503)),
        ({}, ONE_DOLLAR, Reply("", 10, 5)),  # the model's own failure
    ],
    ids=["budget", "approval", "empty"],
)
def test_no_fallback_is_asked_that_the_run_does_not_allow(serve, tmp_path, context, bob, failure):
    server = serve({"ada": failure, "bob": Reply("Paris")})
    pool = yaml_pool(tmp_path, server, {"Ada": LADDER["Ada"], "Bob": bob})
    graph = scripted(pool, SEARCH, ANSWER, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    (bill,) = bills(run(graph, "invoke", thread, **context))
    assert (bill["candidate"], server.count("bob")) == ("Ada", 0)


def test_the_nearest_is_alike_and_of_another_server():
    def one(name, score, price, url="http://a/v1", **more):
        prices = {"input_usd_per_mtok": price, "output_usd_per_mtok": price}
        return Candidate(name=name, benchmarks={"qa": score}, base_url=url, **prices, **more)

    ada = one("Ada", 0.8, 1.0, fallback="nearest", strengths=("maps",))
    near, far = one("Near", 0.75, 1.1, "http://b/v1"), one("Far", 0.2, 30.0, "http://c/v1")
    twin, tool = one("Twin", 0.8, 1.0), one("Tool", 0.8, 1.0, provider="tool")
    pool = CandidatePool(candidates=(ada, tool, twin, far, near))
    assert fallback_of(ada, pool) == near
    assert fallback_of(ada, CandidatePool(candidates=(ada, twin))) == twin
    assert fallback_of(ada, CandidatePool(candidates=(ada, tool))) is None
    assert fallback_of(near, pool) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"candidates": [{"name": "Ada", "fallback": "Adda"}, {"name": "Bob"}]}, "mean 'Ada'"),
        ({"candidates": [{"name": "Ada", "fallback": "Eve"}]}, "fallback of 'Ada': no candid"),
        ({"candidates": [{"name": "Ada", "fallback": "ada"}]}, "'Ada' cannot be its own"),
        (
            {"candidates": [{"name": "Ada"}], "resilience": {"fallback": "Eve"}},
            "no candidate 'Eve'",
        ),
    ],
)
def test_a_fallback_that_is_nobody_is_refused_in_python_too(tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        CandidatePool(**given)
    (file := tmp_path / "pool.yaml").write_text(json.dumps(given))
    with pytest.raises(PoolError, match=said):
        CandidatePool.from_yaml(file)


def test_each_others_fallback_is_asked_once(serve, tmp_path):
    server = serve({"ada": Status(503), "bob": Status(503)})
    circle = {"Ada": LADDER["Ada"], "Bob": {"fallback": "Ada", **ONE_DOLLAR}}
    result = run(scripted(yaml_pool(tmp_path, server, circle), SEARCH, ANSWER), "invoke")
    assert (server.count("ada"), server.count("bob")) == (1, 1)
    assert not bills(result)[0]["ok"]


def test_a_part_of_a_pool_may_lack_a_fallback_and_its_trace_can_be_read(tmp_path):
    one, two = (
        Candidate(name="Ada", fallback="Bob", image_inputs=True),
        Candidate(name="Bob", fallback="Ada"),
    )
    part = CandidatePool(candidates=(one, two)).taking_images()
    assert (part.find("Bob"), fallback_of(one, part)) == (None, None)
    stored = part.model_dump(mode="json")  # as earlier releases wrote it
    assert CandidatePool.model_validate(stored, context=STORED) == part
    assert part.descriptors().candidates[0].fallback is None


# ---------------------------------------------------------------------------------- settings


def test_the_block_of_a_pool_is_the_default_of_its_candidates(tmp_path):
    file = tmp_path / "pool.yaml"
    file.write_text(
        "resilience: {timeout_seconds: 9, breaker_failures: 4, limits_store: l.sqlite}\n"
        "candidates: [{name: Ada, timeout_seconds: 5}, {name: Bob, fallback: nearest}]\n"
    )
    ada, bob = CandidatePool.from_yaml(file).candidates
    assert (ada.timeout_seconds, bob.timeout_seconds, ada.breaker_failures) == (5, 9, 4)
    assert ada.limits_store == str(tmp_path / "l.sqlite")
    python = CandidatePool(resilience={"max_retries": 0}, candidates=(Candidate(name="Ada"),))
    assert python.candidates[0].max_retries == 0
    assert python.descriptors().candidates[0].limits_store is None


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{timeout: 3}", "did you mean 'timeout_seconds'"),
        ("{hedge_after_seconds: 70}", "less than timeout_seconds"),
        ("{breaker_failures: 0}", "at least 1, not 0"),
        ("{requests_per_minute: .nan}", "finite number"),
        ("{retry_on: [auth]}", "retry_on"),
        ("{fallback: Eve}", "no candidate 'Eve'"),
        ("{limits_store: 'mysql://h/0'}", "unknown scheme 'mysql'"),
        ("{limits_store: 'redis://:geheim@h/0'}", "use env:NAME"),
        ("{limits_store: 'redis://h/0?password=geheim'}", "use env:NAME"),
        ("{limits_store: 'env:geheim'}", "NAME of an environment variable"),
        ("{limits_store: ''}", "is empty"),
        ("[1]", "a mapping is wanted"),
    ],
)
def test_a_wrong_setting_is_named_with_its_fix_and_without_a_secret(tmp_path, block, said):
    file = tmp_path / "pool.yaml"
    file.write_text(f"resilience: {block}\ncandidates: [{{name: Ada}}, {{name: Bob}}]\n")
    with pytest.raises(PoolError, match=r"pool\.yaml") as error:
        CandidatePool.from_yaml(file)
    assert said in str(error.value)
    assert "geheim" not in str(error.value) or "env:geheim" in block


# ----------------------------------------------------------------------------------- to be seen


def test_a_live_check_asks_each_model_once_and_shows_its_limits(serve, tmp_path):
    ok = Reply("OK", 10, 5)
    server = serve({"ada": ok, "bob": Status(503), "controller": ok})
    yaml_pool(
        tmp_path,
        server,
        {"Ada": {"max_concurrency": 4, "requests_per_minute": 600}, "Bob": {}},
        {"protocol": "tools"},
        breaker_failures=1,
        limits_store="limits.sqlite",
    )
    done = cli("pool", "check", tmp_path / "pool.yaml", "--live", env={"COLUMNS": "200"})
    ada, bob = [line for line in done.stdout.splitlines() if line.startswith(("Ada", "Bob"))]
    assert "yes" in ada
    assert "breaker closed, 0 of 4 places taken, rate used up for" in ada
    assert "no (server_error" in bob
    assert "breaker open for" in bob
    assert re.search(r"^controller +yes", done.stdout, re.M)
    assert (done.returncode, done.stderr) == (2, "router-r1: not reached: Bob\n")
    assert server.count() == 3
    registry = CollectorRegistry()
    registry.register(EndpointCollector(CandidatePool.from_yaml(tmp_path / "pool.yaml")))
    text = generate_latest(registry).decode()
    assert 'router_r1_breaker_state{candidate="Bob"} 2.0' in text
    assert 'router_r1_attempts_under_way{candidate="Ada"} 0.0' in text
    assert 'router_r1_breaker_refusals_total{candidate="Ada"} ' in text
