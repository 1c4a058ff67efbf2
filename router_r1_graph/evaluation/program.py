"""What `router-r1 evaluate` does: controls always, progress, resume, report."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..candidates import CandidatePool
from ..context import RouterContext
from ..controllers import Controller, parse_controller
from ..controllers.baselines import world_of
from ..controllers.learned import METHODS, LearnedController
from ..errors import ConfigError, PoolError
from ..matrix import Cell, ScoreMatrix
from ..records import Recorder
from .questions import EvaluationQuestion
from .report import write_report
from .run import Outcome, Results, cost_weights_of, run_controller, with_cost_weight
from .scorers import parse_scorer
from .summary import Summary, summarise

_MOST_CONSTANTS = 16
"""Larger pools have their best and cheapest candidates as controls, not all."""


@dataclass
class Plan:
    """What is to be evaluated.

    Attributes:
        pool: who can be asked.
        questions: what is asked.
        controllers: specs of what is evaluated.
        cost_weights: at which each controller that reads the cost weight is run.
        context: all other knobs.
        metric: what the score is.
        controls: whether constants, random and oracle are run too.
        concurrency: most questions at once.
        out: the folder of results and report; None = nothing is kept.
        folds: evaluate learned controllers named without a folder (`knn`) by cross-validation: each
            of so many parts of the questions by what was fitted on the others.
        record: a file that every reply is appended to, to be replayed by `provider: recorded`.
        resume: whether results that are there are gone on with.
        seed: of resamples.
        skipped: rows of the data that were left out, with why.
    """

    pool: CandidatePool
    questions: Sequence[EvaluationQuestion]
    controllers: Sequence[str]
    cost_weights: Sequence[float] = (0.5,)
    context: RouterContext = field(default_factory=RouterContext)
    metric: str = "exact_match"
    controls: bool = True
    concurrency: int = 64
    out: Path | None = None
    folds: int = 0
    record: Path | None = None
    resume: bool = False
    seed: int = 0
    skipped: Sequence[str] = ()


def control_specs(pool: CandidatePool) -> list[str]:
    """Return the controls for a pool: constants, random, and the oracle where it can be known."""
    candidates = list(pool.candidates)
    if len(candidates) > _MOST_CONSTANTS:
        by_price = sorted(candidates, key=lambda c: c.price_usd_per_mtok)
        by_score = sorted(
            candidates, key=lambda c: -sum(c.benchmarks.values()) / max(1, len(c.benchmarks))
        )
        candidates = [by_price[0], *by_score[: _MOST_CONSTANTS - 1]]
    specs = [f"constant:{c.name}" for c in {c.name: c for c in candidates}.values()]
    specs.append("random")
    try:
        world_of(pool)
        specs.append("oracle")
    except (ConfigError, PoolError):
        pass  # then the oracle of constants is computed from them
    return specs


def evaluate(plan: Plan, console: Console | None = None) -> Summary:
    """Run a plan and return its summary; with `out`, write results and report there.

    Raises:
        ConfigError: a controller cannot be built, or the folder holds results and `resume` is off.
    """
    scorer = parse_scorer(plan.metric)
    file = None
    if plan.out is not None:
        plan.out.mkdir(parents=True, exist_ok=True)
        file = plan.out / "results.jsonl"
        if file.exists() and file.stat().st_size and not plan.resume:
            raise ConfigError(
                f"{file} holds results already: go on with --resume, or name another --out"
            )
    results = Results(file, scorer)
    results.load(plan.pool)
    controls = control_specs(plan.pool) if plan.controls else []
    controls = [spec for spec in controls if spec not in plan.controllers]
    learned = [spec for spec in plan.controllers if spec in METHODS]
    if learned and not plan.folds:
        raise ConfigError(
            f"{learned[0]}: fitted on what? Name what `router-r1 fit` wrote ({learned[0]}:DIR), or "
            "cross-validate by --folds 5"
        )
    if learned and not plan.controls:
        raise ConfigError("--folds fits on the single candidates' scores: it needs the controls")
    rest = [spec for spec in (*plan.controllers, *controls) if spec not in learned]
    runs = [
        _Run(spec, controller, weight, plan.questions)
        for spec, controller in ((spec, parse_controller(spec, plan.pool)) for spec in rest)
        for weight in cost_weights_of(controller, plan.cost_weights)
    ]
    asyncio.run(_run(plan, runs, results, console))
    if learned:
        fitted = _fold_runs(plan, learned, results)
        asyncio.run(_run(plan, fitted, results, console))
        runs = [*fitted, *runs]
    ids = {question.id for question in plan.questions}
    specs = {(run.spec, run.cost_weight) for run in runs}
    outcomes = [o for (s, w, i), o in results.outcomes.items() if i in ids and (s, w) in specs]
    summary = summarise(
        outcomes, pool=plan.pool.name, metric=plan.metric, controls=controls, seed=plan.seed
    )
    if plan.out is not None:
        write_report(summary, plan.out, outcomes, evaluated=plan.controllers, skipped=plan.skipped)
    return summary


@dataclass(frozen=True)
class _Run:
    """A controller at a cost weight, and what it is asked."""

    spec: str
    controller: Controller
    cost_weight: float
    questions: Sequence[EvaluationQuestion]


def _fold_runs(plan: Plan, learned: Sequence[str], results: Results) -> list[_Run]:
    """Fit each method on all folds but one, in turn, to be asked that one.

    The scores are those of the constants, which have just been run as controls.
    """
    order = list(plan.questions)
    random.Random(plan.seed).shuffle(order)
    folds = [order[k :: plan.folds] for k in range(plan.folds)]
    text = {question.id: question.question for question in order}
    cells: dict[str, list[Cell]] = {}
    for outcome in results.outcomes.values():
        kind, _, name = outcome.controller.partition(":")
        if kind == "constant" and outcome.id in text:
            cell = Cell(text[outcome.id], name, outcome.score, outcome.cost_usd, outcome.id)
            cells.setdefault(outcome.id, []).append(cell)
    runs = []
    for fold in folds:
        held_out = {question.id for question in fold}
        known = [c for i, found in cells.items() if i not in held_out for c in found]
        matrix = ScoreMatrix.from_cells(known, plan.pool, source="the controls")
        for spec in learned:
            controller = LearnedController.fit(spec, matrix, seed=plan.seed)
            runs += [_Run(spec, controller, w, fold) for w in plan.cost_weights]
    return runs


async def _run(
    plan: Plan,
    runs: Sequence[_Run],
    results: Results,
    console: Console | None,
) -> None:
    console = console or Console(quiet=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} score {task.fields[score]:.3f} ${task.fields[usd]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        for run in runs:
            spec, weight = run.spec, run.cost_weight
            name = f"{spec} a={weight:g}" if len(plan.cost_weights) > 1 else spec
            keys = ((spec, weight, question.id) for question in run.questions)
            known = [results.outcomes[key] for key in keys if key in results.outcomes]
            task = progress.add_task(
                name,
                total=len(run.questions),
                completed=len(known),
                score=sum(o.score for o in known) / max(1, len(known)),
                usd=sum(o.cost_usd for o in known),
                rate="",
            )
            totals = [len(known), sum(o.score for o in known), sum(o.cost_usd for o in known)]

            def done(outcome: Outcome, task=task, totals=totals) -> None:  # type: ignore[no-untyped-def]
                totals[0] += 1
                totals[1] += outcome.score
                totals[2] += outcome.cost_usd
                speed = progress.tasks[task].speed
                progress.update(
                    task,
                    advance=1,
                    score=totals[1] / totals[0],
                    usd=totals[2],
                    rate=f"{speed:.0f}/s" if speed else "",
                )

            await run_controller(
                run.controller,
                spec,
                run.questions,
                plan.pool,
                with_cost_weight(plan.context, weight),
                results,
                concurrency=plan.concurrency,
                callbacks=[Recorder(plan.record)] if plan.record else [],
                done=done,
            )
