"""Gaps in scores, in sentences for the person who fits a controller on them."""

from __future__ import annotations

import numpy as np

from ...words import counted
from .costs import mean_costs
from .folder import some
from .matrix import ScoreMatrix


def doubts(matrix: ScoreMatrix) -> list[str]:
    """Return sentences about the numbers: the scores, costs and prices that are missing."""
    names = matrix.names
    scored = (~np.isnan(matrix.scores)).sum(axis=0)
    rows = len(matrix.questions)
    told = []
    if missing := int((rows - scored).sum()):
        least = int(scored.argmin())
        told.append(
            f"{counted(missing, 'score')} of {rows * len(names):,} missing ({names[least]} has "
            f"{scored[least]} of {rows}): each mean is over the scores that there are"
        )
    costs, source = mean_costs(matrix)
    without = np.isnan(matrix.costs_usd).all(axis=0)
    uncosted = [name for name, none in zip(names, without, strict=True) if none]
    no_costs = "no costs" if without.all() else f"no costs of {some(uncosted)}"
    if len(names) == 1:
        return told
    if costs.max() == costs.min():
        alike = source == "measured" or costs.any()
        why = "all candidates cost the same" if alike else f"{no_costs} and no prices"
        told.append(f"{why}: the cost weight has no effect")
    elif source == "prices":
        if not without.all():
            told.append(f"{no_costs}: prices for a million tokens count instead of all costs")
        if unpriced := [c.name for c in matrix.pool.candidates if not c.priced]:
            told.append(f"no price of {some(unpriced)}: counts as free")
    return told
