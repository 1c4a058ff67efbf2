"""The reply store: a call is paid once, whoever makes it, and nothing that is paid is lost."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import sqlite3
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as futures_thread
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.types import Command

from openai_server import Reply, Status, Wire
from patience import wait_until
from router_r1_graph import (
    AbsoluteCost,
    CandidatePool,
    ChatRouterR1,
    ConfigError,
    Recorder,
    ReplyStore,
    ScriptedController,
    Trace,
    candidate_tool,
    create_router_r1,
    parse_controller,
    pool_tools,
    read_traces,
    total,
)
from router_r1_graph.candidates import store_file
from router_r1_graph.candidates.call import aask, ask
from router_r1_graph.candidates.providers import make_chat_model
from router_r1_graph.candidates.records import read_records, stored_records, write_records
from yaml_pool import ONE_DOLLAR, both_ways, run, yaml_pool

FRANCE = "What is the capital of France?"
SCRIPT = (f"<search> Ada: {FRANCE} </search>", "<answer> Paris </answer>")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "replies.sqlite"


@pytest.fixture
def store(file: Path):
    with ReplyStore(file) as opened:
        yield opened


def call_of(pool: CandidatePool, query: str = FRANCE, **args: Any) -> dict[str, Any]:
    return {
        "type": "tool_call",
        "id": "1",
        "name": pool.candidates[0].slug,
        "args": {"query": query, **args},
    }


def asked(
    pool: CandidatePool, replies: Any, query: str = FRANCE, how: str = "invoke", **args: Any
) -> dict[str, Any]:
    """Ask the pool's first candidate, and return the bill with the text."""
    one = candidate_tool(pool.candidates[0], replies=replies)
    call = call_of(pool, query, **args)
    message = one.invoke(call) if how == "invoke" else asyncio.run(one.ainvoke(call))
    return {**message.artifact, "text": message.text}


def has_waiters(store: ReplyStore) -> bool:
    """Return whether somebody waits for a call that another makes: a task, or a thread."""
    futures = [flight.future for flight in store.flights._by_key.values()]
    return any(future._done_callbacks or future._condition._waiters for future in futures)


# ------------------------------------------------------------------------------------------- hits


@both_ways
def test_the_same_call_is_paid_once_and_says_what_it_saves(serve, tmp_path, store, how):
    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    first, again = (asked(pool, store, how=how) for _ in range(2))
    assert server.count() == 1
    assert (first["stored"], first["saved_usd"]) == (False, 0.0)
    free = {"stored": True, "saved_usd": pytest.approx(20e-6), "cost_usd": 0.0, "attempts": 0}
    assert again == {**first, **free}
    assert again["seconds"] == first["seconds"] > 0


@both_ways
def test_a_run_over_stored_replies_is_the_same_run_and_costs_nothing(serve, tmp_path, store, how):
    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    graph = create_router_r1(pool, ScriptedController(SCRIPT), replies=store).compile()
    first, again = (run(graph, how, budget_usd=0.01) for _ in range(2))
    assert server.count() == 1
    assert [m.content for m in again["scratchpad"]] == [m.content for m in first["scratchpad"]]
    paid, free = total(first["ledger"]), total(again["ledger"])
    assert (free["cost_usd"], free["calls"], free["stored_calls"]) == (0.0, 1, 1)
    assert free["saved_usd"] == paid["cost_usd"] == pytest.approx(20e-6)
    assert free["input_tokens"] == paid["input_tokens"]
    bill = again["messages"][-1].response_metadata["router_r1"]
    assert (bill["stored_calls"], bill["saved_usd"]) == (1, paid["cost_usd"])
    rewarded = [AbsoluteCost(1e-3).measure(Trace.from_state(state)) for state in (first, again)]
    assert rewarded[0] == rewarded[1] == pytest.approx(20e-6)


def test_a_hit_takes_as_much_of_the_budget_as_the_paid_call(serve, tmp_path, store):
    server = serve(Reply("Paris", input_tokens=1000))
    pool = yaml_pool(tmp_path, server, max_tokens=10, **ONE_DOLLAR)
    script = [SCRIPT[0], f"<search> Ada: {FRANCE}! </search>", SCRIPT[1]]
    graph = create_router_r1(pool, ScriptedController(script), replies=store).compile()
    ends = [run(graph, "invoke", budget_usd=0.0011) for _ in range(2)]
    assert [end["stop_reason"] for end in ends] == ["budget_usd"] * 2
    assert server.count() == 1


