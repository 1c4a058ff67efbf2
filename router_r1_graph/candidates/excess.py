"""The most that a call should bring, and by how much calls of an unfair provider exceeded it.

An unfair provider ignores `max_tokens`, or charges more than its list price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..outside import count

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""The limit of tokens under the names that a body may have for it."""


def most_written(options: Mapping[str, Any], max_tokens: int) -> int:
    """Return the most tokens that a request brings: its options may ask for several replies."""
    body = options.get("extra_body")
    sent = {**options, **(body if isinstance(body, Mapping) else {})}
    limits = (count(sent.get(name)) or 0 for name in _LIMITS)
    return max(max_tokens, *limits) * max(1, count(sent.get("n")) or 1)


@dataclass
class Excess:
    """How much more expensive calls have been than their worst case by list prices."""

    factor: float = 1.0
    """The most, as a multiple of the worst case."""
    usd: float = 0.0
    """The most of a call whose worst case was 0."""

    def worst_usd(self, fair_usd: float) -> float:
        """Return the worst case of a call, from the most that it should cost."""
        return max(fair_usd * self.factor, self.usd)

    def learn(self, cost_usd: float, fair_usd: float) -> bool:
        """Raise the next worst case if a call cost more than any before; return whether it did.

        Args:
            cost_usd: its cost.
            fair_usd: the most that it should have cost.
        """
        if cost_usd <= self.worst_usd(fair_usd) * (1 + 1e-9):
            return False
        if fair_usd:
            self.factor = cost_usd / fair_usd
        else:
            self.usd = cost_usd
        return True
