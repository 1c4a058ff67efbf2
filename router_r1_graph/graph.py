"""The graph: `create_router_r1` builds it, `create_router_r1_agent` compiles it for chat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer

from ._compat import without_state
from ._node import Node, shows
from .candidates import CandidatePool, as_pool
from .candidates.reply import ChatModel
from .candidates.store import ReplyStore, as_store
from .candidates.tool import pool_tools
from .context import Knobs, RouterContext, as_context
from .controllers import Controller, as_controller
from .controllers.controller import Decides
from .langsmith import runs
from .nodes.edits import go_on
from .nodes.ends import EndNodes
from .nodes.rounds import CandidateNodes
from .nodes.turns import TurnNode
from .state import RouteCall, RouterInput, RouterOutput, RouterState


def create_router_r1(
    pool: CandidatePool | str | Path,
    controller: Controller | Decides | ChatModel | str | None = None,
    *,
    models: Mapping[str, ChatModel] | None = None,
    replies: ReplyStore | str | Path | None = None,
    context: Knobs | None = None,
    name: str = "router_r1",
    input_schema: type[Any] = RouterInput,
    output_schema: type[Any] = RouterOutput,
    stream_steps: bool = True,
) -> StateGraph[RouterState, RouterContext, Any, Any]:
    """Return the router as an uncompiled graph, so that you choose checkpointer, store and cache.

    Input is `question`, or `messages` whose last human one is the question. Output is one
    `AIMessage` in `messages`, and `answer`, `stop_reason`, `round`, `ledger`, `scratchpad`.

    Args:
        pool: the candidates on offer: a `CandidatePool`, a pool file, or a shipped pool's name.
        controller: decides which candidates get which queries: a `Controller`, any object with
            `decide(view)`, a chat model, or a spec for `parse_controller`; None = the pool's
            controller block if there is one, else `keyword`.
        models: chat models, tools, retrievers or graphs to use for the named candidates instead
            of those that their providers make; these candidates need no key.
        replies: where replies are kept, so that the same call is paid once: a `ReplyStore`, or its
            file. None = every call is made. Those of `models` and of a chat model as the
            controller are not kept.
        context: the settings of a run that names no others: a `RouterContext`, or a dict of those
            to change.
        name: the name of the message that a run returns.
        input_schema: the schema of a run's input.
        output_schema: the schema of a run's output.
        stream_steps: whether streams of messages show the steps before the answer (turns, replies,
            tokens): the router's own stream, and that of a parent with `subgraphs=True`. False =
            the answer alone. A parent's stream without `subgraphs=True` always shows the answer
            alone.

    Raises:
        PoolError: a pool file or a provider cannot be used, a key variable is not set, or `models`
            names no candidate of the pool.
        ConfigError: the file of replies cannot be used; or a key of `context` names no setting, or
            a setting is out of range.
        ControllerError: the object is not a controller, or the spec is unknown.

    Example:
        >>> from router_r1_graph import create_router_r1
        >>> graph = create_router_r1("embedded", "keyword").compile()
        >>> result = graph.invoke({"question": "Who wrote Hamlet?"})
        >>> result["answer"], result["stop_reason"]
        ('William Shakespeare', 'answered')
    """
    pool = as_pool(pool)
    controller = as_controller(controller, pool)
    store = as_store(replies)
    tools = {tool.name: tool.unchecked() for tool in pool_tools(pool, models, replies=store)}
    context = as_context(context)
    context.check(pool)
    ends = EndNodes(pool, controller, context, name, stream_steps)
    turn = TurnNode(pool, controller, context, store, stream_steps)
    rounds = CandidateNodes(pool, tools, controller, context, name, stream_steps)
    graph: StateGraph[RouterState, RouterContext, Any, Any] = StateGraph(
        RouterState,
        context_schema=RouterContext,
        input_schema=input_schema,
        output_schema=output_schema,
    )
    graph.add_node(
        "think",
        Node("think", turn.think, turn.athink),
        destinations=("route", "aggregate", "answer"),
        **shows(runs.turn),
    )
    graph.add_node(
        "route",
        Node("route", rounds.route, rounds.aroute),
        input_schema=RouteCall,
        **shows(runs.nothing),
    )
    graph.add_node(
        "aggregate",
        Node("aggregate", rounds.aggregate),
        destinations=("think", "answer", "route"),
        **shows(runs.nothing),
    )
    graph.add_node("answer", Node("answer", ends.answer), **shows(runs.nothing))
    graph.add_conditional_edges(START, Node("begin", ends.begin), ["think"])
    # Where a person wrote the state in the place of one of these (`update_state`). Without targets,
    # so that no picture shows it.
    for written in ("think", "aggregate"):
        graph.add_conditional_edges(written, Node("go_on", go_on), {})
        without_state(graph, written, "go_on")
    graph.add_edge("route", "aggregate")
    graph.set_finish_point("answer")
    return graph


def create_router_r1_agent(
    pool: CandidatePool | str | Path,
    controller: Controller | Decides | ChatModel | str | None = None,
    *,
    models: Mapping[str, ChatModel] | None = None,
    replies: ReplyStore | str | Path | None = None,
    context: Knobs | None = None,
    checkpointer: Checkpointer = None,
    name: str = "router_r1",
    stream_steps: bool = False,
) -> CompiledStateGraph[RouterState, RouterContext, Any, Any]:
    """Return the router compiled as an agent that takes and returns only messages.

    Use it where a chat agent is expected: a supervisor, a swarm, Studio's chat mode.

    Args:
        pool: see `create_router_r1`.
        controller: see `create_router_r1`.
        models: see `create_router_r1`.
        replies: see `create_router_r1`.
        context: see `create_router_r1`.
        checkpointer: None inherits the parent's; False keeps nothing.
        name: the name of the agent, which supervisors need, and of the message that it returns.
        stream_steps: see `create_router_r1`; here, streams of messages show the answer alone.
    """
    graph = create_router_r1(
        pool,
        controller,
        models=models,
        replies=replies,
        context=context,
        name=name,
        input_schema=MessagesState,
        output_schema=MessagesState,
        stream_steps=stream_steps,
    )
    return graph.compile(checkpointer=checkpointer, name=name)
