"""Paired gains over a constant candidate, estimated on the questions that have both scores."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from .verdict import UNKNOWN, Gain


def pairs_with(scores: np.ndarray, base: np.ndarray | int) -> int:
    """Return how many questions can compare a candidate with others.

    Args:
        scores: Q x C; NaN = not measured.
        base: the candidate, by number; for all questions or for each.

    Returns:
        The questions with a score of it; if there are several candidates, and of another one.
    """
    known = ~np.isnan(scores)
    own = known[np.arange(len(known)), base]
    return int((own & (known.sum(axis=1) >= min(2, known.shape[1]))).sum())


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error over the last axis, without NaN; 0 where all are NaN."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=-1), 1)
    mean = np.where(known, values, 0.0).sum(axis=-1) / count
    away = np.where(known, values - mean[..., None], 0.0)
    return mean, np.sqrt((away**2).sum(axis=-1)) / count


def gain_of(differences: np.ndarray, unit: float, moved: np.ndarray | None = None) -> Gain:
    """Return a mean of paired differences with an interval that holds for few pairs as well.

    Most questions are sent to the constant either way: their differences are 0 and say nothing of
    the others. So Student's t counts the pairs that differ, and one pair more has won and lost half
    a time each (Agresti and Min, 2005): where three of three were won, the fourth may be lost.

    A question that was sent elsewhere and lacks a score counts as those sent elsewhere that have
    both. If none of these differs, or the interval is no narrower than what is possible, the
    gain is unknown.

    Args:
        differences: length Q; NaN where a score is not known.
        unit: the difference between right and wrong.
        moved: length Q: whether the question was sent elsewhere; if not, its difference is 0. None
            = those whose difference is not 0.
    """
    moved = differences != 0 if moved is None else moved
    count, known = len(moved), moved & ~np.isnan(differences)
    sent, told = int(moved.sum()), int(known.sum())
    each = sent / max(told, 1)  # the questions that a known pair stands for
    weights = np.where(known, each, np.where(moved, 0.0, 1.0))
    values = np.where(known, differences, 0.0)
    mean = float((weights * values).sum() / count)
    differ = int((values != 0).sum())
    if not differ:
        return UNKNOWN if sent > told else Gain(mean, mean, mean)
    error = float(np.sqrt(((weights * (values - mean)) ** 2).sum()) / count)
    error = float(np.hypot(error, each * unit / count))
    reach = float(stdtrit(max(differ - 1, 1), 0.975)) * error
    if sent > told and reach >= sent / count:
        return UNKNOWN
    return Gain(mean, mean - reach, mean + reach)
