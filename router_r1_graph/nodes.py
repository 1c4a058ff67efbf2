"""The four nodes: think -> (one Send per call) route -> aggregate -> think ... -> answer.

Where a round is to be summarised, aggregate sends that call to route first, and is run once more.
A node is a function of the state; what it asks (controller, tools) is bound when the graph is
built. The controller's mistakes and a candidate's failures are values here, never exceptions.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite, Send, interrupt

from . import budget, events, protocol
from ._compat import read_channel, remembers
from .admission import admit
from .budget import Left, StopReason, left
from .candidates import CandidatePool
from .candidates.failures import ReplyError, classify
from .candidates.reply import Reply, bill, writable
from .context import RouterContext, resolve_context
from .controllers.controller import Controller, View
from .controllers.own import failure
from .errors import ConfigError, QuestionError
from .langsmith import runs
from .ledger import Ledger, charge_candidates, charge_controller, new_ledger, total
from .observations import (
    SUMMARY,
    conversation,
    keep_majority,
    keep_summary,
    kept,
    observe,
    to_summarize,
)
from .state import RouteCall, RouterState, Setup

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RouterNodes:
    """The nodes over one pool, controller and set of tools (tool name -> tool)."""

    pool: CandidatePool
    controller: Controller
    tools: Mapping[str, BaseTool]
    defaults: RouterContext
    name: str = "router_r1"
    """Of the message that a run hands back."""

    def begin(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> Send:
        """Start a question clean, whatever an earlier one left on the thread.

        Raises:
            QuestionError: neither `question` nor a human message says anything.
            ConfigError: a knob cannot be used.
        """
        context = resolve_context(runtime.context, self.defaults)
        # Before anything is paid.
        if context.approve_above_usd is not None and not remembers(config):
            raise ConfigError(
                "approve_above_usd: to wait for a person, the graph needs a checkpointer; "
                "compile(checkpointer=...)"
            )
        context.check(self.pool)
        messages = state.get("messages") or []
        fresh: RouterState = {
            "scratchpad": [HumanMessage(_question(state.get("question", ""), messages))],
            "router_r1": {"started_at": time.time(), "context": context.to_state()},
        }
        # The conversation is not copied into the checkpoint once more: think reads it where it is.
        if read_channel(config, "messages") is None:
            fresh["messages"] = messages
        if "remaining_steps" in state:
            fresh["remaining_steps"] = state["remaining_steps"] - 1
        return Send("think", fresh)

    # --------------------------------------------------------------------------------- think

    def think(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> Command[str]:
        """Ask the controller for one turn."""
        view = self._view(state, config, runtime)
        config = self._trace_think(state, view, config)
        try:
            if reason := budget.ending_of_turn(view.left, self._worst_case_usd(view)):
                return self._stop(state, view, reason)
            reply = self.controller.decide(view, config)
        except GraphBubbleUp:  # an interrupt, not a failure
            raise
        except Exception as error:
            reply = Reply(error=failure(error, self.controller.name))
        return self._after_think(state, view, reply)

    async def athink(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> Command[str]:
        """Ask the controller for one turn, without blocking."""
        view = self._view(state, config, runtime)
        config = self._trace_think(state, view, config)
        try:
            if reason := budget.ending_of_turn(view.left, self._worst_case_usd(view)):
                return self._stop(state, view, reason)
            reply = await self.controller.adecide(view, config)
        except GraphBubbleUp:
            raise
        except Exception as error:
            reply = Reply(error=failure(error, self.controller.name))
        return self._after_think(state, view, reply)

    def _worst_case_usd(self, view: View) -> float:
        """Return the most that a turn can cost; asked where there is a limit: it takes a prompt."""
        return 0.0 if view.left.usd is None else self.controller.worst_case_usd(view)

    def _view(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> View:
        context = self._context(state, runtime)
        question, *scratchpad = state["scratchpad"]
        messages = state.get("messages") or read_channel(config, "messages") or []
        ledger = state.get("ledger") or new_ledger()
        remaining = self._left(state, ledger, state.get("round", 0), context)
        if state.get("ending") or not budget.may_call(state.get("remaining_steps")):
            remaining = Left(0, remaining.usd, remaining.seconds)
        runtime.stream_writer(events.budget(remaining))
        text = str(question.text)
        return View(
            question=text,
            pool=self.pool,
            context=context,
            left=remaining,
            conversation=conversation(messages, text, context.max_conversation_tokens),
            scratchpad=tuple(scratchpad),
        )

    def _context(self, state: RouterState, runtime: Runtime[RouterContext]) -> RouterContext:
        """Return the knobs: those that the run keeps, under those that it was resumed with."""
        stored = _setup(state).get("context")
        known = RouterContext.from_state(stored) if stored else self.defaults
        return resolve_context(runtime.context, known)

    def _left(
        self, state: RouterState, ledger: Ledger, round_: int, context: RouterContext
    ) -> Left:
        return left(ledger, round_, context, _setup(state)["started_at"])

    def _stop(
        self, state: RouterState, view: View, reason: StopReason, reply: Reply | None = None
    ) -> Command[str]:
        """Go to the answer without another turn."""
        ledger = state.get("ledger") or new_ledger()
        error = reply.error if reply else None
        return Command(
            goto="answer",
            update={
                **self._written(state, view, []),
                "ledger": charge_controller(ledger, reply) if reply else ledger,
                "ending": (state.get("ending") or reason.value),
                "error": f"{error.kind}: {error.message}" if error else "",
            },
        )

    def _after_think(self, state: RouterState, view: View, reply: Reply) -> Command[str]:
        """Read the turn and decide where to go: to the calls, back with a reason, or to the end."""
        if not reply.ok:
            late = view.left.seconds is not None and reply.seconds >= view.left.seconds
            reason = StopReason.DEADLINE if late else StopReason.CONTROLLER_ERROR
            if reply.error:
                kind, message = reply.error.kind, reply.error.message
                logger.warning("controller %s failed: %s: %s", self.controller.name, kind, message)
            return self._stop(state, view, reason, reply)
        reply = replace(reply, text=writable(reply.text))
        turn = protocol.parse(reply.text)
        ledger = charge_controller(state.get("ledger") or new_ledger(), reply)
        round_ = state.get("round", 0)
        seconds = self._left(state, ledger, round_, view.context).seconds
        plan = admit(turn, view, reply, round_, ends_at=seconds and time.time() + seconds)
        ending = state.get("ending", "")
        answer = ""
        goto: Any = [Send("route", call) for call in plan.routed] or "aggregate"
        if view.must_answer:
            goto, answer = "answer", turn.answer or ""
            ending = ending or StopReason.ROUND_LIMIT.value
            if ending == StopReason.ROUND_LIMIT and not (answer or turn.calls):
                ending = StopReason.INVALID.value
        elif turn.answer is not None and not turn.calls:
            goto, answer, ending = "answer", turn.answer, StopReason.ANSWERED.value
        elif plan.over_budget:
            ending = StopReason.BUDGET_USD.value
        return Command(
            goto=goto,
            update={
                **self._written(state, view, [plan.message]),
                "ledger": ledger,
                "answer": answer,
                "ending": ending,
            },
        )

    def _written(self, state: RouterState, view: View, added: list[AnyMessage]) -> dict[str, Any]:
        """Return what a think writes; a question's first one clears what was left before."""
        before = _setup(state)
        setup: Setup = {**before, "context": view.context.to_state()}
        if "ledger" in state:
            # A context that came with the resume is the run's from now on.
            changed = setup["context"] != before.get("context")
            return {"scratchpad": added, **({"router_r1": setup} if changed else {})}
        return {
            "router_r1": {
                **setup,
                "controller": self.controller.name,
                "protocol_version": protocol.VERSION,
                "pool": self._descriptors,
            },
            "scratchpad": Overwrite([*state["scratchpad"], *added]),
            "replies": Overwrite([]),
            "round": 0,
            "answer": "",
            "ending": "",
            "stop_reason": "",
            "error": "",
        }

    @cached_property
    def _descriptors(self) -> dict[str, Any]:
        return self.pool.descriptors().model_dump(mode="json")

    # --------------------------------------------------------------------------------- route

    def route(
        self, call: RouteCall, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> dict[str, Any]:
        """Make one call; a failure is a reply with an error."""
        config = self._trace_route(call, config)
        if refused := self._refused(call, runtime):
            return self._replied(call, refused, runtime)
        try:
            message = self.tools[call["tool"]].invoke(_tool_call(call), config)
        except GraphBubbleUp:
            raise
        except Exception as error:
            message = self._failed(call, Reply(error=classify(error)))
        return self._replied(call, message, runtime)

    async def aroute(
        self, call: RouteCall, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> dict[str, Any]:
        """Make one call without blocking; a failure is a reply with an error."""
        config = self._trace_route(call, config)
        if refused := self._refused(call, runtime):
            return self._replied(call, refused, runtime)
        try:
            message = await self.tools[call["tool"]].ainvoke(_tool_call(call), config)
        except GraphBubbleUp:
            raise
        except Exception as error:
            message = self._failed(call, Reply(error=classify(error)))
        return self._replied(call, message, runtime)

    def _refused(self, call: RouteCall, runtime: Runtime[RouterContext]) -> ToolMessage | None:
        """Wait for a person where one has to approve of the call; tell of it if it is made.

        The node starts again at its top when the person has spoken: nothing may happen before.
        """
        name = self._name(call)
        if call["needs_approval"]:
            said = interrupt(
                {
                    "candidate": name,
                    "query": call["query"],
                    "background": call["background"],
                    "worst_case_usd": call["worst_case_usd"],
                }
            )
            if (said.get("approve") if isinstance(said, Mapping) else said) is not True:
                error = ReplyError("refused", "refused by a person")
                return self._failed(call, Reply(attempts=0, error=error))
        runtime.stream_writer(events.route_start(call, name))
        return None

    def _replied(
        self, call: RouteCall, message: ToolMessage, runtime: Runtime[RouterContext]
    ) -> dict[str, Any]:
        """Cut a reply to what the controller may see, before any checkpoint holds it."""
        cut = protocol.cut(
            str(message.text), call.get("max_reply_tokens", RouterContext.max_information_tokens)
        )
        if cut != message.content:  # the tool's run still has to be sent as it was
            message = message.model_copy(update={"content": cut})
        runtime.stream_writer(events.route_end(call, message.artifact))
        return {"replies": [message]}

    def _failed(self, call: RouteCall, reply: Reply) -> ToolMessage:
        text, artifact = bill(self._name(call), reply)
        return ToolMessage(text, name=call["tool"], tool_call_id=call["id"], artifact=artifact)

    def _name(self, call: RouteCall) -> str:
        candidate = self.pool.find(call["tool"])
        return candidate.name if candidate else call["tool"]

    # ----------------------------------------------------------------------------- aggregate

    def aggregate(self, state: RouterState, runtime: Runtime[RouterContext]) -> Command[str]:
        """Fold the replies of the round into the scratchpad and the ledger; look at the budget."""
        context = self._context(state, runtime)
        turn = state["scratchpad"][-1]
        assert isinstance(turn, AIMessage)
        replies = [m for m in state["replies"] if isinstance(m, ToolMessage)]
        observations = observe(turn, replies, state["scratchpad"])
        paid = [m.artifact for m in observations if m.artifact and not m.artifact["cached"]]
        ledger = charge_candidates(state["ledger"], paid)
        summary = next((m for m in replies if m.tool_call_id == SUMMARY), None)
        query = to_summarize(str(state["scratchpad"][0].text), observations)
        if summary:
            ledger = charge_candidates(ledger, [summary.artifact])
            keep_summary(observations, summary, query)
        elif call := self._summary_call(query, state, ledger, context):
            return Command(goto=[Send("route", call)])
        elif context.keep == "vote":
            keep_majority(observations)
        round_ = state["round"] + 1
        remaining = self._left(state, ledger, round_, context)
        reason = state["ending"]
        if not reason:
            ending = budget.ending_of_round(remaining, state.get("remaining_steps"))
            reason = ending.value if ending else ""
        if reason:
            remaining = Left(0, remaining.usd, remaining.seconds)
        observations[-1].content = f"{observations[-1].text}\n(left: {remaining.describe()})"
        return Command(
            goto="answer" if reason == StopReason.DEADLINE else "think",
            update={
                "scratchpad": observations,
                "replies": Overwrite([]),
                "ledger": ledger,
                "round": round_,
                "ending": reason,
            },
        )

    def _summary_call(
        self, query: str, state: RouterState, ledger: Ledger, context: RouterContext
    ) -> RouteCall | None:
        """Return the call that summarises the round; None where none is wanted or affordable."""
        candidate = self.pool.find(context.summarizer)
        if not (candidate and query):
            return None
        usd = candidate.worst_case_usd(query)
        remaining = self._left(state, ledger, state["round"], context)
        if (
            not budget.may_summarize(state.get("remaining_steps"))
            or (remaining.usd is not None and usd > remaining.usd)
            or (remaining.seconds is not None and remaining.seconds <= 0)
        ):
            return None
        return RouteCall(
            id=SUMMARY,
            tool=candidate.slug,
            query=query,
            background="",
            worst_case_usd=(known := usd if candidate.bounded else None),
            needs_approval=context.needs_approval(known),
            max_reply_tokens=context.max_information_tokens,
            round=state["round"] + 1,
            ends_at=remaining.seconds and time.time() + remaining.seconds,
        )

    # -------------------------------------------------------------------------------- answer

    def answer(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> dict[str, Any]:
        """Hand one message back, with the bill in its metadata."""
        context = self._context(state, runtime)
        remaining = self._left(state, state["ledger"], state["round"], context)
        runtime.stream_writer(events.budget(remaining))
        runs.label_router(
            config,
            lambda: {
                **self._described(context),
                "stop_reason": state["ending"],
                "rounds": state["round"],
            },
        )
        answer = state["answer"] or next(
            (
                text
                for m in reversed(state["scratchpad"])
                if isinstance(m, ToolMessage) and (text := kept(m))
            ),
            "",
        )
        # A checkpointer stores every version of a conversation whole, so an answer's message is
        # small: a short id, and of the bill the totals. The ledger says who was paid what.
        totals = total(state["ledger"])
        message = AIMessage(
            answer or f"(no answer: {state['ending']})",
            id=f"r1-{secrets.token_urlsafe(9)}",
            name=self.name,
            response_metadata={
                "router_r1": {
                    "stop_reason": state["ending"],
                    "rounds": state["round"],
                    "cost_usd": totals["cost_usd"],
                    "input_tokens": totals["input_tokens"],
                    "output_tokens": totals["output_tokens"],
                    "seconds": totals["seconds"],
                    "calls": totals["calls"],
                    "failed_calls": totals["failed_calls"],
                }
            },
        )
        return {"answer": answer, "stop_reason": state["ending"], "messages": [message]}

    # ------------------------------------------------------------------------------- tracing

    def _described(self, context: RouterContext) -> dict[str, Any]:
        return {
            "pool": self.pool.name,
            "controller": self.controller.name,
            "cost_weight": context.cost_weight,
            "router_r1_version": _our_version(),
            "protocol_version": protocol.VERSION,
        }

    def _trace_think(
        self, state: RouterState, view: View, config: RunnableConfig
    ) -> RunnableConfig:
        round_ = state.get("round", 0) + 1
        if not view.scratchpad:
            runs.label_router(config, lambda: self._described(view.context))
        runs.label(config, "think", controller=self.controller.name, round=round_)
        return runs.inside(config, "think", controller=self.controller.name, round=round_)

    def _trace_route(self, call: RouteCall, config: RunnableConfig) -> RunnableConfig:
        name = self._name(call)
        tag = f"route:{name}"
        runs.label(config, tag, name=tag, candidate=name, round=call["round"])
        return runs.inside(config, tag, candidate=name, round=call["round"])


@cache
def _our_version() -> str:
    # Python reads it off a file each time, which took a tenth of a question's CPU.
    return version("router-r1-graph")


def _setup(state: RouterState) -> Setup:
    """Return what the run was made with; a checkpoint of version 0.1 says nothing of it."""
    return state.get("router_r1") or {"started_at": time.time()}


def _question(question: object, messages: Sequence[AnyMessage]) -> str:
    """Return what is asked: the `question`, else the last human message.

    Raises:
        QuestionError: neither says anything.
    """
    if not isinstance(question, str):
        raise QuestionError(f"the question is a text, not {question!r:.80}")
    if not question.strip():
        humans = (m for m in reversed(messages) if isinstance(m, HumanMessage))
        question = next((str(m.text) for m in humans), "")
    question = writable(question).strip()
    if not question:
        raise QuestionError(
            "there is no question: pass {'question': '...'}, or 'messages' with a human one"
        )
    return question


def _tool_call(call: RouteCall) -> dict[str, Any]:
    # Computed here, not when the call was admitted: it may have waited for its turn.
    seconds_left = None if call["ends_at"] is None else call["ends_at"] - time.time()
    args = {
        "query": call["query"],
        "background": call["background"],
        "seconds_left": seconds_left,
    }
    return {"type": "tool_call", "id": call["id"], "name": call["tool"], "args": args}
