"""The controller's turn: think; `rounds` has the candidates' side, `ends` begin and answer.

    begin -> think -> (one Send per call) route -> aggregate -> think ... -> answer

A node is a function of the state; its models are bound when the graph is built. The controller's
mistakes are values here, never exceptions.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite, Send

from .. import budget, events, protocol
from .._compat import read_channel
from .._streams import in_silence
from ..budget import Left, StopReason
from ..candidates import CandidatePool
from ..candidates.failures import ReplyError
from ..candidates.images import images_in
from ..candidates.in_time import TooLateError, ain_time, apart_if_long, in_time
from ..candidates.reply import Reply
from ..candidates.store import ReplyStore
from ..context import RouterContext
from ..controllers.controller import Controller, View
from ..controllers.own import RAISED, failure, own_of
from ..decisions import Draws
from ..langsmith import runs
from ..ledger import charge_controller, new_ledger
from ..observations import conversation, instructions
from ..state import RouterState, knobs_of, left_of, setup_of
from . import edits
from .admission import admit
from .ends import described

logger = logging.getLogger(__name__)

_SPARE_SECONDS = 0.2
"""Extra time for a controller that keeps to the deadline itself, so that it can report its cost."""

_CLOCK_SECONDS = 0.001
"""How far the clocks of a deadline and of a call's time-out may be apart."""


