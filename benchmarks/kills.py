"""Processes that are killed at random and started again, and what a server says about them."""

from __future__ import annotations

import multiprocessing
import os
import random
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from .faults import Attempt, FaultServer, by_call

ROOT = Path(__file__).parent.parent
KEPT_SECONDS = 1.0
"""A reply that was sent so long before a kill must have been kept."""

# Forked from a process that has imported everything, since to import it takes longer than to be
# killed. That process has no threads: a copy of this one, whose server has some, could hang.
_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = ["router_r1_graph.cli", "router_r1_graph.evaluation", "langchain_openai"]
_TRAINING = ["training.program", "training.stages", "training.grpo", "training.report"]


def preload_training() -> None:
    """Have trainings forked from a process that knows them; before anything else is started."""
    _FORKS.set_forkserver_preload([*_PRELOADED, *_TRAINING])


def start(arguments: Sequence[str], log: Path) -> BaseProcess:
    """Start Python with arguments, in the checkout; what it prints is appended to a file."""
    process = _FORKS.Process(target=_become, args=(list(arguments), log))
    process.start()
    return process


def _become(arguments: Sequence[str], log: Path) -> None:
    os.chdir(ROOT)
    printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(printed, stream)
    name = arguments[0]
    if name == "-m":
        sys.argv = [*arguments[1:]]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [*arguments]
        runpy.run_path(name, run_name="__main__")


def last_line(log: Path) -> str:
    """Return the last line that was printed, which tells what a program ended with."""
    with suppress(FileNotFoundError):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def kill_often(
    begin: Callable[[], BaseProcess],
    server: FaultServer,
    kills: int,
    draw: random.Random,
    *,
    within_seconds: float,
    after_request: bool = True,
    killed: Callable[[], None] = lambda: None,
) -> tuple[list[float], int | None]:
    """Start something again and again, and kill it; then let it end.

    Args:
        begin: starts it, or goes on with it.
        server: what it asks.
        kills: how often it is killed at most.
        draw: draws the moments.
        within_seconds: how late a kill may be.
        after_request: whether these seconds begin with its first request, not with its start.
        killed: called after each kill.

    Returns:
        The times of the kills, and the exit code of the last one.
    """
    times: list[float] = []
    while True:
        before, process = len(server.attempts), begin()
        if len(times) < kills:
            while after_request and process.is_alive() and len(server.attempts) == before:
                time.sleep(0.01)
            process.join(draw.uniform(0, within_seconds))
        else:
            process.join()
        if process.exitcode is not None:
            return times, process.exitcode
        process.kill()
        process.join()
        times.append(time.time())
        killed()


def paid_again(attempts: Sequence[Attempt], kills: Sequence[float]) -> list[str]:
    """Return the calls that were made again although their reply had come, in words.

    Args:
        attempts: the account of the server.
        kills: their times, in seconds since the epoch.
    """
    problems = []
    for (model, prompt), made in by_call(attempts).items():
        for first in made[:-1]:
            # Workers end a moment after the process that is killed.
            near = any(abs(kill - first.sent_at) < KEPT_SECONDS for kill in kills)
            if first.sent_at and not near:
                problems.append(f"{model} was asked again: {prompt!r:.80}")
    return problems


def kill_runs(
    begin: Callable[[Path], BaseProcess],
    compare: Callable[[Path, Sequence[Attempt], Sequence[float]], list[str]],
    server: FaultServer,
    folder: Path,
    kills: int,
    draw: random.Random,
    *,
    most: int = 10,
    within_seconds: float = 1.0,
    after_request: bool = True,
    killed: Callable[[], None] = lambda: None,
) -> list[str]:
    """Kill one run after the other, each until it ends, as often as asked; return what is wrong.

    Args:
        begin: starts a run whose files are in a folder, or goes on with it.
        compare: returns how a run that has ended differs from one that nobody killed, given its
            folder, the server's account of it and the times of its kills.
        server: what the runs ask.
        folder: where their folders are made.
        kills: of all runs together.
        draw: draws the moments.
        most: kills of one run.
        within_seconds: how late a kill may be.
        after_request: whether these seconds begin with a request, not with a start.
        killed: called after each kill.
    """
    problems: list[str] = []
    done = runs = 0
    while done < kills and runs < 2 * kills and not problems:
        out, since = folder / f"killed{runs}", len(server.attempts)
        runs += 1
        times, code = kill_often(
            partial(begin, out),
            server,
            min(kills - done, most),
            draw,
            within_seconds=within_seconds,
            after_request=after_request,
            killed=killed,
        )
        done += len(times)
        attempts = server.attempts[since:]
        if code:
            problems.append(f"{out.name} ended with {code}: {last_line(folder / 'log')}")
        problems += paid_again(attempts, times)
        problems += [] if code else compare(out, attempts, times)
    print(f"{done} kills of {runs} runs", flush=True)
    return problems + ([f"{done} kills instead of {kills}"] if done < kills else [])
