"""The candidates' endpoints in /metrics: retries, hedges, fallbacks, limits and breakers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..candidates import CandidatePool
from ..candidates.resilience.counts import Event, counted
from ..candidates.resilience.status import Status, status_of
from ..errors import ConfigError

logger = logging.getLogger(__name__)

_COUNTED: dict[str, tuple[Event, str]] = {
    "retries": ("retries", "Attempts after one that failed, by candidate"),
    "hedges": ("hedges", "Requests that were made beside a slow one, by candidate"),
    "fallbacks": ("fallbacks", "Calls after which another candidate was asked, by candidate"),
    "breaker_refusals": ("refused_by_breaker", "Calls that the breaker refused, by candidate"),
    "breaker_probes": ("probes", "Requests that tried a half-open breaker, by candidate"),
    "limit_wait_seconds": ("wait_seconds", "Seconds that calls waited for limits, by candidate"),
}
_BREAKER = {"closed": 0, "half_open": 1, "open": 2}


class EndpointCollector:
    """Reads the status of the endpoints at each request for metrics, and not before.

    Args:
        pool: the candidates.
    """

    def __init__(self, pool: CandidatePool) -> None:
        self._pool = pool

    def describe(self) -> list[Metric]:
        """Return nothing: the registry would else read all stores."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        names = [candidate.name for candidate in self._pool.candidates]
        for metric, (event, what) in _COUNTED.items():
            family = CounterMetricFamily(f"router_r1_{metric}", what, labels=["candidate"])
            for name in names:
                family.add_metric([name], counted(name, event))
            yield family
        breaker = GaugeMetricFamily(
            "router_r1_breaker_state", "0 = closed, 1 = half-open, 2 = open", labels=["candidate"]
        )
        under_way = GaugeMetricFamily(
            "router_r1_attempts_under_way", "Places taken, by candidate", labels=["candidate"]
        )
        waiting = GaugeMetricFamily(
            "router_r1_calls_waiting", "Calls that wait for a place", labels=["candidate"]
        )
        for candidate in self._pool.candidates:
            try:
                status = status_of(candidate)
            except (ConfigError, OSError) as error:
                logger.warning("the limits of %s cannot be read: %s", candidate.name, error)
                status = Status()
            breaker.add_metric([candidate.name], _BREAKER[status.breaker])
            under_way.add_metric([candidate.name], status.under_way)
            waiting.add_metric([candidate.name], status.waiting)
        yield from (breaker, under_way, waiting)
