"""Questions asked at several cost weights, on all processes, and the means of their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from accelerate.utils import gather_object

from router_r1_graph import Trace
from router_r1_graph.cost_scales import AbsoluteCost
from router_r1_graph.evaluation.statistics import Bootstrap
from router_r1_graph.ledger import price_usd, total
from router_r1_graph.rewards import reward

from .items import Item
from .models import processes
from .outcomes import judgement_of

Numbers = dict[str, float]
"""A line of metrics, or a row of the report."""


def at_weights(items: Iterable[Item], weights: Sequence[float]) -> list[Item]:
    """Return every item at every cost weight, in place of its own."""
    return [
        replace(item, context=replace(item.context, cost_weight=weight))
        for item in items
        for weight in weights
    ]


def share_out(
    items: Sequence[Item], ask: Callable[[Sequence[Item]], Sequence[Trace]]
) -> list[Trace]:
    """Share items out over all processes; return all traces, in the items' order, on each.

    Args:
        items: the same ones on every process.
        ask: runs the items of one process, and returns their traces in order.
    """
    here = processes()
    every: list[tuple[int, Trace]] = gather_object(
        [
            (place * here.num_processes + here.process_index, trace)
            for place, trace in enumerate(ask(items[here.process_index :: here.num_processes]))
        ]
    )
    return [trace for _, trace in sorted(every, key=lambda pair: pair[0])]


def by_weight(traces: Sequence[Trace]) -> dict[float, list[Trace]]:
    """Return the traces of each cost weight, lowest first."""
    weights = sorted({trace.context.cost_weight for trace in traces})
    return {w: [t for t in traces if t.context.cost_weight == w] for w in weights}


def means(traces: Sequence[Trace]) -> Numbers:
    """Return the means over traces; a stored reply counts at its price.

    `exact_match` is over those with gold answers, `outcome` over those with a judgement.
    """
    bills = [total(trace.ledger) for trace in traces]
    scale = AbsoluteCost(1.0)
    matches = [reward(trace, scale).outcome for trace in traces if trace.gold]
    worth = [worth for trace in traces if (worth := judgement_of(trace).get("outcome")) is not None]
    return {
        **({"outcome": fmean(worth)} if worth else {}),
        **({"exact_match": fmean(matches)} if matches else {}),
        "cost_usd": fmean(map(price_usd, bills)),
        "format": fmean(reward(trace, scale, outcome=0.0).format for trace in traces),
        "calls": fmean(bill["calls"] for bill in bills),
        "rounds": fmean(trace.rounds for trace in traces),
    }


def summary(traces: Sequence[Trace]) -> Numbers:
    """Return the means over the traces of different questions, two of them with 95% intervals.

    The ends of the interval of `exact_match` are `exact_match_low` and `exact_match_high`.
    """
    each = [means([trace]) for trace in traces]
    bootstrap = Bootstrap(len(traces))
    numbers = {"questions": len(traces), **means(traces)}
    for name in ("outcome", "exact_match", "cost_usd"):
        if not all(name in one for one in each):
            continue
        interval = bootstrap.mean([one[name] for one in each])
        numbers |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return numbers


def best_step(rewards: Mapping[int, float]) -> int | None:
    """Return the validated step with the highest reward, the last of equal ones; None = none."""
    return max(rewards, key=lambda step: (rewards[step], step), default=None)
