"""The order in which a reader asks candidates."""

from __future__ import annotations

import numpy as np

from ...answers import bare_answer, contains, exact_match
from .recorded import RecordedReplies

_ORDER_WEIGHT = 0.1
"""The cost weight for which the order is made. If a call costs more than a reply can add, the
reader stops at the first one anyway, so the order matters at low weights."""


def asking_order(recorded: RecordedReplies, costs: np.ndarray) -> list[int]:
    """Return the candidates' columns in the order in which they are asked.

    The first is the one whose own answers are right most often. Then comes, again and again, the
    one with the most right answers in its replies where no earlier reply holds one. Both are
    weighed against the cost at `_ORDER_WEIGHT`.
    """
    own, held = (
        np.array(
            [
                [float(rule(reply, gold)) for reply in replies]
                for replies, gold in zip(recorded.replies, recorded.gold, strict=True)
            ]
        )
        for rule in (_states, contains)
    )
    prices = _ORDER_WEIGHT * costs / (costs.sum() or 1.0)
    order = [int(((1 - _ORDER_WEIGHT) * own.mean(axis=0) - prices).argmax())]
    while len(order) < len(costs):
        new = held * (1 - held[:, order].max(axis=1, keepdims=True))
        worth = (1 - _ORDER_WEIGHT) * new.mean(axis=0) - prices
        worth[order] = -np.inf
        order.append(int(worth.argmax()))
    return order


def _states(reply: str, gold: tuple[str, ...]) -> float:
    return exact_match(bare_answer(reply), gold)
