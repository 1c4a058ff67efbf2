"""How time, memory and checkpoints grow with what they must grow with.

    python -m benchmarks.growth                    all, and the page's table and picture
    python -m benchmarks.growth rounds pool        only some, printed
    python -m benchmarks.growth --short            small sizes, to see that it runs

| it grows with | sizes | measured |
|---|---|---|
| rounds | 1 to 64 rounds of a question | CPU, memory, SQLite checkpoint bytes of the question |
| pool | 3 to 3,000 candidates | CPU and memory of a question of one round |
| flight | 1 to 5,000 questions at once | CPU and memory of all of them |
| thread | 1 to 1,000 questions of one thread | CPU, memory and checkpoint bytes of all of them |

The growth is the slope of log(measured) over log(size) between the last two sizes, of what is above
the smallest size's: 1 = linear, 2 = quadratic. Bar: at most 1.1; the exit code is 1 if a growth is
above it that `KNOWN` does not explain. CPU is without that of Python's garbage collector, which has
a column of its own and no bar: it visits all that is alive, whoever made it. Memory is how far the
process grew at its peak: its first megabyte may be room that the warm-up has left. Each size has a
process of its own, which first runs the smallest size. The least of three counts where one takes
less than five seconds, as other work disturbs short ones most.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from router_r1_graph import CandidatePool, RouterContext, View, create_router_r1

from .overhead import FakeChat

FOLDER = Path(__file__).parent.parent / "docs"
BAR = 1.1
_LONG_SECONDS = 5.0
SIZES = {
    "rounds": (1, 2, 4, 8, 16, 32, 64),
    "pool": (3, 10, 30, 100, 300, 1000, 3000),
    "flight": (1, 10, 100, 1000, 5000),
    "thread": (1, 10, 100, 300, 1000),
}
SHORT = {
    "rounds": (1, 2, 4),
    "pool": (3, 10, 30),
    "flight": (1, 10, 30),
    "thread": (1, 3, 9),
}
SIZED = {
    "rounds": "rounds of a question",
    "pool": "candidates in the pool",
    "flight": "questions at once",
    "thread": "questions on one thread",
}
"""What the sizes count, in words."""
UNITS = {
    "cpu_s": "CPU, s",
    "collector_s": "collector, s",
    "memory_mb": "memory, MB",
    "checkpoint_mb": "checkpoints, MB",
}
KNOWN = {
    (what, unit): "LangGraph writes the whole state after each step"
    for what in ("rounds", "thread")
    for unit in ("cpu_s", "checkpoint_mb")
}
"""What may grow faster than linearly, and why."""


@dataclass
class Rounds:
    """A controller that asks one candidate after another, so many times, and answers."""

    rounds: int = 1
    name: str = "rounds"

    def decide(self, view: View) -> str:
        """Ask, or answer."""
        done = sum(isinstance(message, AIMessage) for message in view.scratchpad)
        if done >= self.rounds:
            return "<think> Enough. </think> <answer> the river </answer>"
        candidate = view.pool.candidates[done % len(view.pool.candidates)].name
        query = f"Which river is number {done} of the north?"
        return f"<think> Step {done}. </think> <search> {candidate}: {query} </search>"


def pool_of(size: int) -> CandidatePool:
    """Return a pool of candidates with prices and strengths."""
    return CandidatePool.model_validate(
        {
            "name": "growth",
            "candidates": [
                {
                    "name": f"Candidate {number}",
                    "strengths": ["rivers", "lakes"],
                    "input_usd_per_mtok": 0.1 + number,
                    "output_usd_per_mtok": 0.2 + number,
                }
                for number in range(size)
            ],
        }
    )


Run = Callable[[], float]
"""What is measured; returns the bytes of its checkpoints, 0 without."""


async def ask_all(graph: Any, questions: int) -> float:
    """Ask so many questions at once; without checkpoints."""
    given = [{"question": f"Which river is number {n} of the north?"} for n in range(questions)]
    results = await asyncio.gather(*(graph.ainvoke(one) for one in given))
    assert {result["answer"] for result in results} == {"the river"}
    return 0.0


def case(what: str, size: int) -> Run:
    """Return what is measured at a size."""
    rounds = size if what == "rounds" else 1
    pool = pool_of(size if what == "pool" else 3)
    context = RouterContext(max_rounds=rounds + 1)
    model = FakeChat(kind="candidate")
    models = {candidate.name: model for candidate in pool.candidates}
    router = create_router_r1(pool, Rounds(rounds), models=models, context=context)
    if what in ("pool", "flight"):
        graph = router.compile()
        return lambda: asyncio.run(ask_all(graph, size if what == "flight" else 1))
    questions = size if what == "thread" else 1

    def kept() -> float:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "checkpoints.sqlite")
            with SqliteSaver.from_conn_string(str(file)) as saver:
                graph = router.compile(checkpointer=saver)
                config: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 1000}
                for number in range(questions):
                    text = f"Which river is number {number} of the north?"
                    result = graph.invoke({"messages": [("user", text)]}, config)
                    assert result["answer"] == "the river", result["stop_reason"]
                saver.conn.execute("pragma wal_checkpoint(truncate)")
            return float(file.stat().st_size)

    return kept


def measure(run: Run, warm_up: Run) -> dict[str, float]:
    """Return what a run takes, after one that warms caches up."""
    warm_up()
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    collected, begun = 0.0, 0.0

    def watch(phase: str, _: dict[str, int]) -> None:
        nonlocal collected, begun
        if phase == "start":
            begun = time.process_time()
        else:
            collected += time.process_time() - begun

    gc.callbacks.append(watch)
    start = time.process_time()
    size = run()
    seconds = time.process_time() - start - collected
    gc.callbacks.remove(watch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"cpu_s": seconds, "collector_s": collected}
    found["memory_mb"] = max(0, peak - before) / 2**20
    return {**found, "checkpoint_mb": size / 2**20} if size else found


def in_a_process(what: str, size: int) -> dict[str, float]:
    """Return the least of three measurements, or a long one, each by a process of its own."""
    command = [sys.executable, "-m", "benchmarks.growth", "--one", what, str(size)]
    runs: list[dict[str, float]] = []
    while len(runs) < 3 and sum(run["cpu_s"] for run in runs) < _LONG_SECONDS:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {unit: min(run[unit] for run in runs) for unit in runs[0]}


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the growth between the last two sizes, of what is above the smallest one's.

    Example:
        >>> slope([1, 10, 100], [5.0, 14.0, 104.0])
        1.041392685158225
    """
    (a, b), (low, high) = sizes[-2:], (value - values[0] for value in values[-2:])
    if high <= 0:
        return 0.0
    return math.log(high / max(low, high * a / b / 10)) / math.log(b / a)


