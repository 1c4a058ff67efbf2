"""The score that another controller would have had, from logs: IPS, SNIPS, doubly robust.

Shapes: N logged runs, D decisions of a run (padded), C candidates. A run is one question, and its
decisions are its calls. With w_k the product of the first k ratios pi(asked) / p(asked), where pi
is the probability of the controller that is judged and p the logged one:

    IPS    mean of w_D * r
    SNIPS  sum of w_D * r / sum of w_D
    DR     mean of w_D * r + sum over k of (w_(k-1) * V_k - w_k * Q_k)

Q_k is a model of the outcome for the candidate asked, and V_k its mean over the controller's own
choices. The terms of the model have the mean 0 for any model, so DR is as unbiased as IPS, and the
better the model, the narrower its interval.

If the controller would do something that the log never did (p = 0), no estimator can tell. The
share of such runs, `lost`, is estimated too, and the intervals are widened by the outcome's least
and greatest value for it.

Source: arXiv 1103.4601 (doubly robust), 1511.03722 (of several decisions), and Swaminathan and
Joachims 2015 (SNIPS). The library `obp` was looked at first: its last release (0.5.7) is of April
2023, so the three estimators are written here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from .statistics import Interval

Floats: TypeAlias = NDArray[np.float64]
_FOLDS = 5
_RIDGE = 5.0
_LEVEL = 0.9825


@dataclass(frozen=True)
class Logs:
    """Logged runs, followed by the controller that is judged.

    Attributes:
        groups: [N] the question of each run as a number: runs of one question are not independent.
        weights: [N, D] w_1 to w_D; after the last decision, the last weight goes on.
        asked: [N, D] the candidate asked, by its number; -1 = no more decisions.
        chosen: [N, D, C] the probabilities of the controller's choices that the log supports.
        squares: [N] the mean of w_D^2 over all draws that the log could have made.
        fourths: [N] the same of w_D^4.
        lost: [N] the weight of the controller's choices that the log never made.
        outcomes: [N] r, the outcome of the run as the controller would have ended it.
        logged: [N] the outcome as it was.
        vectors: [N, V] the model's features of each question.
    """

    groups: NDArray[np.intp]
    weights: Floats
    asked: NDArray[np.intp]
    chosen: Floats
    squares: Floats
    fourths: Floats
    lost: Floats
    outcomes: Floats
    logged: Floats
    vectors: Floats

    @property
    def last(self) -> Floats:
        """w_D of each run, [N]."""
        return self.weights[:, -1]

    @property
    def effective(self) -> float:
        """The effective number of runs, (sum of w)^2 / sum of w^2; of one question they are one."""
        sums = np.bincount(self.groups, self.last)
        squares = float((sums**2).sum())
        return float(sums.sum() ** 2 / squares) if squares else 0.0


@dataclass(frozen=True)
class Estimates:
    """Estimates of one mean, each with its 95% interval.

    If a part is lost, the mean is that of the rest, and the interval covers all possible values of
    the lost part. The mean lies within its interval, and both within the possible values.
    """

    ips: Interval
    snips: Interval
    dr: Interval
    difference: Interval
    """Doubly robust, less the logged mean, paired by run."""


def estimate(logs: Logs, low: float, high: float) -> Estimates:
    """Estimate the mean outcome of a controller.

    Args:
        logs: the runs.
        low: the least outcome that there can be.
        high: the greatest; infinite = no bound.
    """
    r, w = logs.outcomes, logs.last
    seen = (min(low, float(logs.logged.min())), float(logs.logged.max()))
    reach = ((high if np.isfinite(high) else seen[1]) - seen[0]) / 2
    doubly = w * r + _control(logs)
    mean = float(w.mean())
    ratio = float((w * r).mean()) / mean if mean else float("nan")
    lost = float(logs.lost.mean())
    most = min(1.0, lost + _half(logs, logs.lost - lost, 0.0)) if lost else 0.0

    def interval(values: Floats, scale: float = 1.0) -> Interval:
        if not mean:
            return Interval(float("nan"), low, high)
        middle = float(values.mean())
        half = _half(logs, values - middle, reach)
        least = scale * (middle - half) + (most * low if most else 0.0)
        greatest = scale * (middle + half) + (most * high if most else 0.0)
        return _possible(middle, least, greatest, low, high)

    best = interval(doubly)
    paired = doubly - logs.logged
    behind = _half(logs, paired - paired.mean(), reach)
    return Estimates(
        interval(w * r),
        # The error of a ratio, as a mean: what each run adds to it.
        interval(ratio + w * (r - ratio) / mean if mean else w, 1 - lost),
        best,
        _possible(
            best.mean - float(logs.logged.mean()),
            float(paired.mean()) - behind + most * low,
            float(paired.mean()) + behind + (most * high if most else 0.0),
            low - high,
            high - low,
        ),
    )


def _possible(mean: float, least: float, greatest: float, low: float, high: float) -> Interval:
    """Return an estimate that can be true, in an interval of values that can be.

    A few heavy runs may put an estimate, and even the whole interval, beyond the possible values.
    In the latter case, the interval tells nothing.
    """
    if least > high or greatest < low:
        least, greatest = low, high
    least, greatest = max(low, least), min(high, greatest)
    return Interval(float(np.clip(mean, least, greatest)), least, greatest)


def _half(logs: Logs, influence: Floats, reach: float) -> float:
    """Return half the width of an interval: Student's t over the sums of each question.

    Few runs carry most of the error: those with a rare draw of the log. The known probabilities
    tell how many of them to expect, whether or not they have come. This gives the degrees of
    freedom. Two more runs, one at each bound, are added (Agresti and Coull's two successes and two
    failures, halved): even if all runs so far are alike, others may differ.

    Args:
        logs: the runs.
        influence: [N] the part of each run in the error.
        reach: half the range of the outcome.
    """
    sums = np.bincount(logs.groups, influence)
    count, groups = len(logs.groups), len(sums)
    variance = groups / max(groups - 1, 1) * float((sums**2).sum()) / count**2
    squares, fourths = float(logs.squares.sum()), float(logs.fourths.sum())
    heavy = squares**2 / fourths if fourths else 0.0
    if heavy:
        variance += 4 * fourths / squares * (reach / count) ** 2
    degrees = max(1.0, min(groups, heavy) - 1)
    return float(student.ppf(_LEVEL, degrees) * np.sqrt(variance))


def _control(logs: Logs) -> Floats:
    """Return the sum over the decisions of w_(k-1) V_k - w_k Q_k, [N]."""
    runs, depth = logs.asked.shape
    predicted = _cross_fitted(logs)
    before = np.concatenate([np.ones((runs, 1)), logs.weights[:, :-1]], axis=1)
    total = np.zeros(runs)
    for k in range(depth):
        asked = logs.asked[:, k]
        here = asked >= 0
        q = np.take_along_axis(predicted, np.maximum(asked, 0)[:, None], axis=1)[:, 0]
        v = (logs.chosen[:, k] * predicted).sum(axis=1)
        total += np.where(here, before[:, k] * v - logs.weights[:, k] * q, 0.0)
    return total


def _cross_fitted(logs: Logs) -> Floats:
    """Return the expected outcome of each candidate, from the other questions, [N, C]."""
    runs, _, candidates = logs.chosen.shape
    predicted = np.zeros((runs, candidates))
    folds = logs.groups % _FOLDS
    for fold in range(_FOLDS):
        held, kept = folds == fold, folds != fold
        if not held.any():
            continue
        prior = float(logs.logged[kept].mean()) if kept.any() else 0.0
        for candidate in range(candidates):
            mine = kept & (logs.asked == candidate).any(axis=1)
            fitted = _ridge(logs.vectors[mine], logs.logged[mine], prior)
            predicted[held, candidate] = fitted(logs.vectors[held])
    return predicted


def _ridge(x: Floats, y: Floats, prior: float) -> Callable[[Floats], Floats]:
    """Fit a ridge regression around the mean, which is drawn to the prior if runs are few."""
    mean = (float(y.sum()) + prior) / (len(y) + 1)
    if len(y) < 2:
        return lambda new: np.full(len(new), mean)
    middle = x.mean(axis=0)
    centred = x - middle
    square = centred.T @ centred + _RIDGE * np.eye(x.shape[1])
    slope = np.linalg.solve(square, centred.T @ (y - y.mean()))
    return lambda new: mean + (new - middle) @ slope


def numbered(texts: Sequence[str]) -> NDArray[np.intp]:
    """Return each text's number: the same text, the same number, from 0."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.intp)
