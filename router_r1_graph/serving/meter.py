"""The cost of served runs, counted while they run, even if they bring no answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.types import Command
from prometheus_client import CollectorRegistry, Counter

from ..budget import StopReason
from ..candidates.tool import CANDIDATE_TAG
from ..errors import ControllerError
from ..ledger import LedgerLine, new_ledger

_CONTROLLER = "controller"
"""The label of the controller's turns."""


class Metrics:
    """The counters of calls and money on /metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        of: dict[str, Any] = {"namespace": "router_r1", "registry": registry}
        self.usd = Counter("cost_usd", "USD paid, whether or not a client got an answer", **of)
        self.uncertain_usd = Counter(
            "uncertain_usd",
            "The most that attempts cost whose price is unknown, by candidate or controller",
            ["candidate"],
            **of,
        )
        self.calls = Counter("calls", "Calls, by candidate", ["candidate"], **of)
        self.failed_calls = Counter(
            "failed_calls", "Calls that failed, by candidate and kind", ["candidate", "kind"], **of
        )
        self.stop_reasons = Counter(
            "stop_reasons", "Questions, by why their run ended", ["reason"], **of
        )


class Meter(BaseCallbackHandler):
    """Counts the calls and the money of one request's run; `close` counts what is still open."""

    run_inline = True

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._usd = 0.0
        self._uncertain_usd: dict[str, float] = {}  # by candidate or controller
        self._turns: dict[UUID | None, LedgerLine] = {}  # the bill so far, by the run of the graph
        self._begun: dict[UUID, str] = {}
        self._lock = threading.Lock()

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Note a call that begins."""
        if CANDIDATE_TAG in (tags or ()):
            self._begun[run_id] = str((metadata or {}).get("candidate", ""))

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """Count a call that has ended."""
        bill = getattr(output, "artifact", None)
        if self._begun.pop(run_id, None) is None or not isinstance(bill, Mapping):
            return
        self.metrics.calls.labels(bill["candidate"]).inc()
        if error := bill["error"]:
            self.metrics.failed_calls.labels(bill["candidate"], error["kind"]).inc()
        self._pay(bill["cost_usd"])
        self._doubt(bill["candidate"], bill.get("uncertain_usd", 0.0))

    def on_chain_end(
        self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **_: Any
    ) -> None:
        """Count the cost of a controller's turn, by the ledger that the node returns."""
        update: Any = outputs.update if isinstance(outputs, Command) else outputs
        if not isinstance(update, Mapping) or parent_run_id is None or "stop_reason" in update:
            return
        if not (ledger := update.get("ledger")):
            return
        now: LedgerLine = ledger["controller"]
        with self._lock:
            known = self._turns.get(parent_run_id, new_ledger()["controller"])
            self._turns[parent_run_id] = now
        self._pay(now["cost_usd"] - known["cost_usd"])
        self._doubt(_CONTROLLER, now.get("uncertain_usd", 0.0) - known.get("uncertain_usd", 0.0))

    def _pay(self, usd: float) -> None:
        if usd > 0:
            self._usd += usd
            self.metrics.usd.inc(usd)

    def _doubt(self, who: str, usd: float) -> None:
        if usd > 1e-12:  # less is a rounding error of additions
            self._uncertain_usd[who] = self._uncertain_usd.get(who, 0.0) + usd
            self.metrics.uncertain_usd.labels(who).inc(usd)

    def close(
        self,
        stop_reason: str,
        cost_usd: float = 0.0,
        candidates: Mapping[str, LedgerLine] | None = None,
    ) -> None:
        """Count the end of the run, and the part of its bill that was not counted yet.

        Args:
            stop_reason: of the run; `cancelled` = the client has disconnected, or the server ends.
            cost_usd: the whole bill, with the call that gives an answer its form.
            candidates: the bill of each candidate, likewise.
        """
        self.metrics.stop_reasons.labels(stop_reason).inc()
        self._pay(cost_usd - self._usd)
        for name, line in (candidates or {}).items():
            self._doubt(name, line.get("uncertain_usd", 0.0) - self._uncertain_usd.get(name, 0.0))
        for candidate in self._begun.values():  # nobody knows what it has cost
            self.metrics.calls.labels(candidate).inc()
            self.metrics.failed_calls.labels(candidate, "cancelled").inc()
        self._begun.clear()


@contextmanager
def metered(metrics: Metrics) -> Iterator[Meter]:
    """Yield a meter for a run; a run that ends without an answer is counted, too."""
    meter = Meter(metrics)
    try:
        yield meter
    except asyncio.CancelledError:
        meter.close("cancelled")
        raise
    except ControllerError as error:
        meter.close(StopReason.CONTROLLER_ERROR, error.cost_usd)
        raise
    except BaseException:
        meter.close("error")
        raise
