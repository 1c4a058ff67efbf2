"""Private or very new parts of other packages: what breaks without each, and a fallback.

Private parts of TRL and transformers are in `training` and `controllers/policy`, those of
LangGraph's streams of messages in `_streams`, those of LangSmith's tracer also in `langsmith/once`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import StructuredTool, Tool
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.schemas import Run
from langgraph import types
from langgraph.pregel import Pregel
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
        TASKS,
    )
except ImportError:  # pragma: no cover - a LangGraph that moved them
    CONFIG_KEY_CHECKPOINTER, CONFIG_KEY_RUNTIME = "__pregel_checkpointer", "__pregel_runtime"
    CONFIG_KEY_READ, TASKS = "__pregel_read", "__pregel_tasks"


def read_channel(config: RunnableConfig, name: str) -> Any:
    """Return the value of a graph's channel from within a node; None where it cannot be read.

    A node that is reached by `Send` gets only the payload. Without this function, `begin` sends the
    whole conversation along, and every checkpoint holds it twice.
    """
    read = (config.get("configurable") or {}).get(CONFIG_KEY_READ)
    try:
        return read([name]).get(name) if read else None
    except (KeyError, TypeError):  # pragma: no cover - a LangGraph that reads otherwise
        return None


def runtime_of(config: RunnableConfig) -> Runtime[Any] | None:
    """Return the runtime of a run; None where an edge is followed for `update_state`."""
    runtime = (config.get("configurable") or {}).get(CONFIG_KEY_RUNTIME)
    return runtime if isinstance(runtime, Runtime) else None


def pending_sends(config: RunnableConfig, node: str) -> list[Any]:
    """Return what the state's pending `Send`s carry to a node, from within an edge."""
    return [send.arg for send in read_channel(config, TASKS) or () if send.node == node]


def remembers(config: RunnableConfig) -> bool:
    """Return whether a node runs in a graph with a checkpointer, its own or a parent's."""
    return bool((config.get("configurable") or {}).get(CONFIG_KEY_CHECKPOINTER))


def without_context(config: RunnableConfig) -> RunnableConfig:
    """Return a node's config for a graph that must not take over the node's context."""
    configurable = config.get("configurable") or {}
    runtime = runtime_of(config)
    if runtime is None:
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


def only_async(asked: Runnable[Any, Any]) -> bool:
    """Return whether a tool or a graph has asynchronous code only, and cannot be invoked.

    LangGraph raises an error only at such a node: the nodes before it have been paid by then.
    """
    if isinstance(asked, Tool | StructuredTool):
        return asked.func is None
    if not isinstance(asked, Pregel):
        return False
    bound = [node_.bound for node_ in asked.nodes.values()]
    steps = [step for one in bound for step in getattr(one, "steps", [one])]
    inner = (graph for _, graph in asked.get_subgraphs())
    return any(getattr(step, "func", step) is None for step in steps) or any(map(only_async, inner))


def shows(process_outputs: Callable[[Any], Any]) -> dict[str, Any]:
    """Return options of `add_node`: a node's own run records this of its output, and no input.

    The input is the whole state, each time again. Its new parts are on the child runs, and all of
    it is on the router's run. LangGraph 1.2.0 has no such option, and records everything.
    """
    if not hasattr(types, "TracePolicy"):  # pragma: no cover
        return {}
    policy = types.TracePolicy(process_inputs=lambda _: {}, process_outputs=process_outputs)
    return {"trace_policy": policy}


def inherit(config: RunnableConfig) -> None:
    """Let everything that runs in this task from now on have a config.

    The streams of LangChain's chat models do not hand their callbacks down.
    """
    var_child_runnable_config.set(config)
