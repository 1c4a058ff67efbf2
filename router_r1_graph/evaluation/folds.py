"""Cross-validation: each part of the questions is for a controller fitted on the others."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from ..candidates import CandidatePool
from ..controllers.learned import LearnedController
from ..controllers.learned.cells import Cell
from ..controllers.learned.matrix import ScoreMatrix
from .questions import EvaluationQuestion
from .run import Outcome
from .scores import require_scores


def fitted_on_folds(
    methods: Sequence[str],
    questions: Sequence[EvaluationQuestion],
    outcomes: Iterable[Outcome],
    pool: CandidatePool,
    *,
    folds: int,
    metric: str,
    seed: int,
) -> Iterator[tuple[str, LearnedController, Sequence[EvaluationQuestion]]]:
    """Yield a method, its controller fitted on all folds but one, and the questions of that one.

    Args:
        methods: what to fit, such as `knn`.
        questions: all questions.
        outcomes: those of the single candidates are the scores.
        pool: the candidates.
        folds: the number of parts.
        metric: what the scores are, for messages.
        seed: of the split and the fits.

    Raises:
        MatrixError: every score is 0.
    """
    order = list(questions)
    random.Random(seed).shuffle(order)
    text = {question.id: question.question for question in order}
    cells: dict[str, list[Cell]] = {}
    # In a fixed order, not that of arrival: the fit may depend on the order.
    for outcome in sorted(outcomes, key=lambda outcome: outcome.key):
        kind, _, name = outcome.controller.partition(":")
        if kind == "constant" and outcome.id in text:
            cell = Cell(text[outcome.id], name, outcome.score, outcome.cost_usd, outcome.id)
            cells.setdefault(outcome.id, []).append(cell)
    every = ScoreMatrix.from_cells((c for found in cells.values() for c in found), pool)
    require_scores(every, f"the single candidates: every score by {metric} is 0")
    for number in range(folds):
        fold = order[number::folds]
        held_out = {question.id for question in fold}
        known = [c for i, found in cells.items() if i not in held_out for c in found]
        matrix = ScoreMatrix.from_cells(known, pool, source="the controls")
        for method in methods:
            yield method, LearnedController.fit(method, matrix, seed=seed), fold
