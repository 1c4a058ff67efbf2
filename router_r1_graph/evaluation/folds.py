"""Cross-validation: each part of the questions is asked of a controller fitted on the others."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from ..candidates import CandidatePool
from ..controllers import Controller
from ..controllers.learned import AUTO, METHODS, LearnedController
from ..controllers.learned.cells import Cell
from ..controllers.learned.matrix import ScoreMatrix
from ..controllers.learned.reader import ReaderController
from ..controllers.learned.reading import judge
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
) -> Iterator[tuple[str, Controller, Sequence[EvaluationQuestion]]]:
    """Yield a method, its controller fitted on all folds but one, and the questions of that one.

    Args:
        methods: the methods to fit, of `FITTED`.
        questions: all questions.
        outcomes: those of the single candidates are the scores.
        pool: the candidates.
        folds: the number of parts.
        metric: the kind of scores, for messages.
        seed: of the split and the fits.
        traces: the file with the traces of these outcomes, from which a reader learns.

    Raises:
        MatrixError: every score is 0, or no question has every candidate's reply.
        ConfigError: there are too few questions.
    """
    order = list(questions)
    random.Random(seed).shuffle(order)
    fits: dict[str, _Fit] = {}
    if scored := [method for method in methods if method != READER]:
        cells = _cells(order, outcomes)
        every = ScoreMatrix.from_cells(cells, pool)
        require_scores(every, f"the single candidates: every score by {metric} is 0")
        fits = {method: _fits_scores(method, cells, pool, seed) for method in scored}
    if READER in methods and traces is not None:
        fits[READER] = _fits_replies(traces, pool, seed)
    for number in range(folds):
        fold = order[number::folds]
        for method in methods:
            yield method, fits[method]({question.question for question in fold}), fold


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


def _fits_scores(method: str, cells: Sequence[Cell], pool: CandidatePool, seed: int) -> _Fit:
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
