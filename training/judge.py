"""The reward of a training run: its rules from the config, and its own cost scale."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from router_r1_graph import Trace, TraceError
from router_r1_graph.call_records import CallRecord
from router_r1_graph.cost_scales import AbsoluteCost, CostScale, PercentileCost
from router_r1_graph.files import write_whole
from router_r1_graph.rewards import RewardBreakdown, reward

from .credit import Judged
from .outcomes import judgement_of
from .reward_config import RewardConfig


class Judge:
    """Judges the traces of one training run.

    The scale of `percentile` looks back over the run's own episodes. Only `observe` moves it, never
    judging. A resumed run takes that of its checkpoint.

    Args:
        config: the rules.
        file: the file of the scale, for people; None = it is not written.
    """

    def __init__(self, config: RewardConfig, file: Path | None = None) -> None:
        self.config = config
        self.file = file
        self.scale: CostScale
        if config.scale == "absolute":
            self.scale = AbsoluteCost(config.usd, floor=config.floor)
        else:
            self.scale = PercentileCost()

    def __call__(self, trace: Trace) -> RewardBreakdown:
        """Return the reward of a trace and its parts.

        Raises:
            TraceError: there is no gold answer, or the reward functions have not judged it.
        """
        rules = self.config
        outcome = judgement_of(trace).get("outcome") if rules.functions else None
        if rules.functions and outcome is None:
            raise TraceError(f"trace {trace.id!r}: the reward functions have not judged it")
        return reward(trace, self.scale, metric=rules.metric, outcome=outcome, gated=rules.gated)

    def by_turn(self, trace: Trace, parts: RewardBreakdown) -> Judged:
        """Return the parts of a trace's credit.

        Args:
            trace: a finished run.
            parts: its reward.
        """
        turns = range(max(1, len(trace.turns)))
        paid = [call for call in trace.calls if not call.cached]
        return Judged(
            trace.context.cost_weight,
            -1.0 if parts.errors else parts.outcome,
            tuple(self.scale.score(self.scale.measure(trace, turn)) for turn in turns),
            tuple(sum(map(_price, (c for c in paid if c.round > turn))) for turn in turns),
        )

    def costs(self, traces: Sequence[Trace]) -> list[float]:
        """Return the costs of traces, in the scale's unit."""
        return [self.scale.measure(trace) for trace in traces]

    def observe(self, costs: Iterable[float]) -> None:
        """Let the scale see training episodes."""
        if isinstance(self.scale, PercentileCost):
            for cost in costs:
                self.scale.observe(cost)

    def fix(self, costs: Sequence[float]) -> None:
        """Have a scale that stays: from no cost to the highest of the first ones that are not 0.

        Before, everything costs nothing, and its cheapness is 1; on the scale, it still is.
        """
        if not self.state().get("seen") and any(cost > 0 for cost in costs):
            self.observe([*[0.0] * len(costs), *costs])

    def state(self) -> dict[str, Any]:
        """Return the state for `restore`: built-in types."""
        return self.scale.state() if isinstance(self.scale, PercentileCost) else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take a scale that was kept."""
        if isinstance(self.scale, PercentileCost) and state:
            self.scale = PercentileCost(**state)

    def save(self) -> None:
        """Write the scale to its file."""
        if self.file is not None and isinstance(self.scale, PercentileCost):
            write_whole(self.file, json.dumps(self.state()))


def _price(call: CallRecord) -> float:
    return call.cost_usd + call.saved_usd
