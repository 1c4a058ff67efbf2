"""RouterEval's measures of a router on a score matrix: pure functions of scores and choices.

Shapes: `scores` is Q x C, `choices` length Q: the column that the router chose for each question.

Source: arXiv 2503.10657 (RouterEval): mu, V_R, V_B and E_p. The base of E_p's logarithm is our
reading (2); divide by log2(e) for nats.
"""

from __future__ import annotations

import warnings

import numpy as np


def router_score(scores: np.ndarray, choices: np.ndarray) -> float:
    """Return mu, the mean score of who was chosen; choices that were not measured do not count."""
    return float(_mean(scores[np.arange(len(choices)), choices]))


def best_single_score(scores: np.ndarray) -> float:
    """Return the mean score of the best single candidate, each over what was measured of it."""
    return float(np.nanmax(_mean(scores)))


def oracle_score(scores: np.ndarray) -> float:
    """Return the mean of each question's best score: no router can do better."""
    return float(_mean(np.fmax.reduce(scores, axis=1)))


def gain_over_best(scores: np.ndarray, choices: np.ndarray) -> float:
    """Return V_B = mu / the best single candidate's score; above 1, routing pays.

    It is NaN where the best candidate scores 0.
    """
    return gain_over(best_single_score(scores), router_score(scores, choices))


def gain_over(reference: float, score: float) -> float:
    """Return V_R = mu / the score of a reference model; NaN where that is 0."""
    return score / reference if reference else float("nan")


def choice_entropy(choices: np.ndarray) -> float:
    """Return E_p in bits, the entropy of who is chosen: 0 = always the same, log2 C = evenly.

    Example:
        >>> choice_entropy(np.array([0, 1, 0, 1]))
        1.0
    """
    _, counts = np.unique(choices, return_counts=True)
    shares = counts / counts.sum()
    return float(abs((shares * np.log2(shares)).sum()))


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is not NaN; NaN where all are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of an empty mean
        return np.nanmean(values, axis=0)
