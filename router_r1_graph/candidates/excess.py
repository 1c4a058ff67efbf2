"""The amount by which calls of an unfair provider have exceeded their worst case.

An unfair provider ignores `max_tokens`, or charges more than its list price.
"""

from __future__ import annotations

from dataclasses import dataclass


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
