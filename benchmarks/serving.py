"""What serving the router costs: as an API, and as a part of a larger graph.

    python -m benchmarks.serving               both
    python -m benchmarks.serving api           64 clients against one `router-r1 serve`
    python -m benchmarks.serving subgraph      CPU of a question, in a parent graph against alone

The candidates are the embedded ones, which answer at once: what is measured is our own work, on one
core. The clients run in this process and want a second core. Machines are noisy: the ratio comes
from interleaved runs in one process. If other programs use the cores too, the CPU time of the
server shows what a free machine would do.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import psutil
from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph

from router_r1_graph import CandidatePool, create_router_r1_agent, parse_controller
from router_r1_graph.simulation import generate, known_world

CLIENTS = 64
POOL = CandidatePool.embedded()
QUESTIONS = [q.text for q in generate(known_world(None), split="test", n=200, seed=0)]


def percentile(values: list[float], percent: float) -> float:
    """Return the value that this percentage of values is at or below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def api(requests: int = 1000) -> tuple[float, float, int]:
    """Print and return requests a second, p99 in seconds, and errors, with 64 clients."""
    command = [sys.executable, "-m", "router_r1_graph.cli", "serve", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        line = server.stderr.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise SystemExit(line + server.stderr.read())
        process = psutil.Process(server.pid)
        start = sum(process.cpu_times()[:2])
        wall, seconds, errors = asyncio.run(_load(found[0], requests))
        cpu_ms = (sum(process.cpu_times()[:2]) - start) / requests * 1e3
    finally:
        server.terminate()
        server.wait()
    rate, p50, p99 = requests / wall, percentile(seconds, 50), percentile(seconds, 99)
    print(f"one server, {CLIENTS} clients, {requests} requests")
    print("  requests/s    p50 s    p99 s   errors   CPU ms of the server a request")
    print(f"  {rate:10.0f} {p50:8.2f} {p99:8.2f} {errors:8d} {cpu_ms:8.1f}")
    print("  bars: at least 60 requests/s, p99 under 1.5 s, no errors")
    return rate, p99, errors


async def _load(url: str, requests: int) -> tuple[float, list[float], int]:
    """Ask from 64 clients that each wait for their answer; return wall time, latencies, errors."""
    seconds: list[float] = []
    errors = 0
    numbers = iter(range(requests))
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:

        async def ask(number: int) -> bool:
            said = [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}]
            body = {"model": "router-r1", "messages": said}
            reply = await client.post(f"{url}/chat/completions", json=body)
            return bool(reply.status_code == 200 and reply.json()["router_r1"]["stop_reason"])

        async def work() -> None:
            nonlocal errors
            for number in numbers:
                start = time.perf_counter()
                try:
                    errors += not await ask(number)
                except httpx.HTTPError:
                    errors += 1
                seconds.append(time.perf_counter() - start)

        await asyncio.gather(*(ask(number) for number in range(8)))  # warm up
        start = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(CLIENTS)))
        return time.perf_counter() - start, seconds, errors


Ask = Callable[[str], Awaitable[str]]


def alone() -> Ask:
    """Return the router as an agent of its own."""
    return _asks(create_router_r1_agent(POOL, parse_controller("keyword", POOL)))


def inside() -> Ask:
    """Return the same agent as the one node of a parent graph."""
    agent = create_router_r1_agent(POOL, parse_controller("keyword", POOL))
    builder = StateGraph(MessagesState).add_node("router", agent).add_edge(START, "router")
    return _asks(builder.compile())


def _asks(graph: CompiledStateGraph[Any, Any, Any, Any]) -> Ask:
    async def ask(question: str) -> str:
        result = await graph.ainvoke({"messages": [HumanMessage(question)]})
        return str(result["messages"][-1].text)

    return ask


async def _cpu_ms(ask: Ask, questions: list[str]) -> float:
    start = time.process_time()
    for question in questions:
        assert await ask(question)
    return (time.process_time() - start) / len(questions) * 1e3


def subgraph(questions: int = 50, repeats: int = 9) -> float:
    """Print CPU milliseconds a question; return the ratio."""
    one, other = alone(), inside()

    async def measure() -> list[tuple[float, float]]:
        await _cpu_ms(one, QUESTIONS[:5]), await _cpu_ms(other, QUESTIONS[:5])  # warms caches up
        asked = QUESTIONS[:questions]
        return [(await _cpu_ms(one, asked), await _cpu_ms(other, asked)) for _ in range(repeats)]

    pairs = asyncio.run(measure())
    ratio = statistics.median(b / a for a, b in pairs)
    print("CPU ms a question")
    print("    alone   in a parent graph   ratio")
    print(f"  {min(a for a, _ in pairs):7.2f} {min(b for _, b in pairs):19.2f} {ratio:7.2f}")
    print("  bar: ratio at most 1.25")
    return ratio


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("which", nargs="*", choices=["api", "subgraph", []], default=[])
    which = parser.parse_args().which or ["api", "subgraph"]
    for name in which:
        {"api": api, "subgraph": subgraph}[name]()


if __name__ == "__main__":
    main()