Found = dict[str, dict[int, dict[str, float]]]
"""What was measured: by what it grows with, by size, by unit."""


def growth(rows: dict[int, dict[str, float]]) -> dict[str, float]:
    """Return the slope of each unit."""
    sizes = sorted(rows)
    return {
        unit: slope(sizes, [rows[size][unit] for size in sizes])
        for unit in UNITS
        if unit in rows[sizes[0]]
    }


def problems(found: Found) -> list[str]:
    """Return what grows faster than linearly, and is not known to."""
    return [
        f"{UNITS[unit].partition(',')[0]} over {SIZED[what]}: growth {value:.2f}"
        for what, rows in found.items()
        for unit, value in growth(rows).items()
        if value > BAR and unit != "collector_s" and (what, unit) not in KNOWN
    ]


def table(found: Found) -> str:
    """Return the table of the page."""
    lines = ["| it grows with | " + " | ".join(UNITS.values()) + " | growth (bar 1.1) |"]
    lines.append("|---" * (len(UNITS) + 2) + "|")
    for what, rows in found.items():
        sizes = sorted(rows)
        kept = [unit for unit in UNITS if unit in rows[sizes[0]]]
        first = [
            ", ".join(f"{rows[size][unit]:.3g}" for size in sizes) if unit in kept else ""
            for unit in UNITS
        ]
        slopes = growth(rows).items()
        told = ", ".join(f"{unit.split('_')[0]} {value:.2f}" for unit, value in slopes)
        ladder = ", ".join(f"{size:,}" for size in sizes)
        lines.append(f"| {SIZED[what]}: {ladder} | " + " | ".join(first) + f" | {told} |")
    return "\n".join(lines) + "\n"


def picture(found: Found, file: Path) -> None:
    """Draw each measured quantity over its size, both in logarithms, beside a linear line.

    Each is drawn as a multiple of its first value above 0, which the legend names.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(math.ceil(len(found) / 2), 2, figsize=(9, 7), squeeze=False)
    for axis, (what, rows) in zip(axes.flat, found.items(), strict=False):
        sizes = sorted(rows)
        for unit, label in UNITS.items():
            if unit in rows[sizes[0]]:
                first = next((rows[size][unit] for size in sizes if rows[size][unit]), 1.0)
                values = [rows[size][unit] / first or math.nan for size in sizes]
                name, _, measured_in = label.partition(", ")
                told = f"{name}: 1 = {first:.2g} {measured_in}"
                axis.plot(sizes, values, marker="o", markersize=3, label=told)
        linear = [size / sizes[0] for size in sizes]
        axis.plot(sizes, linear, color="gray", linestyle=":", label="linear growth")
        axis.set(xscale="log", yscale="log", xlabel=f"number of {SIZED[what]}")
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axis.grid(alpha=0.2)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
    for row in axes:
        row[0].set_ylabel("multiple of the first value (see legend)")
    figure.tight_layout()
    with pyplot.rc_context({"svg.hashsalt": "router_r1"}):
        figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def main() -> int:
    """Measure what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("which", nargs="*", metavar="WHAT", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--short", action="store_true", help="small sizes")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        what, size = args.one
        print(json.dumps(measure(case(what, int(size)), case(what, SIZES[what][0]))))
        return 0
    if unknown := set(args.which) - set(SIZES):
        parser.error(f"{', '.join(sorted(unknown))}: allowed: {', '.join(SIZES)}")
    sizes = SHORT if args.short else SIZES
    found: Found = {}
    for what in args.which or SIZES:
        found[what] = {size: in_a_process(what, size) for size in sizes[what]}
        print(table({what: found[what]}), flush=True)
    if not args.which and not args.short:
        picture(found, FOLDER / "pictures" / "growth.svg")
        print(f"{FOLDER / 'pictures' / 'growth.svg'}\n\n{table(found)}")
    missed = [] if args.short else problems(found)  # small sizes tell little of a growth
    print("\n".join(missed) or "every bar is met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
