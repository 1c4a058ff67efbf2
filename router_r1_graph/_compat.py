"""Private or very new parts of other packages: what breaks without each, and a fallback.

Private parts of TRL and transformers are in `training` and `controllers/policy`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.schemas import Run
from langgraph import types
from langgraph.runtime import Runtime

try:
    # One object that runs as sync and as async, without a span of its own in the trace. It takes
    # half the time of a RunnableLambda for each step. langgraph-supervisor imports it too.
    from langgraph._internal._runnable import RunnableCallable
except ImportError:  # pragma: no cover - a LangGraph that moved it
    RunnableCallable = None  # type: ignore[assignment, misc]

try:
    # The callbacks that LangGraph's stream modes listen with; LangGraph imports it too.
    from langchain_core.tracers._streaming import _StreamingCallbackHandler
except ImportError:  # pragma: no cover - a LangChain that moved it
    _StreamingCallbackHandler = None  # type: ignore[assignment, misc]

try:
    from langgraph._internal._constants import (
        CONFIG_KEY_CHECKPOINTER,
        CONFIG_KEY_READ,
        CONFIG_KEY_RUNTIME,
    )
except ImportError:  # pragma: no cover - a LangGraph that moved them
    CONFIG_KEY_CHECKPOINTER, CONFIG_KEY_RUNTIME = "__pregel_checkpointer", "__pregel_runtime"
    CONFIG_KEY_READ = "__pregel_read"


def read_channel(config: RunnableConfig, name: str) -> Any:
    """Return the value of a graph's channel from within a node; None where it cannot be read.

    A node that is reached by `Send` gets only the payload. Without this function, `begin` sends the
    whole conversation along, and every checkpoint holds it twice.
    """
    read = (config.get("configurable") or {}).get(CONFIG_KEY_READ)
    try:
        return read(name) if read else None
    except (KeyError, TypeError):  # pragma: no cover - a LangGraph that reads otherwise
        return None


def remembers(config: RunnableConfig) -> bool:
    """Return whether a node runs in a graph with a checkpointer, its own or a parent's."""
    return bool((config.get("configurable") or {}).get(CONFIG_KEY_CHECKPOINTER))


def without_context(config: RunnableConfig) -> RunnableConfig:
    """Return a node's config for a graph that must not take over the node's context."""
    configurable = config.get("configurable") or {}
    runtime = configurable.get(CONFIG_KEY_RUNTIME)
    if not isinstance(runtime, Runtime):
        return config
    own = {CONFIG_KEY_RUNTIME: runtime.override(context=None)}
    return {**config, "configurable": {**configurable, **own}}


def tracer_of(config: RunnableConfig) -> LangChainTracer | None:
    """Return LangSmith's tracer among a run's callbacks; None where nothing is traced."""
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager):
        return None
    return next((h for h in callbacks.handlers if isinstance(h, LangChainTracer)), None)


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


def wants_tokens(handler: BaseCallbackHandler) -> bool:
    """Return whether a callback streams a model's tokens."""
    if _StreamingCallbackHandler is None:  # pragma: no cover
        return False
    return isinstance(handler, _StreamingCallbackHandler)


def node(
    name: str, sync: Callable[..., Any], async_: Callable[..., Awaitable[Any]] | None = None
) -> Runnable[Any, Any]:
    """Return one node that runs under `invoke` and `ainvoke`.

    A node without `async_` does not wait for anything, so under `ainvoke` it runs in the event loop
    too. LangGraph would send a plain function to a thread, which takes longer than the work.
    """
    if async_ is None:

        async def async_(*args: Any, **kwargs: Any) -> Any:
            return sync(*args, **kwargs)

    if RunnableCallable is None:  # pragma: no cover
        return RunnableLambda(sync, afunc=async_, name=name)
    return RunnableCallable(sync, async_, name=name, trace=False)


def shows(process_outputs: Callable[[Any], Any]) -> dict[str, Any]:
    """Return options of `add_node`: a node's own run records this of its output, and no input.

    The input is the whole state, each time again. Its new parts are on the child runs, and all of
    it is on the router's run. LangGraph 1.2.0 has no such option, and records everything.
    """
    if not hasattr(types, "TracePolicy"):  # pragma: no cover
        return {}
    policy = types.TracePolicy(process_inputs=lambda _: {}, process_outputs=process_outputs)
    return {"trace_policy": policy}
