"""Requests and tokens a minute: kept by threads, event loops and processes together."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from fakes import answer, search
from in_process import forked
from openai_server import Reply, Status
from router_r1_graph import Candidate, CandidatePool, ScriptedController, create_router_r1
from router_r1_graph.candidates import limits


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(limits.tempfile, "gettempdir", lambda: str(tmp_path))


def candidate(**settings):
    free = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1, "max_retries": 0}
    return Candidate.model_validate({"name": "Ada", **free, **settings})


def test_without_limits_nothing_is_written(tmp_path):
    assert limits.reserve(candidate()) == 0
    limits.spend(candidate(), 1000)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def clock(monkeypatch):
    """The time that the limits see, in a list."""
    now = [1_000_000.0]
    monkeypatch.setattr(limits, "time", SimpleNamespace(time=lambda: now[0]))
    return now


def test_a_burst_goes_at_once_and_the_next_ones_wait_in_turn(clock):
    ada = candidate(requests_per_minute=60)
    assert [limits.reserve(ada) for _ in range(9)] == pytest.approx([0] * 5 + [1, 2, 3, 4])
    clock[0] += 4
    assert limits.reserve(ada) == pytest.approx(1)
    clock[0] += 60
    assert [limits.reserve(ada) for _ in range(6)] == pytest.approx([0] * 5 + [1])
    slow = candidate(name="Slow", requests_per_minute=0.5)
    assert [limits.reserve(slow) for _ in range(3)] == pytest.approx([0, 120, 240])


def test_tokens_are_paid_off_before_the_next_request(clock):
    ada = candidate(tokens_per_minute=600)
    assert limits.reserve(ada) == 0
    limits.spend(ada, 100)  # ten seconds' worth, of which five are a burst
    assert limits.reserve(ada) == pytest.approx(5)
    clock[0] += 5
    assert limits.reserve(ada) == 0


def test_models_and_keys_have_limits_of_their_own():
    settings = {"requests_per_minute": 0.5, "base_url": "https://one.example/v1"}
    assert limits.reserve(candidate(**settings)) == 0
    assert limits.reserve(candidate(**settings, model="other")) == 0
    assert limits.reserve(candidate(**settings, api_key_env="OTHER_KEY")) == 0
    # The name that a pool gives it does not matter where the model is named.
    same = {**settings, "model": "other"}
    assert limits.reserve(candidate(**same, name="Eve")) > 100


def test_processes_share_a_limit():
    ada = candidate(requests_per_minute=60)

    def reserve_all():
        for _ in range(20):
            limits.reserve(ada)

    start = time.time()
    processes = [forked(reserve_all) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    passed = time.time() - start
    # Of 40 requests, 41 with this one, what has passed and the burst are worked off.
    wait = limits.reserve(ada)
    assert 41 - 5 - passed - 2 <= wait <= 41


def test_a_call_waits_for_its_limit_and_fails_at_once_where_the_deadline_comes_first(serve):
    server = serve(Reply("Paris", input_tokens=5, output_tokens=5))
    ada = candidate(base_url=server.base_url, requests_per_minute=0.5)
    pool = CandidatePool(name="one", candidates=(ada,))
    script = ScriptedController([search("Ada: q"), search("Ada: r"), answer()])
    graph = create_router_r1(pool, script).compile()
    context = {"deadline_seconds": 60.0}
    state = asyncio.run(graph.ainvoke({"question": "q"}, context=context))
    first, second = [m.artifact for m in state["scratchpad"] if m.type == "tool"]
    assert first["ok"]
    assert second["error"]["kind"] == "rate_limited"
    assert "its own limit" in second["error"]["message"]
    assert server.count() == 1


def test_a_short_wait_is_waited(serve):
    server = serve([Status(503), Reply("Paris")])
    ada = candidate(base_url=server.base_url, requests_per_minute=600, max_retries=2)
    pool = CandidatePool(name="one", candidates=(ada,))
    graph = create_router_r1(pool, ScriptedController([search("Ada: q"), answer()])).compile()
    state = graph.invoke({"question": "q"})
    assert state["ledger"]["candidates"]["Ada"]["calls"] == 1
    assert server.count() == 2  # a retry is a request, too


def test_a_folder_that_cannot_be_written_limits_nothing_and_says_so(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setattr(limits.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    ada = candidate(requests_per_minute=0.5)
    assert [limits.reserve(ada), limits.reserve(ada)] == [0, 0]
    assert "are not kept" in caplog.text
