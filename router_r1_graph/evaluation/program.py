"""What `router-r1 evaluate` does: controls always, progress, resume, report."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ..candidates import CandidatePool
from ..candidates.records import Recorder
from ..candidates.store import ReplyStore
from ..context import RouterContext
from ..controllers import Controller, parse_controller
from ..controllers.embedded import world_of
from ..controllers.learned import AUTO, METHODS, LearnedController
from ..controllers.learned.cells import Cell
from ..controllers.learned.matrix import ScoreMatrix
from ..errors import ConfigError, PoolError
from ..files import require_file, require_folder
from ..words import usd
from . import loop
from .processes import Share, run_in_processes
from .questions import EvaluationQuestion
from .report import write_report
from .run import Outcome, Results, cost_weights_of, run_controller
from .scorers import parse_scorer
from .summary import Summary, summarise

_MOST_CONSTANTS = 16
"""Larger pools have their best and cheapest candidates as controls, not all."""


@dataclass
class Evaluation:
    """The plan of an evaluation.

    Attributes:
        pool: the candidates.
        questions: what is asked.
        controllers: the specs of the controllers.
        cost_weights: the cost weights at which each controller that reads the cost weight is run.
        context: all other knobs.
        metric: what the score is.
        controls: whether constants, random and oracle are run too.
        concurrency: most questions at once.
        processes: the number of processes; use several if the candidates are faster than a core.
        out: the folder of results and report; None = nothing is kept.
        folds: cross-validate learned controllers that are named without a folder (`knn`): split the
            questions into this many parts, and ask each part with a fit on the others.
        record: a file to append every reply to; `provider: recorded` can replay it.
        replies: where replies are kept, so that the same call is paid once.
        resume: whether to continue with results that are there already.
        seed: the seed of the resamples.
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
    processes: int = 1
    out: Path | None = None
    folds: int = 0
    record: Path | None = None
    replies: ReplyStore | None = None
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


def evaluate(plan: Evaluation, console: Console | None = None) -> Summary:
    """Run a plan and return its summary; with `out`, write results and report there.

    Raises:
        ConfigError: a controller cannot be built, or the folder holds results and `resume` is off.
    """
    scorer = parse_scorer(plan.metric)
    if plan.processes > 1 and plan.record:
        raise ConfigError("recording replies needs one process")
    file = None
    if plan.out is not None:
        file = plan.out / "results.jsonl"
        require_folder("--out", plan.out)
        plan.out.mkdir(parents=True, exist_ok=True)
        require_file("--out", file)
        if file.exists() and file.stat().st_size and not plan.resume:
            raise ConfigError(
                f"{file} holds results already: go on with --resume, or name another --out"
            )
    require_file("--record", plan.record)
    results = Results(file, scorer)
    results.load(plan.pool)
    controls = control_specs(plan.pool) if plan.controls else []
    controls = [spec for spec in controls if spec not in plan.controllers]
    learned = [spec for spec in plan.controllers if spec in (*METHODS, AUTO)]
    if learned and not plan.folds:
        raise ConfigError(
            f"{learned[0]}: fitted on what? Name what `router-r1 fit` wrote ({learned[0]}:DIR), or "
            "cross-validate by --folds 5"
        )
    if learned and not plan.controls:
        raise ConfigError("--folds fits on the single candidates' scores: it needs the controls")
    rest = [spec for spec in (*plan.controllers, *controls) if spec not in learned]
    runs = [run for spec in rest for run in _runs_of(plan, spec)]
    _note_one_weight(plan, runs, console)
    _run(plan, runs, results, console)
    if learned:
        fitted = _fold_runs(plan, learned, results)
        _run(plan, fitted, results, console)
        runs = [*fitted, *runs]
    # In a fixed order, not that of arrival: a resumed run has to end with the same intervals.
    keys = [(*run.key, question.id) for run in runs for question in run.share.questions]
    outcomes = [results.outcomes[key] for key in dict.fromkeys(keys) if key in results.outcomes]
    summary = summarise(
        outcomes, pool=plan.pool.name, metric=plan.metric, controls=controls, seed=plan.seed
    )
    if plan.out is not None:
        write_report(summary, plan.out, outcomes, evaluated=plan.controllers, skipped=plan.skipped)
    return summary


def _note_one_weight(plan: Evaluation, runs: Sequence[_Run], console: Console | None) -> None:
    """Say which of the evaluated controllers are run at one of several cost weights, and why."""
    asked = [run.key for run in runs if run.share.spec in plan.controllers]
    weights: dict[str, set[float]] = {}
    for spec, weight in asked:
        weights.setdefault(spec, set()).add(weight)
    once = [spec for spec, at in weights.items() if len(at) < len(set(plan.cost_weights))]
    if once and console:
        does = "does" if len(once) == 1 else "do"
        was = "is" if len(once) == 1 else "are"
        console.print(
            Text(
                f"note: {', '.join(once)} {does} not read the cost weight, and {was} run once "
                f"(at {plan.cost_weights[0]:g})"
            ),
            soft_wrap=True,
        )


