"""Runs that are killed at random, and gone on with: nothing is lost, torn, double or paid twice.

    python -m benchmarks.crash                  50 kills each of everything below
    python -m benchmarks.crash evaluate -n 5    one of them

evaluate    `router-r1 evaluate --resume`, in one process
processes   the same in two processes; only the parent is killed, and its workers have to end
sqlite      questions of a graph with a checkpointer in SQLite, and a store of replies
postgres    likewise in PostgreSQL, whose address is in ROUTER_R1_POSTGRES
finetune    `training/finetune.py`, whose candidates are over HTTP

A server that counts says whether a call was made again whose reply had been sent to the killed
process a second before, which is when it must have been kept. The exit code is 1 if anything is
wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .faults import FaultServer

ROOT = Path(__file__).parent.parent
KEPT_SECONDS = 1.0
"""A reply that was sent so long before a kill must have been kept."""
POSTGRES = "ROUTER_R1_POSTGRES"


class Process(Protocol):
    """What can be killed: of `subprocess`, or of a test."""

    def poll(self) -> int | None:
        """Return the exit code; None = it runs."""
        ...

    def wait(self) -> int | None:
        """Wait for its end."""
        ...

    def send_signal(self, number: int, /) -> None:
        """Send a signal."""
        ...


Start = Callable[[Sequence[str]], Process]


def start_python(arguments: Sequence[str]) -> Process:
    """Start Python with arguments, from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_often(
    start: Callable[[], Process],
    server: FaultServer,
    kills: int,
    draw: random.Random,
    *,
    within_seconds: float = 1.0,
    killed: Callable[[], None] = lambda: None,
) -> tuple[list[float], int | None]:
    """Start something again and again, and kill it after its first request; then let it end.

    Args:
        start: starts it, or goes on with it.
        server: what it asks.
        kills: how often it is killed.
        draw: draws the moments.
        within_seconds: how long after the first request a kill may be.
        killed: called after each kill.

    Returns:
        The times of the kills, and the exit code of the last one.
    """
    times: list[float] = []
    while True:
        before, process = len(server.attempts), start()
        if len(times) == kills:
            return times, process.wait()
        while process.poll() is None and len(server.attempts) == before:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, within_seconds))
        if process.poll() is not None:
            return times, process.wait()
        process.send_signal(signal.SIGKILL)
        process.wait()
        times.append(time.time())
        killed()


def paid_again(server: FaultServer, kills: Sequence[float]) -> list[str]:
    """Return the calls that were made again although their reply had come, in words."""
    problems = []
    for (model, prompt), attempts in server.by_call().items():
        for first in attempts[:-1]:
            # Workers end a moment after the process that is killed.
            near = any(abs(kill - first.sent_at) < KEPT_SECONDS for kill in kills)
            if first.sent_at and not near:
                problems.append(f"{model} was asked again: {prompt!r:.80}")
    return problems


def crash_evaluate(
    kills: int,
    seed: int,
    *,
    processes: int = 1,
    questions: int | None = None,
    within_seconds: float = 1.0,
    start: Start = start_python,
) -> list[str]:
    """Kill an evaluation of so many questions (None = enough); return what is wrong."""
    questions = questions or 32 * kills + 60
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as made, FaultServer(rate=0, delay=0.15) as server:
        folder = Path(made)
        pool, asked = folder / "pool.yaml", folder / "questions.jsonl"
        pool.write_text(_pool(server))
        rows = (
            {"id": f"q{n}", "question": f"question {n}?", "gold": ["x"]} for n in range(questions)
        )
        asked.write_text("".join(json.dumps(row) + "\n" for row in rows))

        def command(out: str) -> list[str]:
            options = ["--pool", str(pool), "--controller", "vote", "--no-controls", "--resume"]
            options += ["--concurrency", "8", "--out", str(folder / out)]
            options += ["--processes", str(processes)]
            return ["-m", "router_r1_graph.cli", "evaluate", str(asked), *options]

        def orphans() -> None:
            """Check that the workers of a killed process ask nothing more."""
            if processes > 1:
                time.sleep(KEPT_SECONDS)
                before = len(server.attempts)
                time.sleep(2 * KEPT_SECONDS)
                if len(server.attempts) > before:
                    problems.append("the workers of a killed process went on")

        times, code = kill_often(
            lambda: start(command("killed")),
            server,
            kills,
            random.Random(seed),
            within_seconds=within_seconds,
            killed=orphans,
        )
        problems += [f"{len(times)} kills instead of {kills}"] if len(times) < kills else []
        problems += [f"the last run ended with {code}"] if code else []
        problems += paid_again(server, times)
        start(command("whole")).wait()
        whole, killed = (_results(folder / out / "results.jsonl") for out in ("whole", "killed"))
        ids = Counter(result["id"] for result in killed)
        problems += [f"{id_} is there {n} times" for id_, n in ids.items() if n > 1]
        if sorted(map(_outcome, whole)) != sorted(map(_outcome, killed)):
            problems.append("the results differ from those of an uninterrupted run")
    return problems


