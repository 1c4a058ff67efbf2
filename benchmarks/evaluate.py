"""How fast an evaluation is, on recorded replies.

    python -m benchmarks.evaluate

1. Questions a second through the graph, 64 in flight, in one process; and whether memory grows
   with their number.
2. With recorded latency (log-normal, median 0.8 s, scaled 1/20): against a loop in batches that
   asks from a pool of ten threads and waits for the whole batch, as the official system does.

Ratios of one run.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from router_r1_graph import Candidate, CandidatePool, RouterContext, parse_controller
from router_r1_graph.evaluation import EvaluationQuestion, Results, parse_scorer, run_controller
from router_r1_graph.providers import make_chat_model

COUNT, IN_FLIGHT, THREADS, SIGMA = 2000, 64, 10, 0.6


def recorded_pool(folder: Path, count: int, latency_scale: float) -> CandidatePool:
    """Write records and return a pool of the candidate who is in them."""
    rng = random.Random(0)
    path = folder / f"records_{count}_{latency_scale:g}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = {
                "question": f"What is fact {number}?",
                "candidate": "Recorded",
                "reply": f"It is {number}. " + "Some more words about it. " * 10,
                "input_tokens": 20,
                "output_tokens": 60,
                "cost_usd": 1e-5,
                "seconds": 0.8 * rng.lognormvariate(0, SIGMA),
            }
            file.write(json.dumps(row) + "\n")
    candidate = Candidate(
        name="Recorded",
        provider="recorded",
        input_usd_per_mtok=0.1,
        output_usd_per_mtok=0.2,
        prices_checked=date(2026, 11, 24),
        options={"records": str(path), "latency_scale": latency_scale},
    )
    return CandidatePool(name="recorded", candidates=(candidate,))


def questions(count: int) -> list[EvaluationQuestion]:
    """Return the questions that have a record."""
    return [EvaluationQuestion(str(n), f"What is fact {n}?", (str(n),)) for n in range(count)]


def evaluate(pool: CandidatePool, count: int, folder: Path) -> float:
    """Return the seconds that an evaluation takes, results on disk included."""
    results = Results(folder / f"results_{time.monotonic_ns()}.jsonl", parse_scorer("contains"))
    controller = parse_controller("constant:Recorded", pool)
    start = time.perf_counter()
    asyncio.run(
        run_controller(
            controller,
            "constant:Recorded",
            questions(count),
            pool,
            RouterContext(),
            results,
            concurrency=IN_FLIGHT,
        )
    )
    seconds = time.perf_counter() - start
    assert len(results.outcomes) == count
    return seconds


def in_batches(pool: CandidatePool, count: int) -> float:
    """Return the seconds of the official way: a batch, ten threads, wait for all of them."""
    model = make_chat_model(pool.candidates[0])
    asked = [q.question for q in questions(count)]
    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        for begin in range(0, count, IN_FLIGHT):
            list(threads.map(model.invoke, asked[begin : begin + IN_FLIGHT]))
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmarks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        evaluate(recorded_pool(folder, 100, 0.0), 100, folder)  # imports, caches
        seconds = evaluate(recorded_pool(folder, COUNT, 0.0), COUNT, folder)
        print(
            f"{COUNT} recorded questions, {IN_FLIGHT} in flight: {COUNT / seconds:.0f} a second "
            "(bar: at least 100)"
        )
        peaks = []
        for count in (COUNT // 4, COUNT):
            pool = recorded_pool(folder, count, 0.0)
            make_chat_model(pool.candidates[0])  # the records themselves are held
            tracemalloc.start()
            evaluate(pool, count, folder)
            peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
            tracemalloc.stop()
        grown = (peaks[1] - peaks[0]) / (COUNT - COUNT // 4) * 1e6
        print(
            f"peak memory at {COUNT // 4} and {COUNT} questions: {peaks[0]:.1f} and {peaks[1]:.1f} "
            f"MB, {grown:.0f} bytes a question (its outcome; traces go to the disk)"
        )
        count = 640
        ours = evaluate(recorded_pool(folder, count, 1 / 20), count, folder)
        theirs = in_batches(recorded_pool(folder, count, 1 / 20), count)
        print(
            f"with latency (median 0.8 s / 20): {count / ours:.0f} a second, in batches of "
            f"{IN_FLIGHT} with {THREADS} threads {count / theirs:.0f}, ratio {theirs / ours:.1f} "
            "(bar: at least 6)"
        )


if __name__ == "__main__":
    main()