@dataclass(frozen=True)
class _Run:
    """A controller at a cost weight, and what it is asked."""

    share: Share
    controller: Controller
    """What the share makes, made once for all cost weights."""

    @property
    def key(self) -> tuple[str, float]:
        return self.share.spec, self.share.context.cost_weight


def _runs_of(plan: Evaluation, spec: str) -> list[_Run]:
    make = partial(parse_controller, spec, plan.pool)
    controller = make()
    weights = cost_weights_of(controller, plan.cost_weights)
    return [
        _Run(_share(plan, spec, make, weight, plan.questions), controller) for weight in weights
    ]


def _share(
    plan: Evaluation,
    spec: str,
    make: Callable[[], Controller],
    weight: float,
    questions: Sequence[EvaluationQuestion],
) -> Share:
    context = dataclasses.replace(plan.context, cost_weight=weight)
    return Share(spec, make, questions, plan.pool, context, plan.replies)


def _fold_runs(plan: Evaluation, learned: Sequence[str], results: Results) -> list[_Run]:
    """For each fold, fit each method on the other folds, to be asked this one.

    The scores are those of the constants, which have just been run as controls.
    """
    order = list(plan.questions)
    random.Random(plan.seed).shuffle(order)
    folds = [order[k :: plan.folds] for k in range(plan.folds)]
    text = {question.id: question.question for question in order}
    cells: dict[str, list[Cell]] = {}
    # In a fixed order, not that of arrival: the fit may depend on the order.
    for outcome in sorted(results.outcomes.values(), key=lambda outcome: outcome.key):
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
            make = partial(_same, controller)
            shares = [_share(plan, spec, make, weight, fold) for weight in plan.cost_weights]
            runs += [_Run(share, controller) for share in shares]
    return runs


def _same(controller: Controller) -> Controller:
    return controller


def progress_columns() -> tuple[ProgressColumn, ...]:
    """Return what a line of the progress shows; names of controllers are not read as markup."""
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} score {task.fields[score]:.3f} {task.fields[usd]}"),
        TimeRemainingColumn(),
    )


def _run(plan: Evaluation, runs: Sequence[_Run], results: Results, console: Console | None) -> None:
    with Progress(*progress_columns(), console=console or Console(quiet=True)) as progress:
        asked: dict[tuple[str, float], list[str]] = {}
        for run in runs:
            asked.setdefault(run.key, []).extend(q.id for q in run.share.questions)
        bars: dict[tuple[str, float], _Bar] = {}
        for (spec, weight), ids in asked.items():
            name = f"{spec} a={weight:g}" if len(plan.cost_weights) > 1 else spec
            keys = ((spec, weight, id_) for id_ in ids)
            known = [results.outcomes[key] for key in keys if key in results.outcomes]
            bars[spec, weight] = _Bar(progress, name, len(ids), known)

        def done(outcome: Outcome) -> None:
            bars[outcome.controller, outcome.cost_weight].advance(outcome)

        if plan.processes > 1:
            run_in_processes(
                [run.share for run in runs],
                results,
                metric=plan.metric,
                processes=plan.processes,
                concurrency=plan.concurrency,
                done=done,
            )
        else:
            loop.run(_run_here(plan, runs, results, done))


async def _run_here(
    plan: Evaluation, runs: Sequence[_Run], results: Results, done: Callable[[Outcome], None]
) -> None:
    for run in runs:
        await run_controller(
            run.controller,
            run.share.spec,
            run.share.questions,
            plan.pool,
            run.share.context,
            results,
            concurrency=plan.concurrency,
            callbacks=[Recorder(plan.record)] if plan.record else [],
            replies=plan.replies,
            done=done,
        )


class _Bar:
    """The progress of a controller at a cost weight: number of questions, score, USD paid."""

    def __init__(self, progress: Progress, name: str, total: int, known: Sequence[Outcome]) -> None:
        self.progress = progress
        self.outcomes = len(known)
        self.score = sum(outcome.score for outcome in known)
        self.usd = sum(outcome.cost_usd - outcome.saved_usd for outcome in known)
        mean = self.score / max(1, self.outcomes)
        self.task = progress.add_task(
            name, total=total, completed=self.outcomes, score=mean, usd=usd(self.usd), rate=""
        )

    def advance(self, outcome: Outcome) -> None:
        """Show one more outcome."""
        self.outcomes += 1
        self.score += outcome.score
        self.usd += outcome.cost_usd - outcome.saved_usd
        speed = self.progress.tasks[self.task].speed
        self.progress.update(
            self.task,
            advance=1,
            score=self.score / self.outcomes,
            usd=usd(self.usd),
            rate=f"{speed:.0f}/s" if speed else "",
        )
