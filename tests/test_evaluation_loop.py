"""The loop over many questions, when a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

import pytest

from router_r1_graph.evaluation.loop import ask_many, run


@pytest.fixture
def raising():
    """SIGTERM does what Ctrl-C does, as in every program here."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("again", [False, True], ids=["one signal", "a second one while it closes"])
def test_a_signal_ends_all_questions_and_nothing_is_said_of_each(raising, again, caplog):
    ended = []

    async def ask(number: int) -> list[int]:
        if number == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(number)
            if again and len(ended) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
        return [number]

    with pytest.raises(KeyboardInterrupt):
        run(ask_many(range(8), ask, lambda *_: None))
    gc.collect()
    assert ended
    assert [record.getMessage() for record in caplog.records] == []


def test_a_task_that_fails_unseen_is_reported(caplog):
    async def fail() -> None:
        raise ValueError("nobody looks")

    async def work() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task

    run(work())
    gc.collect()
    assert "nobody looks" in caplog.text
