"""The candidates that a controller would ask: it writes one turn, and no candidate is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp

from ..budget import Left, ending_of_turn
from ..candidates import CandidatePool, as_pool
from ..candidates.images import images_in
from ..candidates.in_time import ain_time, in_a_thread
from ..candidates.reply import ChatModel, Reply
from ..candidates.store import ReplyStore, as_store
from ..context import Knobs, as_context
from ..controllers import Controller, View, as_controller
from ..controllers.controller import Decides
from ..controllers.own import RAISED, failure
from ..observations import conversation, instructions
from ..state import question_of
from .planned_calls import Routing, check_explains, read_first_turn


def route_only(
    pool: CandidatePool | str | Path,
    controller: Controller | Decides | ChatModel | str | None = None,
    question: str = "",
    *,
    messages: Sequence[AnyMessage] = (),
    context: Knobs | None = None,
    replies: ReplyStore | str | Path | None = None,
    explain: bool = False,
    config: RunnableConfig | None = None,
) -> Routing:
    """Let a controller write its first turn, and ask no candidate.

    A policy reports the probability of each candidate. Some rules and the fitted controllers report
    a number of their own. Chat models, policies on a server and other rules report only their
    choice. A chat model is asked, and its call is on the bill.

    Args:
        pool: see `create_router_r1`.
        controller: see `create_router_r1`; for many questions pass an object, since a spec is built
            anew for each.
        question: the question; "" = the last human message of `messages`.
        messages: the conversation, for controllers that read it.
        context: the settings of a run; see `create_router_r1`.
        replies: where the turns of a paid controller are kept; see `create_router_r1`.
        explain: also measure the effect of each part of each descriptor (policies), or the
            weight of each feature of the replies (`reader`).
        config: of the node that calls this, so that its callbacks see a chat model's call.

    Raises:
        QuestionError: there is no question, or it has an image that no candidate takes.
        PoolError: a pool file cannot be used.
        ConfigError: a key of `context` names no setting, or a setting is out of range.
        ControllerError: the object is no controller, the spec is unknown, or `explain` is wanted of
            a controller that cannot explain.

    Example:
        >>> from router_r1_graph import route_only
        >>> (call,) = route_only("embedded", "cheapest", "Who wrote Hamlet?").calls
        >>> call.candidate, call.choice.values[call.candidate] == min(call.choice.values.values())
        ('Vantegro', True)
    """
    view, controller = _begin(pool, controller, question, messages, context, replies, explain)
    return decide_only(view, controller, config, explain=explain)


async def aroute_only(
    pool: CandidatePool | str | Path,
    controller: Controller | Decides | ChatModel | str | None = None,
    question: str = "",
    *,
    messages: Sequence[AnyMessage] = (),
    context: Knobs | None = None,
    replies: ReplyStore | str | Path | None = None,
    explain: bool = False,
    config: RunnableConfig | None = None,
) -> Routing:
    """Do what `route_only` does without blocking the event loop.

    Args:
        pool: see `create_router_r1`.
        controller: see `route_only`.
        question: the question; "" = the last human message of `messages`.
        messages: the conversation, for controllers that read it.
        context: the settings of a run; see `create_router_r1`.
        replies: where the turns of a paid controller are kept; see `create_router_r1`.
        explain: see `route_only`.
        config: of the node that calls this, so that its callbacks see a chat model's call.

    Raises:
        RouterR1Error: the errors of `route_only`, for the same reasons.
    """
    view, controller = _begin(pool, controller, question, messages, context, replies, explain)
    return await adecide_only(view, controller, config, explain=explain)


def decide_only(
    view: View,
    controller: Controller,
    config: RunnableConfig | None = None,
    *,
    explain: bool = False,
) -> Routing:
    """Let a controller write one turn for a view; a failure is in the result."""
    try:
        if reason := ending_of_turn(view.left, _worst_case_usd(view, controller)):
            return Routing(view.question, controller.name, stop_reason=reason)
        reply = controller.decide(view, config)
    except GraphBubbleUp:  # an interrupt of the node that calls this
        raise
    except RAISED as error:
        reply = Reply(error=failure(error, controller.name))
    return read_first_turn(view, controller, reply, explain)


async def adecide_only(
    view: View,
    controller: Controller,
    config: RunnableConfig | None = None,
    *,
    explain: bool = False,
) -> Routing:
    """Do what `decide_only` does without blocking the event loop."""
    try:
        if reason := ending_of_turn(view.left, _worst_case_usd(view, controller)):
            return Routing(view.question, controller.name, stop_reason=reason)
    except RAISED as error:
        reply = Reply(error=failure(error, controller.name))
    else:  # as `think` does
        came = await ain_time(None, lambda: controller.adecide(view, config))
        if isinstance(came, BaseException):
            came = Reply(error=failure(came, controller.name))
        reply = came
    return await in_a_thread(lambda: read_first_turn(view, controller, reply, explain))


def _begin(
    pool: CandidatePool | str | Path,
    controller: Controller | Decides | ChatModel | str | None,
    question: str,
    messages: Sequence[AnyMessage],
    context: Knobs | None,
    replies: ReplyStore | str | Path | None,
    explain: bool,
) -> tuple[View, Controller]:
    """Return the view of a controller before its first turn, and the controller."""
    pool = as_pool(pool)
    controller = as_controller(controller, pool)
    if explain:
        check_explains(controller)
    knobs = as_context(context)
    knobs.check(pool)
    asked = question_of(question, messages, pool)
    text = str(asked.text)
    view = View(
        text,
        pool,
        knobs,
        Left(knobs.max_rounds, knobs.budget_usd, knobs.deadline_seconds),
        conversation(messages, text, knobs.max_conversation_tokens),
        instructions=instructions(messages),
        images=images_in(asked),
        store=as_store(replies),
    )
    return view.of_those_who_see(), controller


def _worst_case_usd(view: View, controller: Controller) -> float:
    """Return the most that the turn can cost; 0 where nothing limits it."""
    return 0.0 if view.left.usd is None else controller.worst_case_usd(view)
