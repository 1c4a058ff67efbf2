"""The credit of each trace of a group: the advantage of GRPO, computed over the whole group.

Outcome and cost are normalised separately. In a sum of both, the costs of two right answers differ
by less than the noise of right and wrong, and normalising the sum hides the difference
(docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

import torch

_EPSILON = 1e-4  # as in TRL's normalisation
_NO_SPREAD = 0.05
"""Costs that differ by less than this share of their mean are noise of the replies' lengths. A
spread of cheapness below it has next to no worth. So neither is scaled up to a full signal."""


@dataclass(frozen=True)
class Judged:
    """The parts of a trace's credit; picklable, as the processes exchange it.

    Attributes:
        cost_weight: the paper's alpha, in [0, 1].
        outcome: -1 if the format is wrong, else in [0, 1].
        cheapness: for each turn, how cheap the calls from this turn on are, by the run's scale.
        usd: for each turn, the cost of these calls.
    """

    cost_weight: float
    outcome: float
    cheapness: tuple[float, ...]
    usd: tuple[float, ...]


def credit_of_groups(judged: Sequence[Judged | None], size: int) -> list[list[float]]:
    """Return the credit of each turn of each trace.

    A trace earns `(1 - a) * z(outcome)`, and a right one `a` times a bonus: its cheapness above
    that of the most expensive right trace, in standard deviations of the right traces, times its
    outcome where this is graded. So at no cost weight is a right answer worth less than a wrong
    one. A turn is compared with the same turn
    of the other traces. In each turn, the credit of a group sums to 0.

    Args:
        judged: the traces, group after group; None = left out of its group.
        size: the number of traces in a group.

    Returns:
        For each trace the credit of its turns; the first is that of the whole trace. [0] for a
        trace that is left out.
    """
    credit: list[list[float]] = []
    for start in range(0, len(judged), size):
        credit += _credit(judged[start : start + size])
    return credit


def _credit(group: Sequence[Judged | None]) -> list[list[float]]:
    traces = {place: one for place, one in enumerate(group) if one is not None}
    credit = [[0.0] * len(one.cheapness) if one else [0.0] for one in group]
    if not traces:
        return credit
    worth = _normalised({place: one.outcome for place, one in traces.items()})
    right = {place: one for place, one in traces.items() if one.outcome > 0}
    for turn in range(max(len(one.cheapness) for one in traces.values())):
        bonus = _bonus(
            {
                place: (one.cheapness[turn], one.usd[turn])
                for place, one in right.items()
                if turn < len(one.cheapness)
            }
        )
        earned = {
            place: (1 - one.cost_weight) * worth[place]
            + one.cost_weight * one.outcome * bonus.get(place, 0.0)
            for place, one in traces.items()
            if turn < len(one.cheapness)
        }
        mean = fmean(earned.values())
        for place, earns in earned.items():
            credit[place][turn] = earns - mean
    return credit


def _bonus(costs: Mapping[int, tuple[float, float]]) -> dict[int, float]:
    """Return how much cheaper each is than the most expensive, from its cheapness and its USD."""
    if len(costs) < 2:
        return dict.fromkeys(costs, 0.0)
    cheapness = [cheap for cheap, _ in costs.values()]
    usd = [paid for _, paid in costs.values()]
    mean = fmean(usd)
    share = min(1.0, pstdev(usd) / mean / _NO_SPREAD) if mean else 0.0
    unit = max(pstdev(cheapness), _NO_SPREAD)
    return {place: share * (cheap - min(cheapness)) / unit for place, (cheap, _) in costs.items()}


def _normalised(values: Mapping[int, float]) -> dict[int, float]:
    mean, spread = fmean(values.values()), pstdev(values.values())
    return {place: (value - mean) / (spread + _EPSILON) for place, value in values.items()}


def of_tokens(credit: Sequence[Sequence[float]], mask: torch.Tensor) -> torch.Tensor:
    """Spread the credit of each turn over its tokens.

    Args:
        credit: for each row, the credit of its turns.
        mask: (rows, tokens): 1 on the policy's tokens; each run of ones is a turn.

    Returns:
        (rows, tokens), 0 outside of turns.
    """
    begins = mask.diff(dim=1, prepend=torch.zeros_like(mask[:, :1])) > 0
    turn = (begins.cumsum(dim=1) - 1).clamp(min=0)
    table = torch.nn.utils.rnn.pad_sequence([torch.tensor(turns) for turns in credit], True)
    # A row whose mask has more turns than it has credit for would read past the table.
    turn = turn.clamp(max=table.shape[1] - 1)
    return table.to(mask.device).gather(1, turn) * mask
