"""Intervals by bootstrap over questions, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Bootstrap:
    """Percentile bootstrap of means over the same N questions.

    The same resamples serve every value, so that differences of paired values are exact. A value
    that never varies has an interval of width zero, since the sample shows no other value.

    Args:
        count: N, the number of questions.
        seed: the seed of the resamples.
    """

    def __init__(self, count: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        # How often each question is in a resample: [resamples, N]. One product then makes all sums.
        # They are whole numbers if the values are, on every machine.
        chances = np.full(count, 1 / count)
        self._times: NDArray[np.float64] = rng.multinomial(count, chances, _RESAMPLES).astype(float)

    def mean(self, values: ArrayLike) -> Interval:
        """Return the mean of N values with its interval."""
        array = np.asarray(values, dtype=np.float64)
        means = self._times @ array / len(array)
        low, high = np.percentile(means, (2.5, 97.5))
        return Interval(float(array.mean()), float(low), float(high))

    def difference(self, ours: ArrayLike, theirs: ArrayLike) -> Interval:
        """Return the mean of the paired differences, ours less theirs."""
        return self.mean(np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64))

    def ratio(self, ours: ArrayLike, theirs: ArrayLike) -> Interval:
        """Return the ratio of the means, ours by theirs; infinite if theirs is 0."""
        a, b = (np.asarray(v, dtype=np.float64) for v in (ours, theirs))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.nan_to_num((self._times @ a) / (self._times @ b), nan=1.0)
            mean = float(a.mean() / b.mean()) if b.mean() else float("inf") if a.mean() else 1.0
        low, high = np.percentile(ratios, (2.5, 97.5))
        return Interval(mean, float(low), float(high))


def mix_at_cost(
    costs: Sequence[float], scores: NDArray[np.float64], spend: float
) -> NDArray[np.float64] | None:
    """Return the expected scores of the best mix of two constants at the same cost.

    This is a published baseline that is easily forgotten: for each question, one of two candidates
    is drawn, with the probability at which the mean cost is `spend`.

    Args:
        costs: each constant's mean cost, K of them.
        scores: each constant's score of each question, [K, N].
        spend: the mean cost of a question.

    Returns:
        [N] expected scores; None where even the cheapest costs more.
    """
    best: NDArray[np.float64] | None = None
    for cheap in range(len(costs)):
        if costs[cheap] > spend:
            continue
        for expensive in range(len(costs)):
            gap = costs[expensive] - costs[cheap]
            share = min(1.0, (spend - costs[cheap]) / gap) if gap > 0 else 0.0
            mixed = (1 - share) * scores[cheap] + share * scores[expensive]
            if best is None or mixed.mean() > best.mean():
                best = mixed
    return best


def entropy(shares: ArrayLike) -> float:
    """Return the entropy of shares in bits; 0 = always the same one, log2 K = all alike."""
    parts = np.asarray(shares, dtype=np.float64)
    parts = parts[parts > 0]
    return float(abs((parts * np.log2(parts)).sum()))
