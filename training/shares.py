"""The shares of candidates in the calls of a training: by name, or by price if names vary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from router_r1_graph import CandidatePool, Trace

from .items import Item

_MOST_NAMES = 12
"""With more names than a picture can tell apart, candidates go by their place in the prices."""
_BY_PRICE = ("cheapest", "in between", "most expensive")


class Shares:
    """Counts calls by candidate.

    A pool file whose names stay has a line for each candidate. In pools that are drawn anew, or
    whose names vary, a candidate is the cheapest of its pool, the most expensive, or in between.

    Args:
        items: the questions; their pools decide between names and prices.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        pools = {id(item.pool): item.pool for item in items}.values()
        names = list(dict.fromkeys(c.name for pool in pools for c in pool.candidates))
        self.by_name = len(names) <= _MOST_NAMES
        self.labels = tuple(names) if self.by_name else _BY_PRICE

    def of_calls(self, trace: Trace) -> list[str]:
        """Return the label of each call of a trace."""
        if self.by_name:
            return [call.candidate for call in trace.calls]
        places = _by_price(trace.pool)
        return [places[call.candidate] for call in trace.calls]

    def __call__(self, traces: Sequence[Trace]) -> dict[str, float]:
        """Return the share of all calls that each label has; {} if no candidate was asked."""
        asked = Counter(label for trace in traces for label in self.of_calls(trace))
        every = asked.total()
        return {label: asked[label] / every for label in self.labels} if every else {}


def _by_price(pool: CandidatePool) -> dict[str, str]:
    ordered = pool.by_price
    lowest, between, highest = _BY_PRICE
    return {c.name: between for c in ordered} | {ordered[-1].name: highest, ordered[0].name: lowest}
