"""What came of the questions of a run, number by number: of a policy, a control or the oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from router_r1_graph import StopReason, Trace
from router_r1_graph.answers import exact_match
from router_r1_graph.cost_scales import AbsoluteCost
from router_r1_graph.ledger import total
from router_r1_graph.rewards import reward
from training.config import load_config

from .policy_questions import Asked


@cache
def rules() -> tuple[AbsoluteCost, bool]:
    """Return the cost scale of smollm2.yaml, and whether its reward is gated."""
    config = load_config(Path(__file__).parent.parent / "training" / "configs" / "smollm2.yaml")
    return AbsoluteCost(config.reward.usd, floor=config.reward.floor), config.reward.gated


@dataclass(frozen=True)
class Column:
    """N questions, in the order of the run; every column of a run has the same ones.

    Attributes:
        name: who was asked.
        exact_match: 0 or 1 each, length N, of what the controller wrote.
        cost_usd: length N, what candidates and controller cost.
        calls: length N.
        reward: length N, by the reward rules of smollm2.yaml at the run's cost weight.
        asked: for each question, how often each candidate was called.
        format: the share of runs in the right format.
        failed: how many runs ended in an error of the controller.
    """

    name: str
    exact_match: np.ndarray
    cost_usd: np.ndarray
    calls: np.ndarray
    reward: np.ndarray
    asked: tuple[Counter[str], ...]
    format: float = 1.0
    failed: int = 0

    @classmethod
    def of(cls, name: str, traces: Sequence[Trace]) -> Column:
        """Return the column of traces with gold answers."""
        scale, gated = rules()
        parts = [reward(trace, scale, gated=gated) for trace in traces]
        return cls(
            name,
            np.array([part.outcome for part in parts]),
            np.array([total(trace.ledger)["cost_usd"] for trace in traces]),
            np.array([float(len(trace.calls)) for trace in traces]),
            np.array([part.total for part in parts]),
            tuple(Counter(call.candidate for call in trace.calls) for trace in traces),
            float(np.mean([part.format for part in parts])),
            sum(trace.stop_reason == StopReason.CONTROLLER_ERROR for trace in traces),
        )

    @classmethod
    def oracle(cls, asked: Sequence[Asked]) -> Column:
        """Return the highest reward that can be reached at the run's cost weight.

        For each question that is the cheapest way to the right answer that `best_plan` finds: it
        really asks every simulated candidate, and a lucky guess does not count. Where there is
        none, or where its reward is below 0, which is that of "unknown" for nothing, nobody is
        asked.
        """
        scale, _ = rules()
        rows = []
        for one in asked:
            plan, alpha = one.plan(), one.item.context.cost_weight
            worth = (1 - alpha) + alpha * scale.score(plan.cost_usd)
            right = plan.reachable and worth > 0 and exact_match(plan.answer, one.item.gold) == 1
            calls = [call for calls in plan.rounds for call in calls] if right else []
            cost = plan.cost_usd if right else 0.0
            rows.append((float(right), cost, calls, worth if right else 0.0))
        return cls(
            "oracle",
            np.array([right for right, *_ in rows]),
            np.array([cost for _, cost, *_ in rows]),
            np.array([float(len(calls)) for *_, calls, _ in rows]),
            np.array([worth for *_, worth in rows]),
            tuple(Counter(name for name, _ in calls) for *_, calls, _ in rows),
        )

    @property
    def top(self) -> tuple[str, float]:
        """The most-asked candidate and its share of the calls."""
        every = sum(self.asked, Counter[str]())
        ((name, calls),) = every.most_common(1) or [("nobody", 0)]
        return name, calls / max(1, every.total())

    def __str__(self) -> str:
        failed = f"  {self.failed} FAILED" if self.failed else ""
        return (
            f"exact match {self.exact_match.mean():.3f}  format {self.format:.3f}  USD / 1,000 "
            f"{1000 * self.cost_usd.mean():.4f}  calls {self.calls.mean():.2f}  reward "
            f"{self.reward.mean():+.3f}  most asked {self.top[0]} {self.top[1]:.0%}{failed}"
        )