@dataclass(frozen=True)
class TurnNode:
    """think over one pool and controller."""

    pool: CandidatePool
    controller: Controller
    defaults: RouterContext
    """The knobs of runs that pass none."""
    store: ReplyStore | None = None
    """Where the turns of a controller that is paid may be kept."""
    stream_steps: bool = True
    """Whether streams of messages show the turns."""

    def think(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> Command[str]:
        """Ask the controller for one turn."""
        state, view, config, done = self._begun(state, config, runtime)
        if done is not None:
            return done
        came: Reply | BaseException
        try:
            came = self._decided(view, config)
        except GraphBubbleUp:  # an interrupt, not a failure
            raise
        except RAISED as error:
            came = error
        return self._after_think(state, view, _turn(view, self.controller.name, came))

    async def athink(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> Command[str]:
        """Ask the controller for one turn, without blocking."""
        state, view, config, done = self._begun(state, config, runtime)
        if done is not None:
            return done
        came: Reply | BaseException
        try:
            came = await self._adecided(view, config)
        except GraphBubbleUp:
            raise
        except Exception as error:
            came = error
        reply = _turn(view, self.controller.name, came)
        return await apart_if_long(len(reply.text), lambda: self._after_think(state, view, reply))

    def _begun(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> tuple[RouterState, View, RunnableConfig, Command[str] | None]:
        """Return the input of a turn, and the next node if the controller need not be asked."""
        state, edited = self._edited(state)
        view = self._view(state, config, runtime)
        config = self._trace_think(state, view, config)
        if edited:
            return state, view, config, self._after_think(state, view, edited, asked=False)
        try:
            reason = budget.ending_of_turn(view.left, self._worst_case_usd(view))
        except RAISED as error:
            reply = Reply(error=failure(error, self.controller.name))
            return state, view, config, self._after_think(state, view, reply)
        return state, view, config, self._stop(state, view, reason) if reason else None

    def _decided(self, view: View, config: RunnableConfig) -> Reply | BaseException:
        """Ask the controller; a deadline ends the wait for it."""
        if view.left.seconds is None:
            return self.controller.decide(view, config)
        return in_time(
            view.left.seconds + _SPARE_SECONDS, lambda: self.controller.decide(view, config)
        )

    async def _adecided(self, view: View, config: RunnableConfig) -> Reply | BaseException:
        left = view.left.seconds
        longest = None if left is None else left + _SPARE_SECONDS
        return await ain_time(longest, lambda: self.controller.adecide(view, config))

    def _edited(self, state: RouterState) -> tuple[RouterState, Reply | None]:
        """Return the turn that a person wrote, if any, and the state before it."""
        edited = edits.turn_of_a_person(state["scratchpad"], self.pool)
        if edited:
            state = {**state, "scratchpad": state["scratchpad"][:-1], "ending": ""}
        return state, edited

    def _worst_case_usd(self, view: View) -> float:
        """Return the most that a turn can cost; called only under a limit: it renders a prompt."""
        return 0.0 if view.left.usd is None else self.controller.worst_case_usd(view)

    def _view(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> View:
        context = knobs_of(state, runtime.context, self.defaults, self.pool)
        question, *scratchpad = state["scratchpad"]
        messages = state.get("messages")
        if messages is None:  # begin sent no copy of them
            messages = read_channel(config, "messages") or []
        ledger = state.get("ledger") or new_ledger()
        remaining = left_of(state, ledger, state.get("round", 0), context)
        steps = state.get("remaining_steps")
        if steps is None:
            steps = read_channel(config, "remaining_steps")
        # Whether the rounds are used up is asked anew: a person may have given some back.
        over = state.get("ending", "") not in ("", StopReason.ROUND_LIMIT)
        if over or not budget.may_call(steps):
            remaining = Left(0, remaining.usd, remaining.seconds)
        runtime.stream_writer(events.budget(remaining))
        text = str(question.text)
        view = View(
            question=text,
            pool=self.pool,
            context=context,
            left=remaining,
            conversation=conversation(messages, text, context.max_conversation_tokens),
            scratchpad=edits.reread(scratchpad, self.pool),
            store=self.store,
            instructions=instructions(messages),
            images=images_in(question),
        )
        return view.of_those_who_see()  # a model that cannot see it cannot answer

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

    def _after_think(
        self, state: RouterState, view: View, reply: Reply, *, asked: bool = True
    ) -> Command[str]:
        """Read the turn and decide where to go: to the calls, back with a reason, or to the end.

        Args:
            state: the state before the turn.
            view: the view that the controller had.
            reply: the turn.
            asked: whether the controller was asked for it, and is on the bill.
        """
        ledger, round_ = state.get("ledger") or new_ledger(), state.get("round", 0)
        if not reply.ok:
            left = left_of(state, ledger, round_, view.context).seconds
            # By the clock, and by the turn's own time: that of a stored one is what it once took.
            late = left is not None and (
                left <= _CLOCK_SECONDS or reply.seconds >= (view.left.seconds or 0.0)
            )
            reason = StopReason.DEADLINE if late else StopReason.CONTROLLER_ERROR
            if reply.error:
                kind, message = reply.error.kind, reply.error.message
                logger.warning("controller %s failed: %s: %s", self.controller.name, kind, message)
            return self._stop(state, view, reason, reply)
        turn = protocol.parse(reply.text)
        if asked:
            ledger = charge_controller(ledger, reply)
        seconds = left_of(state, ledger, round_, view.context).seconds
        ends_at = seconds and time.time() + seconds
        plan = admit(turn, view, reply, round_, ends_at=ends_at, draws=self._draws, decides=asked)
        ending, answer = "", ""
        goto: Any = [Send("route", call) for call in plan.routed] or "aggregate"
        if view.must_answer:
            goto, answer = "answer", turn.answer or ""
            ending = state.get("ending") or StopReason.ROUND_LIMIT.value
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
                # Those of the turn that a person edited, and whose calls are made anew.
                **({} if asked else {"replies": Overwrite([])}),
            },
        )

    def _written(self, state: RouterState, view: View, added: list[AnyMessage]) -> dict[str, Any]:
        """Return the state update of a think; a question's first one clears older values."""
        setup = setup_of(state)
        known = {id(message) for message in state["scratchpad"]}
        added = [*(m for m in view.scratchpad if id(m) not in known), *added]  # a person's first
        if (knobs := view.context.to_state()) != setup.get("context"):
            # A context that came with the resume is the run's from now on.
            setup = {**setup, "context": knobs}
        if "ledger" in state:
            changed = setup is not state.get("router_r1")
            return {
                "scratchpad": added,
                **({"router_r1": setup} if changed else {}),
                **({"error": ""} if state.get("error") else {}),
            }
        return {
            "router_r1": {
                **setup,
                "controller": self.controller.name,
                "protocol_version": protocol.VERSION,
                "pool": self._descriptors,
            },
            "scratchpad": [*state["scratchpad"], *added],
            "replies": Overwrite([]),
            "round": 0,
            "answer": "",
            "ending": "",
            "stop_reason": "",
            "error": "",
        }

    @cached_property
    def _draws(self) -> Draws | None:
        own = own_of(self.controller)
        return own if isinstance(own, Draws) else None

    @cached_property
    def _descriptors(self) -> dict[str, Any]:
        return self.pool.descriptors().model_dump(mode="json")

    def _trace_think(
        self, state: RouterState, view: View, config: RunnableConfig
    ) -> RunnableConfig:
        round_ = state.get("round", 0) + 1
        if not view.scratchpad:
            runs.label_router(config, lambda: described(self.pool, self.controller, view.context))
        runs.label(config, "think", controller=self.controller.name, round=round_)
        if not self.stream_steps:
            config = in_silence(config)
        return runs.inside(config, "think", controller=self.controller.name, round=round_)


def _turn(view: View, controller: str, outcome: Reply | BaseException) -> Reply:
    """Return a controller's turn; an exception is a failed one, and a late turn keeps its bill."""
    if not isinstance(outcome, BaseException):
        return outcome
    if not isinstance(outcome, TooLateError):
        return Reply(error=failure(outcome, controller))
    reply = outcome.partial if isinstance(outcome.partial, Reply) else Reply()
    seconds = max(reply.seconds, view.left.seconds or 0.0)
    return replace(reply, seconds=seconds, error=ReplyError("timeout", str(outcome)))
