"""A tool, a retriever or a whole other graph in place of a candidate's chat model.

    candidates:
      - {name: Wikipedia, provider: retriever, options: {object: "my_app.search:wikipedia"}}
      - {name: Calculator, provider: tool, options: {object: "my_app.tools:calculator"}}
      - {name: Researcher, provider: graph, options: {object: "my_app.graphs:researcher"}}

`object` names one, or a function of no argument, asynchronous or not, that makes one. `call` asks
it like any model: it has one query in and one text out, is retried, bounded in time, and fails as a
value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Mapping, Sequence
from functools import wraps
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolCallId, ToolException
from langchain_core.utils.function_calling import convert_to_openai_function
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.pregel.protocol import PregelProtocol
from pydantic import BaseModel, ConfigDict

from .._compat import code_of, only_async, without_context
from .._node import Node
from ..errors import ConfigError, PoolError
from .apart import run_apart
from .candidate import Candidate
from .given import read_leniently
from .providers import import_name, looking_in, read_options
from .reply import ChatModel
from .usage import NO_TOKENS, is_cached, reported_usd

_TYPES: Mapping[str, tuple[type, ...]] = {
    "tool": (BaseTool,),
    "retriever": (BaseRetriever,),
    "graph": (StateGraph, PregelProtocol),  # the latter: a compiled or a remote one
}


class AdapterOptions(BaseModel):
    """The `options:` of a candidate that is a tool, a retriever or a graph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    object: str
    """`module:name` of the object to ask, or of a function that makes it."""


def adapted(candidate: Candidate) -> ChatModel:
    """Build the model of a candidate with `provider: tool`, `retriever` or `graph`.

    Raises:
        PoolError: `object` names nothing of that kind, or cannot be imported.
    """
    path = read_options(candidate, AdapterOptions).object
    try:
        thing = import_name(path, candidate.folder)
    except ConfigError as error:
        raise PoolError(f"candidate {candidate.name!r}: options.object: {error}") from error
    if callable(thing) and not isinstance(thing, Runnable):
        with looking_in(path, candidate.folder):
            thing = run_apart(thing)
    if not isinstance(thing, _TYPES[candidate.kind]):
        raise PoolError(
            f"candidate {candidate.name!r}: options.object: {path!r} is a "
            f"{type(thing).__name__}, not a {candidate.kind}"
        )
    return as_chat_model(thing)


def as_chat_model(thing: Any) -> ChatModel:
    """Return a model that `reply.ask` can ask, for a tool, a retriever or a graph.

    A chat model comes back as it is read (`given`).

    Raises:
        PoolError: a tool cannot be asked with a query alone.
    """
    if isinstance(thing, BaseTool):
        return _tool(thing)
    if isinstance(thing, BaseRetriever):
        return _asking(thing, _query, _read_documents)
    if isinstance(thing, StateGraph):
        thing = thing.compile()
    if isinstance(thing, PregelProtocol):
        # The knobs of this run are not those of the other graph, which may be a router too.
        configure = without_context if isinstance(thing, Pregel) else _without_thread
        return _asking(thing, lambda m: {"messages": list(m)}, _read_state, configure)
    return read_leniently(thing)


def _asking(
    asked: Runnable[Any, Any],
    write: Callable[[Sequence[AnyMessage]], Any],
    read: Callable[[Any], AIMessage],
    configure: Callable[[RunnableConfig], RunnableConfig] = lambda config: config,
) -> ChatModel:
    """Return a runnable from a prompt to a message, without a run of its own in a trace.

    Args:
        asked: the tool, retriever or graph.
        write: from the prompt to its input.
        read: from its output to the message.
        configure: from the config of the call to its own.
    """
    is_async = only_async(asked)

    def ask(prompt: Sequence[AnyMessage], config: RunnableConfig) -> AIMessage:
        given, own = write(prompt), configure(config)
        if is_async:
            return read(run_apart(lambda: asked.ainvoke(given, own)))
        return read(asked.invoke(given, own))

    async def aask(prompt: Sequence[AnyMessage], config: RunnableConfig) -> AIMessage:
        return read(await asked.ainvoke(write(prompt), configure(config)))

    return Node(asked.get_name(), ask, aask)


def _without_thread(config: RunnableConfig) -> RunnableConfig:
    """Return the config for a remote graph: each call is a question of its own there.

    On this run's thread it would see earlier questions, and parallel calls would be refused.
    """
    configurable = dict(config.get("configurable") or {})
    configurable.pop("thread_id", None)
    return {**config, "configurable": configurable}


def _query(prompt: Sequence[AnyMessage]) -> str:
    """Return the query of a prompt: its last human message."""
    return next((str(m.text) for m in reversed(prompt) if isinstance(m, HumanMessage)), "")


# ------------------------------------------------------------------------------ what is written


