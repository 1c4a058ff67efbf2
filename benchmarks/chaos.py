"""Many questions over a server that fails as providers do: nothing may be lost, and nothing left.

    python -m benchmarks.chaos                     2,000 questions, 64 in flight, each way
    python -m benchmarks.chaos graph -n 200        one of: graph, evaluate, serve

What is checked: every question ends with a stop reason; the server's own count of attempts equals
that of the calls' bills, and so do the tokens wherever its usage was sane; each ledger is the sum
of its bills, and what `serve` tells its clients and /metrics is the sum of the ledgers; no socket
and no task is left (the event loop of `evaluate` cancels its own); memory comes back. The exit code
is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import math
import random
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, ToolMessage

from router_r1_graph import (
    CandidatePool,
    ChatRouterR1,
    RouterContext,
    ScriptedController,
    View,
    create_router_r1,
)

from .faults import FaultServer
from .served import serving_at

NAMES = ("Ada", "Bob", "Cyd", "Dee")
HANGS = "Dee"
"""The only one whose requests hang: its time-out is short, and that of all others is long."""
_MOST_LEFT_MB = 64
_NUMBERS = ("calls", "retries", "stored_calls", "input_tokens", "output_tokens", "cost_usd")
"""What is compared of each candidate."""
Sums: TypeAlias = defaultdict[str, Counter[str]]
"""The numbers of each candidate."""


@dataclass
class Found:
    """What a run has shown.

    Attributes:
        problems: what is wrong, in words; [] = nothing.
        stop_reasons: how many questions ended how.
        attempts: how many requests the server has counted.
        seconds: how long it took.
    """

    problems: list[str] = field(default_factory=list)
    stop_reasons: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    seconds: float = 0.0
    bills: dict[tuple[str, str], list[Mapping[str, Any]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    ledgers: Sums = field(default_factory=lambda: defaultdict(Counter))

    def add(self, scratchpad: Iterable[Any], ledger: Mapping[str, Any]) -> None:
        """Add the calls of a run, and compare its ledger with their bills."""
        bills: Sums = defaultdict(Counter)
        for message in scratchpad:
            if isinstance(message, ToolMessage) and (bill := message.artifact):
                self.bills[bill["candidate"], bill["query"]].append(bill)
                counts = {"calls": 1, "retries": max(0, bill["attempts"] - 1)}
                counts["stored_calls"] = int(bill["stored"])
                _count(bills, bill["candidate"], {**bill, **counts})
        for name, line in ledger["candidates"].items():
            _count(self.ledgers, name, line)
        self.compare("a ledger", ledger["candidates"], "its bills", bills)

    def compare(
        self,
        what: str,
        ours: Mapping[str, Mapping[str, float]],
        whose: str,
        theirs: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Add a problem where the numbers of a candidate differ."""
        for name in sorted(ours.keys() | theirs.keys()):
            one, other = ours.get(name, {}), theirs.get(name, {})
            for key in _NUMBERS:
                if not math.isclose(one.get(key, 0), other.get(key, 0), abs_tol=1e-12):
                    said = f"{what} has {one.get(key, 0):g} {key} of {name}"
                    self.problems.append(f"{said}, {whose} {other.get(key, 0):g}")

    def compare_memory(self, before: float) -> None:
        """Add a problem where memory has grown since the first half, which makes what stays."""
        if (more := _memory_mb() - before) > _MOST_LEFT_MB:
            self.problems.append(f"memory: {more:.0f} MB more after the second half")

    def __str__(self) -> str:
        stops = ", ".join(f"{reason} {count}" for reason, count in self.stop_reasons.most_common())
        said = f"{self.attempts} attempts, {self.seconds:.0f} s; {stops}"
        return "\n  ".join([said, *self.problems[:20]])


def _count(sums: Sums, name: str, line: Mapping[str, Any]) -> None:
    sums[name].update({key: line[key] for key in _NUMBERS})


def pool_of(server: FaultServer, *, hang_seconds: float) -> CandidatePool:
    """Return a pool whose candidates are all on a server."""
    return CandidatePool.model_validate(
        {
            "name": "chaos",
            "candidates": [
                {
                    "name": name,
                    "base_url": server.base_url,
                    "input_usd_per_mtok": 1.0 + number,
                    "output_usd_per_mtok": 2.0 + number,
                    "max_tokens": 100,
                    "max_retries": 2,
                    "timeout_seconds": hang_seconds if name == HANGS else 60.0,
                }
                for number, name in enumerate(NAMES)
            ],
        }
    )


def turn(view: View) -> str:
    """Write a turn of a controller that asks at random, and at times writes nonsense."""
    turns = sum(isinstance(message, AIMessage) for message in view.scratchpad)
    draw = random.Random(f"{view.question}:{turns}")
    if view.must_answer or (turns and draw.random() < 0.4):
        return f"<think> enough </think> <answer> {view.question} </answer>"
    if draw.random() < 0.1:
        return "garbage <search> nobody </search> <search> Eve: who? </search>"
    asked = (
        f"{draw.choice(NAMES)}: {view.question}, {turns}.{i}" for i in range(draw.randint(1, 4))
    )
    return "".join(f"<search> {call} </search>" for call in asked)


