"""The one place where a private name of LangGraph is used, with a public fallback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.runnables import Runnable, RunnableLambda

try:
    # What langgraph-supervisor imports too: one object that runs as sync and as async, without a
    # span of its own in the trace. Half the cost of a RunnableLambda for each step.
    from langgraph._internal._runnable import RunnableCallable
except ImportError:  # pragma: no cover - a LangGraph that moved it
    RunnableCallable = None  # type: ignore[assignment, misc]


def sync_and_async(
    name: str, sync: Callable[..., Any], async_: Callable[..., Awaitable[Any]]
) -> Runnable[Any, Any]:
    """Return one node that runs under `invoke` and `ainvoke`."""
    if RunnableCallable is None:  # pragma: no cover
        return RunnableLambda(sync, afunc=async_, name=name)
    return RunnableCallable(sync, async_, name=name, trace=False)
