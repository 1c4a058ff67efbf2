"""The cost of a candidate, and the worth of a score against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from ...candidates import Candidate
from ..step import AgentStep
from .matrix import ScoreMatrix
from .prediction import candidate_means

CostSource = Literal["measured", "prices"]


def mean_costs(matrix: ScoreMatrix) -> tuple[np.ndarray, CostSource]:
    """Return each candidate's cost, length C, and its source."""
    measured = candidate_means(matrix.costs_usd)
    if not np.isnan(measured).any():
        return measured, "measured"
    prices = [candidate.price_usd_per_mtok for candidate in matrix.pool.candidates]
    return np.array(prices, dtype=float), "prices"


def utility(
    scores: np.ndarray, spent: np.ndarray, costs: np.ndarray, cost_weight: float
) -> np.ndarray:
    """Return (1 - a) * score - a * cost, N x C.

    The cost is scaled so that the lowest of `costs` (length C) is 0 and the highest 1; it is 0 if
    all cost the same.
    """
    low, high = costs.min(), costs.max()
    share = (spent - low) / (high - low) if high > low else np.zeros_like(spent)
    return np.asarray((1 - cost_weight) * scores - cost_weight * share)


def step_utility(
    scores: np.ndarray,
    step: AgentStep,
    candidates: Sequence[Candidate],
    least_unit: float,
    cost_weight: float,
) -> np.ndarray:
    """Return the utilities, length C, of an agent's step, whose costs depend on the prompt caches.

    A small extra cost for a better candidate weighs little, and a cold cache weighs as much as it
    costs. The unit of cost is the range of the step's costs with cold caches, or
    `least_unit`, whichever is more: a step's length alone is no reason for a weaker candidate.

    Args:
        scores: the predicted ones, length C.
        step: the step to be answered.
        candidates: the C on offer.
        least_unit: USD; the range of mean costs in the fit, 0 where they were not measured.
        cost_weight: 0 to 1.
    """
    costs = np.array([step.cost_usd(candidate) for candidate in candidates])
    cold = replace(step, warm_tokens={})
    unit = max(least_unit, np.ptp([cold.cost_usd(candidate) for candidate in candidates]))
    weighed = (costs - costs.min()) / unit if unit else np.zeros_like(costs)
    return np.asarray((1 - cost_weight) * scores - cost_weight * weighed)


def best_column(utilities: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return the column with the highest utility, for each row; of equals the cheaper, the first.

    Args:
        utilities: ... x C.
        costs: length C.
    """
    order = np.argsort(costs, kind="stable")
    return np.asarray(order[utilities[..., order].argmax(axis=-1)])
