"""Graphs without arguments, for langgraph.json: `langgraph dev`, Studio, the Agent Server.

Two environment variables set the pool and the controller. Without them everything is simulated, and
neither a key nor a network is needed:

    ROUTER_R1_POOL        a pool file, or the name of a shipped pool (embedded)
    ROUTER_R1_CONTROLLER  a spec as for `router-r1 --controller` (the pool's, else keyword)

No graph here has a checkpointer or a store: the server brings its own. Each module has its graph
as `graph`, and the factory for langgraph.json as `serve`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from langgraph.graph.state import CompiledStateGraph

from router_r1_graph import CandidatePool, Controller, RouterContext, parse_controller

if TYPE_CHECKING:
    from langgraph_sdk.runtime import ServerRuntime


def pool_and_controller() -> tuple[CandidatePool, Controller]:
    """Return the pool and the controller that the environment names.

    Raises:
        ConfigError: the pool or the controller cannot be used.
    """
    pool = CandidatePool.from_yaml(os.environ.get("ROUTER_R1_POOL") or "embedded")
    return pool, parse_controller(os.environ.get("ROUTER_R1_CONTROLLER"), pool)


def served(graph: CompiledStateGraph[Any, Any, Any, Any]) -> Callable[..., Any]:
    """Return a graph as the server takes it: one that refuses an unknown context key.

    The server drops such a key before the graph sees it, so a misspelt limit would not work. Only a
    factory gets the context as it was sent.
    """

    def serve(runtime: ServerRuntime) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Return the graph for a run.

        Raises:
            ConfigError: a key of the context names no knob, or a knob is out of range.
        """
        execution = runtime.execution_runtime
        context = execution.context if execution else None
        # Where a client sent none, the server takes a copy of its configurable, with ids and all.
        if isinstance(context, Mapping) and not any(
            key == "thread_id" or key.startswith("__") for key in context
        ):
            RouterContext(**context)
        return graph

    return serve
