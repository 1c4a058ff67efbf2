"""RouterEval: its measures of routers on a score matrix, as a table (formulas: `measures`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..controllers.learned.matrix import ScoreMatrix
from ..controllers.learned.prediction import candidate_means
from ..errors import ConfigError, did_you_mean
from . import measures
from .predictions import Predictions


@dataclass(frozen=True)
class RouterEvalRow:
    """One row of the table.

    Attributes:
        router: a router, the best candidate, or the oracle.
        mu: the mean score.
        v_r: mu divided by the reference's score; None = no reference.
        v_b: mu divided by the best candidate's mean score; above 1, routing pays.
        e_p: the entropy of its probabilities, in bits; 0 = sure, log2 C = it knows nothing.
    """

    router: str
    mu: float
    v_r: float | None
    v_b: float
    e_p: float


def router_eval(
    matrix: ScoreMatrix, predictions: Sequence[Predictions], reference: str | None = None
) -> list[RouterEvalRow]:
    """Return the measures of routers, then of the best candidate and of the oracle.

    Args:
        matrix: Q x C scores.
        predictions: those of the routers for the Q questions.
        reference: for V_R: a candidate of the matrix, or a score above 0.

    Raises:
        ConfigError: the reference is neither.
    """
    scores = matrix.scores
    means = dict(zip(matrix.names, candidate_means(scores).tolist(), strict=True))
    best = matrix.names[int(np.nanargmax(list(means.values())))]
    compared = None if reference is None else _reference(reference, means)
    constant = np.eye(len(means))[[matrix.names.index(best)]]
    rows = [
        (p.router, measures.router_score(scores, p.choices), p.probabilities) for p in predictions
    ]
    rows += [
        (f"{best} (best candidate)", means[best], constant),
        ("oracle", measures.oracle_score(scores), measures.oracle_probabilities(scores)),
    ]
    return [
        RouterEvalRow(
            router,
            mu,
            None if compared is None else measures.gain_over(compared, mu),
            measures.gain_over(means[best], mu),
            measures.classification_bias(probabilities),
        )
        for router, mu, probabilities in rows
    ]


def _reference(reference: str, means: dict[str, float]) -> float:
    if reference in means:
        return means[reference]
    try:
        score = float(reference)
    except ValueError:
        raise ConfigError(
            f"--reference: a candidate or a score, not {reference!r}"
            f"{did_you_mean(reference, means)}"
        ) from None
    if not 0 < score <= 1:
        raise ConfigError(f"--reference: a score is above 0 and at most 1, not {reference}")
    return score
