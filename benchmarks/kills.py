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
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from .faults import Attempt, FaultServer, by_call

ROOT = Path(__file__).parent.parent
NAMES = ("Ada", "Bob", "Cyd")
DELAYS = {"Ada": 0.05, "Bob": 0.2, "Cyd": 2.0}
"""Seconds before the replies: most kills find replies of Ada and Bob that are long there, beside a
call to Cyd that is under way."""
KEPT_SECONDS = 0.3
"""A reply must have been kept when the process has slept for so long since it was sent."""
_MOST_SECONDS = 3.0
"""A reply that was sent so long before a kill must have been kept, however busy the machine is."""
_SAMPLE_SECONDS = 0.03

# Forked from a process that has imported everything, since to import it takes longer than to be
# killed. That process has no threads: a copy of this one, whose server has some, could hang.
_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = [
    *("router_r1_graph.cli", "router_r1_graph.evaluation", "router_r1_graph.serving.app"),
    "langchain_openai",
]
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


def pool_text(server: FaultServer) -> str:
    """Return the pool file of candidates that are all on a server."""
    rows = (
        f"  - {{name: {name}, base_url: {server.base_url}, input_usd_per_mtok: {n}, "
        f"output_usd_per_mtok: {n + 1}}}\n"
        for n, name in enumerate(NAMES, 1)
    )
    return "name: crash\ncandidates:\n" + "".join(rows)


def last_line(log: Path) -> str:
    """Return the last line that was printed, which tells what a program ended with."""
    with suppress(FileNotFoundError):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


@dataclass(frozen=True)
class Kill:
    """A kill, as far as replies can have been lost to it; times are in seconds since the epoch.

    Attributes:
        since: what was sent before had been kept.
        until: what was sent later was sent to the next process.
    """

    since: float
    until: float

    def may_lose(self, attempt: Attempt) -> bool:
        """Return whether the reply to an attempt may have been lost to this kill."""
        return self.since < attempt.sent_at < self.until


def kept_until(samples: Sequence[tuple[float, float]], began: float, killed: float) -> float:
    """Return the time before which a process had kept all replies that were sent to it.

    A process that has slept for `KEPT_SECONDS` has had nothing else to do; on a busy machine, that
    takes longer.

    Args:
        samples: the time of each sample, and the seconds before it in which the process slept.
        began: when the process was started.
        killed: when it was killed.
    """
    slept = 0.0
    for at, seconds in reversed(samples):
        slept += seconds
        if slept >= KEPT_SECONDS:
            return max(at - seconds, killed - _MOST_SECONDS)
    return max(began, killed - _MOST_SECONDS)


def _sleeps(pid: int) -> bool:
    """Return whether all threads of a process sleep, and those of the processes that it started."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat", errors="replace") as file:
                if file.read().rpartition(")")[2].split()[0] in "RD":
                    return False
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                if not all(_sleeps(int(child)) for child in file.read().split()):
                    return False
    except OSError:  # one has just ended
        return False
    return True


def _watch(process: BaseProcess, seconds: float) -> list[tuple[float, float]]:
    """Wait for the end of a process, or for so many seconds; return samples of its sleep."""
    samples: list[tuple[float, float]] = []
    last = time.time()
    end = last + seconds
    while last < end and process.exitcode is None:
        process.join(min(_SAMPLE_SECONDS, end - last))
        sleeps, now = _sleeps(process.pid or 0), time.time()
        samples.append((now, min(now - last, 2 * _SAMPLE_SECONDS) if sleeps else 0.0))
        last = now
    return samples


def kill_often(
    begin: Callable[[], BaseProcess],
    server: FaultServer,
    kills: int,
    draw: random.Random,
    *,
    within_seconds: float,
    after_request: bool = True,
    killed: Callable[[], None] = lambda: None,
) -> tuple[list[Kill], int | None]:
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
        The kills, and the exit code of the last one.
    """
    done: list[Kill] = []
    while True:
        before, began, process = server.begun, time.time(), begin()
        samples: list[tuple[float, float]] = []
        if len(done) < kills:
            while after_request and process.is_alive() and server.begun == before:
                time.sleep(0.01)
            samples = _watch(process, draw.uniform(0, within_seconds))
        else:
            process.join()
        if process.exitcode is not None:
            return done, process.exitcode
        process.kill()
        since = kept_until(samples, began, time.time())
        process.join()
        killed()
        done.append(Kill(since, time.time()))


def paid_again(attempts: Sequence[Attempt], kills: Sequence[Kill]) -> list[str]:
    """Return the calls that were made again although their reply had come, in words.

    Args:
        attempts: the account of the server.
        kills: those of the processes that have asked.
    """
    problems = []
    for (model, prompt), made in by_call(attempts).items():
        for first in made[:-1]:
            if first.sent_at and not any(kill.may_lose(first) for kill in kills):
                problems.append(f"{model} was asked again: {prompt!r:.80}")
    return problems


def kill_runs(
    begin: Callable[[Path], BaseProcess],
    compare: Callable[[Path, Sequence[Attempt], Sequence[Kill]], list[str]],
    server: FaultServer,
    folder: Path,
    kills: int,
    draw: random.Random,
    *,
    most: int = 10,
    within_seconds: float,
    after_request: bool = True,
    killed: Callable[[], None] = lambda: None,
) -> list[str]:
    """Kill one run after the other, each until it ends, as often as asked; return what is wrong.

    Args:
        begin: starts a run whose files are in a folder, or goes on with it.
        compare: returns how a run that has ended differs from one that nobody killed, given its
            folder, the server's account of it and its kills.
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
        landed, code = kill_often(
            partial(begin, out),
            server,
            min(kills - done, most),
            draw,
            within_seconds=within_seconds,
            after_request=after_request,
            killed=killed,
        )
        done += len(landed)
        attempts = server.attempts[since:]
        if code:
            problems.append(f"{out.name} ended with {code}: {last_line(folder / 'log')}")
        problems += paid_again(attempts, landed)
        problems += [] if code else compare(out, attempts, landed)
    print(f"{done} kills of {runs} runs", flush=True)
    return problems + ([f"{done} kills instead of {kills}"] if done < kills else [])