def test_a_repeated_call_within_a_run_is_no_second_hit(serve, tmp_path, store):
    pool = yaml_pool(tmp_path, serve(Reply("Paris")), **ONE_DOLLAR)
    script = [SCRIPT[0], SCRIPT[0], SCRIPT[1]]
    graph = create_router_r1(pool, ScriptedController(script), replies=store).compile()
    for _ in range(2):
        result = run(graph, "invoke")
    calls = Trace.from_state(result).calls
    assert [(c.stored, c.cached, c.saved_usd > 0) for c in calls] == [
        (True, False, True),
        (False, True, False),
    ]
    assert total(result["ledger"])["calls"] == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "other"},
        {"max_tokens": 7},
        {"options": {"top_p": 0.5}},
        {"options": {"stop": ["."]}},
        {"options": {"extra_body": {"seed": 1}}},
        "address",
        "query",
        "background",
    ],
    ids=str,
)
def test_whatever_determines_a_reply_is_part_of_its_key(serve, tmp_path, store, changed):
    server = serve(Reply("Paris"))
    asked(yaml_pool(tmp_path, server), store)
    given: dict[str, Any] = {}
    if changed == "address":
        server = serve(Reply("Paris"))
    elif changed == "query":
        given = {"query": FRANCE + " "}
    elif changed == "background":
        given = {"background": "It is 1940."}
    settings = changed if isinstance(changed, dict) else {}
    before = server.count()
    for _ in range(2):
        asked(yaml_pool(tmp_path, server, **settings), store, **given)
    assert server.count() == before + 1


def test_stop_texts_and_the_temperature_of_a_call_are_part_of_its_key(serve, tmp_path, store):
    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server)
    (candidate,) = pool.candidates
    model = candidate_tool(candidate).model
    for sampling in ({}, {"stop": ["x"]}, {"stop": ["y"]}, {"temperature": 0.7}):
        for _ in range(2):
            ask(model, [HumanMessage(FRANCE)], candidate, store=store, **sampling)
    assert server.count() == 3 + 2  # what is sampled is not stored


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "Grace", "model": "ada", "aliases": ["Hopper"]},
        {"input_usd_per_mtok": 5.0, "usd_per_call": 0.1, "strengths": ["art"]},
        {"timeout_seconds": 3, "max_retries": 1, "latency_seconds": 2, "benchmarks": {"art": 0.5}},
        {"base_url": "userinfo"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_names_prices_and_access_are_no_part_of_it(serve, tmp_path, store, changed):
    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server)
    asked(pool, store)
    if "base_url" in changed:
        changed = {"base_url": server.base_url.replace("//", "//user:word@")}
    (candidate,) = pool.candidates
    other = pool.model_copy(update={"candidates": (candidate.model_copy(update=changed),)})
    assert asked(other, store)["stored"]
    assert server.count() == 1


def test_a_stored_reply_is_worth_what_it_would_cost_at_the_prices_of_now(serve, tmp_path, store):
    server = serve(Reply("Paris"))
    asked(yaml_pool(tmp_path, server, **ONE_DOLLAR), store)
    dear = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 20.0}
    assert asked(yaml_pool(tmp_path, server, **dear), store)["saved_usd"] == pytest.approx(200e-6)


def test_a_cost_that_the_provider_reported_is_what_is_saved(serve, tmp_path, store):
    pool = yaml_pool(tmp_path, serve(Reply("Paris", cost=0.25)), **ONE_DOLLAR)
    assert [asked(pool, store)["saved_usd"] for _ in range(2)] == [0.0, 0.25]


