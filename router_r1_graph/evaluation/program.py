"""The program of `router-r1 evaluate`: controls always, progress, resume, report."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from ..candidates.records import Recorder
from ..context import as_context
from ..controllers import Controller, parse_controller
from ..errors import ConfigError
from ..files import only_writer
from . import loop
from .folds import FITTED, READER, fitted_on_folds, not_asked
from .loop import AskItem
from .origin import Origin, digests
from .plan import MOST_CONSTANTS, Evaluation, control_specs, is_free, open_results, paid_once
from .plots import load_pyplot
from .processes import ControllerRun, run_in_processes
from .progress import Bar, progress_columns
from .purse import Purse
from .questions import EvaluationQuestion
from .recorded_replies import RESULTS
from .report import write_report
from .run import Outcome, Results, cost_weights_of, run_controller
from .scorers import parse_scorer
from .silence import require_replies, unanswered
from .spending import Estimate, estimate, within, worst_case
from .summary import Summary, summarise


def evaluate(plan: Evaluation, console: Console | None = None) -> Summary:
    """Run a plan and return its summary; `out` gets results and report, `console` the progress.

    Raises:
        ConfigError: a controller cannot be built; or the folder holds results and `resume` is off,
            or those of another plan; or another run writes there.
    """
    with nullcontext() if plan.out is None else only_writer("--out", plan.out):
        results = open_results(plan)
        if results.path is not None or READER not in plan.controllers:
            return _evaluate(plan, results, console)
        with tempfile.TemporaryDirectory() as folder:  # a reader learns from the traces
            results.path = Path(folder) / RESULTS
            return _evaluate(plan, results, console)


def _evaluate(plan: Evaluation, results: Results, console: Console | None) -> Summary:
    controls = control_specs(plan.pool) if plan.controls else []
    controls = [spec for spec in controls if spec not in plan.controllers]
    origin = Origin(
        metric=plan.metric,
        seed=plan.seed,
        evaluated=tuple(plan.controllers),
        controls=tuple(controls),
        command=plan.command,
        options=digests(plan.pool),
    )
    if plan.out is not None:
        load_pyplot("the picture of a report", "eval")  # before anything is paid
        origin.write(plan.out)
    learned, unfitted = [spec for spec in plan.controllers if spec in FITTED], list[Outcome]()
    purse = None if plan.budget_usd is None else Purse(plan.budget_usd)
    with paid_once(plan) as plan:
        runs = _all_runs(plan, controls, results)
        _note_one_weight(plan, runs, console)
        if console and not is_free(plan.pool):
            console.print(Text(str(_estimate(plan, runs, results))), soft_wrap=True)
        _run(plan, runs, results, console, purse)
        if learned and not (purse and purse.refused):
            fitted, unfitted = _fold_runs(plan, learned, results)
            _run(plan, fitted, results, console, purse)
            runs = [*fitted, *runs]
    # In a fixed order, not that of arrival: a resumed run has to end with the same intervals.
    keys = [(*run.key, question.id) for run in runs for question in run.share.questions]
    outcomes = [results.outcomes[key] for key in dict.fromkeys(keys) if key in results.outcomes]
    require_replies(outcomes, purse)
    notes = ([purse.stopped] if purse and purse.refused else []) + unanswered(outcomes)
    outcomes = [*unfitted, *outcomes]
    summary = summarise(
        outcomes, pool=plan.pool.name, metric=plan.metric, controls=controls, seed=plan.seed
    )
    summary = dataclasses.replace(summary, origin=origin, notes=notes)
    if plan.out is not None:
        write_report(summary, plan.out, outcomes, evaluated=plan.controllers, skipped=plan.skipped)
    return summary


def estimate_of(plan: Evaluation) -> Estimate:
    """Return about the cost of a plan; nothing is asked and nothing written.

    Raises:
        ConfigError: a controller cannot be built.
    """
    controls = control_specs(plan.pool) if plan.controls else []
    results = Results(plan.out and plan.out / RESULTS, parse_scorer(plan.metric))
    if plan.resume:
        results.load(plan.pool, plan.questions, as_context(plan.context))
    return _estimate(plan, _all_runs(plan, controls, results), results)


def _estimate(plan: Evaluation, runs: Sequence[_Run], results: Results) -> Estimate:
    left = [
        (run.controller, [q.question for q in run.share.questions if not run.knows(q, results)])
        for run in runs
    ]
    return estimate(left, plan.pool, once=plan.replies is not None or not is_free(plan.pool))


def _all_runs(plan: Evaluation, controls: Sequence[str], results: Results) -> list[_Run]:
    """Return the questions for every controller that needs no fit.

    A controller that does not read the cost weight goes on at the one of its earlier results.

    Raises:
        ConfigError: a controller cannot be built.
    """
    learned = [spec for spec in plan.controllers if spec in FITTED]
    if learned and not plan.folds:
        raise ConfigError(
            f"{learned[0]} is not fitted: name what `router-r1 fit` wrote ({learned[0]}:DIR), or "
            "cross-validate by --folds 5"
        )
    if learned and not plan.controls:
        raise ConfigError("--folds fits on the single candidates' scores: it needs the controls")
    rest = [spec for spec in (*plan.controllers, *controls) if spec not in learned]
    earlier = {spec: weight for spec, weight, _ in results.outcomes}
    return [run for spec in dict.fromkeys(rest) for run in _runs_of(plan, spec, earlier)]


def _note_one_weight(plan: Evaluation, runs: Sequence[_Run], console: Console | None) -> None:
    """Print which of the evaluated controllers run at only one of several cost weights, and why."""
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
                f"(at {min(weights[once[0]]):g})"
            ),
            soft_wrap=True,
        )


@dataclass(frozen=True)
class _Run:
    """A controller at a cost weight, and the questions for it."""

    share: ControllerRun
    controller: Controller
    """The controller that the share makes, once for all cost weights."""

    @property
    def key(self) -> tuple[str, float]:
        return self.share.spec, self.share.context.cost_weight

    def knows(self, question: EvaluationQuestion, results: Results) -> bool:
        """Whether a question has been asked already."""
        return (*self.key, question.id) in results.outcomes


def _runs_of(plan: Evaluation, spec: str, earlier: Mapping[str, float]) -> list[_Run]:
    make = partial(parse_controller, spec, plan.pool)
    controller = make()
    weights = cost_weights_of(controller, plan.cost_weights, earlier.get(spec))
    return [
        _Run(_share(plan, spec, make, weight, plan.questions), controller) for weight in weights
    ]


def _share(
    plan: Evaluation,
    spec: str,
    make: Callable[[], Controller],
    weight: float,
    questions: Sequence[EvaluationQuestion],
) -> ControllerRun:
    context = dataclasses.replace(as_context(plan.context), cost_weight=weight)
    return ControllerRun(spec, make, questions, plan.pool, context, plan.replies)


def _fold_runs(
    plan: Evaluation, learned: Sequence[str], results: Results
) -> tuple[list[_Run], list[Outcome]]:
    """For each fold, fit each method on the other folds, to be asked this one.

    Methods that cannot be fitted have outcomes without runs, which are not kept.
    """
    runs: list[_Run] = []
    fits, unfitted = fitted_on_folds(
        learned,
        plan.questions,
        results.outcomes.values(),
        plan.pool,
        folds=plan.folds,
        metric=plan.metric,
        seed=plan.seed,
        traces=results.path,
    )
    for spec, controller, fold in fits:
        make = partial(_same, controller)
        shares = [_share(plan, spec, make, weight, fold) for weight in plan.cost_weights]
        runs += [_Run(share, controller) for share in shares]
    rows = product(unfitted.items(), plan.cost_weights, plan.questions)
    return runs, [not_asked(spec, weight, q.id, why) for (spec, why), weight, q in rows]


def _same(controller: Controller) -> Controller:
    return controller


def _run(
    plan: Evaluation,
    runs: Sequence[_Run],
    results: Results,
    console: Console | None,
    purse: Purse | None = None,
) -> None:
    # The single candidates first: what others ask of them is then in the reply store.
    runs = sorted(runs, key=lambda run: not run.share.spec.startswith("constant:"))
    with Progress(*progress_columns(), console=console or Console(quiet=True)) as progress:
        asked: dict[tuple[str, float], list[str]] = {}
        for run in runs:
            asked.setdefault(run.key, []).extend(q.id for q in run.share.questions)
        bars: dict[tuple[str, float], Bar] = {}
        for (spec, weight), ids in asked.items():
            name = f"{spec} a={weight:g}" if len(plan.cost_weights) > 1 else spec
            keys = ((spec, weight, id_) for id_ in ids)
            known = [results.outcomes[key] for key in keys if key in results.outcomes]
            bars[spec, weight] = Bar(progress, name, len(ids), known)

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
            loop.run(_run_here(plan, runs, results, done, purse))


async def _run_here(
    plan: Evaluation,
    runs: Sequence[_Run],
    results: Results,
    done: Callable[[Outcome], None],
    purse: Purse | None,
) -> None:
    gold = {question.question: question.gold for question in plan.questions}
    callbacks = [Recorder(plan.record, gold=gold)] if plan.record else []
    for run in runs:
        await run_controller(
            run.controller,
            run.share.spec,
            run.share.questions,
            plan.pool,
            run.share.context,
            results,
            concurrency=plan.concurrency,
            callbacks=callbacks,
            replies=plan.replies,
            limited=_limit(plan, run, purse),
            done=done,
        )


def _limit(plan: Evaluation, run: _Run, purse: Purse | None) -> Callable[[AskItem], AskItem]:
    """Return a wrapper that limits a controller's questions to the rest of the budget."""
    if purse is None:
        return lambda ask: ask
    every = plan.controls and len(plan.pool.candidates) <= MOST_CONSTANTS and not purse.refused
    asked = every and plan.replies is not None
    worst = worst_case(run.controller, plan.pool, candidates_asked=asked)
    return lambda ask: within(purse, ask, worst)
