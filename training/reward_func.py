"""TRL's reward function: traces in, one number for each out, the parts into the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from accelerate.utils import gather_object

from router_r1_graph import Trace
from router_r1_graph.ledger import price_usd, total

from .credit import Judged
from .judge import Judge
from .outcomes import judgement_of
from .shares import Shares


class Reward:
    """TRL's reward function over traces."""

    __name__ = "router_r1"

    def __init__(self, judge: Judge, shares: Shares) -> None:
        self.judge = judge
        self.shares = shares
        self.judged: list[Judged | None] = []
        """The parts of the last traces' credit; None = left out."""

    def __call__(
        self, prompts: Sequence[str], trace: Sequence[Trace], left_out: Sequence[str], **kwargs: Any
    ) -> list[float | None]:
        """Return one number for each trace, None for one to leave out, and log the parts."""
        rewarded = [None if why else one for one, why in zip(trace, left_out, strict=True)]
        parts = [one and self.judge(one) for one in rewarded]
        self.judged = [
            self.judge.by_turn(one, part) if one and part else None
            for one, part in zip(rewarded, parts, strict=True)
        ]
        # Of all processes, so that each judges by the same scale.
        kept = [one for one in rewarded if one]
        self.judge.observe(gather_object(self.judge.costs(kept)))
        if log := kwargs.get("log_metric"):
            there = [part for part in parts if part]
            functions = self.judge.config.functions
            logged_as = {"cost": "cheapness"} | ({} if functions else {"outcome": "exact_match"})
            for name in ("format", "outcome", "cost", "total"):
                for part in there:
                    log(logged_as.get(name, name), getattr(part, name))
            for one in kept:
                for name, value in judgement_of(one).get("parts", {}).items():
                    log(f"outcome/{name}", value)
                log("calls", len(one.calls))
                log("failed_calls", sum(not call.ok for call in one.calls))
                bill = total(one.ledger)
                log("stored_calls", bill.get("stored_calls", 0))
                log("saved_usd", bill.get("saved_usd", 0.0))
                log("cost_usd", price_usd(bill))
                for asked in self.shares.of_calls(one):
                    for label in self.shares.labels:
                        log(f"share/{label}", float(label == asked))
            log("left_out", fmean(map(bool, left_out)))
            for name in ("usd", "graph_seconds", "generate_seconds"):
                log(name, kwargs[name][0])
        return [part.total if part else None for part in parts]
