"""The teacher's traces: written once, and resumed where they stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.progress import Progress

from router_r1_graph import Controller, Trace, read_traces, write_traces

from .english_teacher import EnglishTeacher
from .files import whole_lines
from .items import Item, TaughtItem, draw_items
from .models import processes
from .questions import without_held_out
from .run import Run
from .teacher import TeacherController

_BATCH = 256
"""Traces that are written together; which seed a sample has depends on the others."""


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

    def read() -> Iterator[Trace]:
        traces = chain.from_iterable(map(read_traces, files))
        yield from without_held_out(traces, config.data)

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
    """Write the traces that are not in the file yet; each item with the teacher of its seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    done = whole_lines(file, len(wanted), _BATCH)
    with Progress() as progress:
        bar = progress.add_task(what, total=len(wanted), completed=done)
        for start in range(done, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            traces: list[Trace | None] = [None] * len(batch)
            for sample in {sample for sample, _ in batch}:
                places = [i for i, (other, _) in enumerate(batch) if other == sample]
                ours = [batch[i][1] for i in places]
                teacher = _teacher(run, ours, 1000 * seed + sample, **habits)
                found = run.roll_out(stage, ours, teacher, name="teacher", judged=judged)
                for place, trace in zip(places, found, strict=True):
                    traces[place] = trace
            write_traces(file, [t for t in traces if t is not None], append=True)
            progress.update(bar, advance=len(batch))


def _teacher(run: Run, items: Sequence[Item], seed: int, **habits: float) -> Controller:
    if run.config.warm_start.teacher == "brief":
        return TeacherController(seed, **habits)
    lessons = {
        item.question: item.lesson for item in items if isinstance(item, TaughtItem) and item.lesson
    }
    return EnglishTeacher(lessons, seed, **habits)
