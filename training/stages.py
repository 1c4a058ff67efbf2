"""The stages of a run: warm start, best of n, GRPO. Each leaves a policy, and can be resumed."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.progress import Progress

from router_r1_graph import Trace, read_traces, write_traces
from router_r1_graph.ledger import total
from router_r1_graph.rewards import PercentileCost, exact_match, reward

from .config import RunConfig
from .export import SupervisedRow, supervised_rows
from .fit import fit
from .items import draw_items
from .models import Learner, load_learner, make_learner
from .rollouts import roll_out
from .teacher import TeacherController


@dataclass(frozen=True)
class Run:
    """A run's config and where its files are."""

    config: RunConfig

    @property
    def metrics(self) -> Path:
        """Every logged number, a JSON line each."""
        return self.config.out / "metrics.jsonl"

    def folder(self, stage: str) -> Path:
        """Where a stage keeps its policy, checkpoints and traces."""
        return self.config.out / stage

    def fit_options(self, stage: str, seed: int) -> dict[str, Any]:
        """Return what every supervised fit of this run has in common."""
        model = self.config.model
        return {
            "stage": stage,
            "metrics": self.metrics,
            "seed": seed,
            "bf16": model.bf16,
            "lora_rank": model.lora_rank,
            "report_to": self.config.report_to,
        }


def warm_start(run: Run) -> Learner:
    """Fit on the traces of the teacher, or of the files that the config names."""
    config = run.config
    folder = run.folder("warm_start")
    folder.mkdir(parents=True, exist_ok=True)
    traces = _warm_traces(run)
    if config.model.pretrained:
        learner = load_learner(config.model)
    else:
        learner = make_learner(config.model, _texts(traces()), config.seed)
    rows = [row for row in supervised_rows(traces(), learner.codec)]
    fit(
        learner,
        [row for row in rows if len(row["input_ids"]) <= config.warm_start.max_length],
        config.warm_start,
        folder=folder / "checkpoints",
        **run.fit_options("warm_start", config.seed),
    )
    return learner


def _warm_traces(run: Run) -> Any:
    """Write the teacher's traces once; return a function that reads them, one at a time."""
    config = run.config
    files = config.warm_start.trace_files
    if not files:
        file = run.folder("warm_start") / "traces.jsonl"
        files = (file,)
        done = sum(1 for _ in file.open("rb")) if file.exists() else 0
        wanted = config.warm_start.traces
        if done < wanted:
            items = draw_items(config.data, wanted, config.seed)[done:]
            teacher = TeacherController(config.seed)
            with Progress() as progress:
                bar = progress.add_task("teacher's traces", total=wanted, completed=done)
                for start in range(0, len(items), 256):
                    batch = items[start : start + 256]
                    write_traces(file, roll_out(batch, teacher, name="teacher"), append=True)
                    progress.update(bar, advance=len(batch))

    def read() -> Iterator[Trace]:
        for path in files:
            yield from read_traces(path)

    return read


def _texts(traces: Iterator[Trace]) -> Iterator[str]:
    """Yield what the tokenizer is made of: descriptors, questions, turns and replies."""
    for number, trace in enumerate(traces):
        if number >= 8000:
            return
        yield "\n".join(
            [
                *(f"{c.name} {c.describe_briefly()}" for c in trace.pool.candidates),
                trace.question,
                *(str(message.text) for message in trace.scratchpad),
            ]
        )