def test_the_endpoint_of_the_environment_is_part_of_the_key(serve, tmp_path, store, monkeypatch):
    servers = serve(Reply("Paris")), serve(Reply("Lyon"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    pool = yaml_pool(tmp_path, servers[0])
    candidate = pool.candidates[0].model_copy(update={"base_url": None})
    pool = pool.model_copy(update={"candidates": (candidate,)})
    texts = []
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        for server in servers:
            with monkeypatch.context() as patch:
                patch.setenv(variable, server.base_url)
                texts.append(asked(pool, store)["text"])
    assert texts == ["Paris", "Lyon"] * 2
    assert [server.count() for server in servers] == [1, 1]


# ------------------------------------------------------------------------------- what is not stored


@pytest.mark.parametrize("temperature", [0.7, None])
def test_sampled_replies_are_stored_only_where_every_reply_is(serve, tmp_path, file, temperature):
    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server, temperature=temperature)
    for every, requests in ((False, 2), (True, 3)):
        with ReplyStore(file, every=every) as store:
            stored = [asked(pool, store)["stored"] for _ in range(2)]
        assert (stored, server.count()) == ([False, every], requests)


CLOCK = """
from langchain_core.tools import tool

@tool
def clock(query: str) -> str:
    "Tell the time."
    clock.metadata = {"asked": (clock.metadata or {"asked": 0})["asked"] + 1}
    return str(clock.metadata["asked"])
"""


def test_a_tool_may_change_its_mind_and_is_stored_only_where_everything_is(tmp_path, file):
    (tmp_path / "clock_of_a_test.py").write_text(CLOCK)
    (tmp_path / "pool.yaml").write_text(
        "candidates: [{name: Clock, provider: tool, options: {object: 'clock_of_a_test:clock'}}]"
    )
    pool = CandidatePool.from_yaml(tmp_path / "pool.yaml")
    with ReplyStore(file) as store:
        assert [asked(pool, store)["text"] for _ in range(2)] == ["1", "2"]
    with ReplyStore(file, every=True) as store:
        texts = [asked(pool, store) for _ in range(2)]
    assert [(bill["text"], bill["stored"]) for bill in texts] == [("3", False), ("3", True)]


@pytest.mark.parametrize(("usd", "bought"), [(0, [False, False]), (0.01, [False, True])])
def test_what_a_tool_did_not_find_is_stored_only_where_it_was_paid(tmp_path, usd, bought):
    (tmp_path / "blank_of_a_test.py").write_text(
        CLOCK.replace('str(clock.metadata["asked"])', '""')
    )
    (tmp_path / "pool.yaml").write_text(
        "candidates: [{name: Clock, provider: tool, options: {object: 'blank_of_a_test:clock'},"
        f" usd_per_call: {usd}}}]"
    )
    pool = CandidatePool.from_yaml(tmp_path / "pool.yaml")
    with ReplyStore(tmp_path / "every.sqlite", every=True) as every:
        bills = [asked(pool, every) for _ in range(2)]
    assert [bill["error"]["kind"] for bill in bills] == ["empty", "empty"]
    assert [bill["stored"] for bill in bills] == bought


def test_a_model_that_is_given_is_not_stored(tmp_path, serve, store):
    @tool
    def clock(query: str) -> str:
        """Tell the time."""
        return "noon"

    pool = yaml_pool(tmp_path, serve(Reply("Paris")))
    (one,) = pool_tools(pool, {"Ada": clock}, replies=store)
    for _ in range(2):
        assert not one.invoke(call_of(pool)).artifact["stored"]
    assert store.stats() == []


def test_a_failed_reply_is_not_stored(serve, tmp_path, store):
    server = serve([Status(400), Status(401), Reply("Paris")])
    pool = yaml_pool(tmp_path, server)
    assert [asked(pool, store)["ok"] for _ in range(4)] == [False, False, True, True]
    assert server.count() == 3


def test_recorded_replies_are_not_stored_again(tmp_path, store):
    row = {"question": FRANCE, "candidate": "Ada", "reply": "Paris"}
    (tmp_path / "records.jsonl").write_text(json.dumps(row))
    (tmp_path / "pool.yaml").write_text(
        "candidates: [{name: Ada, provider: recorded, options: {records: records.jsonl}}]"
    )
    pool = CandidatePool.from_yaml(tmp_path / "pool.yaml")
    assert not any(asked(pool, store)["stored"] for _ in range(2))


# ------------------------------------------------------------------------------------- controllers


def test_a_controllers_turns_are_paid_once_too(serve, tmp_path, store):
    server = serve({"controller": [Reply(text) for text in SCRIPT], "ada": Reply("Paris")})
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    pool = yaml_pool(tmp_path, server, {"Ada": prices}, prices)
    results = []
    for _ in range(2):  # as two programs would
        graph = create_router_r1(pool, parse_controller("pool", pool), replies=store).compile()
        results.append(run(graph, "invoke", budget_usd=0.1))
    assert server.count() == 3
    assert [r["answer"] for r in results] == ["Paris", "Paris"]
    line = results[1]["ledger"]["controller"]
    assert (line["cost_usd"], line["calls"], line["stored_calls"]) == (0.0, 2, 2)
    assert line["saved_usd"] == pytest.approx(results[0]["ledger"]["controller"]["cost_usd"])


def test_native_tool_calls_come_back_and_the_tools_are_part_of_the_key(serve, tmp_path, store):
    turns = [Reply("", tool_calls=[("Ada", {"query": FRANCE})]), Reply("Paris")]
    server = serve({"controller": turns, "ada": Reply("Paris")})
    pool = yaml_pool(tmp_path, server, controller={"protocol": "tools"})
    for _ in range(2):
        graph = create_router_r1(pool, parse_controller("pool", pool), replies=store).compile()
        result = run(graph, "invoke")
        assert (result["answer"], total(result["ledger"])["calls"]) == ("Paris", 1)
    assert server.count() == 3
    (ada,) = pool.candidates
    other = (ada, ada.model_copy(update={"name": "Bob"}))
    pool = pool.model_copy(update={"candidates": other})
    graph = create_router_r1(pool, parse_controller("pool", pool), replies=store).compile()
    run(graph, "invoke")
    assert server.count("controller") > 2


def test_a_stored_turn_can_be_streamed(serve, tmp_path, file):
    server = serve({"controller": Reply("<answer> Paris it is </answer>"), "ada": Reply("?")})
    pool = yaml_pool(tmp_path, server, controller={})
    model = ChatRouterR1(pool=pool, replies=file)
    texts = ["".join(chunk.text for chunk in model.stream(FRANCE)) for _ in range(2)]
    assert texts == ["Paris it is"] * 2
    assert server.count() == 1
    assert model.invoke(FRANCE).response_metadata["stored_calls"] == 1


# ------------------------------------------------------------------------------------- in flight


def test_identical_calls_of_an_event_loop_are_made_once(serve, tmp_path, store):
    server = serve(Reply("Paris", delay=0.2))
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    one = candidate_tool(pool.candidates[0], replies=store)

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(one.ainvoke(call_of(pool)) for _ in range(20)))

    bills = [message.artifact for message in asyncio.run(all_at_once())]
    assert server.count() == 1
    assert sorted(bill["stored"] for bill in bills) == [False] + [True] * 19
    assert sum(bill["cost_usd"] for bill in bills) == pytest.approx(20e-6)


