"""The look of a run in LangSmith: names, tags and metadata, and costs on model runs only.

Other tracers see the same names and metadata; `spans` writes OpenTelemetry.

LangSmith adds up usage and cost over a tree of runs, so both are recorded only where they arise: on
the run of a chat model, in LangSmith's own keys. Without a tracer among a run's callbacks, nothing
here takes time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.schemas import Run
from langgraph.types import Command

from .._compat import wants_tokens
from ._compat import node_run, parent_run
from .spans import GenAISpans

ROUTER = "router-r1"
"""The tag of a router's own run, wherever it is in a tree; its name too, if it has none."""
Usage = Mapping[str, Any]
"""LangSmith's `usage_metadata`: token counts, and where known `input_cost`, `output_cost` and
`total_cost` in USD."""


def inside(config: RunnableConfig, tag: str, **metadata: Any) -> RunnableConfig:
    """Return a node's config for its calls: every run below has the tag and the metadata."""
    return {
        **config,
        "tags": [*(config.get("tags") or ()), tag],
        "metadata": {**(config.get("metadata") or {}), **metadata},
    }


_Manager = TypeVar("_Manager", CallbackManager, AsyncCallbackManager)


def below(
    manager: type[_Manager], run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None
) -> RunnableConfig:
    """Make inner runs children of the chat model's own run; LangChain does that for chains only."""
    if run is None:
        return {}
    inside = manager([], parent_run_id=run.run_id)
    inside.set_handlers(run.inheritable_handlers)
    inside.add_tags(run.inheritable_tags)
    inside.add_metadata(run.inheritable_metadata)
    return {"callbacks": inside}


def label(config: RunnableConfig, tag: str, *, name: str = "", **metadata: Any) -> None:
    """Name, tag and describe the run of the node that has this config."""
    if run := node_run(config):
        _label(run, tag, name, metadata)


def label_router(config: RunnableConfig, metadata: Callable[[], Mapping[str, Any]]) -> None:
    """Name, tag and describe the router's run, from one of its nodes.

    Args:
        config: the node's.
        metadata: returns the metadata to show and to filter by; not called if nothing is traced.
    """
    if router := parent_run(config):
        _label(router, ROUTER, ROUTER if router.name == "LangGraph" else "", metadata())


def model_call(
    config: RunnableConfig | None, name: str, usage: Callable[[AIMessage], Usage]
) -> RunnableConfig | None:
    """Return the config of one call to a chat model, whose run gets a name, usage and cost.

    Any tracer shows the name. Usage and cost as they are billed reach LangSmith and `GenAISpans`.

    Args:
        config: the config of the node or tool that calls.
        name: the name of the run.
        usage: reads a reply's usage and cost, as they are billed.
    """
    callbacks = config and config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager) or not (
        any(not wants_tokens(handler) for handler in callbacks.handlers)
    ):
        return config
    assert config is not None
    named: RunnableConfig = {**config, "run_name": name}
    readers = [h for h in callbacks.handlers if isinstance(h, LangChainTracer | GenAISpans)]
    if not readers:
        return named
    callbacks = callbacks.copy()
    others = [h for h in callbacks.handlers if h not in readers]
    bill = _Bill(usage)
    callbacks.handlers[:] = [bill, *readers, _Unbill(bill), *others]
    return {**named, "callbacks": callbacks}


def turn(command: Any) -> dict[str, Any]:
    """Return the output of a think's run: the turn, since not every turn has a model's run."""
    update = command.update if isinstance(command, Command) else None
    turns = [m.text for m in (update or {}).get("scratchpad") or [] if isinstance(m, AIMessage)]
    return {"turn": turns[-1]} if turns else {}


def nothing(_: Any) -> dict[str, Any]:
    """Return the output that a node's run records if the real one is recorded elsewhere."""
    return {}


class _Bill(BaseCallbackHandler):
    """Writes usage and cost to the message that tracers read; the caller's is unchanged."""

    run_inline = True

    def __init__(self, usage: Callable[[AIMessage], Usage]) -> None:
        self.usage = usage
        self.unbilled: list[tuple[list[Any], int, Any]] = []

    @property
    def ignore_chat_model(self) -> bool:
        return True

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        for batch in response.generations:
            for place, generation in enumerate(batch):
                message = isinstance(generation, ChatGeneration) and generation.message
                if isinstance(message, AIMessage):
                    usage = {**(message.usage_metadata or {}), **self.usage(message)}
                    if usage == message.usage_metadata:
                        continue
                    billed = message.model_copy(update={"usage_metadata": usage})
                    self.unbilled.append((batch, place, generation))
                    batch[place] = generation.model_copy(update={"message": billed})


class _Unbill(BaseCallbackHandler):
    """Puts the messages back, after the tracers: LangChain cannot add up usage with a cost."""

    run_inline = True

    def __init__(self, bill: _Bill) -> None:
        self.bill = bill

    @property
    def ignore_chat_model(self) -> bool:
        return True

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        while self.bill.unbilled:
            batch, place, generation = self.bill.unbilled.pop()
            batch[place] = generation


def _label(run: Run, tag: str, name: str, metadata: Mapping[str, Any]) -> None:
    run.name = name or run.name
    run.tags = [*(run.tags or ()), *({tag} - set(run.tags or ()))]
    # A new dict: LangChain shares one between a run and those below it.
    run.extra["metadata"] = {**run.extra.get("metadata", {}), **metadata}