def through_graph(server: FaultServer, count: int, at_once: int, hang_seconds: float) -> Found:
    """Ask the compiled graph."""
    found = Found()
    graph = create_router_r1(
        pool_of(server, hang_seconds=hang_seconds), ScriptedController(turn)
    ).compile()

    async def one(number: int) -> None:
        question = {"question": f"question {number}"}
        state = await graph.ainvoke(question, context=RouterContext(max_rounds=3))
        found.stop_reasons[state["stop_reason"]] += 1
        found.add(state["scratchpad"], state["ledger"])
        if state["answer"] != f"question {number}":
            found.problems.append(f"question {number} was answered {state['answer']!r:.80}")

    _all_at_once(found, one, count, at_once)
    _compare_calls(found, server)
    return found


def through_evaluate(server: FaultServer, count: int, at_once: int, hang_seconds: float) -> Found:
    """Ask by `evaluate`, with two controllers that share the replies."""
    from router_r1_graph.evaluation.plan import Evaluation
    from router_r1_graph.evaluation.program import evaluate
    from router_r1_graph.evaluation.questions import EvaluationQuestion
    from router_r1_graph.trace import read_traces

    found = Found()
    pool = pool_of(server, hang_seconds=hang_seconds)
    asked: Counter[str] = Counter()

    def ask(numbers: Iterable[int]) -> None:
        questions = [
            EvaluationQuestion(f"q{n}", f"evaluated question {n}", ("x",), {}) for n in numbers
        ]
        with tempfile.TemporaryDirectory() as folder:
            evaluate(
                Evaluation(
                    pool,
                    questions,
                    ["vote", "cascade"],
                    controls=False,
                    concurrency=at_once,
                    out=Path(folder),
                )
            )
            for trace in read_traces(Path(folder) / "results.jsonl"):
                found.stop_reasons[trace.stop_reason] += 1
                found.add(trace.scratchpad, trace.ledger)
                asked[trace.controller] += 1

    half = count // 2
    ask(range(half))
    before = _memory_mb()
    ask(range(half, count))
    found.compare_memory(before)
    if asked != {"vote": count, "cascade": count}:
        found.problems.append(f"results of {dict(asked)} questions instead of {count} each")
    _compare_calls(found, server)
    return found


def through_serve(server: FaultServer, count: int, at_once: int, hang_seconds: float) -> Found:
    """Ask the served router over HTTP."""
    import httpx

    from router_r1_graph.serving.connections import limited
    from router_r1_graph.trace import read_traces

    found = Found()
    told: Sums = defaultdict(Counter)
    pool = pool_of(server, hang_seconds=hang_seconds)
    model = ChatRouterR1(pool=pool, controller="vote", max_rounds=2)

    async def ask_all(url: str) -> str:
        limits = httpx.Limits(max_connections=at_once)
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

            async def one(number: int) -> None:
                said = [{"role": "user", "content": f"served question {number}"}]
                body = {"model": "router-r1", "messages": said}
                response = await client.post("/v1/chat/completions", json=body)
                data = response.json()
                bill = data.get("router_r1") or data["error"].get("router_r1")
                if response.status_code not in (200, 503) or not bill:
                    found.problems.append(f"{response.status_code}: {response.text[:200]}")
                    return
                found.stop_reasons[bill["stop_reason"]] += 1
                for name, line in bill["candidates"].items():
                    _count(told, name, line)
                usage = data.get("usage")
                sums = [bill["input_tokens"], bill["output_tokens"]]
                if usage and [usage["prompt_tokens"], usage["completion_tokens"]] != sums:
                    found.problems.append(f"usage is {usage}, and the bill says {sums}")

            await client.get("/health")  # the server has begun
            tasks = _tasks_elsewhere(server)
            await _halves(found, one, count, at_once)
            for seconds in (0.1, 0.5, 1, 3, 5):  # for those that are about to end
                if not (left := _tasks_elsewhere(server) - tasks):
                    break
                await asyncio.sleep(seconds)
            else:
                found.problems.append(f"{len(left)} tasks are left, such as {left.pop()!r:.200}")
            return (await client.get("/metrics")).text

    with tempfile.TemporaryDirectory() as folder:
        traces = Path(folder) / "traces.jsonl"
        with serving_at(model, http=limited(), max_concurrency=at_once, traces=traces) as url:
            metrics = asyncio.run(ask_all(url))
        for trace in read_traces(traces):
            found.add(trace.scratchpad, trace.ledger)
    found.compare("what clients were told", told, "the ledgers", found.ledgers)
    _compare_calls(found, server)
    _compare_metrics(found, metrics, count)
    return found


