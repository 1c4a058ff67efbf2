"""Rollouts of the user's own LangGraph application, which embeds the router.

The factory that a config names gets the compiled router and returns the application. The router
that it gets hands over its final state in a node of its own at the end, so its runs are found
wherever they happen: as a node, in a tool, in a thread, once or several times.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from pydantic_core import to_jsonable_python

from router_r1_graph import (
    ConfigError,
    Controller,
    ReplyStore,
    StopReason,
    Trace,
    create_router_r1,
)
from router_r1_graph._node import Node
from router_r1_graph.candidates.keys import scrub
from router_r1_graph.candidates.providers import import_name
from router_r1_graph.evaluation.loop import AskItem, Item, trace_of
from router_r1_graph.ledger import new_ledger
from router_r1_graph.outside import writable, writable_within
from router_r1_graph.state import RouterState

logger = logging.getLogger(__name__)

App = CompiledStateGraph[Any, Any, Any, Any]

GRAPH = "graph"
"""The key of a trace's metadata that holds the application's final state, JSON types only."""
GRAPH_FAILED = "graph_failed"
"""The key of a trace's metadata with the application's error."""
NOT_ASKED = "not_asked"
"""The key of a trace's metadata that says that the application never asked the router."""


class OwnGraph:
    """A LangGraph application around the router.

    Args:
        name: `module:factory`; the factory takes the compiled router, whose pool, controller and
            settings are those of the question, and returns a graph. It is called for each rollout.
        folder: of the config file, where the module may lie.

    Raises:
        ConfigError: there is no such factory; in a run, its result cannot be asked.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.name = name
        self._field: str | None = None
        try:
            self._factory: Callable[[Any], Any] = import_name(name, folder)
        except ConfigError as error:
            raise ConfigError(f"graph {name}: {error}") from error
        if not callable(self._factory):
            raise ConfigError(f"graph {name}: it cannot be called with the router")

    def asks(
        self,
        controller: Controller,
        *,
        name: str = "",
        callbacks: Sequence[BaseCallbackHandler] = (),
        replies: ReplyStore | None = None,
    ) -> AskItem:
        """Return a function that runs the application on one question.

        Each run of the router inside is a trace, with the application's final state in
        `metadata["graph"]`. If there is none, because the router was never asked or the
        application failed before, one trace without a turn says so.

        Args:
            controller: the controller inside the router.
            name: its name in traces; "" = its own name.
            callbacks: callbacks of every run.
            replies: the store of the candidates' replies.
        """

        async def ask(item: Item) -> Sequence[Trace]:
            states: list[Mapping[str, Any]] = []
            app = self._app(item, controller, callbacks, replies, states)
            known = await self._run(app, self._input(app, item.question), callbacks)
            if GRAPH_FAILED in known:
                logger.warning("question %r: %s", item.id, known[GRAPH_FAILED])
            if not states:
                known[NOT_ASKED] = "the graph never asked the router"
                return [_empty(_with(item, known), name or controller.name)]
            return [trace_of(_with(item, known), state, name) for state in states]

        return ask

    def _app(
        self,
        item: Item,
        controller: Controller,
        callbacks: Sequence[BaseCallbackHandler],
        replies: ReplyStore | None,
        states: list[Mapping[str, Any]],
    ) -> App:
        def hand_over(state: RouterState, _: RunnableConfig) -> dict[str, Any]:
            states.append(dict(state))
            return {}

        # As its defaults, the knobs reach the router wherever it is asked from.
        router = create_router_r1(item.pool, controller, replies=replies, context=item.context)
        router.add_node("hand_over", Node("hand_over", hand_over)).add_edge("answer", "hand_over")
        # For where it is asked in a thread of its own; elsewhere it has those of the application.
        asked = router.compile(name="router_r1").with_config(callbacks=[*callbacks])
        try:
            app = self._factory(asked)
            app = app.compile() if isinstance(app, StateGraph) else app
        except Exception as error:  # a user's factory may raise anything
            raise ConfigError(f"graph {self.name}: it cannot be made: {_said(error)}") from error
        if not isinstance(app, CompiledStateGraph):
            raise ConfigError(
                f"graph {self.name}: it returned {type(app).__name__}, not a StateGraph of "
                "LangGraph"
            )
        return app

    def _input(self, app: App, question: str) -> dict[str, Any]:
        if self._field is None:  # of every application that the factory makes
            # Not its JSON schema: that refuses `typing.TypedDict` before Python 3.12.
            fields = app.builder.schemas[app.builder.input_schema]
            self._field = next((name for name in ("question", "messages") if name in fields), None)
            if self._field is None:
                raise ConfigError(
                    f"graph {self.name}: its input has neither 'question' nor 'messages', but "
                    f"{', '.join(map(repr, fields)) or 'no fields'}; put a graph around it whose "
                    "input has one of them"
                )
        asked = question if self._field == "question" else [HumanMessage(question)]
        return {self._field: asked}

    async def _run(
        self, app: App, given: Mapping[str, Any], callbacks: Sequence[BaseCallbackHandler]
    ) -> dict[str, Any]:
        """Return the metadata for the traces of a run."""
        # A thread of its own, for a graph that has a checkpointer.
        config: RunnableConfig = {
            "configurable": {"thread_id": str(uuid.uuid4())},
            "callbacks": [*callbacks],
        }
        try:
            state = await app.ainvoke(given, config)
            if isinstance(state, Mapping) and state.get("__interrupt__"):
                return {GRAPH_FAILED: "the graph waits for a person (an interrupt)"}
            plain = to_jsonable_python(state, serialize_unknown=True, bytes_mode="base64")
            return {GRAPH: writable_within(plain)}
        except Exception as error:  # a user's graph may raise anything
            return {GRAPH_FAILED: f"the graph failed: {_said(error)}"}


def _said(error: Exception) -> str:
    return " ".join(writable(scrub(f"{type(error).__name__}: {error}")).split())[:300]


def _with(item: Item, known: Mapping[str, Any]) -> Item:
    return replace(item, metadata={**item.metadata, **known})


def _empty(item: Item, controller: str) -> Trace:
    """Return a trace without a turn, for a run in which the router was not asked."""
    return Trace(
        id=item.id,
        question=item.question,
        answer="",
        stop_reason=StopReason.CONTROLLER_ERROR,
        error="",
        rounds=0,
        controller=controller,
        context=item.context,
        pool=item.pool.descriptors(),
        scratchpad=(),
        ledger=new_ledger(),
        gold=item.gold,
        metadata=dict(item.metadata),
    )
