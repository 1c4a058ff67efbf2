"""Runs that outlive their process: in memory, SQLite and PostgreSQL, and after a kill -9.

PostgreSQL is the one that ROUTER_R1_POSTGRES names (`.ci/run` starts one).
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from fakes import FakeChat, answer, make_pool, models, search
from in_process import forked
from openai_server import Hang, OpenAIServer, Reply
from router_r1_graph import ScriptedController, create_router_r1, parse_controller
from router_r1_graph.ledger import total
from yaml_pool import ONE_DOLLAR, yaml_pool

SERVER = os.environ.get("ROUTER_R1_POSTGRES")
THREAD: Any = {"configurable": {"thread_id": "1"}}
CAPITAL = {"question": "What is the capital of France?"}
#: Opens one and the same store, again and again.
Store = Callable[[], AbstractContextManager[BaseCheckpointSaver[Any]]]


@pytest.fixture
def database() -> Iterator[str]:
    """Make a database of PostgreSQL for one test; the value says how to connect."""
    if not SERVER:
        pytest.skip("no PostgreSQL: ROUTER_R1_POSTGRES names no server (.ci/run starts one)")
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    pytest.importorskip("langgraph.checkpoint.postgres", reason="no PostgreSQL checkpointer")
    name = f"router_r1_{uuid.uuid4().hex}"
    with closing(psycopg.connect(SERVER, autocommit=True)) as connection:
        connection.execute(f"create database {name}")
        try:
            yield psycopg.conninfo.make_conninfo(SERVER, dbname=name)
        finally:
            connection.execute(f"drop database {name} with (force)")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return what opens the store: every time it is opened, only what was stored is there."""
    if request.param == "memory":
        memory = InMemorySaver()

        @contextmanager
        def open_memory() -> Iterator[InMemorySaver]:
            yield memory

        return open_memory
    if request.param == "sqlite":
        return lambda: SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite"))
    address = request.getfixturevalue("database")

    @contextmanager
    def open_postgres() -> Iterator[Any]:
        from langgraph.checkpoint.postgres import PostgresSaver

        with PostgresSaver.from_conn_string(address) as saver:
            saver.setup()
            yield saver

    return open_postgres


def router(saver: Any, *script: str, given: Any = None) -> Any:
    pool = make_pool()
    graph = create_router_r1(pool, ScriptedController(script), models=given or models(pool))
    return graph.compile(checkpointer=saver)


SCRIPT = (search("Ada: one?"), search("Bob: two?"), answer("Paris"))


# -------------------------------------------------------------------------------- every store


def test_a_run_that_was_interrupted_goes_on_from_the_store(store):
    first, second = FakeChat(), FakeChat()
    with store() as saver:
        given = {"Ada": first, "Bob": second}
        router(saver, *SCRIPT, given=given).invoke(CAPITAL, THREAD, interrupt_after=["aggregate"])
    with store() as saver:
        result = router(saver, *SCRIPT, given=given).invoke(None, THREAD)
    assert (result["answer"], result["stop_reason"], result["round"]) == ("Paris", "answered", 2)
    assert (first.queries, second.queries) == (["one?"], ["two?"])
    assert total(result["ledger"])["calls"] == 2


def test_what_is_read_back_is_what_was_handed_back(store):
    with store() as saver:
        result = router(saver, *SCRIPT).invoke(CAPITAL, THREAD)
    with store() as saver:
        values = router(saver, *SCRIPT).get_state(THREAD).values
    assert {key: values[key] for key in result} == result
    assert [m.type for m in values["scratchpad"]] == ["human", "ai", "tool", "ai", "tool", "ai"]


