"""The controller's side of the graph: begin, think and answer; `rounds` has the candidates' side.

    begin -> think -> (one Send per call) route -> aggregate -> think ... -> answer

A node is a function of the state; what it asks is bound when the graph is built. The controller's
mistakes are values here, never exceptions.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite, Send

from . import budget, events, protocol
from ._compat import read_channel, remembers, send_once
from .admission import admit
from .budget import Left, StopReason
from .candidates import CandidatePool
from .candidates.images import images_in, images_of, with_images
from .candidates.reply import Reply, writable
from .candidates.store import ReplyStore
from .context import RouterContext, resolve_context
from .controllers.controller import Controller, View
from .controllers.own import failure
from .errors import ConfigError, QuestionError
from .langsmith import runs
from .ledger import charge_controller, new_ledger, total
from .observations import conversation, instructions, kept
from .state import RouterState, knobs_of, left_of, question_of, setup_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ControllerNodes:
    """begin, think and answer over one pool and controller."""

    pool: CandidatePool
    controller: Controller
    defaults: RouterContext
    """The knobs of runs that pass none."""
    name: str = "router_r1"
    """The name of the message that a run returns."""
    store: ReplyStore | None = None
    """Where the turns of a controller that is paid may be kept."""

    def begin(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> Send:
        """Start a question from a clean state, whatever an earlier one left on the thread.

        Raises:
            QuestionError: neither `question` nor a human message says anything, or it has an image
                that no candidate takes.
            ConfigError: a knob cannot be used.
        """
        send_once(config)
        context = resolve_context(runtime.context, self.defaults)
        # Before anything is paid.
        if context.approve_above_usd is not None and not remembers(config):
            raise ConfigError(
                "approve_above_usd: to wait for a person, the graph needs a checkpointer; "
                "compile(checkpointer=...)"
            )
        context.check(self.pool)
        messages = state.get("messages") or []
        text = question_of(state.get("question", ""), messages)
        images = [] if state.get("question", "").strip() else images_of(messages)
        if images and not self.pool.taking_images():
            raise QuestionError(
                f"the question has an image, and no candidate of {self.pool.where} takes images; "
                "set image_inputs: true for those that do"
            )
        fresh: RouterState = {
            "scratchpad": [with_images(text, images)],
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
        """Return the most that a turn can cost; called only under a limit: it renders a prompt."""
        return 0.0 if view.left.usd is None else self.controller.worst_case_usd(view)

    def _view(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> View:
        context = knobs_of(state, runtime.context, self.defaults)
        question, *scratchpad = state["scratchpad"]
        messages = state.get("messages")
        if messages is None:  # begin sent no copy of them
            messages = read_channel(config, "messages") or []
        ledger = state.get("ledger") or new_ledger()
        remaining = left_of(state, ledger, state.get("round", 0), context)
        if state.get("ending") or not budget.may_call(state.get("remaining_steps")):
            remaining = Left(0, remaining.usd, remaining.seconds)
        runtime.stream_writer(events.budget(remaining))
        text, images = str(question.text), images_in(question)
        return View(
            question=text,
            # Whoever cannot see it cannot answer.
            pool=(images and self.pool.taking_images()) or self.pool,
            context=context,
            left=remaining,
            conversation=conversation(messages, text, context.max_conversation_tokens),
            scratchpad=tuple(scratchpad),
            store=self.store,
            instructions=instructions(messages),
            images=images,
        )

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
        seconds = left_of(state, ledger, round_, view.context).seconds
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
        """Return the state update of a think; a question's first one clears older values."""
        setup = setup_of(state)
        if (knobs := view.context.to_state()) != setup.get("context"):
            # A context that came with the resume is the run's from now on.
            setup = {**setup, "context": knobs}
        if "ledger" in state:
            changed = setup is not state.get("router_r1")
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

    # -------------------------------------------------------------------------------- answer

    def answer(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> dict[str, Any]:
        """Return one message, with the bill in its metadata."""
        context = knobs_of(state, runtime.context, self.defaults)
        remaining = left_of(state, state["ledger"], state["round"], context)
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
                if isinstance(m, ToolMessage) and (text := kept(m, whole=True))
            ),
            "",
        )
        # A checkpointer stores every version of a conversation whole, so the message of an answer
        # is small: a short id, and only the totals of the bill. The ledger has the bill of each
        # candidate.
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
                    "stored_calls": totals["stored_calls"],
                    "saved_usd": totals["saved_usd"],
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


@cache
def _our_version() -> str:
    # Python reads it off a file each time, which took a tenth of a question's CPU.
    return version("router-r1-graph")