def _compare_metrics(found: Found, text: str, count: int) -> None:
    """Compare what /metrics says with the ledgers of so many questions."""
    sums: Counter[str] = Counter()
    for line in text.splitlines():
        if given := re.fullmatch(r'router_r1_(\w+)_total(?:{candidate="(\w+)"}|{.*})? (\S+)', line):
            sums[given[1] + (f" of {given[2]}" if given[2] else "")] += float(given[3])
    expected = {"stop_reasons": float(count)}
    expected["cost_usd"] = sum(line["cost_usd"] for line in found.ledgers.values())
    expected |= {f"calls of {name}": line["calls"] for name, line in found.ledgers.items()}
    for name, ours in expected.items():
        if not math.isclose(sums[name], ours):
            found.problems.append(f"/metrics has {sums[name]:g} {name} instead of {ours:g}")


def _tasks_elsewhere(server: FaultServer) -> set[asyncio.Task[Any]]:
    """Return the unfinished tasks of all event loops but this one and the failing server's."""
    loops = (asyncio.get_running_loop(), server.loop)
    tasks = [each for each in gc.get_objects() if type(each) is asyncio.Task]
    return {task for task in tasks if not task.done() and task.get_loop() not in loops}


def _all_at_once(found: Found, one: Callable[[int], Any], count: int, at_once: int) -> None:
    """Ask everything in one event loop, and look at what is left in it."""

    async def run() -> None:
        await _halves(found, one, count, at_once)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            found.problems.append(f"{len(left)} tasks are left, such as {next(iter(left))!r:.200}")

    asyncio.run(run())


async def _halves(found: Found, one: Callable[[int], Any], count: int, at_once: int) -> None:
    """Ask everything in two halves; compare the memory after them."""
    half = count // 2
    await _gather(one, range(half), at_once)
    before = _memory_mb()
    await _gather(one, range(half, count), at_once)
    found.compare_memory(before)


async def _gather(one: Callable[[int], Any], numbers: Iterable[int], at_once: int) -> None:
    places = asyncio.Semaphore(at_once)

    async def placed(number: int) -> None:
        async with places:
            await one(number)

    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(placed(number))


def _memory_mb() -> float:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def _agree(name: str, billed: int, counted: int) -> bool:
    """Return whether the ledger's attempts are the server's.

    On a busy machine, a short time-out also ends attempts before the server has seen them, and
    others that it has answered.
    """
    return billed >= counted if name == HANGS else billed == counted


def _compare_calls(found: Found, server: FaultServer) -> None:
    """Compare the server's account with the bills, call by call, and with the ledgers' attempts."""
    made = Counter(attempt.model for attempt in server.attempts)
    for name, line in found.ledgers.items():
        ours = line["calls"] - line["stored_calls"] + line["retries"]
        if not _agree(name, ours, made[name]):
            found.problems.append(f"{name}: {ours} attempts on the ledgers, {made[name]} made")
    counted = server.by_call()
    for call in counted.keys() | found.bills.keys():
        attempts, bills = counted.get(call, []), found.bills.get(call, [])
        billed = sum(bill["attempts"] for bill in bills)
        faults = [attempt.fault or "ok" for attempt in attempts]
        if not _agree(call[0], billed, len(attempts)):
            found.problems.append(
                f"{call}: {billed} attempts billed, {len(attempts)} made: {faults}"
            )
        if call[0] == HANGS or not all(attempt.sane for attempt in attempts):
            continue
        paid = [bill for bill in bills if not bill["stored"]]
        for kind in ("input_tokens", "output_tokens"):
            ours = sum(bill[kind] for bill in paid)
            theirs = sum(getattr(attempt, kind) for attempt in attempts)
            if ours != theirs:
                found.problems.append(f"{call}: {kind} {ours} billed, {theirs} used: {faults}")


WAYS: Mapping[str, Callable[[FaultServer, int, int, float], Found]] = {
    "graph": through_graph,
    "evaluate": through_evaluate,
    "serve": through_serve,
}


def run(
    way: str, count: int, *, at_once: int = 64, seed: int = 0, hang_seconds: float = 4.0
) -> Found:
    """Ask so many questions in one way; return what was found."""
    never = [name for name in NAMES if name != HANGS]
    start = time.perf_counter()
    with FaultServer(seed=seed, never_hanging=never) as server:
        found = WAYS[way](server, count, at_once, hang_seconds)
        end = time.monotonic() + 10
        while server.open and time.monotonic() < end:
            time.sleep(0.05)
        if server.open:
            found.problems.append(f"{server.open} connections are still open")
        found.attempts = len(server.attempts)
    found.seconds = time.perf_counter() - start
    if found.stop_reasons[""] or found.stop_reasons[None]:  # type: ignore[index]
        found.problems.append("a question ended without a stop reason")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ways", nargs="*", metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("-n", "--questions", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    logging.disable(logging.ERROR)  # a warning for each failed turn
    wrong = 0
    for way in given.ways or WAYS:
        found = run(way, given.questions, at_once=given.at_once, seed=given.seed)
        print(f"{way}, {given.questions} questions: {found}", flush=True)
        wrong += len(found.problems)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
