"""What a run looks like in LangSmith: names, tags, metadata, and money on the models' runs only.

LangSmith adds up usage and cost over a tree of runs, so they stand where they arise, on the run of
a chat model, in LangSmith's own keys. Without a tracer among a run's callbacks nothing here costs
anything.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.schemas import Run
from langgraph.types import Command, Overwrite
from langsmith import Client

ROUTER = "router-r1"
"""The tag of a router's own run, wherever it is in a tree; its name too, if it has none."""
_BURST_SECONDS = 1.0
"""What ended within this time is sent together; what ends later, at once."""
_SILENT = ("aggregate", "answer")
"""The nodes that ask nobody: their runs have no input, no output and nothing below."""

Usage = Mapping[str, Any]
"""LangSmith's `usage_metadata`: token counts, and where known `input_cost`, `output_cost` and
`total_cost` in USD."""


def inside(config: RunnableConfig, tag: str, **metadata: Any) -> RunnableConfig:
    """Return a node's config for what it asks: every run below has the tag and the metadata."""
    return {
        **config,
        "tags": [*(config.get("tags") or ()), tag],
        "metadata": {**(config.get("metadata") or {}), **metadata},
    }


def label(config: RunnableConfig, tag: str, *, name: str = "", **metadata: Any) -> None:
    """Name, tag and describe the run of the node that has this config."""
    if run := _node_run(config):
        _label(run, tag, name, metadata)


def label_router(config: RunnableConfig, metadata: Callable[[], Mapping[str, Any]]) -> None:
    """Name, tag and describe the router's run, from a node of it.

    Args:
        config: the node's.
        metadata: makes what to show and to filter by; not called where nothing is traced.
    """
    _, router = _router_run(config)
    if router:
        _label(router, ROUTER, ROUTER if router.name == "LangGraph" else "", metadata())


def send_once(config: RunnableConfig) -> None:
    """Have what is below the router's run sent once each; called from its first node.

    Args:
        config: the node's.
    """
    tracer, router = _router_run(config)
    if not (tracer and router):
        return
    # A caller's replicas say where else a run goes, under the same id or under another.
    if _sends_as_it_is_told(tracer.client) and not router.replicas:
        tracer.client = router.ls_client = _Once(tracer, router)
    if router.parent_run_id is None:
        # Nobody sees a root's children, as an evaluator does below its own run: what is sent need
        # not stay in memory until the end, nor be walked by Python's collector.
        router.child_runs = deque(maxlen=0)  # type: ignore[assignment]


def model_call(
    config: RunnableConfig | None, name: str, usage: Callable[[AIMessage], Usage]
) -> RunnableConfig | None:
    """Return the config of one call to a chat model, whose run gets a name, usage and cost.

    Args:
        config: of the node or tool that calls.
        name: of the run.
        usage: reads a reply's usage and cost, as they are billed.
    """
    if config is None or _tracer(config) is None:
        return config
    callbacks = config["callbacks"]
    assert isinstance(callbacks, BaseCallbackManager)
    callbacks = callbacks.copy()
    # Before the tracer, which reads the usage off the message when its turn comes.
    callbacks.handlers.insert(0, _Bill(usage))
    return {**config, "callbacks": callbacks, "run_name": name}


def turn(command: Any) -> dict[str, Any]:
    """Return what the run of a think records: the turn, also where no model's run has it."""
    update = command.update if isinstance(command, Command) else None
    added = (update or {}).get("scratchpad") or []
    messages = added.value if isinstance(added, Overwrite) else added
    turns = [m.text for m in messages if isinstance(m, AIMessage)]
    return {"turn": turns[-1]} if turns else {}


def nothing(_: Any) -> dict[str, Any]:
    """Return what the run of a node records whose output stands elsewhere."""
    return {}


class _Bill(BaseCallbackHandler):
    """Writes usage and cost on the message that the tracer sees; the caller's stays as it was."""

    run_inline = True

    def __init__(self, usage: Callable[[AIMessage], Usage]) -> None:
        self.usage = usage

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
                    batch[place] = generation.model_copy(update={"message": billed})