def test_identical_calls_of_threads_and_event_loops_are_made_once(serve, tmp_path, store):
    server = serve(Reply("Paris", delay=0.3))
    pool = yaml_pool(tmp_path, server)
    ways = ["invoke", "ainvoke"] * 4
    with ThreadPoolExecutor(8) as threads:
        bills = list(threads.map(lambda how: asked(pool, store, how=how), ways))
    assert server.count() == 1
    assert [bill["text"] for bill in bills] == ["Paris"] * 8


def test_if_the_first_fails_the_next_makes_the_call(serve, tmp_path, store):
    server = serve([Status(400), Reply("Paris", delay=0.1)])
    pool = yaml_pool(tmp_path, server)
    one = candidate_tool(pool.candidates[0], replies=store)

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(one.ainvoke(call_of(pool)) for _ in range(8)))

    oks = [message.artifact["ok"] for message in asyncio.run(all_at_once())]
    assert sorted(oks) == [False] + [True] * 7
    assert server.count() == 2


def test_if_everybody_fails_nobody_waits_for_all_of_them(serve, tmp_path, store):
    server = serve(Status(400))
    pool = yaml_pool(tmp_path, server)
    one = candidate_tool(pool.candidates[0], replies=store)

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(one.ainvoke(call_of(pool)) for _ in range(8)))

    replies = [message.artifact for message in asyncio.run(all_at_once())]
    assert {reply["error"]["kind"] for reply in replies} == {"bad_request"}
    assert server.count() == 8


def test_if_the_first_is_cancelled_the_next_makes_the_call(serve, tmp_path, store):
    server = serve([Reply("Rome", delay=30), Reply("Paris")])
    pool = yaml_pool(tmp_path, server)
    one = candidate_tool(pool.candidates[0], replies=store)

    async def cancelled() -> Any:
        first = asyncio.create_task(one.ainvoke(call_of(pool)))
        await asyncio.to_thread(wait_until, server.count)
        second = asyncio.create_task(one.ainvoke(call_of(pool)))
        await asyncio.to_thread(wait_until, lambda: has_waiters(store))
        first.cancel()
        return await second

    assert asyncio.run(cancelled()).text == "Paris"
    assert server.count() == 2


@pytest.mark.parametrize("waits", [False, True], ids=["comes later", "waits already"])
def test_an_event_loop_that_stopped_for_good_keeps_nobody_waiting(serve, tmp_path, store, waits):
    server = serve([Reply("Paris", delay=30), Reply("Paris")])
    pool = yaml_pool(tmp_path, server)
    one = candidate_tool(pool.candidates[0], replies=store)
    loop = asyncio.new_event_loop()
    task = loop.create_task(one.ainvoke(call_of(pool)))
    loop.call_later(0.01, loop.stop)
    while not server.count():
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
    with ThreadPoolExecutor(1) as thread:
        if waits:
            answer = thread.submit(asked, pool, store)
            wait_until(lambda: has_waiters(store))
        task.cancel()
        del task
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        if not waits:
            answer = thread.submit(asked, pool, store)
        assert answer.result()["text"] == "Paris"