def _pool(server: FaultServer) -> str:
    names = enumerate(("Ada", "Bob", "Cyd"), 1)
    rows = (
        f"  - {{name: {name}, base_url: {server.base_url}, input_usd_per_mtok: {n}, "
        f"output_usd_per_mtok: {n + 1}}}\n"
        for n, name in names
    )
    return "name: crash\ncandidates:\n" + "".join(rows)


def _results(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def _outcome(result: Mapping[str, Any]) -> str:
    """Return what may not depend on kills: not the seconds, nor who paid for a stored reply."""
    calls = sorted(
        (name, line["calls"], line["failed_calls"], line["input_tokens"], line["output_tokens"])
        for name, line in result["ledger"]["candidates"].items()
    )
    return json.dumps([result["id"], result["answer"], result["stop_reason"], calls])


# ------------------------------------------------------------------------------- checkpoints


def crash_checkpoints(
    kills: int, seed: int, *, where: str = "sqlite", start: Start = start_python
) -> list[str]:
    """Kill the questions of a graph that keeps checkpoints; return what is wrong."""
    problems: list[str] = []
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as made, FaultServer(rate=0, delay=0.15) as server:
        folder = Path(made)
        (folder / "pool.yaml").write_text(_pool(server))
        times: list[float] = []
        expected, number = "", 0
        while len(times) < kills or number < 2:
            thread = f"thread {seed}.{number}" if times else f"thread {seed}.first{number}"
            number += 1

            def begin(thread: str = thread) -> Process:
                return start(["-m", "benchmarks.crash", "--question", made, thread, where])

            most = min(kills - len(times), 3) if number > 1 else 0
            killed, code = kill_often(begin, server, most, draw, within_seconds=1.2)
            times += killed
            result = folder / f"{thread}.json"
            if code or not result.exists():
                problems.append(f"{thread} ended with {code}")
                break
            expected = expected or result.read_text()
            if result.read_text() != expected:
                problems.append(f"{thread} ended otherwise: {result.read_text():.200}")
        problems += paid_again(server, times)
    return problems


async def _question(folder: Path, thread: str, where: str) -> None:
    """Ask a question on a thread, or go on with it, and write what came of it."""
    from router_r1_graph import CandidatePool, ReplyStore, ScriptedController, create_router_r1

    def turn(view: Any) -> str:
        round_ = len(view.replies) // 3
        if view.must_answer or round_ == 3:
            return "<answer> done </answer>"
        calls = (f"{c.name}: {thread}, round {round_}" for c in view.pool.candidates)
        return "".join(f"<search> {call} </search>" for call in calls)

    pool = CandidatePool.from_yaml(folder / "pool.yaml")
    config: Any = {"configurable": {"thread_id": thread}}
    with ReplyStore(folder / "replies.sqlite", every=True) as replies:
        graph = create_router_r1(pool, ScriptedController(turn), replies=replies)
        async with _saver(folder, where) as saver:
            await saver.setup()
            known = await saver.aget_tuple(config)
            given = None if known else {"question": thread}
            state = await graph.compile(checkpointer=saver).ainvoke(given, config)
    lines = state["ledger"]["candidates"]
    told = {name: [line["calls"], line["failed_calls"]] for name, line in lines.items()}
    said = [state["answer"], state["stop_reason"], told, len(state["scratchpad"])]
    (folder / f"{thread}.json").write_text(json.dumps(said))


def _saver(folder: Path, where: str) -> Any:
    if where == "sqlite":
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        return AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite"))
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    return AsyncPostgresSaver.from_conn_string(os.environ[POSTGRES])


def crash_postgres(kills: int, seed: int) -> list[str]:
    """Kill questions whose checkpoints are in PostgreSQL; return what is wrong."""
    if not os.environ.get(POSTGRES):
        print(f"postgres: not run, since {POSTGRES} is not set")
        return []
    return crash_checkpoints(kills, seed, where="postgres")


# ---------------------------------------------------------------------------------- training


def crash_finetune(kills: int, seed: int, *, start: Start = start_python) -> list[str]:
    """Kill one training after the other, each as often as it lasts; return what is wrong."""
    problems: list[str] = []
    done = 0
    while done < kills and not problems:
        problems, killed = _crash_training(kills - done, seed + done, start)
        done += killed
        print(f"finetune: {done} of {kills} kills", flush=True)
    return problems


def _crash_training(kills: int, seed: int, start: Start) -> tuple[list[str], int]:
    """Kill a training; return what is wrong, and how often it was killed."""
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as made, FaultServer(rate=0, delay=0.05) as server:
        folder = Path(made)
        (folder / "pool.yaml").write_text(_pool(server))

        asked = folder / "questions.jsonl"
        rows = ({"question": f"Who wrote book {n}?", "golden_answers": ["x"]} for n in range(40))
        asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
        policy = ROOT / "router_r1_graph/policies/demo"

        def command(out: str) -> list[str]:
            changes = [f"out={folder / out}", "stages=[best_of_n, grpo]", "replies.every=true"]
            changes += [f"data.pools=[{folder / 'pool.yaml'}]", "data.source=files"]
            changes += [f"data.files=[{asked}]", "evaluate_questions=4", "grpo.steps=2"]
            changes += [f"model={{pretrained: {policy}, stop: ['</answer>'], max_new_tokens: 64}}"]
            changes += ["best_of_n.teacher_questions=0", "grpo.questions=2", "grpo.micro_batch=4"]
            config = ROOT / "training/configs/smoke.yaml"
            return ["training/finetune.py", "--config", str(config), *changes]

        times, code = kill_often(
            lambda: start(command("killed")), server, kills, random.Random(seed), within_seconds=8
        )
        problems += [f"the last run ended with {code}"] if code else []
        problems += paid_again(server, times)
        start(command("whole")).wait()
        files = {
            file.relative_to(folder / "killed") for file in (folder / "killed").rglob("*.jsonl")
        }
        for file in files:
            problems += _torn(folder / "killed" / file)
        wholes = {
            file.relative_to(folder / "whole") for file in (folder / "whole").rglob("*.jsonl")
        }
        if files != wholes:
            problems.append(f"files differ: {sorted(map(str, files ^ wholes))}")
        if not times:
            problems.append("the training ended before it was killed")
    return problems, len(times)


def _torn(file: Path) -> list[str]:
    problems = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            json.loads(line)
        except ValueError:
            problems.append(f"{file.name}, line {number}, is torn")
    return problems


KINDS: Mapping[str, Callable[[int, int], list[str]]] = {
    "evaluate": crash_evaluate,
    "processes": lambda kills, seed: crash_evaluate(kills, seed, processes=2),
    "sqlite": crash_checkpoints,
    "postgres": crash_postgres,
    "finetune": crash_finetune,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("-n", "--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--question", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.question:
        folder, thread, where = given.question
        asyncio.run(_question(Path(folder), thread, where))
        return 0
    wrong = 0
    for kind in given.kinds or KINDS:
        began = time.perf_counter()
        problems = KINDS[kind](given.kills, given.seed)
        seconds = time.perf_counter() - began
        print(f"{kind}, {given.kills} kills, {seconds:.0f} s: {len(problems)} problems", flush=True)
        for problem in problems[:20]:
            print(f"  {problem}", flush=True)
        wrong += len(problems)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