def best_of_n(run: Run, learner: Learner) -> Learner:
    """Sample n traces of each question, learn the best, some times over; resumes at a round."""
    config, stage = run.config, run.config.best_of_n
    folder = run.folder("best_of_n")
    folder.mkdir(parents=True, exist_ok=True)
    progress_file = folder / "progress.json"
    start, scale = 0, PercentileCost()
    if progress_file.exists():
        saved = json.loads(progress_file.read_text(encoding="utf-8"))
        start, scale = saved["round"], PercentileCost(**saved["scale"])
        learner = load_learner(config.model, folder / "policy")
    warm = _warm_rows(run, learner) if stage.keep_warm else []
    rng = random.Random(f"best_of_n/{config.seed}")
    for number in range(start, stage.rounds):
        seed = config.seed + 10_000 + number
        items = draw_items(config.data, stage.questions, seed)
        controller = learner.controller(temperature=stage.temperature, seed=seed)
        copies = [item for item in items for _ in range(stage.samples)]
        with Progress() as progress:
            bar = progress.add_task(f"round {number + 1} of {stage.rounds}", total=len(copies))
            traces = roll_out(copies, controller, done=lambda _, p=progress, b=bar: p.advance(b))
        best = _best(traces, stage.samples, scale)
        rows = list(supervised_rows(best, learner.codec))
        rows += rng.sample(warm, min(len(warm), round(len(rows) * stage.keep_warm)))
        rng.shuffle(rows)
        _log(run, "best_of_n", number, _summary(traces) | {"kept": len(best)})
        if rows:
            fit(
                learner,
                rows,
                stage,
                folder=folder / "checkpoints" / f"{number:03}",
                **run.fit_options("best_of_n_fit", seed),
            )
        learner.save(folder / "policy")
        progress_file.write_text(json.dumps({"round": number + 1, "scale": scale.state()}))
    return learner


def _warm_rows(run: Run, learner: Learner) -> list[SupervisedRow]:
    rows = []
    for number, row in enumerate(supervised_rows(_warm_traces(run)(), learner.codec)):
        if number >= 2000:
            break
        rows.append(row)
    return rows


def _best(traces: Sequence[Trace], samples: int, scale: PercentileCost) -> list[Trace]:
    """Return the best trace of each group where it is right and not all are equally good."""
    best = []
    for start in range(0, len(traces), samples):
        group = traces[start : start + samples]
        for trace in group:
            scale.observe(scale.measure(trace))
        # The cheapest right one; without cost weight, any right one: its group's first.
        scored = [(reward(trace, scale).total, trace) for trace in group]
        top = max(scored, key=lambda s: s[0])
        if top[0] > 0 and top[0] > min(s for s, _ in scored):
            best.append(top[1])
    return best


def grpo(run: Run, learner: Learner) -> Learner:
    """Train by reward with rollouts of the graph."""
    from .grpo import run_grpo  # TRL's GRPO takes seconds to import

    config = run.config
    items = draw_items(config.data, config.grpo.steps * config.grpo.questions, config.seed + 20_000)
    run_grpo(
        learner,
        items,
        config.grpo,
        folder=run.folder("grpo") / "checkpoints",
        metrics=run.metrics,
        seed=config.seed,
        bf16=config.model.bf16,
        gradient_checkpointing=config.model.gradient_checkpointing,
        lora_rank=config.model.lora_rank,
        report_to=config.report_to,
    )
    return learner


def measure(run: Run, learner: Learner, stage: str) -> dict[str, float]:
    """Ask held-out questions greedily and return the means; also a line of metrics."""
    config = run.config
    if not config.evaluate_questions:
        return {}
    items = draw_items(config.data, config.evaluate_questions, config.seed, split="test")
    items = [
        dataclasses.replace(i, context=dataclasses.replace(i.context, cost_weight=0.5))
        for i in items
    ]
    traces = roll_out(items, learner.controller())
    summary = _summary(traces)
    write_traces(run.folder(stage) / "test_traces.jsonl", traces)
    _log(run, f"{stage}_test", 0, summary)
    return summary


def _summary(traces: Sequence[Trace]) -> dict[str, float]:
    bills = [total(trace.ledger) for trace in traces]
    free = PercentileCost()
    parts = [reward(trace, free, cost_weight=0.0) for trace in traces]
    return {
        "exact_match": fmean(exact_match(t.answer, t.gold) for t in traces),
        "format": fmean(part.format for part in parts),
        "cost_usd": fmean(bill["cost_usd"] for bill in bills),
        "calls": fmean(bill["calls"] for bill in bills),
        "rounds": fmean(trace.rounds for trace in traces),
    }


def _log(run: Run, stage: str, step: int, numbers: dict[str, float]) -> None:
    with run.metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"stage": stage, "step": step, **numbers}) + "\n")