class Silent(BaseChatModel):
    """A model that never answers."""

    @property
    def _llm_type(self) -> str:
        return "silent"

    def _generate(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def _agenerate(self, *_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("hedged", [{}, {"hedge_after_seconds": 0.01}], ids=["", "hedged"])
def test_a_call_that_is_thrown_away_takes_no_lock_of_the_thread_that_collects_it(
    serve, tmp_path, store, stored, hedged
):
    settings = yaml_pool(tmp_path, serve(Reply("Paris")), max_concurrency=2, **hedged).candidates[0]
    replies = store if stored else None
    loop = asyncio.new_event_loop()
    call = aask(Silent(), [HumanMessage(FRANCE)], settings, store=replies)
    task = loop.create_task(call)
    with suppress(TimeoutError):
        loop.run_until_complete(asyncio.wait_for(asyncio.shield(task), 0.2))
    loop.close()
    thrown_away = weakref.ref(task)
    del task, call, loop

    def collect() -> None:
        with futures_thread._global_shutdown_lock:  # as in the midst of any `submit`
            gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    # Neither its claim nor its places are held.
    one = make_chat_model(settings)
    answers = [ask(one, [HumanMessage(FRANCE)], settings, store=replies) for _ in range(2)]
    assert [answer.text for answer in answers] == ["Paris", "Paris"]
    gc.collect()
    assert thrown_away() is None


def test_a_thread_that_blocks_an_event_loop_does_not_wait_for_it(serve, tmp_path, store):
    server = serve(Reply("Paris", delay=0.2))
    pool = yaml_pool(tmp_path, server)
    one = candidate_tool(pool.candidates[0], replies=store)

    async def both() -> list[str]:
        first = asyncio.create_task(one.ainvoke(call_of(pool)))
        await asyncio.to_thread(wait_until, server.count)
        return [one.invoke(call_of(pool)).text, (await first).text]

    assert asyncio.run(both()) == ["Paris", "Paris"]


@both_ways
def test_whoever_waits_keeps_a_deadline_of_its_own(serve, tmp_path, store, how):
    server = serve(Reply("Paris", delay=1.5))
    pool = yaml_pool(tmp_path, server)
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(asked, pool, store)
        wait_until(server.count)
        late = asked(pool, store, how=how, seconds_left=0.1)
        assert (late["error"]["kind"], late["attempts"]) == ("timeout", 0)
        assert first.result()["text"] == "Paris"
    assert server.count() == 1


# -------------------------------------------------------------------------------------- processes

FORK = multiprocessing.get_context("fork")
SPAWN = multiprocessing.get_context("spawn")
#: For processes that end by a kill: what they need is imported once for all.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pytest", "langchain_openai", ChatRouterR1.__module__])


def _ask_all(pool: CandidatePool, replies: Any, queries: list[str]) -> None:
    for query in queries:
        assert asked(pool, replies, query)["ok"]


@pytest.mark.long
def test_processes_share_a_file_and_make_each_call_once(serve, tmp_path, file):
    server = serve(lambda request: Reply(request.prompt.upper(), delay=0.02))
    pool = yaml_pool(tmp_path, server)
    queries = [f"question {number}" for number in range(10)]
    workers = [SPAWN.Process(target=_ask_all, args=(pool, file, queries)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert server.count() == 10
    with ReplyStore(file) as store:
        (line,) = store.stats()
        assert (line.replies, line.hits) == (10, 10)


@pytest.mark.long
def test_a_store_goes_along_to_a_process_whichever_way_it_starts(serve, tmp_path, store):
    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server)
    asked(pool, store)
    for start in (FORK, SPAWN, SERVER):
        worker = start.Process(target=_ask_all, args=(pool, store, [FRANCE, f"{start}?", FRANCE]))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
    assert server.count() == 4
    # None of these processes runs its exit handlers.
    assert [(line.replies, line.hits) for line in store.stats()] == [(4, 6)]
    assert asked(pool, store, f"{FORK}?")["stored"]
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.path, copy.every) == (store.path, store.every)
    copy.close()


def test_after_a_kill_only_what_is_missing_is_paid(serve, tmp_path, file):
    server = serve(lambda request: Reply(request.prompt, delay=0.01))
    pool = yaml_pool(tmp_path, server)
    queries = [f"question {number}" for number in range(30)]
    worker = SERVER.Process(target=_ask_all, args=(pool, file, queries))
    worker.start()
    wait_until(lambda: server.count() > 7)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    before = server.count()
    with ReplyStore(file) as store:
        kept = sum(line.replies for line in store.stats())
        assert before - 1 <= kept <= before  # one call was under way at most
        _ask_all(pool, store, queries)
    assert server.count() == before + 30 - kept


def _claim(file: Path, key: str, claimed: Any) -> None:
    assert ReplyStore(file).claim(key, 3600).result() is True
    claimed.set()
    time.sleep(3600)


def test_the_claim_of_a_process_that_was_killed_is_taken_over(file, store):
    claimed = SERVER.Event()
    worker = SERVER.Process(target=_claim, args=(file, "key", claimed), daemon=True)
    worker.start()
    claimed.wait()
    assert store.claim("key", 1).result() is False
    worker.kill()
    worker.join()
    assert store.claim("key", 1).result() is True


def test_a_claim_that_is_over_is_taken_over(file, store):
    with ReplyStore(file) as other:
        assert other.claim("key", 0.0).result() is True
        assert store.claim("key", 3600).result() is True
        assert other.claim("key", 1).result() is False
        store.release("key")
        assert store.claim("?", 1).result() is True  # what was released before is released now
        assert other.claim("key", 1).result() is True


def test_a_wait_for_another_process_ends_with_the_time_that_is_left(serve, tmp_path, file, store):
    server = serve(Reply("Paris", delay=1.0))
    pool = yaml_pool(tmp_path, server)
    with ReplyStore(file) as other, ThreadPoolExecutor(1) as thread:
        first = thread.submit(asked, pool, other)
        wait_until(server.count)
        late = asked(pool, store, seconds_left=0.1)
        assert late["error"]["kind"] == "timeout"
        assert asked(pool, store)["text"] == first.result()["text"] == "Paris"
    assert server.count() == 1


# ----------------------------------------------------------------------------------------- limits


def test_replies_that_are_too_old_are_asked_for_anew(serve, tmp_path, file):
    server = serve([Reply("Paris"), Reply("Lyon")])
    pool = yaml_pool(tmp_path, server)
    with ReplyStore(file) as store:
        asked(pool, store)
    with ReplyStore(file, max_age_seconds=1e-9) as store:
        assert asked(pool, store)["text"] == "Lyon"
    with ReplyStore(file, max_age_seconds=3600) as store:
        assert asked(pool, store)["text"] == "Lyon"
        assert [line.replies for line in store.stats()] == [1]


def test_a_file_that_is_too_large_forgets_what_was_not_used_longest(serve, tmp_path, file):
    server = serve(lambda request: Reply(request.prompt * 2000))
    pool = yaml_pool(tmp_path, server)
    with ReplyStore(file, max_bytes=200_000) as store:
        asked(pool, store, "first     ")
        asked(pool, store, "second    ")
        for number in range(40):
            asked(pool, store, "first     ")
            store.stats()  # writes what was used
            asked(pool, store, f"{number:<10}")
        assert store.bytes <= 200_000
        assert asked(pool, store, "first     ")["stored"]
        assert not asked(pool, store, "second    ")["stored"]
    assert file.stat().st_size < 300_000


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"max_bytes": 10}, "max_bytes is at least 100,000, not 10"),
        ({"max_age_seconds": 0}, "max_age_seconds is a number above 0, not 0"),
        ({"max_age_seconds": float("nan")}, "above 0, not nan"),
    ],
)
def test_a_limit_out_of_range_is_refused(file, limit, words):
    with pytest.raises(ConfigError, match=words):
        ReplyStore(file, **limit)
    assert not file.exists()