def _tool(tool: BaseTool) -> ChatModel:
    parameters = convert_to_openai_function(tool)["parameters"]
    required = parameters.get("required") or list(parameters["properties"])[:1]
    if len(required) != 1:
        takes = ", ".join(parameters["properties"]) or "nothing"
        raise PoolError(f"tool {tool.name!r}: a candidate is asked one query, and it takes {takes}")
    if injected := _injected(tool, parameters["properties"]):
        raise PoolError(
            f"tool {tool.name!r}: an agent would inject {', '.join(injected)}; a candidate has no "
            "agent's state, store or runtime"
        )

    def call(prompt: Sequence[AnyMessage]) -> dict[str, Any]:
        args = {required[0]: _query(prompt)}
        return {"type": "tool_call", "id": "query", "name": tool.name, "args": args}

    return _asking(_without_exit(tool), call, _read_tool)


def _without_exit(tool: BaseTool) -> BaseTool:
    """Return the same tool with `sys.exit()` in it treated as any other failure.

    LangChain runs asynchronous code in a task, and an exit in a task ends the event loop with every
    other run in it.
    """
    code = getattr(tool, "coroutine", None)
    if code is None:
        return tool

    @wraps(code)
    async def work(*args: Any, **kwargs: Any) -> Any:
        try:
            return await code(*args, **kwargs)
        except SystemExit as error:
            raise BaseExceptionGroup("the tool ended its program", [error]) from None

    return tool.model_copy(update={"coroutine": work})


def _injected(tool: BaseTool, asked: Container[str]) -> list[str]:
    """Return the arguments that a tool needs and no model writes: its agent has to inject them."""
    if isinstance(tool.args_schema, dict):  # a server's: only the code tells
        code = code_of(tool)
        needed = [
            p.name
            for p in (inspect.signature(code).parameters.values() if code else ())
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
    else:
        fields = getattr(tool.get_input_schema(), "model_fields", {})
        needed = [
            field.alias or name
            for name, field in fields.items()
            if field.is_required() and not _is_call_id(field.metadata)
        ]
    own = ("config", "callbacks", "run_manager")  # LangChain passes them in any case
    return [name for name in needed if name not in asked and name not in own]


def _is_call_id(metadata: Sequence[Any]) -> bool:
    return any(m is InjectedToolCallId or isinstance(m, InjectedToolCallId) for m in metadata)


# --------------------------------------------------------------------------------- what is read


def _read_tool(message: Any) -> AIMessage:
    if not isinstance(message, ToolMessage):
        raise TypeError(f"a tool brings a text, not {type(message).__name__}")
    if message.status == "error":
        raise ToolException(_text(message))
    return AIMessage(_text(message), response_metadata={NO_TOKENS: True})


def _text(message: ToolMessage) -> str:
    """Return the text of a tool's message; each block of it is a line or more of its own."""
    if isinstance(message.content, str):
        return message.content
    blocks = (
        block if isinstance(block, str) else block.get("text") or f"({block.get('type')} left out)"
        for block in message.content
    )
    return "\n".join(str(block) for block in blocks)


def _read_documents(documents: Sequence[Document]) -> AIMessage:
    texts = (f"[{number}] {d.page_content}" for number, d in enumerate(documents, 1))
    return AIMessage("\n".join(texts), response_metadata={NO_TOKENS: True})


def _read_state(state: Any) -> AIMessage:
    """Read the answer off a graph's messages, and the bill of all that models wrote among them."""
    messages = convert_to_messages(state["messages"])
    written = [m for m in messages if isinstance(m, AIMessage)]
    if not written or messages[-1] is not written[-1]:
        raise ValueError("the graph's last message is no answer")
    bills = [_bill(message) for message in written]
    usage: UsageMetadata | None = None
    for tokens, _ in bills:
        usage = add_usage(usage, tokens) if tokens else usage
    costs = [cost for _, cost in bills if cost is not None]
    metadata: dict[str, Any] = {}
    if len(costs) == len(bills):
        metadata = {"token_usage": {"cost": sum(costs)}, NO_TOKENS: not usage}
    return AIMessage(str(written[-1].text), usage_metadata=usage, response_metadata=metadata)


def _bill(message: AIMessage) -> tuple[UsageMetadata | None, float | None]:
    """Return the tokens and the USD that a message names; a router's name those of its run."""
    bill = message.response_metadata.get("router_r1")
    if bill is None:
        if is_cached(message):
            return None, 0.0
        return message.usage_metadata, reported_usd(message)
    tokens = UsageMetadata(
        input_tokens=bill["input_tokens"],
        output_tokens=bill["output_tokens"],
        total_tokens=bill["input_tokens"] + bill["output_tokens"],
    )
    return tokens if tokens["total_tokens"] else None, bill["cost_usd"]
