"""The teacher's traces: written once, and resumed where they stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rich.progress import Progress

from router_r1_graph import Controller, Trace, read_traces, write_traces
from router_r1_graph.evaluation.processes import end_with_parent, start_method

from .english_teacher import EnglishTeacher
from .files import whole_lines
from .items import Item, TaughtItem, draw_items
from .models import processes
from .questions import without_held_out
from .rollouts import roll_out
from .run import Run
from .teacher import TeacherController

_BATCH = 256
"""Traces that are written together; which seed a sample has depends on the others."""
_MANY = 8
"""With fewer batches, several processes take longer to start than they save."""

_Samples = Sequence[tuple[int, Item]]
"""Items, each with the number of its sample."""


def warm_traces(run: Run) -> Any:
    """Write the teacher's traces once; return a function that reads them, one at a time.

    Traces of held-out questions, which files of others may have, are left out.
    """
    config = run.config
    files = config.warm_start.trace_files
    if not files:
        file = run.folder("warm_start") / "traces.jsonl"
        files = (file,)
        warm = config.warm_start
        items = draw_items(config.data, warm.traces, config.seed, same_pool=warm.same_pool)
        pairs = [(0, item) for item in items]
        with processes().main_process_first():  # the others find nothing left to write
            what = "teacher's traces"
            write_teacher_traces(run, "warm_start", file, pairs, config.seed, what, judged=False)

    measured: Sequence[str] = ()
    if config.warm_start.trace_files and config.data.source == "world":
        counts = {config.evaluate_questions, config.grpo.validate_questions}
        drawn = (draw_items(config.data, count, config.seed, "test") for count in counts)
        measured = [item.question for items in drawn for item in items]

    def read() -> Iterator[Trace]:
        traces = chain.from_iterable(map(read_traces, files))
        yield from without_held_out(traces, config.data, measured)

    return read


def write_teacher_traces(
    run: Run,
    stage: str,
    file: Path,
    wanted: Sequence[tuple[int, Item]],
    seed: int,
    what: str,
    *,
    judged: bool = True,
    **habits: float,
) -> None:
    """Write the traces that are not in the file yet; each item with the teacher of its seed.

    Many of them are made in several processes, if only simulated candidates are asked: then nothing
    is paid or judged.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    done = whole_lines(file, len(wanted), _BATCH)
    batches = [wanted[start : start + _BATCH] for start in range(done, len(wanted), _BATCH)]
    teacher = partial(_teacher, run.config.warm_start.teacher, habits)
    costs_nothing = not judged and all(
        candidate.provider == "simulated"
        for pool in {id(item.pool): item.pool for _, item in wanted}.values()
        for candidate in pool.candidates
    )
    if costs_nothing and len(batches) >= _MANY:
        made: Generator[list[Trace], None, None] = _in_processes(
            partial(_taught, teacher, seed, partial(roll_out, name="teacher")), batches
        )
    else:
        ask = partial(run.roll_out, stage, name="teacher", judged=judged)
        made = (_taught(teacher, seed, ask, batch) for batch in batches)
    with Progress() as progress, closing(made):
        bar = progress.add_task(what, total=len(wanted), completed=done)
        for traces in made:
            write_traces(file, traces, append=True)
            progress.update(bar, advance=len(traces))


def _in_processes(
    work: Callable[[_Samples], list[Trace]], batches: Sequence[_Samples]
) -> Generator[list[Trace], None, None]:
    """Yield the result of each batch, in their order."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    pool = ProcessPoolExecutor(min(cores, len(batches)), start_method(__name__), _begin)
    try:
        yield from pool.map(work, batches)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    """Leave Ctrl-C to the process that writes, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def _taught(
    teacher: Callable[[Sequence[Item], int], Controller],
    seed: int,
    ask: Callable[[Sequence[Item], Controller], Sequence[Trace]],
    batch: _Samples,
) -> list[Trace]:
    """Return the traces of a batch, in its order."""
    traces: dict[int, Trace] = {}
    for sample in {sample for sample, _ in batch}:
        places = [i for i, (other, _) in enumerate(batch) if other == sample]
        ours = [batch[i][1] for i in places]
        traces |= zip(places, ask(ours, teacher(ours, 1000 * seed + sample)), strict=True)
    return [traces[place] for place in range(len(batch))]


def _teacher(
    kind: str, habits: Mapping[str, float], items: Sequence[Item], seed: int
) -> Controller:
    if kind == "brief":
        return TeacherController(seed, **habits)
    lessons = {
        item.question: item.lesson for item in items if isinstance(item, TaughtItem) and item.lesson
    }
    return EnglishTeacher(lessons, seed, **habits)
