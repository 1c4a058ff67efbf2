"""How fast an evaluation is, on recorded replies.

    python -m benchmarks.evaluate

1. Questions a second through the graph, 64 in flight, in one process; and whether memory grows
   with their number.
2. With recorded latency (log-normal, median 0.8 s, scaled 1/20): against a loop in batches that
   asks from a pool of ten threads, as the official system does. It takes a batch of 64 questions
   (the paper's batch), makes all calls of a round, waits for the last of them, and only then begins
   the next round; the next batch begins when the whole batch is done. Two workloads: every question
   one call; and one to four rounds of one call each, evenly, as a router's questions have. No
   controller takes time. The loop calls the models and nothing else: no ledger, no trace, no files,
   all of which the evaluation writes as well.

At 1/20 a call takes 48 ms on average: ten threads make at most 208 calls a second, 64 questions in
flight 1,330, and the evaluation as many as its CPU allows in one process, or in two. So the ratio
here depends on CPU; at real latencies it depends on how many are in flight.

Ratios of one run; with several processes, whose speed varies with the machine's load, the median of
three.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path

from langchain_core.messages import AIMessage

from router_r1_graph import Candidate, CandidatePool, RouterContext
from router_r1_graph.candidates.providers import make_chat_model
from router_r1_graph.controllers import RuleController
from router_r1_graph.controllers.controller import View
from router_r1_graph.evaluation import loop
from router_r1_graph.evaluation.processes import ControllerRun, run_in_processes
from router_r1_graph.evaluation.questions import EvaluationQuestion
from router_r1_graph.evaluation.run import Results, run_controller
from router_r1_graph.evaluation.scorers import parse_scorer
from router_r1_graph.protocol import Call, Turn

COUNT, IN_FLIGHT, THREADS, SIGMA = 2000, 64, 10, 0.6
MORE_IN_FLIGHT, MOST_ROUNDS, PROCESSES, MORE, REPEATS = 256, 4, 2, 8, 3


class InRounds(RuleController):
    """Asks for a fact in each round, and then answers.

    Args:
        most: question n has n % most + 1 rounds.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.name = f"rounds:{most}"

    def turn(self, view: View) -> Turn:
        """Ask the next query, or answer with the number that the question names."""
        number = int(view.question.rpartition(" ")[2].rstrip("?"))
        done = sum(isinstance(message, AIMessage) for message in view.scratchpad)
        queries = queries_of(number, self.most)
        if done < len(queries):
            return Turn(("It is on record.",), (Call("Recorded", queries[done]),))
        return Turn(("All have come back.",), answer=str(number))


def queries_of(number: int, most: int) -> list[str]:
    """Return what is asked for a question, round by round."""
    return [f"What is fact {number * most + n}?" for n in range(number % most + 1)]


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


def evaluate(
    pool: CandidatePool, count: int, folder: Path, *, most: int = 1, in_flight: int = IN_FLIGHT
) -> float:
    """Return the seconds that an evaluation takes, results on disk included."""
    results = Results(folder / f"results_{time.monotonic_ns()}.jsonl", parse_scorer("exact_match"))
    controller = InRounds(most)
    asked = questions(count)
    start = time.perf_counter()
    loop.run(
        run_controller(
            controller,
            controller.name,
            asked,
            pool,
            RouterContext(),
            results,
            concurrency=in_flight,
        )
    )
    seconds = time.perf_counter() - start
    assert sum(o.score for o in results.outcomes.values()) == count
    assert sum(o.calls for o in results.outcomes.values()) == calls_of(count, most)
    return seconds


def evaluate_in_processes(
    pool: CandidatePool, count: int, folder: Path, *, most: int, in_flight: int, processes: int
) -> float:
    """Return the same for several processes, the time of starting them included."""
    results = Results(folder / f"results_{time.monotonic_ns()}.jsonl", parse_scorer("exact_match"))
    make = partial(InRounds, most)
    start = time.perf_counter()
    run_in_processes(
        [ControllerRun(make().name, make, questions(count), pool, RouterContext())],
        results,
        metric="exact_match",
        processes=processes,
        concurrency=in_flight,
    )
    seconds = time.perf_counter() - start
    assert sum(o.score for o in results.outcomes.values()) == count
    assert sum(o.calls for o in results.outcomes.values()) == calls_of(count, most)
    return seconds


def calls_of(count: int, most: int) -> int:
    """Return the number of calls that these questions take."""
    return sum(len(queries_of(number, most)) for number in range(count))


def in_batches(pool: CandidatePool, count: int, *, most: int = 1) -> float:
    """Return the seconds of the official way: batches, ten threads, all wait for each round."""
    model = make_chat_model(pool.candidates[0])
    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        for begin in range(0, count, IN_FLIGHT):
            batch = [queries_of(n, most) for n in range(begin, min(count, begin + IN_FLIGHT))]
            for round_ in range(most):
                list(threads.map(model.invoke, [q[round_] for q in batch if len(q) > round_]))
    return time.perf_counter() - start


def against_batches(folder: Path, count: int, most: int) -> None:
    """Run all ways on the same records, and print how they compare."""
    pool = recorded_pool(folder, MORE * count * most, 1 / 20)
    theirs = count / in_batches(pool, count, most=most)
    calls = calls_of(count, most) / count
    print(
        f"  1 to {most} rounds a question: in batches of {IN_FLIGHT} with {THREADS} threads "
        f"{theirs:.0f} questions ({theirs * calls:.0f} calls) a second"
    )
    ways = [(1, IN_FLIGHT), (1, MORE_IN_FLIGHT), (PROCESSES, MORE_IN_FLIGHT)]
    for processes, in_flight in ways:
        if processes == 1:
            runs = [count / evaluate(pool, count, folder, most=most, in_flight=in_flight)]
        else:
            # They start once, which takes a second or two: ask enough questions to make up for
            # that.
            runs = [
                MORE
                * count
                / evaluate_in_processes(
                    pool, MORE * count, folder, most=most, in_flight=in_flight, processes=processes
                )
                for _ in range(REPEATS)
            ]
        ours = statistics.median(runs)
        print(
            f"    {processes} process{'es' if processes > 1 else ''}, {in_flight} in flight: "
            f"{', '.join(f'{run:.0f}' for run in runs)} ({ours * calls:.0f}), "
            f"ratio {ours / theirs:.1f} (bar: at least 6)"
        )


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
        print("with latency (median 0.8 s / 20):")
        for most in (1, MOST_ROUNDS):
            against_batches(folder, 1280, most)


if __name__ == "__main__":
    main()
