"""RouterEval's measures of a router on a score matrix: pure functions of scores and choices.

Shapes: `scores` is Q x C, `choices` length Q: the column that the router chose for each question.

Source: arXiv 2503.10657 (RouterEval) names mu, V_R, V_B and E_p. The formulas are those of its code
(MilkThink-Lab/RouterEval, `router/`, whose programs print mu, V_B and E_p), read in a copy,
fidd1er5381/RouterEval@d5f6edc: `router/PRKnn-knn/knn.py`, `router/R_o/r_o_router.py`. V_B is
computed there
as "router acc / bsm acc", bsm being the model with the best mean; E_p, "classification bias",
is the mean over questions of the entropy, base 2, of the router's probabilities. V_R is from the
paper only.
"""

from __future__ import annotations

import warnings

import numpy as np

from .statistics import entropy


def router_score(scores: np.ndarray, choices: np.ndarray) -> float:
    """Return mu, the mean score of the chosen candidates; unmeasured choices do not count."""
    return float(_mean(scores[np.arange(len(choices)), choices]))


def oracle_score(scores: np.ndarray) -> float:
    """Return the mean of each question's best score: no router can do better."""
    return float(_mean(np.fmax.reduce(scores, axis=1)))


def gain_over(reference: float, score: float) -> float:
    """Return V_R = mu / the score of a reference model; NaN where that is 0.

    With the best single candidate as the reference it is V_B; above 1, routing pays.
    """
    return score / reference if reference else float("nan")


def classification_bias(probabilities: np.ndarray) -> float:
    """Return E_p in bits: the mean over questions of the entropy of the router's probabilities.

    0 = sure about every question; log2 C = it knows nothing. Whether the router always chooses the
    same candidate is another matter: see `choice_entropy`.

    Args:
        probabilities: Q x C, each row sums to 1; scores are made probabilities by `softmax`.

    Example:
        >>> classification_bias(np.array([[1.0, 0.0], [0.5, 0.5]]))
        0.5
    """
    # As in the code: a probability next to 0 counts as 0.
    return float(np.mean([entropy(row[row > 1e-10]) for row in probabilities]))


def oracle_probabilities(scores: np.ndarray) -> np.ndarray:
    """Return the oracle's probabilities by RouterEval's definition, Q x C.

    They are the scores as shares of their sum; where all are 0, each candidate's is the same.
    """
    known = np.nan_to_num(scores)
    sums = known.sum(axis=1, keepdims=True)
    alike = np.full_like(known, 1 / known.shape[1])
    return np.divide(known, sums, out=alike, where=sums > 0)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return each row of predicted scores as probabilities, as RouterEval's kNN does."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def choice_entropy(choices: np.ndarray) -> float:
    """Return the entropy of the choices in bits: 0 = always the same, log2 C = evenly spread.

    It is not RouterEval's E_p, which needs the router's probabilities (`classification_bias`); it
    shows routing collapse for a router that makes hard choices.

    Example:
        >>> choice_entropy(np.array([0, 1, 0, 1]))
        1.0
    """
    _, counts = np.unique(choices, return_counts=True)
    return entropy(counts / counts.sum())


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis without NaN; NaN where all are NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of an empty mean
        return np.nanmean(values, axis=0)