def test_a_second_question_on_a_thread_starts_clean_and_other_threads_stay(store):
    other: Any = {"configurable": {"thread_id": "2"}}
    with store() as saver:
        router(saver, *SCRIPT).invoke(CAPITAL, THREAD)
        router(saver, answer("Rome")).invoke({"question": "And of Italy?"}, other)
    with store() as saver:
        graph = router(saver, answer("Madrid"))
        result = graph.invoke({"question": "And of Spain?"}, THREAD)
        assert [m.text for m in graph.get_state(other).values["messages"]] == ["Rome"]
    assert (result["answer"], result["round"]) == ("Madrid", 0)
    assert total(result["ledger"])["calls"] == 0
    assert [m.text for m in result["messages"]] == ["Paris", "Madrid"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_every_durability_ends_in_the_same_state(store, durability):
    with store() as saver:
        graph = router(saver, *SCRIPT)
        graph.invoke(CAPITAL, THREAD, durability=durability)
        kept = len(list(graph.get_state_history(THREAD)))
        assert graph.get_state(THREAD).values["answer"] == "Paris"
    assert kept == (1 if durability == "exit" else 10)


def test_a_question_can_be_asked_again_from_any_step(store):
    """Time travel: the run goes on from an old checkpoint, and pays only what comes after it."""
    with store() as saver:
        given = {"Ada": FakeChat(), "Bob": FakeChat()}
        graph = router(saver, *SCRIPT, given=given)
        graph.invoke(CAPITAL, THREAD)
        past = next(
            s
            for s in graph.get_state_history(THREAD)
            if s.next == ("think",) and s.values.get("round") == 1
        )
        result = graph.invoke(None, past.config)
    assert (result["answer"], total(result["ledger"])["calls"]) == ("Paris", 2)
    assert (given["Ada"].queries, given["Bob"].queries) == (["one?"], ["two?", "two?"])


async def test_an_async_run_goes_on_from_postgres(database):
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    given = {"Ada": FakeChat(), "Bob": FakeChat()}
    async with AsyncPostgresSaver.from_conn_string(database) as saver:
        await saver.setup()
        graph = router(saver, *SCRIPT, given=given)
        await graph.ainvoke(CAPITAL, THREAD, interrupt_after=["aggregate"])
    async with AsyncPostgresSaver.from_conn_string(database) as saver:
        result = await router(saver, *SCRIPT, given=given).ainvoke(None, THREAD)
    assert result["answer"] == "Paris"
    assert (given["Ada"].queries, given["Bob"].queries) == (["one?"], ["two?"])


# ------------------------------------------------------------------------------------- kill -9

TURNS = [search("Ada: one?"), search("Bob: two?", "Eve: three?"), answer("Paris")]


def replies_in(file: Path) -> int:
    """Count the replies that a file of checkpoints holds, those of a round under way included."""
    if not file.exists():
        return 0
    with SqliteSaver.from_conn_string(str(file)) as saver:
        history = list(saver.list(THREAD))
    writes = [write for entry in history for write in entry.pending_writes or ()]
    return sum(channel == "replies" and isinstance(value, list) for _, channel, value in writes)


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_after_a_kill_no_call_that_had_come_back_is_made_again(serve, tmp_path, how, durability):
    bob_hangs = [Hang(), Reply("two")]
    server: OpenAIServer = serve(
        {
            "controller": [Reply(turn) for turn in TURNS],
            "ada": Reply("one"),
            "bob": bob_hangs,
            "eve": Reply("three"),
        }
    )
    names: Any = {"Ada": {}, "Bob": {}, "Eve": {}}
    pool = yaml_pool(tmp_path, server, names, {**ONE_DOLLAR}, **ONE_DOLLAR, timeout_seconds=600)
    file = tmp_path / "checkpoints.sqlite"
    child = forked(run_on, pool, file, how, CAPITAL, durability)
    try:
        while server.count("bob") == 0 or replies_in(file) < 2:
            assert child.is_alive()
            time.sleep(0.05)
    finally:
        child.kill()
        child.join()
    asked = {name: server.count(name) for name in ("controller", "ada", "bob", "eve")}
    assert asked == {"controller": 2, "ada": 1, "bob": 1, "eve": 1}

    result = run_on(pool, file, how)
    assert (result["answer"], result["stop_reason"], result["round"]) == ("Paris", "answered", 2)
    asked = {name: server.count(name) for name in ("controller", "ada", "bob", "eve")}
    assert asked == {"controller": 3, "ada": 1, "bob": 2, "eve": 1}
    # The bill is of what came back: the provider may charge for the call that was killed.
    assert total(result["ledger"])["cost_usd"] == pytest.approx(6 * 20e-6)
    replies = [m.artifact["reply"] for m in result["scratchpad"] if m.type == "tool"]
    assert replies == ["one", "two", "three"]


def run_on(
    pool: Any, file: Path, how: str, question: Any = None, durability: Any = None
) -> dict[str, Any]:
    """Begin the run, or go on with it where there is no question."""
    graph = create_router_r1(pool, parse_controller("pool", pool))
    if how == "invoke":
        with SqliteSaver.from_conn_string(str(file)) as saver:
            router = graph.compile(checkpointer=saver)
            return router.invoke(question, THREAD, durability=durability)

    async def run() -> dict[str, Any]:
        async with AsyncSqliteSaver.from_conn_string(str(file)) as saver:
            router = graph.compile(checkpointer=saver)
            return await router.ainvoke(question, THREAD, durability=durability)

    return asyncio.run(run())
