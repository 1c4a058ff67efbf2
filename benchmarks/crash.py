"""Runs that are killed at random, and gone on with: nothing is lost, torn, double or paid twice.

    python -m benchmarks.crash                  50 kills each of everything below
    python -m benchmarks.crash evaluate -n 5    one of them

evaluate    `router-r1 evaluate --resume`, in one process
processes   the same in two processes; only the parent is killed, and its workers have to end
serve       `router-r1 serve --replies` under eight clients
sqlite      questions of a graph with a checkpointer in SQLite, or with a store of replies
postgres    likewise in PostgreSQL, whose address is in ROUTER_R1_POSTGRES
finetune    `training/finetune.py`, whose candidates are over HTTP

A server that counts says whether a call was made again whose reply must have been kept: since it
was sent, the killed process had slept for .3 s in all, or 3 s had gone by. The exit code is 1 if
anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from .crash_serve import crash_serve
from .faults import Attempt, FaultServer
from .kills import (
    DELAYS,
    NAMES,
    ROOT,
    Kill,
    kill_often,
    kill_runs,
    last_line,
    paid_again,
    pool_text,
    preload_training,
    start,
)

POSTGRES = "ROUTER_R1_POSTGRES"
_ENDED_SECONDS = 1.0
"""The workers of a killed process end so long after it."""


def crash_evaluate(
    kills: int,
    seed: int,
    *,
    processes: int = 1,
    questions: int = 120,
    within_seconds: float = 4.0,
    module: str = "router_r1_graph.cli",
) -> list[str]:
    """Kill evaluations of so many questions; return what is wrong.

    `module` is the command line.
    """
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as made, FaultServer(rate=0, delays=DELAYS) as server:
        folder = Path(made)
        pool, asked = folder / "pool.yaml", folder / "questions.jsonl"
        pool.write_text(pool_text(server))
        rows = (
            {"id": f"q{n}", "question": f"question {n}?", "gold": ["x"]} for n in range(questions)
        )
        asked.write_text("".join(json.dumps(row) + "\n" for row in rows))

        def begin(out: Path) -> BaseProcess:
            options = ["--pool", str(pool), "--controller", "vote", "--no-controls", "--resume"]
            options += ["--concurrency", "8", "--out", str(out), "--processes", str(processes)]
            command = ["-m", module, "evaluate", str(asked), *options]
            return start(command, folder / "log")

        def orphans() -> None:
            """Check that the workers of a killed process ask nothing more."""
            if processes > 1:
                time.sleep(_ENDED_SECONDS)
                before = server.begun
                time.sleep(2 * _ENDED_SECONDS)
                if server.begun > before:
                    problems.append("the workers of a killed process went on")

        begin(folder / "whole").join()
        whole = sorted(map(_outcome, _lines(folder / "whole" / "results.jsonl")))

        def compare(out: Path, *_: object) -> list[str]:
            results = list(_lines(out / "results.jsonl"))
            ids = Counter(result["id"] for result in results)
            wrong = [f"{id_} is there {n} times" for id_, n in ids.items() if n > 1]
            if sorted(map(_outcome, results)) != whole:
                wrong.append("the results differ from those of an uninterrupted run")
            return wrong

        problems += kill_runs(
            begin,
            compare,
            server,
            folder,
            kills,
            random.Random(seed),
            within_seconds=within_seconds,
            killed=orphans,
        )
    return problems


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of JSON lines.

    Raises:
        ValueError: a line is torn.
    """
    for line in file.read_bytes().splitlines():
        yield json.loads(line)


def _outcome(result: Mapping[str, Any]) -> str:
    """Return what may not depend on kills: not the seconds, nor who paid for a stored reply."""
    calls = sorted(
        (name, line["calls"], line["failed_calls"], line["input_tokens"], line["output_tokens"])
        for name, line in result["ledger"]["candidates"].items()
    )
    return json.dumps([result["id"], result["answer"], result["stop_reason"], calls])


# ------------------------------------------------------------------------------- checkpoints


def crash_checkpoints(kills: int, seed: int, *, where: str = "sqlite", most: int = 3) -> list[str]:
    """Kill questions of a graph with checkpoints, each at most so often; return what is wrong.

    Either would hide the other's faults, so that questions in turn have the checkpoints of each
    step and no store of replies, or a store and no checkpoint before they end.
    """
    problems: list[str] = []
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as made, FaultServer(rate=0, delays=DELAYS) as server:
        folder = Path(made)
        (folder / "pool.yaml").write_text(pool_text(server))
        landed: list[Kill] = []
        expected, number = "", 0
        while len(landed) < kills or number < 2:
            thread = f"thread {seed}.{number}" if landed else f"thread {seed}.first{number}"
            keeper = "store" if number % 2 else "checkpoints"
            number += 1

            def begin(thread: str = thread, keeper: str = keeper) -> BaseProcess:
                question = ["-m", "benchmarks.crash", "--question", made, thread, where, keeper]
                return start(question, folder / "log")

            left = min(kills - len(landed), most) if number > 1 else 0
            killed, code = kill_often(begin, server, left, draw, within_seconds=4.0)
            landed += killed
            result = folder / f"{thread}.json"
            if code or not result.exists():
                problems.append(f"{thread} ended with {code}: {last_line(folder / 'log')}")
                break
            expected = expected or result.read_text()
            if result.read_text() != expected:
                problems.append(f"{thread} ended otherwise: {result.read_text():.200}")
        problems += paid_again(server.attempts, landed)
    return problems


