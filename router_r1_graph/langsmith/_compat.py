"""Private parts of LangSmith's tracer: what breaks without each, and a fallback."""

from __future__ import annotations

from collections import deque

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.schemas import Run
from langsmith import Client


def tracer_of(config: RunnableConfig) -> LangChainTracer | None:
    """Return LangSmith's tracer among a run's callbacks; None where nothing is traced."""
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager):
        return None
    for handler in callbacks.handlers:
        if isinstance(handler, LangChainTracer):
            return handler
    return None


def node_run(config: RunnableConfig) -> Run | None:
    """Return the run of the node that has this config, as the tracer keeps it until it ends.

    No public API returns it. Without it, runs have none of our names, tags and metadata.
    """
    tracer, callbacks = tracer_of(config), config.get("callbacks")
    if tracer is None or not isinstance(callbacks, BaseCallbackManager):
        return None
    runs: dict[str, Run] = getattr(tracer, "run_map", {})
    return runs.get(str(callbacks.parent_run_id))


def parent_run(config: RunnableConfig) -> Run | None:
    """Return the run above the node's: the graph's."""
    tracer, node_ = tracer_of(config), node_run(config)
    runs: dict[str, Run] = getattr(tracer, "run_map", {})
    return runs.get(str(node_.parent_run_id)) if node_ else None


def client_of(tracer: LangChainTracer, run: Run) -> Client | None:
    """Return what a tracer sends runs by; None where `send_by` could not change it for both.

    Without it, each run is sent twice: a traced question takes a quarter more CPU.
    """
    client = getattr(tracer, "client", None)
    return client if isinstance(client, Client) and hasattr(run, "ls_client") else None


def send_by(client: Client, *, tracer: LangChainTracer, run: Run | None = None) -> None:
    """Have a tracer, and a run that has begun already, sent by another client."""
    tracer.client = client
    if run is not None:
        run.ls_client = client


def has_replicas(run: Run) -> bool:
    """Return whether a caller has said where else a run goes; True where nothing can say so.

    Without it, each run is sent twice, as by any tracer.
    """
    return bool(getattr(run, "replicas", True))


def keep_no_children(run: Run) -> None:
    """Have a run keep none of the runs below it.

    Without it, all runs of a question stay in memory until its end.
    """
    if hasattr(run, "child_runs"):
        run.child_runs = deque(maxlen=0)  # type: ignore[assignment]
