"""Best of n: write n traces of each question and learn the best, several times."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from rich.progress import Progress

from router_r1_graph import Trace, TraceError, read_traces, write_traces
from router_r1_graph.files import write_whole

from .export import SupervisedRow, supervised_rows
from .files import read_whole
from .fit import fit
from .items import Item, draw_items
from .judge import Judge
from .learned_rows import LeftOut, require_rows, warm_rows
from .measurement import means
from .models import Learner, load_learner, processes
from .prompts import askable
from .rollouts import judged_of, why_left_out
from .run import Run
from .teacher import at_cost_weight
from .teacher_traces import warm_traces, write_teacher_traces


def best_of_n(run: Run, learner: Learner) -> Learner:
    """Write n traces of each question and learn the best, several times; resumes at a round.

    If the config asks for it, an extra first round uses traces that the teacher writes.

    Raises:
        ConfigError: the prompts of all questions are too long, or all rows to begin with.
        OutsideError: a round's rollouts failed through no fault of the policy.
        BudgetSpentError: the budget is spent.
        StoppedError: Ctrl-C; the checkpoint is written.
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
    seeds = [config.seed + 10_000 + number for number in range(stage.rounds)]
    items = [item for seed in seeds for item in draw_items(config.data, stage.questions, seed)]
    items = [item for item, _ in askable(items, learner, "best_of_n")]
    before = rows_from_before(run, learner)
    for number in range(start, stage.rounds):
        seed = config.seed + 10_000 + number
        rng = random.Random(f"best_of_n/{seed}")  # the same one for a resumed run
        if number < 0:
            rows = before
            kept = len(rows)
        else:
            first = number * stage.questions
            asked = [*islice(cycle(items), first, first + stage.questions)]
            traces = _sampled(run, learner, asked, number, seed)
            groups = [traces[i : i + stage.samples] for i in range(0, len(traces), stage.samples)]
            left_out = LeftOut()
            rows = [
                row
                for group in groups
                for row in _best_rows(group, judge, learner, rng, stage.max_length, left_out)
            ]
            left_out.tell("best_of_n")
            kept = len(rows)
            rows += rng.sample(before, min(len(before), round(len(rows) * stage.keep)))
            rng.shuffle(rows)
            numbers = means(judged_of(traces, "best_of_n"))
            counts = {"kept": kept, "left_out": len(left_out)}
            run.log_once("best_of_n", number, numbers | counts)
        if not kept and processes().is_main_process:
            print(
                f"best_of_n: no trace of round {number + 1} is learned; the policy stays as it is"
            )
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


def _sampled(
    run: Run, learner: Learner, items: Sequence[Item], number: int, seed: int
) -> list[Trace]:
    """Return a round's traces of items, in order: those on disk, if it was killed after sampling.

    Raises:
        OutsideError: the rollouts failed through no fault of the policy; they are not kept.
        BudgetSpentError: the budget is spent.
    """
    stage = run.config.best_of_n
    file = run.folder("best_of_n") / "traces" / f"{number + 1:06}.jsonl.gz"
    copies = [
        replace(item, context=replace(item.context, seed=item.context.seed + sample))
        for item in items
        for sample in range(stage.samples)
    ]
    # The file is written once all processes have sampled, so all of them find it, or none does.
    if traces := _kept(file, copies):
        return traces
    controller = learner.controller(temperature=stage.temperature, seed=seed)
    with Progress() as bars:
        ours = math.ceil(len(copies) / processes().num_processes)
        bar = bars.add_task(f"round {number + 1} of {stage.rounds}", total=ours)
        traces = run.share_out("best_of_n", copies, controller, done=lambda _: bars.advance(bar))
    judged_of(traces, "best_of_n")  # those of a broken endpoint are sampled again
    if processes().is_main_process:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_traces(file, traces)
    return traces


def _kept(file: Path, items: Sequence[Item]) -> list[Trace]:
    """Return the traces of a file, if they are those of all items; else [], as for a torn file."""
    try:
        traces = list(read_traces(file))
    except (TraceError, OSError):
        return []
    return traces if [trace.id for trace in traces] == [item.id for item in items] else []


def rows_from_before(run: Run, learner: Learner) -> list[SupervisedRow]:
    """Return the teacher's best traces if the config asks for them, else those of the warm start.

    For each question, the best one at several cost weights; written once, resumed where it stopped.
    A run without a warm start has none.

    Raises:
        ConfigError: there are such traces, and none can be learned.
    """
    config, stage = run.config, run.config.best_of_n
    if not stage.teacher_questions:
        warm = "warm_start" in config.stages or config.warm_start.trace_files
        if not (warm and stage.keep):
            return []
        return warm_rows(run, warm_traces(run)(), learner.codec, "best_of_n", most=2000)
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
    left_out = LeftOut()
    while group := list(islice(traces, stage.teacher_samples)):
        for weight in stage.teacher_cost_weights:
            again = [at_cost_weight(trace, weight) for trace in group]
            best += _best_rows(again, judge, learner, rng, stage.max_length, left_out)
    left_out.tell("best_of_n")
    if left_out:
        require_rows(best, "best_of_n", left_out)
    rng.shuffle(best)
    return best


def _best_rows(
    group: Sequence[Trace],
    judge: Judge,
    learner: Learner,
    rng: random.Random,
    max_length: int,
    left_out: LeftOut,
) -> Iterator[SupervisedRow]:
    """Yield a question's best trace, and the best way on from a first turn that several share.

    The way on is learned from its second turn on. Without it, no row shows a policy how to go on
    after a failure: the best of many traces asked another candidate at once, by luck.
    """
    group = [trace for trace in group if not why_left_out(trace)]
    if not group:
        return
    judge.observe(judge.costs(group))
    scored = [(judge(trace).total, trace) for trace in group]
    best = _best(scored)
    by_start: dict[str, list[tuple[float, Trace]]] = defaultdict(list)
    for score, trace in scored:
        by_start[trace.turns[0]].append((score, trace))
    ways = [way for shared in by_start.values() if (way := _best(shared)) and way is not best]
    chosen = [(best, 0)] if best else []
    if ways:
        chosen.append((rng.choice(ways), 1))
    for trace, turn in chosen:
        [row] = supervised_rows([trace], learner.codec, from_turn=turn)
        if not left_out.too_long(trace, row, "best_of_n", max_length):
            yield row


def _best(scored: Sequence[tuple[float, Trace]]) -> Trace | None:
    """Return the best trace, if it earns something and not all are equally good."""
    score, trace = max(scored, key=lambda s: s[0])
    return trace if score > 0 and score > min(s for s, _ in scored) else None