# --------------------------------------------------------------------------------------- bad files


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()


def _torn(path: Path) -> None:
    ReplyStore(path).close()
    data = path.read_bytes()
    path.write_bytes(data[:4096] + os.urandom(len(data) - 4096))


def _newer(path: Path) -> None:
    ReplyStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_text("question,answer\n" * 100), "no reply store"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096), "reply store"),
        (Path.mkdir, "a folder"),
        (_foreign, "another program's SQLite file"),
        (_torn, "malformed"),
        (_newer, r"a newer release wrote it \(layout 99"),
    ],
    ids=["text", "broken", "folder", "foreign", "torn", "newer"],
)
def test_a_file_that_is_no_store_is_refused_and_left_alone(file, spoil, words):
    spoil(file)
    before = file.is_file() and file.read_bytes()
    with pytest.raises(ConfigError, match=words) as raised:
        ReplyStore(file)
    assert str(file) in str(raised.value)
    assert (file.is_file() and file.read_bytes()) == before


@pytest.mark.parametrize("step", range(12))
def test_two_processes_make_the_same_new_file_at_any_moment(file, step):
    steps: list[str] = []

    def make() -> None:  # as the other process does it
        with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            if not other.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in store_file._SCHEMA.split(";"):
                    other.execute(statement)
            other.execute(f"PRAGMA application_id = {store_file.APPLICATION_ID}")
            other.execute(f"PRAGMA user_version = {store_file.SCHEMA_VERSION}")
            other.execute("COMMIT")

    def begins(statement: str) -> None:
        steps.append(statement)
        if len(steps) == step + 1:
            with suppress(sqlite3.OperationalError):  # locked: its turn is after this one
                make()

    with closing(store_file._connect(file)) as connection:
        connection.set_trace_callback(begins)
        store_file._prepare(connection, file)
    assert "SELECT count(*) FROM sqlite_master" in steps
    with ReplyStore(file) as store:
        assert store.stats() == []


