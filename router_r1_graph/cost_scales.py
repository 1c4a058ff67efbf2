"""Cost scales: from the cost of a trace to cheapness in [0, 1]. Pure functions, no torch.

Every result is finite, for any input.

Source: arXiv 2506.09033, section 3 (PAPER.md, section Reward).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import ConfigError
from .ledger import price_usd
from .trace import Trace


class CostScale(Protocol):
    """Turns the cost of a trace into cheapness."""

    def measure(self, trace: Trace, from_turn: int = 0) -> float:
        """Return the raw cost of a trace, in this scale's unit.

        Args:
            trace: a finished run.
            from_turn: only what is spent from this turn on, counted from 0.
        """
        ...

    def score(self, cost: float) -> float:
        """Return how cheap a raw cost is, in [0, 1]; 0 for one that is not a number.

        Changes nothing.
        """
        ...


class PercentileCost:
    """The paper's scale: z between the 5th and 95th percentile of the last training episodes.

    z = sqrt(sum over calls of completion tokens * USD per million output tokens); a price per call,
    which the paper does not have, counts in the same unit. One object serves one training run;
    `observe` is for training only, so that evaluation never moves the scale.

    Args:
        window: how many episodes it looks back.
        seen: z of earlier episodes, to continue after a resume.
        controller: whether the controller's own cost counts too, in the same unit (micro-USD under
            the root).

    Raises:
        ConfigError: the window holds no episode.
    """

    def __init__(
        self, window: int = 1000, seen: Iterable[float] = (), *, controller: bool = False
    ) -> None:
        if window < 1:
            raise ConfigError(f"window is a number of episodes of at least 1, not {window!r}")
        self.window = window
        self.controller = controller
        self._seen: deque[float] = deque(maxlen=window)
        for cost in seen:
            self.observe(cost)

    def measure(self, trace: Trace, from_turn: int = 0) -> float:
        """Return z, of the calls from a turn on."""
        paid = sum(
            call.output_tokens * (candidate.output_usd_per_mtok or 0.0)
            + (call.ok and not call.cached) * (candidate.usd_per_call or 0.0) * 1e6
            for call in trace.calls
            if call.round > from_turn and (candidate := trace.pool.find(call.candidate))
        )
        if self.controller and not from_turn:
            paid += price_usd(trace.ledger["controller"]) * 1e6
        return math.sqrt(paid) if paid >= 0 else math.nan

    def observe(self, cost: float) -> None:
        """Add a training episode to the window; a cost that is no finite number is left out."""
        if math.isfinite(cost):
            self._seen.append(cost)

    def score(self, cost: float) -> float:
        """Return 1 - clip((z - p5) / (p95 - p5), 0, 1).

        Before any episode is seen, it is 1. While all episodes cost the same, it is 1 up to this
        cost, and 0 above.
        """
        if math.isnan(cost):
            return 0.0
        if not self._seen:
            return 1.0
        ordered = sorted(self._seen)
        low, high = percentile(ordered, 5), percentile(ordered, 95)
        if high <= low:
            return float(cost <= low)
        return 1.0 - min(1.0, max(0.0, (cost - low) / (high - low)))

    def state(self) -> dict[str, Any]:
        """Return what `PercentileCost(**state)` continues from: built-in types, as for JSON."""
        return {"window": self.window, "seen": list(self._seen), "controller": self.controller}


@dataclass(frozen=True)
class AbsoluteCost:
    """An absolute scale: the ledger's USD as a share of a fixed amount.

    Attributes:
        usd: the cost at which cheapness is 0; above 0.
        controller: whether the controller's own cost counts too.
        floor: the lowest score; 0 or below. At 0, all costs above `usd` score the same, so that at
            a cost weight of 0.5 no price is too high for a right answer. At -1, the score still
            falls up to twice `usd`.
    """

    usd: float
    controller: bool = False
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Check the amount.

        Raises:
            ConfigError: it is no number above 0, or the floor is above 0.
        """
        if not 0 < self.usd < math.inf:
            raise ConfigError(f"usd is a number above 0, not {self.usd!r}")
        if not -math.inf < self.floor <= 0:
            raise ConfigError(f"floor is a number of 0 or below, not {self.floor!r}")

    def measure(self, trace: Trace, from_turn: int = 0) -> float:
        """Return the USD of a trace: all tokens as billed, and stored replies as if they were."""
        if from_turn:
            later = [call for call in trace.calls if call.round > from_turn and not call.cached]
            return sum(call.cost_usd + call.saved_usd for call in later)
        paid = sum(price_usd(line) for line in trace.ledger["candidates"].values())
        return paid + (price_usd(trace.ledger["controller"]) if self.controller else 0.0)

    def score(self, cost: float) -> float:
        """Return 1 - cost / usd, and no less than the floor."""
        if math.isnan(cost):
            return self.floor
        return max(self.floor, 1.0 - max(0.0, cost / self.usd))


def percentile(values: Iterable[float], percent: float) -> float:
    """Return a percentile with linear interpolation, as numpy does by default.

    Example:
        >>> percentile([1, 2, 3, 4], 50)
        2.5
    """
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
