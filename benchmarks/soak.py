"""Ten minutes of `router-r1 serve` under 32 clients, over candidates that fail as providers do.

    python -m benchmarks.soak                      ten minutes, 32 clients
    python -m benchmarks.soak --minutes 0.5        to see that it runs

`router-r1 serve` runs in a process of its own, over `benchmarks.faults` in 30% of the calls. Each
client asks one question after another; every second one is streamed. A line tells a minute: the
requests, p50 and p99 of their seconds, the server's memory and its open files.

Bars: no status of ours (500, a body that is no JSON, a stream without its end). 503 says that no
candidate has replied, although each of four got three attempts: of 16,447 requests one ended so,
and at most 1% may. In the last tenth of the time, memory is at most 10% above that of the first
fifth, and the open files are at most 1.5 times as many. p99 of the last third is at most 1.5 times
the first's.
The short time-out of what hangs, four seconds, is the largest part of every p99.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml

from .chaos import HANGS, NAMES, pool_of
from .faults import FaultServer

MOST_GROWTH, MOST_SLOWER = 1.1, 1.5
MOST_UNANSWERED, MOST_FILES = 0.01, 1.5


@dataclass
class Soak:
    """What was seen, by time since the start.

    Attributes:
        answers: (when it came, seconds that it took) of each request.
        memory: (when, MB) of the server.
        files: (when, open files) of the server.
        statuses: how often each came.
        faults: what is ours, and must not be.
    """

    answers: list[tuple[float, float]] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    files: list[tuple[float, float]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def quantile(self, share: float, begin: float, end: float) -> float:
        """Return a quantile of the seconds of the requests that ended in a span; 0 without any."""
        seconds = sorted(taken for at, taken in self.answers if begin <= at < end)
        return seconds[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else 0.0

    def line(self, begin: float, end: float) -> str:
        """Return the row of a span."""
        count = sum(begin <= at < end for at, _ in self.answers)
        memory = [mb for at, mb in self.memory if begin <= at < end]
        files = [count for at, count in self.files if begin <= at < end]
        p50, p99 = (self.quantile(share, begin, end) for share in (0.5, 0.99))
        return (
            f"| {begin / 60:.1f} to {end / 60:.1f} | {count:,} | {p50:.2f} | {p99:.2f}"
            f" | {max(memory, default=0):.0f} | {max(files, default=0):.0f} |"
        )

    def problems(self, seconds: float) -> list[str]:
        """Return which bars are missed, with figures."""
        found = [f"{count} x {fault}" for fault, count in Counter(self.faults).items()]
        asked, unanswered = self.statuses.total(), self.statuses[503]
        if unanswered > asked * MOST_UNANSWERED:
            found.append(f"status 503 for {unanswered:,} of {asked:,} requests")

        def early_late(seen: list[tuple[float, float]]) -> tuple[float, float]:
            early = (value for at, value in seen if at <= seconds / 5)
            late = (value for at, value in seen if at >= seconds * 0.9)
            return max(early, default=0), max(late, default=0)

        early, late = early_late(self.memory)
        if late > early * MOST_GROWTH:
            found.append(f"memory grew from {early:.0f} to {late:.0f} MB")
        early, late = early_late(self.files)
        if late > early * MOST_FILES:
            found.append(f"open files grew from {early:.0f} to {late:.0f}")
        first, last = (
            self.quantile(0.99, begin, begin + seconds / 3) for begin in (0, seconds * 2 / 3)
        )
        if last > first * MOST_SLOWER:
            found.append(f"p99 grew from {first:.2f} to {last:.2f} s")
        return found


async def client(number: int, url: str, begun: float, seconds: float, soak: Soak) -> None:
    """Ask one question after another."""
    asked = 0
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        while time.monotonic() - begun < seconds:
            asked += 1
            start = time.monotonic()
            said = [{"role": "user", "content": f"client {number} asks question {asked}"}]
            body = {"model": "router-r1", "messages": said, "stream": bool(asked % 2)}
            try:
                async with http.stream("POST", "/v1/chat/completions", json=body) as response:
                    text = (await response.aread()).decode()
            except httpx.HTTPError as error:
                soak.faults.append(f"{type(error).__name__} of a request")
                continue
            now = time.monotonic()
            soak.answers.append((now - begun, now - start))
            soak.statuses[response.status_code] += 1
            if response.status_code not in (200, 503):
                soak.faults.append(f"status {response.status_code}: {text[:100]}")
            elif response.headers["content-type"].startswith("text/event-stream"):
                if not text.rstrip().endswith("data: [DONE]"):
                    soak.faults.append("a stream without its end")
            else:
                try:
                    json.loads(text)
                except ValueError:
                    soak.faults.append("a body that is no JSON")


async def watch(pid: int, begun: float, seconds: float, soak: Soak) -> None:
    """Look at the server's memory and files."""
    while (at := time.monotonic() - begun) < seconds:
        with open(f"/proc/{pid}/statm") as file:  # noqa: ASYNC230 - it is no file on a disk
            soak.memory.append((at, int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6))
        soak.files.append((at, len(os.listdir(f"/proc/{pid}/fd"))))
        await asyncio.sleep(1)


async def ask_all(url: str, pid: int, clients: int, seconds: float, every: float) -> Soak:
    """Let clients ask for so long, and print a line for each span."""
    soak, begun = Soak(), time.monotonic()

    async def told() -> None:
        begin = 0.0
        while begin + every <= seconds:
            await asyncio.sleep(max(0.0, begin + every - (time.monotonic() - begun)))
            print(soak.line(begin, begin + every), flush=True)
            begin += every

    async with asyncio.TaskGroup() as group:
        group.create_task(watch(pid, begun, seconds, soak))
        group.create_task(told())
        for number in range(clients):
            group.create_task(client(number, url, begun, seconds, soak))
    return soak


def run(clients: int = 32, seconds: float = 600.0, seed: int = 0, every: float = 60.0) -> list[str]:
    """Soak a server; return which bars are missed."""
    never = [name for name in NAMES if name != HANGS]
    with tempfile.TemporaryDirectory() as folder, FaultServer(seed=seed, never_hanging=never) as f:
        pool = pool_of(f, hang_seconds=4.0).model_dump(mode="json", exclude_defaults=True)
        file = Path(folder, "pool.yaml")
        file.write_text(yaml.safe_dump(pool), encoding="utf-8")
        command = [sys.executable, "-m", "router_r1_graph.cli", "serve", "--pool", str(file)]
        command += ["--controller", "vote", "--port", "0"]
        log = Path(folder, "serve.log")
        with log.open("w") as said:
            server = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            while not (told := re.search(r"http://\S+?(?=/v1)", log.read_text())):
                if server.poll() is not None:
                    return [f"it did not start: {log.read_text()}"]
                time.sleep(0.1)
            print("| minutes | requests | p50, s | p99, s | memory, MB | files |")
            print("|---|---|---|---|---|---|")
            soak = asyncio.run(ask_all(told[0], server.pid, clients, seconds, every))
        finally:
            server.terminate()
            server.wait()
    statuses = ", ".join(f"{status} x {count:,}" for status, count in soak.statuses.most_common())
    print(f"\n{statuses}; {len(f.attempts):,} attempts at the candidates")
    return soak.problems(seconds)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    seconds = args.minutes * 60
    problems = run(args.clients, seconds, args.seed, every=min(60.0, seconds / 3))
    print("\n".join(problems) or "every bar is met")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
