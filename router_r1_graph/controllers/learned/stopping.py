"""When to stop asking: thresholds for how sure a reader has to be, for any cost weight.

    utility = (1 - a) * answer is right - a * cost        a = the run's cost weight

The cost is that of the candidates asked, as a share of the cost of all of them. Going
backwards from the last candidate, the threshold after each reply is the one with the highest mean
utility over recorded questions: where a reader is surer than it, it stops.

Shapes: K candidates in the order in which they are asked, N questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALWAYS = float(np.finfo(float).min)
"""The threshold at which every answer is enough; without an answer (-inf), a reader asks on."""


@dataclass(frozen=True)
class Point:
    """The behaviour of a reader with given thresholds: means over questions.

    Attributes:
        exact_match: in [0, 1].
        cost: as a share of the cost of all candidates together.
        calls: how many candidates are asked.
    """

    exact_match: float
    cost: float
    calls: float


def thresholds(
    sure: np.ndarray, right: np.ndarray, costs: np.ndarray, cost_weight: float
) -> np.ndarray:
    """Return the sureness from which on a reader stops after each reply, length K.

    Args:
        sure: K x N, how sure it was after each reply, on questions that it was not fitted to;
            minus infinity where it had no answer.
        right: K x N, whether the answer that it would have given was right.
        costs: length K, the cost of each candidate.
        cost_weight: in [0, 1].

    Returns:
        Infinite where it always goes on, `ALWAYS` where any answer is enough, and minus infinity
        after the last reply.
    """
    total = costs.sum()
    shares = costs / total if total > 0 else np.zeros_like(costs)
    stop_at = np.full(len(costs), ALWAYS)
    stop_at[-1] = -np.inf
    value = (1 - cost_weight) * right[-1]
    for k in reversed(range(len(costs) - 1)):
        stopped = (1 - cost_weight) * right[k]
        gone_on = value - cost_weight * shares[k + 1]
        surest_first = np.argsort(-sure[k], kind="stable")
        ordered = sure[k][surest_first]
        # What is gained if the first m stop; only between different values can a threshold lie.
        gains = np.concatenate([[0.0], np.cumsum((stopped - gone_on)[surest_first])])
        can_split = np.concatenate([[True], ordered[:-1] > ordered[1:], [True]])
        best = int(np.flatnonzero(can_split)[gains[can_split].argmax()])
        if best == 0:
            stop_at[k] = np.inf
        elif best < len(ordered):
            stop_at[k] = max((ordered[best - 1] + ordered[best]) / 2, ALWAYS)
        value = np.where(sure[k] >= stop_at[k], stopped, gone_on)
    return stop_at


def stops(sure: np.ndarray, stop_at: np.ndarray) -> np.ndarray:
    """Return the reply, from 0, after which a reader stops on each question; length N."""
    return np.asarray((sure >= stop_at[:, None]).argmax(axis=0))


def walk(sure: np.ndarray, right: np.ndarray, costs: np.ndarray, stop_at: np.ndarray) -> Point:
    """Return the effect of thresholds on recorded questions; see `thresholds` for the arguments."""
    last = stops(sure, stop_at)
    spent = np.cumsum(costs)
    share = spent[last].mean() / spent[-1] if spent[-1] > 0 else 0.0
    found = right[last, np.arange(right.shape[1])].mean()
    return Point(float(found), float(share), float(last.mean() + 1))
