"""What the graph costs on top of the calls it makes.

    python -m benchmarks.overhead              all of them
    python -m benchmarks.overhead cpu          CPU of a question, graph against a bare asyncio loop
    python -m benchmarks.overhead resilience   the same, with limits and a breaker against without
    python -m benchmarks.overhead flight       1,000 questions in flight at 50 ms a call
    python -m benchmarks.overhead imports      time of importing `create_router_r1`

Machines are noisy: compare the ratios, which come from interleaved runs in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from router_r1_graph import (
    CandidatePool,
    ChatModelController,
    candidate_tool,
    create_router_r1,
    protocol,
)

ROUNDS = 4
SLOW_SECONDS = 0.04
POOL = CandidatePool.model_validate(
    {
        "name": "benchmark",
        "candidates": [
            {"name": n, "input_usd_per_mtok": 0.3, "output_usd_per_mtok": 0.6}
            for n in ("Qwen", "Llama")
        ],
    }
)


class FakeChat(BaseChatModel):
    """A chat model that answers at once, or after `latency` seconds of sleep."""

    kind: str
    latency: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _text(self, messages: list[AnyMessage]) -> str:
        if self.kind == "candidate":
            return "some information about it"
        done = sum(isinstance(message, AIMessage) for message in messages)
        if done == ROUNDS:
            return "<think> enough </think> <answer> 42 </answer>"
        name = POOL.candidates[done % 2].name
        return f"<think> step {done} </think> <search> {name}: sub-question {done} </search>"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> Any:
        text = self._text(messages)
        usage = {"input_tokens": 50, "output_tokens": 10, "total_tokens": 60}
        message = AIMessage(text, usage_metadata=usage)  # type: ignore[arg-type]
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Any:
        if self.latency:
            await asyncio.sleep(self.latency)
        return self._generate(messages)


Ask = Callable[[str], Awaitable[str]]


def through_the_graph(latency: float, pool: CandidatePool = POOL) -> Ask:
    """Return the router as it is used, over fake models."""
    candidate = FakeChat(kind="candidate", latency=latency)
    graph = create_router_r1(
        pool,
        ChatModelController(FakeChat(kind="controller", latency=latency)),
        models={c.name: candidate for c in pool.candidates if not c.base_url},
    ).compile(name="router_r1")

    async def ask(question: str) -> str:
        result = await graph.ainvoke({"question": question})
        return str(result["answer"])

    return ask


def in_a_bare_loop(latency: float) -> Ask:
    """Return a loop that makes the same model and tool calls, and nothing else."""
    model = FakeChat(kind="controller", latency=latency)
    tools = {
        c.name: candidate_tool(c, FakeChat(kind="candidate", latency=latency))
        for c in POOL.candidates
    }

    async def ask(question: str) -> str:
        messages: list[AnyMessage] = [HumanMessage(question)]
        while True:
            message = await model.ainvoke(messages, stop=list(protocol.STOP))
            turn = protocol.parse(str(message.text))
            if turn.answer is not None:
                return turn.answer
            messages.append(message)
            for call in turn.calls:
                args = {"query": call.query}
                tool = tools[call.candidate]
                reply = await tool.ainvoke(
                    {"type": "tool_call", "id": "1", "name": tool.name, "args": args}
                )
                messages.append(HumanMessage(protocol.render_observations([reply])))

    return ask


async def _cpu_ms(ask: Ask, questions: int) -> float:
    start = time.process_time()
    for number in range(questions):
        assert await ask(f"question {number}") == "42"
    return (time.process_time() - start) / questions * 1e3


def cpu(questions: int = 40, repeats: int = 9) -> float:
    """Print CPU milliseconds a question of 4 rounds; return the ratio."""
    bare, graph = in_a_bare_loop(0), through_the_graph(0)

    async def measure() -> tuple[list[float], list[float]]:
        pairs = []
        await _cpu_ms(bare, 5), await _cpu_ms(graph, 5)  # first calls warm caches up
        for _ in range(repeats):
            pairs.append((await _cpu_ms(bare, questions), await _cpu_ms(graph, questions)))
        return [b for b, _ in pairs], [g for _, g in pairs]

    bare_ms, graph_ms = asyncio.run(measure())
    ratio = statistics.median(g / b for g, b in zip(graph_ms, bare_ms, strict=True))
    print(
        f"CPU a question of {ROUNDS} rounds: graph {min(graph_ms):.2f} ms, bare loop "
        f"{min(bare_ms):.2f} ms, ratio {ratio:.2f} (bar: at most 3.5)"
    )
    return ratio


def resilience(questions: int = 3, repeats: int = 200) -> dict[str, float]:
    """Print what limits, breaker and fallback add to the CPU of a question; return the ratios.

    Candidates are asked over HTTP, as they are in earnest, with replies at once and after a while,
    and as fakes that cost nothing.
    """
    limits = {
        "max_concurrency": 1000,
        "requests_per_minute": 1e9,
        "tokens_per_minute": 1e12,
        "breaker_failures": 5,
        "fallback": "nearest",
    }
    candidates = [c.model_dump(exclude_unset=True) for c in POOL.candidates]
    ratios = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(0.0) as quick,
        _server(SLOW_SECONDS) as slow,
    ):
        ways = {
            "over HTTP": quick,
            f"over HTTP, replies after {1e3 * SLOW_SECONDS:.0f} ms": slow,
            "of fakes": None,
        }
        stores = {"without": None, "in memory": "memory", "in SQLite": f"{folder}/limits.sqlite"}
        asks = {}
        for how, base_url in ways.items():
            for store, place in stores.items():
                block = {**limits, "limits_store": place} if place else None
                here = [{**c, "base_url": base_url} for c in candidates]
                pool = CandidatePool.model_validate({"resilience": block, "candidates": here})
                asks[how, store] = through_the_graph(0, pool)

        async def measure() -> dict[tuple[str, str], list[float]]:
            cpu: dict[tuple[str, str], list[float]] = {arm: [] for arm in asks}
            for ask in asks.values():
                await _cpu_ms(ask, 5)  # first calls warm caches up
            order, rng = list(asks), random.Random(0)
            for _ in range(repeats):
                rng.shuffle(order)  # an arm leaves its successor a cold cache, or a warm one
                for arm in order:
                    cpu[arm].append(await _cpu_ms(asks[arm], questions))
            return cpu

        cpu_ms = asyncio.run(measure())
    for (how, store), with_limits in cpu_ms.items():
        plain = cpu_ms[how, "without"]
        ratio = statistics.median(a / b for a, b in zip(with_limits, plain, strict=True))
        ratios[f"{store}, {how}"] = ratio
        print(
            f"CPU a question of {ROUNDS} rounds {how}, limits {store}: "
            f"{statistics.median(with_limits):.2f} ms, ratio {ratio:.3f} (bar over HTTP: 1.05)"
        )
    return ratios


@contextmanager
def _server(seconds: float) -> Iterator[str]:
    """Serve replies in another process, whose CPU is not measured; yield its address.

    Args:
        seconds: until a reply comes.
    """
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs, seconds))
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.kill()
        process.join()


def _serve(pipe: Any, seconds: float) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60}
    message = {"role": "assistant", "content": "some information about it"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    body = json.dumps({**head, "choices": [choice], "usage": usage}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: else TCP holds the second back for 40 ms

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(seconds)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_address[1])
    server.serve_forever()


def flight(questions: int = 1000, latency: float = 0.05) -> float:
    """Print questions a second with all of them in flight at once; return it."""
    # Python's collector walks everything alive again and again; with this much alive it doubles the
    # time. An application that keeps many questions in flight should set the same two lines.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    ask = through_the_graph(latency)

    async def measure() -> float:
        await ask("warm up")
        start = time.perf_counter()
        answers = await asyncio.gather(*(ask(f"question {n}") for n in range(questions)))
        assert answers == ["42"] * questions
        return questions / (time.perf_counter() - start)

    rate = asyncio.run(measure())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{questions} questions in flight at {latency * 1e3:.0f} ms a call: {rate:.0f} questions/s "
        f"(bar: at least 80), peak memory {peak_mb:.0f} MB (bar: under 600)"
    )
    return rate


def imports(repeats: int = 7) -> float:
    """Print how long imports take in fresh interpreters; return the ratio."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    ours = "from router_r1_graph import create_router_r1"
    theirs = "import langgraph.graph, langchain_openai"
    seconds(ours), seconds(theirs)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"{ours}: {min(a for a, _ in pairs):.2f} s, {theirs}: {min(b for _, b in pairs):.2f} s, "
        f"ratio {ratio:.2f} (bar: under 1.5)"
    )
    return ratio


PARTS: dict[str, Callable[[], object]] = {
    "cpu": cpu,
    "resilience": resilience,
    "flight": flight,
    "imports": imports,
}


def main() -> None:
    """Run the benchmarks that were asked for, each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("which", nargs="*", choices=[*PARTS, []], default=[])
    which = parser.parse_args().which or list(PARTS)
    if len(which) > 1:  # so that no benchmark meets another one's heap
        for name in which:
            subprocess.run([sys.executable, "-m", "benchmarks.overhead", name], check=True)
        return
    PARTS[which[0]]()


if __name__ == "__main__":
    main()
