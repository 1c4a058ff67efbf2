"""A node of a graph of ours, and what its run shows in a trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import signature
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.tracers import BaseTracer
from langgraph import types
from langsmith.utils import tracing_is_enabled

from ._compat import runtime_of

_traced = False
"""Whether a tracer has been seen in this process."""


class Node(Runnable[Any, Any]):
    """One node that runs under `invoke` and `ainvoke`, without a span of its own in the trace.

    A RunnableLambda takes twice the time for each step. Into a plain function LangGraph looks for
    graphs, by its bytecode, each time a router is compiled.

    Args:
        name: its name in pictures and traces.
        sync: takes the state and the config, and the run's runtime if it has a parameter for it.
        async_: the same for `ainvoke`. A node without it waits for nothing, so it runs in the event
            loop too: LangGraph would send it to a thread, which takes longer than the work.
    """

    def __init__(
        self,
        name: str,
        sync: Callable[..., Any],
        async_: Callable[..., Awaitable[Any]] | None = None,
    ) -> None:
        self.name = name
        self._sync, self._async = sync, async_
        self._takes_runtime = "runtime" in signature(sync).parameters

    def invoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:
        config = config or ensure_config()
        _look_for_tracers(config)
        if self._takes_runtime:
            return self._sync(input, config, runtime_of(config))
        return self._sync(input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:
        if self._async is None:
            return self.invoke(input, config)
        config = config or ensure_config()
        _look_for_tracers(config)
        if self._takes_runtime:
            return await self._async(input, config, runtime_of(config))
        return await self._async(input, config)


def _look_for_tracers(config: RunnableConfig) -> None:
    global _traced
    if not _traced and isinstance(callbacks := config.get("callbacks"), BaseCallbackManager):
        for handler in callbacks.handlers:
            _traced = _traced or isinstance(handler, BaseTracer)


def shows(process_outputs: Callable[[Any], Any]) -> dict[str, Any]:
    """Return options of `add_node`: a node's own run records this of its output, and no input.

    The input is the whole state, each time again. Its new parts are on the child runs, and all of
    it is on the router's run. LangGraph 1.2.0 has no such option, and records everything.

    Where something else is recorded than what there is, LangGraph tells tracers apart from other
    callbacks twice a node, which takes a twentieth of a question's CPU. So nothing else is until
    a `Node` has seen a tracer: that of a run's entry, before the first node with these options. A
    run that is resumed has no entry; there, LangSmith's tracing is known when its graph is made.
    """
    global _traced
    _traced = _traced or bool(tracing_is_enabled())
    if not hasattr(types, "TracePolicy"):  # pragma: no cover
        return {}
    policy = types.TracePolicy(
        process_inputs=lambda value: {} if _traced else value,
        process_outputs=lambda value: process_outputs(value) if _traced else value,
    )
    return {"trace_policy": policy}