class _Once(Client):
    """Has its client send a run below the router's once, after it has ended.

    LangChain sends every run at its start and again, whole, at its end; half of what a trace costs
    is in the sending, and of that in waking the thread that uploads. So runs go out together: those
    of a second, or of the whole question where it took less. What has not ended when the router has
    (a model that was given up on) is sent as it started.
    """

    def __init__(self, tracer: LangChainTracer, router: Run) -> None:
        self._tracer, self._client = tracer, tracer.client
        # Not the run, which has this client: a cycle that holds all runs would wait for Python's
        # collector.
        self._router_id, self._below = router.id, router.dotted_order
        self._started: dict[Any, dict[str, Any]] = {}
        self._ended: list[dict[str, Any]] = []
        self._sent_at = time.monotonic()
        self._over = False  # what ends after the router (nobody waited for it) is sent at once

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_client"), name)

    def create_run(self, name: str, inputs: Any, run_type: Any, **kwargs: Any) -> None:
        """Keep what is known of a run at its start."""
        # A tracer may serve more than the router: a graph around it, other questions.
        if not str(kwargs.get("dotted_order")).startswith(self._below):
            self._client.create_run(name, inputs, run_type, **kwargs)
            return
        start = {"name": name, "inputs": inputs, "run_type": run_type, **kwargs}
        self._started[kwargs["id"]] = start

    def update_run(self, run_id: Any, **kwargs: Any) -> None:
        """Send a run, or keep it a moment; at the router's end, send what is left."""
        if run := self._started.pop(run_id, None):
            run.update((key, value) for key, value in kwargs.items() if value is not None)
            silent = run["name"] in _SILENT and run["parent_run_id"] == self._router_id
            if not silent or run.get("error"):
                self._ended.append(run)
            if self._over or time.monotonic() > self._sent_at + _BURST_SECONDS:
                self._send()
            return
        try:
            if run_id == self._router_id:
                self._end()
        finally:
            self._client.update_run(run_id, **kwargs)

    def _end(self) -> None:
        self._over = True
        if self._tracer.client is self:
            self._tracer.client = self._client
        while self._started:
            self._ended.append(self._started.popitem()[1])
        self._send()

    def _send(self) -> None:
        ended, self._ended = self._ended, []
        self._sent_at = time.monotonic()
        failed: list[Exception] = []
        for run in ended:
            try:
                self._client.create_run(**run)
            except Exception as error:  # of a client that posts at once; the others still go
                failed.append(error)
        if failed:
            raise failed[0]  # to the tracer, which says so


def _sends_as_it_is_told(client: Client) -> bool:
    """Return whether a run may reach a client once.

    Not where its class has an idea of its own of a start and an end (what it hides of them), and
    not where it makes OpenTelemetry's spans: one needs its parent's, which ends later.
    """
    own = type(client)
    return (
        own.create_run is Client.create_run
        and own.update_run is Client.update_run
        and client.tracing_mode == "langsmith"
    )


def _tracer(config: RunnableConfig) -> LangChainTracer | None:
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager):
        return None
    return next((h for h in callbacks.handlers if isinstance(h, LangChainTracer)), None)


def _router_run(config: RunnableConfig) -> tuple[LangChainTracer | None, Run | None]:
    tracer, node = _tracer(config), _node_run(config)
    if tracer is None or node is None:
        return None, None
    return tracer, tracer.run_map.get(str(node.parent_run_id))


def _node_run(config: RunnableConfig) -> Run | None:
    tracer, callbacks = _tracer(config), config.get("callbacks")
    if tracer is None or not isinstance(callbacks, BaseCallbackManager):
        return None
    return tracer.run_map.get(str(callbacks.parent_run_id))


def _label(run: Run, tag: str, name: str, metadata: Mapping[str, Any]) -> None:
    run.name = name or run.name
    run.tags = [*(run.tags or ()), *({tag} - set(run.tags or ()))]
    # A new dict: LangChain shares one between a run and those below it.
    run.extra["metadata"] = {**run.extra.get("metadata", {}), **metadata}
