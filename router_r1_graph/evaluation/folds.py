"""Cross-validation: each part of the questions is asked of a controller fitted on the others."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from ..candidates import CandidatePool
from ..controllers import Controller
from ..controllers.learned import AUTO, METHODS, LearnedController
from ..controllers.learned.cells import Cell
from ..controllers.learned.matrix import ScoreMatrix
from ..controllers.learned.reader import ReaderController
from ..controllers.learned.reading import judge
from ..errors import RouterR1Error
from .questions import EvaluationQuestion
from .recorded_replies import load_recorded
from .run import Outcome
from .scores import require_scores

READER = "reader"
FITTED = (*METHODS, AUTO, READER)
"""The controllers that can be cross-validated: their specs without a folder."""

_Fit = Callable[[Collection[str]], Controller]
"""Fits a controller on all questions but those with these texts."""


def fitted_on_folds(
    methods: Sequence[str],
    questions: Sequence[EvaluationQuestion],
    outcomes: Iterable[Outcome],
    pool: CandidatePool,
    *,
    folds: int,
    metric: str,
    seed: int,
    traces: Path | None = None,
) -> tuple[list[tuple[str, Controller, Sequence[EvaluationQuestion]]], dict[str, str]]:
    """Fit methods on all folds but one, for each fold.

    A method that cannot be fitted ends nothing: the outcomes that it learns from have been paid.

    Args:
        methods: the methods to fit, of `FITTED`.
        questions: all questions.
        outcomes: those of the single candidates are the scores.
        pool: the candidates.
        folds: the number of parts.
        metric: the kind of scores, for messages.
        seed: of the split and the fits.
        traces: the file with the traces of these outcomes, from which a reader learns.

    Returns:
        A method, its controller and the questions of the fold that it has not seen, for each fold
        and method; and the reasons of the methods that cannot be fitted, by name.
    """
    order = list(questions)
    random.Random(seed).shuffle(order)
    parts = [order[number::folds] for number in range(folds)]
    fits: list[tuple[str, Controller, Sequence[EvaluationQuestion]]] = []
    unfitted = {}
    texts = {question.question for question in order}
    if any(texts == {question.question for question in part} for part in parts):
        return [], dict.fromkeys(
            methods,
            f"not fitted: a fold holds every question ({len(texts)} different "
            f"{'one' if len(texts) == 1 else 'ones'}, repeated), so none is left to fit on; add "
            "questions, or leave out repeated ones",
        )
    cells = _cells(order, outcomes)
    for method in methods:
        try:
            if method == READER and traces is not None:
                fit = _fits_replies(traces, pool, seed)
            else:
                fit = _fits_scores(method, cells, pool, seed, metric)
            fits += [(method, fit({q.question for q in part}), part) for part in parts]
        except (RouterR1Error, ImportError) as error:
            unfitted[method] = f"not fitted: {error}"
    return fits, unfitted


def not_asked(controller: str, cost_weight: float, id_: str, error: str) -> Outcome:
    """Return the outcome of a question that a controller could not be asked."""
    return Outcome(
        controller=controller,
        cost_weight=cost_weight,
        id=id_,
        answer="",
        score=0.0,
        exact_match=0.0,
        f1=0.0,
        cost_usd=0.0,
        seconds=0.0,
        calls=0.0,
        rounds=0.0,
        failures=0.0,
        answered=0.0,
        asked={},
        slices={},
        error=error,
    )


def _cells(questions: Sequence[EvaluationQuestion], outcomes: Iterable[Outcome]) -> list[Cell]:
    """Return the single candidates' scores, in a fixed order: the fit may depend on it."""
    text = {question.id: question.question for question in questions}
    cells = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.key):
        kind, _, name = outcome.controller.partition(":")
        if kind == "constant" and outcome.id in text:
            if outcome.explore:
                name = next(iter(outcome.asked), name)  # it may be another one's run
            cost = outcome.cost_usd
            cells.append(Cell(text[outcome.id], name, outcome.score, cost, outcome.id))
    return cells


def _fits_scores(
    method: str, cells: Sequence[Cell], pool: CandidatePool, seed: int, metric: str
) -> _Fit:
    every = ScoreMatrix.from_cells(cells, pool)
    require_scores(every, f"the single candidates: every score by {metric} is 0")

    def fit(held_out: Collection[str]) -> Controller:
        known = (cell for cell in cells if cell.question not in held_out)
        matrix = ScoreMatrix.from_cells(known, pool, source="the controls")
        return LearnedController.fit(method, matrix, seed=seed)

    return fit


def _fits_replies(traces: Path, pool: CandidatePool, seed: int) -> _Fit:
    recorded = load_recorded(traces, pool)
    judged = judge(recorded)  # once for all folds: what stands in a reply depends on no fit

    def fit(held_out: Collection[str]) -> Controller:
        rows = [i for i, text in enumerate(recorded.questions) if text not in held_out]
        known = [judged[row] for row in rows]
        return ReaderController.fit(recorded.select(rows), seed=seed, judged=known)

    return fit
