"""An evaluation spread over processes: each asks a share of the questions, one writes the file.

LangGraph keeps one core busy at some hundred questions a second; below that, or where candidates
limit the rate, one process does as well.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Empty
from typing import Any

from ..candidates import CandidatePool
from ..context import RouterContext
from ..controllers import Controller
from ..errors import RouterR1Error
from .questions import EvaluationQuestion
from .run import Outcome, Results, run_controller
from .scorers import parse_scorer


@dataclass(frozen=True)
class Share:
    """What a process asks a controller."""

    spec: str
    make: Callable[[], Controller]
    """Makes the controller in the process that asks it; has to be picklable."""
    questions: Sequence[EvaluationQuestion]
    pool: CandidatePool
    context: RouterContext


def run_in_processes(
    runs: Sequence[Share],
    results: Results,
    *,
    metric: str,
    processes: int,
    concurrency: int = 64,
    done: Callable[[Outcome], None] | None = None,
) -> None:
    """Ask what was not asked yet, in so many processes; add it to the results as it comes.

    Args:
        runs: what is asked, all of it.
        results: where outcomes go.
        metric: what judges the answers.
        processes: how many.
        concurrency: most questions at once, of all processes together.
        done: told each outcome as it is there.

    Raises:
        RouterR1Error: what a process raised, or that it was killed.
        RuntimeError: whatever else a process raised, with its traceback.
    """
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    asked = [
        [
            q
            for q in run.questions
            if (run.spec, run.context.cost_weight, q.id) not in results.outcomes
        ]
        for run in runs
    ]
    each = max(1, concurrency // processes)
    workers = []
    for number in range(processes):
        shares = [
            replace(run, questions=questions[number::processes])
            for run, questions in zip(runs, asked, strict=True)
        ]
        workers.append(spawn.Process(target=_work, args=(shares, metric, each, queue), daemon=True))
    try:
        for worker in workers:
            worker.start()
        working = len(workers)
        while working:
            try:
                what, *rest = queue.get(timeout=1)
            except Empty:
                codes = [worker.exitcode for worker in workers if worker.exitcode]
                if codes:
                    raise RouterR1Error(
                        f"a process of the evaluation ended with {codes[0]}; what came back is "
                        "kept: go on with --resume"
                    ) from None
                continue
            if what == "outcome":
                outcome, trace = rest
                results.keep(outcome, trace)
                if done:
                    done(outcome)
            elif what == "done":
                working -= 1
            else:
                raise rest[0]
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


class _Sent(Results):
    """Sends what it is to keep to the process that writes."""

    def __init__(self, metric: str, queue: Any) -> None:
        super().__init__(None, parse_scorer(metric))
        self.queue = queue

    def keep(self, outcome: Outcome, trace: str) -> None:
        """Send it."""
        self.queue.put(("outcome", outcome, trace))
        parent = multiprocessing.parent_process()
        if parent and not parent.is_alive():  # nobody would ever read what is still to be paid
            os._exit(1)


def _work(shares: Sequence[Share], metric: str, concurrency: int, queue: Any) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are taken
    try:
        results = _Sent(metric, queue)
        for share in shares:
            asyncio.run(
                run_controller(
                    share.make(),
                    share.spec,
                    share.questions,
                    share.pool,
                    share.context,
                    results,
                    concurrency=concurrency,
                )
            )
        queue.put(("done",))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except RouterR1Error as error:
        queue.put(("error", error))
    except Exception:  # may not be picklable
        queue.put(("error", RuntimeError(traceback.format_exc())))