@pytest.mark.parametrize("path", ["missing/replies.sqlite", "/proc/replies.sqlite", "a\0b"])
def test_a_file_that_cannot_be_made_is_refused(tmp_path, path):
    with pytest.raises(ConfigError, match=r"cannot be opened|cannot be used"):
        ReplyStore(tmp_path / path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_cannot_be_written_is_refused(file):
    ReplyStore(file).close()
    file.chmod(0o444)
    with pytest.raises(ConfigError, match="cannot be used"):
        ReplyStore(file)


def test_an_empty_file_becomes_a_store(file):
    file.touch()
    with ReplyStore(file) as store:
        assert store.stats() == []


def test_a_full_disk_fails_no_question_and_is_said_once(serve, tmp_path, store, caplog):
    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        with caplog.at_level(logging.WARNING):
            bills = [asked(pool, store, how=how) for how in ("invoke", "ainvoke", "invoke")]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [bill["text"] for bill in bills] == ["Paris"] * 3
    assert server.count() == 3
    (record,) = caplog.records
    assert "replies.sqlite: the reply store failed" in record.getMessage()
    asked(pool, store)
    assert asked(pool, store)["stored"]  # there is space again


def test_a_file_that_breaks_while_it_is_used_fails_no_question(serve, tmp_path, file, caplog):
    pool = yaml_pool(tmp_path, serve(Reply("Paris")))
    with ReplyStore(file) as store:
        asked(pool, store)
        with sqlite3.connect(file) as other:
            other.execute("DROP TABLE replies")
        other.close()
        assert [asked(pool, store)["text"] for _ in range(2)] == ["Paris"] * 2
    assert len(caplog.records) == 1


def test_a_closed_store_fails_no_question(serve, tmp_path, file):
    store = ReplyStore(file)
    store.close()
    pool = yaml_pool(tmp_path, serve(Reply("Paris")))
    assert asked(pool, store)["text"] == "Paris"


# ------------------------------------------------------------------------------------ what is in it


@pytest.mark.parametrize("text", ["a\ud800b", "zero \0 byte", "x" * 3_000_000, "Ünïcødé 🦜"])
def test_any_text_comes_back_as_it_was(serve, tmp_path, store, text):
    query = f"Say {text[:1000]}".encode(errors="replace").decode()
    pool = yaml_pool(tmp_path, serve(Reply(text)))
    first, again = (asked(pool, store, query) for _ in range(2))
    assert again["stored"]
    assert again["text"] == first["text"]
    (record,) = stored_records(store)
    assert record.reply == first["text"]


def test_no_key_is_in_the_file(serve, tmp_path, file, monkeypatch):
    secret = "sk-a-key-that-nobody-may-see"
    monkeypatch.setenv("ADA_KEY", secret)
    server = serve(lambda request: Reply(f"you sent {request.headers['authorization']}"))
    monkeypatch.setenv("X_KEY", "another-key-of-somebody")
    headers = {"default_headers": {"X-Key": {"env": "X_KEY"}}}
    pool = yaml_pool(tmp_path, server, api_key_env="ADA_KEY", options=headers)
    address = server.base_url.replace("//", "//user:pass-word@")
    candidate = pool.candidates[0].model_copy(update={"base_url": address})
    with ReplyStore(file) as store:
        asked(pool, store, f"what is {secret}?")
        one = candidate_tool(candidate, replies=store)
        one.invoke(call_of(pool))
        written = b"".join(path.read_bytes() for path in tmp_path.glob("replies.sqlite*"))
    assert b"you sent" in written
    for word in (secret, "another-key-of-somebody", "pass-word"):
        assert word.encode() not in written


def test_records_of_a_store_are_a_recorded_pool(serve, tmp_path, store):
    server = serve(Reply("Paris", cost=0.25))
    pool = yaml_pool(tmp_path, server, {"Ada": {"model": "ada-2"}})
    paid = asked(pool, store)
    asked(pool, store)
    out = tmp_path / "records.jsonl"
    assert write_records(out, stored_records(store)) == 1
    ((record, _),) = read_records(out)
    assert (record.question, record.candidate, record.reply) == (FRANCE, "Ada", "Paris")
    assert (record.cost_usd, record.seconds) == (0.25, paid["seconds"])
    (tmp_path / "replay.yaml").write_text(
        "candidates: [{name: Ada, provider: recorded, options: {records: records.jsonl}}]"
    )
    again = asked(CandidatePool.from_yaml(tmp_path / "replay.yaml"), None)
    assert (again["text"], again["cost_usd"]) == ("Paris", 0.25)
    assert [r.candidate for r in stored_records(store, model_names=True)] == ["ada-2"]


@pytest.mark.parametrize("amount", [-5, 1e308, float("inf"), "much"])
def test_an_amount_that_cannot_be_is_not_believed_of_a_file(serve, tmp_path, file, store, amount):
    asked(yaml_pool(tmp_path, serve(Reply("Paris", cost=0.25))), store)
    store.flush()
    with closing(sqlite3.connect(file)) as other, other:
        row = {"cost_usd": amount, "seconds": amount, "input_tokens": amount, "saved_usd": amount}
        setting = ", ".join(f"{name} = :{name}" for name in row)
        other.execute(f"UPDATE replies SET {setting}", row)
    (record,) = stored_records(store)
    assert (record.cost_usd, record.seconds, record.input_tokens) == (0, 0, 0)
    (line,) = store.stats()
    assert (line.paid_usd, line.saved_usd) == (0, 0)


def test_a_call_that_waits_for_a_person_may_be_stored(serve, tmp_path, store):
    from langgraph.checkpoint.memory import InMemorySaver

    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    graph = create_router_r1(pool, ScriptedController(SCRIPT), replies=store)
    compiled = graph.compile(InMemorySaver())
    for thread in "12":
        config = {"configurable": {"thread_id": thread}}
        run(compiled, "invoke", config, approve_above_usd=0.0)
        result = compiled.invoke(Command(resume=True), config)
        assert result["answer"] == "Paris"
    assert server.count() == 1


def test_simulated_candidates_are_stored_too_and_their_latency_is_not_waited_for(store):
    pool = CandidatePool.embedded()
    bills = [asked(pool, store, "Who wrote Hamlet?") for _ in range(2)]
    assert [bill["stored"] for bill in bills] == [False, True]
    other = pool.candidates[0].model_copy(update={"benchmarks": {}})
    renamed = pool.model_copy(update={"candidates": (other, *pool.candidates[1:])})
    assert not asked(renamed, store, "Who wrote Hamlet?")["stored"]


def test_a_message_that_is_no_json_is_not_stored(tmp_path, serve, store):
    class Odd:
        pass

    def odd(messages: Any, config: Any = None, **kwargs: Any) -> AIMessage:
        return AIMessage("Paris", tool_calls=[{"name": "x", "args": {"a": Odd()}, "id": "1"}])

    from langchain_core.runnables import RunnableLambda

    (candidate,) = yaml_pool(tmp_path, serve(Reply("?"))).candidates
    for _ in range(2):
        assert not ask(RunnableLambda(odd), [HumanMessage("?")], candidate, store=store).stored


def test_a_deadline_holds_while_the_file_is_blocked(serve, tmp_path, file, store):
    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server)
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert asked(pool, store, seconds_left=0.2)["error"]["kind"] == "timeout"
    writer.execute("ROLLBACK")
    writer.close()
    assert asked(pool, store)["text"] == "Paris"
    assert server.count() == 1


