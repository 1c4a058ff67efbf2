"""Private or very new parts of other packages: what breaks without each, and a fallback.

Those of LangSmith's tracer are in `langsmith/_compat`, those of TRL in `training/_compat`. Methods
of other packages' classes that ours override are where they are; docs/contributing.md says what is
lost if nothing calls them any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool, StructuredTool, Tool
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.runtime import Runtime

try:
    # The callbacks that LangGraph's stream modes listen with; LangGraph imports it too.
    from langchain_core.tracers._streaming import _StreamingCallbackHandler
except ImportError:  # pragma: no cover - a LangChain that moved it
    _StreamingCallbackHandler = None  # type: ignore[assignment, misc]

try:
    # What listens for LangGraph's `stream_mode="messages"`; the second one is of version v3.
    from langgraph.pregel._messages import StreamMessagesHandler, StreamMessagesHandlerV2
except ImportError:  # pragma: no cover - a LangGraph that moved them
    StreamMessagesHandler = StreamMessagesHandlerV2 = ()  # type: ignore[assignment, misc]

try:
    from langgraph.graph._branch import BranchSpec
except ImportError:  # pragma: no cover - a LangGraph that moved it
    BranchSpec = None  # type: ignore[assignment, misc]

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


def read_channel(config: RunnableConfig, name: str, *, written: bool = False) -> Any:
    """Return the value of a graph's channel from within a node; None where it cannot be read.

    A node that is reached by `Send` gets only the payload. Without this function, `begin` sends the
    whole conversation along, and every checkpoint holds it twice.

    Args:
        written: whether what the node itself writes counts.
    """
    read = (config.get("configurable") or {}).get(CONFIG_KEY_READ)
    try:
        return read([name], written).get(name) if read else None
    except (KeyError, TypeError):  # pragma: no cover - a LangGraph that reads otherwise
        return None


def without_state(graph: StateGraph[Any, Any, Any, Any], source: str, edge: str) -> None:
    """Have a conditional edge get what its node returns, and not the state with that in it.

    Without it, each step copies all channels for an edge that needs them for `update_state` alone:
    a tenth of a question's time.
    """
    if BranchSpec is not None and (branch := graph.branches[source].get(edge)):
        graph.branches[source][edge] = _WithoutState(*branch)


if BranchSpec is not None:

    class _WithoutState(BranchSpec):
        def run(self, writer: Any, reader: Any = None) -> Any:
            return super().run(writer)


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


def listeners(config: RunnableConfig) -> list[Any]:
    """Return what streams messages among a run's callbacks; [] where nothing does.

    Without it, streams of messages show the scratchpad and what candidates and controllers say.
    """
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager):
        return []
    return [h for h in callbacks.handlers if isinstance(h, StreamMessagesHandler)]


def heard(listener: Any, run: UUID | None) -> tuple[tuple[str, ...], dict[str, Any]] | None:
    """Return the namespace and the metadata of a run that a listener streams the messages of.

    None where it does not, or does not say so: then a parent graph's stream of version v3 lacks the
    answer of a router in it.
    """
    match _heard(listener).get(run):
        case (tuple() as namespace, dict() as metadata):
            return namespace, metadata
    return None


def unhear(listener: Any, run: UUID | None) -> None:
    """Have a listener stream no message of a run's output.

    Without it, streams of messages show what think and route return.
    """
    _heard(listener).pop(run, None)


def _heard(listener: Any) -> dict[UUID | None, Any]:
    found = getattr(listener, "metadata", None)
    return found if isinstance(found, dict) else {}


def mark_streamed(listener: Any, message_id: str) -> None:
    """Have a listener take a message for one that it has streamed already.

    Without it, a parent graph's stream of messages shows the scratchpad.
    """
    if isinstance(seen := getattr(listener, "seen", None), set):
        seen.add(message_id)


def stream_part(listener: Any, part: tuple[tuple[str, ...], str, Any]) -> bool:
    """Stream a part through a listener; False where it cannot be: the listener has to do it."""
    if stream := getattr(listener, "stream", None):
        stream(part)
    return stream is not None


def has_own_stream(listener: Any) -> bool:
    """Return whether a listener is of version v3, in which each graph has a stream of its own."""
    return isinstance(listener, StreamMessagesHandlerV2)


def wants_tokens(handler: BaseCallbackHandler) -> bool:
    """Return whether a callback streams a model's tokens."""
    if _StreamingCallbackHandler is None:  # pragma: no cover
        return False
    return isinstance(handler, _StreamingCallbackHandler)


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


def code_of(tool: BaseTool) -> Callable[..., Any] | None:
    """Return the function behind a tool; None where it cannot be found.

    Without it, a tool that needs what only an agent injects is refused when it is called, and not
    when the pool is made.
    """
    return next(filter(None, (getattr(tool, n, None) for n in ("func", "coroutine", "_run"))), None)


def read_otherwise(
    client: Any,
    decoder: Callable[[Callable[[], Any]], Callable[[], Any]],
    process: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> None:
    """Have a client of openai's read its streams by other functions.

    Without it, a broken stream is an error all the same, with less in it. `decoder` gets what makes
    a decoder of events, `process` what reads an event's data; each returns what takes its place.
    """
    if make := getattr(client, "_make_sse_decoder", None):
        client._make_sse_decoder = decoder(make)
    if read := getattr(client, "_process_response_data", None):
        client._process_response_data = process(read)


def configured(model: Any, config: RunnableConfig | None) -> Any:
    """Return the model that one of `init_chat_model` with configurable fields makes for a call.

    Any other comes back as it is. Without it, such a model is read as LangChain reads it.
    """
    made = getattr(model, "_model", None) if type(model).__name__ == "_ConfigurableModel" else None
    return made(config) if made else model


def asks_responses(client: Any, payload: Mapping[str, Any]) -> bool:
    """Return whether LangChain's client of OpenAI's sends a request to the Responses API.

    Without it, only the option says so: a stream that the client sends there by itself is billed
    less exactly.
    """
    if asks := getattr(client, "_use_responses_api", None):
        return bool(asks(payload))
    return bool(client.use_responses_api)


def attention_of(model: Any) -> str | None:
    """Return which attention a model of transformers computes with; None where it does not say.

    Without it, contexts share no prefix and a CPU trains with the attention that the model has:
    both take longer, and nothing else changes.
    """
    return getattr(model.config, "_attn_implementation", None)


def inherit(config: RunnableConfig) -> None:
    """Let everything that runs in this task from now on have a config.

    The streams of LangChain's chat models do not hand their callbacks down.
    """
    var_child_runnable_config.set(config)