async def _question(folder: Path, thread: str, where: str, keeper: str) -> None:
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
    stored = keeper == "store"
    with ReplyStore(folder / "replies.sqlite", every=True) as store:
        replies = store if stored else None
        graph = create_router_r1(pool, ScriptedController(turn), replies=replies)
        async with _saver(folder, where) as saver:
            await saver.setup()
            known = await saver.aget_tuple(config)
            given = None if known else {"question": thread}
            state = await graph.compile(checkpointer=saver).ainvoke(
                given, config, durability="exit" if stored else "async"
            )
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

_OF_A_PROCESS = {"usd", "saved_usd", "stored_calls", "stored", "attempts", "step_time"}
"""Numbers that depend on kills: who has paid for a reply that is stored, and how long it took."""


def crash_finetune(kills: int, seed: int) -> list[str]:
    """Kill trainings; return what is wrong."""
    with tempfile.TemporaryDirectory() as made, FaultServer(rate=0, delay=0.05) as server:
        folder = Path(made)
        (folder / "pool.yaml").write_text(pool_text(server))
        policy = ROOT / "router_r1_graph/policies/demo"

        def command(out: Path) -> list[str]:
            changes = [f"out={out}", "stages=[best_of_n, grpo]", "replies.every=true"]
            changes += [f"data.pools=[{folder / 'pool.yaml'}]"]
            changes += ["evaluate_questions=2", "grpo.steps=2", "grpo.validate_questions=2"]
            changes += ["grpo.validate_cost_weights=[0, 0.9]"]
            changes += [f"model={{pretrained: {policy}, stop: ['</answer>'], max_new_tokens: 64}}"]
            changes += ["best_of_n.teacher_questions=0", "grpo.questions=2", "grpo.micro_batch=4"]
            config = ROOT / "training/configs/smoke.yaml"
            return ["training/finetune.py", "--config", str(config), *changes]

        def begin(out: Path) -> BaseProcess:
            return start(command(out), folder / "log")

        # With hashes of its own, as a run that goes on another day has.
        whole = folder / "whole"
        with (folder / "log").open("wb") as log:
            line = [sys.executable, *command(whole)]
            subprocess.run(line, cwd=ROOT, stdout=log, stderr=log, check=False)
        begin(whole).join()  # has nothing left to do, and leaves all as it is
        expected = _left(whole)
        began = time.perf_counter()
        begin(folder / "timed").join()

        def compare(out: Path, attempts: Sequence[Attempt], killed: Sequence[Kill]) -> list[str]:
            wrong, left = _bill(out, attempts, killed), _left(out)
            for name in sorted(expected | left):
                odd = sorted(expected.get(name, set()) ^ left.get(name, set()))
                if odd or (name in expected) != (name in left):
                    wrong.append(f"{out.name}: {name} differs: {' '.join(odd):.300}")
            return wrong

        return kill_runs(
            begin,
            compare,
            server,
            folder,
            kills,
            random.Random(seed),
            most=5,
            # What a run has done stays done, so that later runs are killed later.
            within_seconds=(time.perf_counter() - began) / 2,
            after_request=False,
        )


def _left(out: Path) -> dict[str, set[str]]:
    """Return what a training has left, without what may depend on kills, by the names of files.

    A line that is there twice, because a step was made twice, has to be the same line.
    """
    weights = ("policy/model.safetensors", "grpo/checkpoints/best.safetensors")
    left = {name: {hashlib.sha256((out / name).read_bytes()).hexdigest()} for name in weights}
    for file in out.rglob("*.jsonl"):
        lines = list(_lines(file))
        if file.parent.name != "spending":
            # The sum of a training that transformers logs is that of its last process.
            kept = (_unharmed(line) for line in lines if "train_runtime" not in line)
            left[str(file.relative_to(out))] = {json.dumps(line) for line in kept}
    return left


def _unharmed(value: Any) -> Any:
    """Return a value without the numbers that depend on kills."""
    if isinstance(value, list):
        return [_unharmed(one) for one in value]
    if isinstance(value, int):
        return float(value)  # 0 and 0.0 are the same number
    if not isinstance(value, dict):
        return value
    left_out = _OF_A_PROCESS | ({"cost_usd"} if "saved_usd" in value else set())
    names = (name for name in value if name not in left_out and "seconds" not in name)
    return {name: _unharmed(value[name]) for name in names}


def _bill(out: Path, attempts: Sequence[Attempt], kills: Sequence[Kill]) -> list[str]:
    """Compare a training's bill with the server's account, but for replies at a kill."""
    prices = {name: (n, n + 1) for n, name in enumerate(NAMES, 1)}

    def usd(attempt: Attempt) -> float:
        price = prices[attempt.model]
        return (attempt.input_tokens * price[0] + attempt.output_tokens * price[1]) / 1e6

    billed = sum(line["usd"] for file in out.glob("spending/*") for line in _lines(file))
    most = sum(map(usd, attempts))
    kept = (a for a in attempts if not any(kill.may_lose(a) for kill in kills))
    least = sum(map(usd, kept))
    if least - 1e-9 <= billed <= most + 1e-9:
        return []
    return [f"{out.name}: {billed} USD on the bill, and the server says {least} to {most}"]


KINDS: Mapping[str, Callable[[int, int], list[str]]] = {
    "evaluate": crash_evaluate,
    "processes": lambda kills, seed: crash_evaluate(kills, seed, processes=2),
    "serve": crash_serve,
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
    parser.add_argument("--question", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.question:
        folder, *rest = given.question
        asyncio.run(_question(Path(folder), *rest))
        return 0
    if "finetune" in (given.kinds or KINDS):
        preload_training()
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