def test_a_recorder_writes_a_stored_reply_once_with_what_it_had_cost(serve, tmp_path, store):
    pool = yaml_pool(tmp_path, serve(Reply("Paris")), **ONE_DOLLAR)
    out = tmp_path / "records.jsonl"
    graph = create_router_r1(pool, ScriptedController(SCRIPT), replies=store).compile()
    one = Recorder(out)
    for recorder in (one, one, Recorder(out)):  # the last one is that of a run which goes on
        run(graph, "invoke", {"callbacks": [recorder]})
    (record,) = (record for record, _ in read_records(out))
    assert record.cost_usd == pytest.approx(20e-6)
    out.write_text('{"candidate": "Ada", "torn')  # by a kill
    run(graph, "invoke", {"callbacks": [Recorder(out)]})
    assert record.reply in out.read_text(encoding="utf-8").splitlines()[-1]


def test_a_trace_of_an_earlier_release_is_read(serve, tmp_path):
    pool = yaml_pool(tmp_path, serve(Reply("Paris")), **ONE_DOLLAR)
    state = run(create_router_r1(pool, ScriptedController(SCRIPT)).compile(), "invoke")
    data = Trace.from_state(state).model_dump(mode="json")
    for line in (data["ledger"]["controller"], *data["ledger"]["candidates"].values()):
        del line["stored_calls"], line["saved_usd"]
    for message in data["scratchpad"]:
        if message.get("artifact"):
            del message["artifact"]["stored"], message["artifact"]["saved_usd"]
    (tmp_path / "old.jsonl").write_text(json.dumps(data))
    (trace,) = read_traces(tmp_path / "old.jsonl")
    assert (total(trace.ledger)["stored_calls"], trace.calls[0].stored) == (0, False)
    assert AbsoluteCost(1e-3).measure(trace) == pytest.approx(20e-6)


def test_other_threads_look_up_while_one_writes(serve, tmp_path, file, store):
    pool = yaml_pool(tmp_path, serve(Reply("Paris")))
    asked(pool, store)
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # another process, at a long piece of work
    done = threading.Event()

    def look() -> None:
        assert asked(pool, store)["stored"]
        done.set()

    threading.Thread(target=look).start()
    assert done.wait(20)
    writer.execute("ROLLBACK")
    writer.close()


# --------------------------------------------------------------------- all that a model says


@both_ways
def test_a_stored_turn_goes_back_to_its_server_with_thoughts_and_signatures(
    serve, tmp_path, file, how
):
    function = {"name": "ada", "arguments": json.dumps({"query": FRANCE})}
    signed = {"extra_content": {"google": {"thought_signature": "SIGNED"}}}
    call = {"id": "c1", "type": "function", "function": function, **signed}
    message = {"role": "assistant", "content": "", "reasoning_content": "Ada knows."}
    choice = {"index": 0, "message": {**message, "tool_calls": [call]}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    first = Wire({"id": "x", "choices": [choice], "usage": usage})
    # The second turn fails, and is asked for again by a later run.
    server = serve({"controller": [first, Status(400), Reply("Paris")], "ada": Reply("Paris")})
    pool = yaml_pool(tmp_path, server, controller={"protocol": "tools"})
    for _ in range(2):
        with ReplyStore(file) as opened:
            graph = create_router_r1(pool, parse_controller("pool", pool), replies=opened)
            result = run(graph.compile(), how)
    assert (result["answer"], server.count("controller"), server.count("ada")) == ("Paris", 3, 1)
    _, sent, again = (r.body for r in server.requests if r.model == "controller")
    assert again == sent
    (back,) = (m for m in again["messages"] if m["role"] == "assistant")
    assert (back["reasoning_content"], back["tool_calls"][0]["extra_content"]) == (
        "Ada knows.",
        signed["extra_content"],
    )


@both_ways
def test_a_stored_reply_has_its_thoughts(serve, tmp_path, store, how):
    message = {"role": "assistant", "content": "Paris", "reasoning_content": "Not Lyon."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    server = serve(Wire({"id": "x", "choices": [choice], "usage": usage}))
    pool = yaml_pool(tmp_path, server)
    first, again = (asked(pool, store, how=how) for _ in range(2))
    assert (first["stored"], again["stored"]) == (False, True)
    assert first["thoughts"] == again["thoughts"] == "Not Lyon."


@both_ways
def test_a_stored_reply_of_the_responses_api_is_as_cut_as_it_came(serve, tmp_path, store, how):
    text = {"type": "output_text", "text": "The capital is Pa", "annotations": []}
    said = {"type": "message", "id": "m", "role": "assistant", "content": [text]}
    server = serve(
        Wire(
            {
                **{"id": "r", "object": "response", "created_at": 1, "model": "ada"},
                **{"status": "incomplete", "output": [{**said, "status": "incomplete"}]},
                "incomplete_details": {"reason": "max_output_tokens"},
                "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
            }
        )
    )
    pool = yaml_pool(tmp_path, server, options={"use_responses_api": True})
    first, again = (asked(pool, store, how=how) for _ in range(2))
    assert (first["stored"], again["stored"], server.count()) == (False, True, 1)
    assert first["error"]["kind"] == "cut"
    assert again["error"] == first["error"]
