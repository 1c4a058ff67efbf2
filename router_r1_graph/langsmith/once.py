"""Runs below a router's are sent to LangSmith once; LangChain has no option for that.

It sends every run at its start and at its end, by the tracer's `client`; this puts another one
there. Without it, a traced question takes a quarter more CPU (docs/experiments.md, 2026-11-28).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.schemas import Run
from langsmith import Client

from ._compat import (
    client_of,
    has_replicas,
    keep_no_children,
    parent_run,
    send_by,
    tracer_of,
)

_BURST_SECONDS = 1.0
"""Runs that end within this time are sent together."""
_SILENT = ("aggregate", "answer")
"""Nodes that ask nobody: their runs have no input, no output and no children, and are not sent."""


def send_once(config: RunnableConfig) -> None:
    """Have each run below the router's sent once; called from the router's first node.

    Args:
        config: the node's.
    """
    tracer, router = tracer_of(config), parent_run(config)
    if not (tracer and router):
        return
    # A caller's replicas say where else a run goes, under the same id or under another.
    if not has_replicas(router):
        with _SWAPPING:
            client = client_of(tracer, router)  # one tracer may serve many questions at once
            if client is not None and _sends_as_it_is_told(client):
                client = _Once(tracer, client)
            if isinstance(client, _Once):
                send_by(client, tracer=tracer, run=router)
                client.add(router)
    if router.parent_run_id is None:
        # Only an evaluator reads the children of its own run. Those of a root need not stay in
        # memory until the end, nor be walked by Python's collector.
        keep_no_children(router)


_SWAPPING = threading.Lock()
"""Held while a tracer's client is put in, or out again: questions begin and end in any thread."""


@dataclass
class _Below:
    """The data of the runs below a router's; `routers` are that one and those below it."""

    routers: set[Any]
    started: dict[Any, dict[str, Any]] = field(default_factory=dict)
    ended: list[dict[str, Any]] = field(default_factory=list)
    sent_at: float = field(default_factory=time.monotonic)


class _Once(Client):
    """Has its client send each run below a router's once, when the run has ended.

    Half of a trace's cost is in the sending, and much of that in waking the thread that uploads. So
    runs are sent together: those of a second, or of the whole question if it took less. A run that
    has not ended when the router has (a model that timed out) is sent as it started.
    """

    def __init__(self, tracer: LangChainTracer, client: Client) -> None:
        self._tracer, self._client = tracer, client
        # Not the runs, which have this client: a cycle that holds all runs would wait for Python's
        # collector.
        self._below: dict[str, _Below] = {}
        """By the dotted order of a router; that of each run below begins with it."""
        self._orders: dict[Any, str] = {}
        """The dotted orders by the routers' ids."""

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_client"), name)

    def add(self, router: Run) -> None:
        """Keep the runs below a router; a router below another one belongs to that."""
        if (above := self._find(router.dotted_order)) is not None:
            above.routers.add(router.id)
        else:
            self._orders[router.id] = router.dotted_order
            self._below[router.dotted_order] = _Below({router.id})

    def create_run(self, name: str, inputs: Any, run_type: Any, **kwargs: Any) -> None:
        """Keep the data of a run's start."""
        # A tracer may serve more than routers: a graph around one, a chat model.
        if (below := self._find(str(kwargs.get("dotted_order")))) is None:
            self._client.create_run(name, inputs, run_type, **kwargs)
            return
        start = {"name": name, "inputs": inputs, "run_type": run_type, **kwargs}
        below.started[kwargs["id"]] = start

    def update_run(self, run_id: Any, **kwargs: Any) -> None:
        """Send a run, or keep it a moment; at a router's end, send all kept runs."""
        below = self._find(str(kwargs.get("dotted_order")))
        if below is not None and (run := below.started.pop(run_id, None)):
            run.update((key, value) for key, value in kwargs.items() if value is not None)
            silent = run["name"] in _SILENT and run["parent_run_id"] in below.routers
            if not silent or run.get("error"):
                below.ended.append(run)
            if time.monotonic() > below.sent_at + _BURST_SECONDS:
                self._send(below)
            return
        try:
            if run_id in self._orders:
                self._end(run_id)
        finally:
            self._client.update_run(run_id, **kwargs)

    def _find(self, dotted_order: str) -> _Below | None:
        """Return the kept data to which a run belongs; None = it is below no router."""
        if not self._below:
            return None
        place = dotted_order.find(".")
        while place >= 0:
            if below := self._below.get(dotted_order[:place]):
                return below
            place = dotted_order.find(".", place + 1)
        return None

    def _end(self, router_id: Any) -> None:
        with _SWAPPING:
            # What ends after the router (nobody waited for it) is sent at once.
            below = self._below.pop(self._orders.pop(router_id))
            if not self._below and self._tracer.client is self:
                send_by(self._client, tracer=self._tracer)
        while below.started:
            below.ended.append(below.started.popitem()[1])
        self._send(below)

    def _send(self, below: _Below) -> None:
        ended, below.ended = below.ended, []
        below.sent_at = time.monotonic()
        failed: list[Exception] = []
        for run in ended:
            try:
                self._client.create_run(**run)
            except Exception as error:  # of a client that posts at once; the others still go
                failed.append(error)
        if failed:
            raise failed[0]  # to the tracer, which says so


def _sends_as_it_is_told(client: Client) -> bool:
    """Return whether a client may receive a run once.

    It may not if its class changes start and end in its own way (as one that hides text), nor if it
    makes OpenTelemetry spans: a span needs its parent's, which ends later.
    """
    own = type(client)
    return (
        own.create_run is Client.create_run
        and own.update_run is Client.update_run
        and client.tracing_mode == "langsmith"
    )
