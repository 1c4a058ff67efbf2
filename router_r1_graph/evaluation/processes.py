"""An evaluation in several processes: each takes the next question in turn; one writes the file.

LangGraph keeps one core busy at several hundred questions a second. Below that, or if candidates
limit the rate, one process is enough.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from ..candidates import CandidatePool
from ..candidates.store import ReplyStore
from ..context import RouterContext
from ..controllers import Controller
from ..errors import RouterR1Error
from . import loop
from .questions import EvaluationQuestion
from .run import Outcome, Results, run_controller
from .scorers import parse_scorer


@dataclass(frozen=True)
class ControllerRun:
    """A controller, and the questions for it."""

    spec: str
    make: Callable[[], Controller]
    """Makes the controller in the process that asks it; has to be picklable."""
    questions: Sequence[EvaluationQuestion]
    pool: CandidatePool
    context: RouterContext
    replies: ReplyStore | None = None


def run_in_processes(
    runs: Sequence[ControllerRun],
    results: Results,
    *,
    metric: str,
    processes: int,
    concurrency: int = 64,
    done: Callable[[Outcome], None] | None = None,
) -> None:
    """Ask the remaining questions in several processes; add each outcome to the results at once.

    Args:
        runs: everything to ask.
        results: where outcomes go.
        metric: the metric of the answers.
        processes: the number of processes.
        concurrency: most questions at once, of all processes together.
        done: receives each outcome as soon as it is there.

    Raises:
        RouterR1Error: a process raised it, or was killed.
        RuntimeError: a process raised any other error; it has the traceback.
    """
    start = start_method(__name__)
    asked = [
        [
            q
            for q in run.questions
            if (run.spec, run.context.cost_weight, q.id) not in results.outcomes
        ]
        for run in runs
    ]
    each = max(1, concurrency // processes)
    workers: dict[Connection, Any] = {}  # a worker by the end of its pipe that is ours

    def keep(outcome: Outcome, trace: str) -> None:
        results.keep(outcome, trace)
        if done:
            done(outcome)

    try:
        todo = [
            (replace(run, questions=questions), start.Value("q", 0))
            for run, questions in zip(runs, asked, strict=True)
        ]
        for _ in range(processes):
            ours, theirs = start.Pipe(duplex=False)
            arguments = (todo, metric, each, theirs, dict(os.environ))
            workers[ours] = start.Process(target=_work, args=arguments, daemon=True)
            workers[ours].start()
            theirs.close()  # so that the pipe ends with the process
        working = list(workers)
        while working:
            for pipe in wait(working):
                assert isinstance(pipe, Connection)
                try:
                    said = pipe.recv()
                except (EOFError, OSError):  # it has ended, maybe in the middle of a message
                    working.remove(pipe)
                    workers[pipe].join()
                    if code := workers[pipe].exitcode:
                        raise RouterR1Error(
                            f"a process of the evaluation ended with {code}; what came back is "
                            "kept: go on with --resume"
                        ) from None
                    continue
                if isinstance(said, Exception):
                    raise said
                keep(*said)
    finally:
        for pipe, worker in workers.items():
            worker.terminate()
            worker.join()
            with suppress(EOFError, OSError):  # outcomes still in the pipe are paid for
                while pipe.poll():
                    if not isinstance(said := pipe.recv(), Exception):
                        keep(*said)
            pipe.close()


def start_method(module: str) -> Any:
    """Return the start method: if possible, processes are copies of one that has imported a module.

    They inherit nothing from this process, such as a thread or a client's connection.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # pragma: no cover - Windows
        return multiprocessing.get_context("spawn")
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["__main__", module])
    return start


class _Sent(Results):
    """Sends outcomes to the process that writes."""

    def __init__(self, metric: str, pipe: Connection) -> None:
        super().__init__(None, parse_scorer(metric))
        self.pipe = pipe

    def keep(self, outcome: Outcome, trace: str) -> None:
        """Send it."""
        try:
            self.pipe.send((outcome, trace))
        except BrokenPipeError:  # nobody would read any further paid reply
            os._exit(1)


def _in_turn(
    questions: Sequence[EvaluationQuestion], begun: Synchronized[int]
) -> Iterator[EvaluationQuestion]:
    """Yield the questions that no other process has begun: all are done at about the same time."""
    while True:
        with begun.get_lock():
            number, begun.value = begun.value, begun.value + 1
        if number >= len(questions):
            return
        yield questions[number]


def end_with_parent() -> None:
    """End this process with the one that started it: its results would be lost."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(
    todo: Sequence[tuple[ControllerRun, Synchronized[int]]],
    metric: str,
    concurrency: int,
    pipe: Connection,
    environment: Mapping[str, str],
) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ.update(environment)  # a forkserver has the environment of its own start
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are taken
    try:
        results = _Sent(metric, pipe)
        for share, begun in todo:
            loop.run(
                run_controller(
                    share.make(),
                    share.spec,
                    _in_turn(share.questions, begun),
                    share.pool,
                    share.context,
                    results,
                    concurrency=concurrency,
                    replies=share.replies,
                )
            )
            if share.replies:
                share.replies.flush()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except RouterR1Error as error:
        pipe.send(error)
    except Exception:  # may not be picklable
        pipe.send(RuntimeError(traceback.format_exc()))
