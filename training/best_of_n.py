"""Best of n: write n traces of each question and learn the best, several times."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from rich.progress import Progress

from router_r1_graph import Trace, read_traces

from .export import SupervisedRow, supervised_rows
from .files import read_whole, write_whole
from .fit import fit
from .items import draw_items
from .judge import Judge
from .measurement import means
from .models import Learner, load_learner, processes
from .rollouts import judged_of, why_left_out
from .run import Run
from .teacher import at_cost_weight
from .teacher_traces import warm_traces, write_teacher_traces


def best_of_n(run: Run, learner: Learner) -> Learner:
    """Write n traces of each question and learn the best, several times; resumes at a round.

    If the config asks for it, an extra first round uses traces that the teacher writes.
    """
    config, stage = run.config, run.config.best_of_n
    folder = run.folder("best_of_n")
    folder.mkdir(parents=True, exist_ok=True)
    progress_file = folder / "progress.json"
    judge = Judge(config.reward)
    start = -1 if stage.teacher_questions else 0
    if progress := read_whole(progress_file):
        start = progress["round"]
        judge.restore(progress["scale"])
        learner = load_learner(config.model, _round(folder, start) / "policy")
    before = rows_from_before(run, learner)
    for number in range(start, stage.rounds):
        seed = config.seed + 10_000 + number
        rng = random.Random(f"best_of_n/{seed}")  # the same one for a resumed run
        if number < 0:
            rows = before
            kept = len(rows)
        else:
            items = draw_items(config.data, stage.questions, seed)
            controller = learner.controller(temperature=stage.temperature, seed=seed)
            copies = [
                replace(item, context=replace(item.context, seed=item.context.seed + sample))
                for item in items
                for sample in range(stage.samples)
            ]
            with Progress() as bars:
                ours = math.ceil(len(copies) / processes().num_processes)
                bar = bars.add_task(f"round {number + 1} of {stage.rounds}", total=ours)
                traces = run.share_out(
                    "best_of_n", copies, controller, done=lambda _, p=bars, b=bar: p.advance(b)
                )
            groups = [traces[i : i + stage.samples] for i in range(0, len(traces), stage.samples)]
            groups = [[t for t in group if not why_left_out(t)] for group in groups]
            rows = [row for group in groups for row in _best_rows(group, judge, learner, rng)]
            kept = len(rows)
            rows += rng.sample(before, min(len(before), round(len(rows) * stage.keep)))
            rng.shuffle(rows)
            numbers = means(judged_of(traces, "best_of_n"))
            run.log_once("best_of_n", number, numbers | {"kept": kept})
        if kept:
            fit(
                learner,
                rows,
                stage,
                folder=_round(folder, number + 1),
                **run.fit_options("best_of_n_fit", seed),
            )
        if processes().is_main_process:
            learner.save(_round(folder, number + 1) / "policy")
            progress = {"round": number + 1, "scale": judge.state()}
            write_whole(progress_file, json.dumps(progress))
        processes().wait_for_everyone()
    return learner


def _round(folder: Path, number: int) -> Path:
    """Return the folders of a round: of its checkpoints, and of its policy once it is done."""
    return folder / "checkpoints" / f"{number:03}"


def rows_from_before(run: Run, learner: Learner) -> list[SupervisedRow]:
    """Return the teacher's best traces if the config asks for them, else those of the warm start.

    For each question, the best one at several cost weights; written once, resumed where it stopped.
    A run without a warm start has none.
    """
    config, stage = run.config, run.config.best_of_n
    if not stage.teacher_questions:
        warm = "warm_start" in config.stages or config.warm_start.trace_files
        traces = islice(warm_traces(run)(), 2000) if warm and stage.keep else iter(())
        return list(supervised_rows(traces, learner.codec))
    seed = config.seed + 9_999
    file = run.folder("best_of_n") / "teacher_traces.jsonl"
    items = draw_items(config.data, stage.teacher_questions, seed)
    pairs = [(sample, item) for item in items for sample in range(stage.teacher_samples)]
    what = "traces to choose from"
    with processes().main_process_first():
        write_teacher_traces(run, "best_of_n", file, pairs, config.seed + 1, what, give_up=0.1)
    judge = Judge(config.reward)  # its own: a resumed run judges these traces again
    rng = random.Random(f"cost weights/{seed}")
    traces = read_traces(file)
    best: list[SupervisedRow] = []
    while group := list(islice(traces, stage.teacher_samples)):
        for weight in stage.teacher_cost_weights:
            again = [at_cost_weight(trace, weight) for trace in group if not why_left_out(trace)]
            best += _best_rows(again, judge, learner, rng)
    rng.shuffle(best)
    return best


def _best_rows(
    group: Sequence[Trace], judge: Judge, learner: Learner, rng: random.Random
) -> Iterator[SupervisedRow]:
    """Yield a question's best trace, and the best way on from each first turn that several share.

    The way on is learned from its second turn on. Without it, no row shows a policy how to go on
    after a failure: the best of many traces asked another candidate at once, by luck.
    """
    if not group:
        return
    judge.observe(judge.costs(group))
    scored = [(judge(trace).total, trace) for trace in group]
    best = _best(scored)
    if best:
        yield from supervised_rows([best], learner.codec)
    by_start: dict[tuple[str, ...], list[tuple[float, Trace]]] = defaultdict(list)
    for score, trace in scored:
        by_start[tuple(trace.turns[:1])].append((score, trace))  # a run that failed has no turn
    ways = [way for shared in by_start.values() if (way := _best(shared)) and way is not best]
    if ways:
        yield from supervised_rows([rng.choice(ways)], learner.codec, from_turn=1)


def _best(scored: Sequence[tuple[float, Trace]]) -> Trace | None:
    """Return the best trace, if it earns something and not all are equally good."""
    score, trace = max(scored, key=lambda s: s[0])
    return trace if score > 0 and score > min(s for s, _ in scored) else None
