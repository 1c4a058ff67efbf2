"""Where a run begins and ends: begin reads the question, answer hands one message back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime
from langgraph.types import Send

from .. import events, protocol
from .._compat import read_channel, remembers, runtime_of
from .._streams import hand_up, hide
from ..answers import bare_answer, is_abstention
from ..budget import StopReason
from ..call_records import CallRecord, call_records
from ..candidates import CandidatePool
from ..context import RouterContext, as_context
from ..controllers.controller import Controller
from ..controllers.own import end_question
from ..errors import ConfigError
from ..langsmith import runs
from ..langsmith.once import send_once
from ..ledger import total
from ..observations import kept
from ..state import RouterState, knobs_of, left_of, question_of
from . import edits


@dataclass(frozen=True)
class EndNodes:
    """begin and answer over one pool and controller."""

    pool: CandidatePool
    controller: Controller
    defaults: RouterContext
    """The knobs of runs that pass none."""
    name: str = "router_r1"
    """The name of the message that a run returns."""
    stream_steps: bool = True
    """Whether streams of messages show the turns and replies."""

    def begin(self, state: RouterState, config: RunnableConfig) -> Send:
        """Start a question from a clean state, without anything of an earlier one on the thread.

        A person who edits the input begins it too: with the knobs of the run that is edited, and
        its time begins when it goes on.

        Raises:
            QuestionError: there is no question, or it has an image that no candidate takes.
            ConfigError: a knob cannot be used.
        """
        send_once(config)
        edits.check_input(state, config)
        runtime = runtime_of(config)
        if runtime:
            inside = "|" in str(config["configurable"].get("checkpoint_ns"))  # of a parent graph
            context = as_context(runtime.context, self.defaults, parents=inside)
        else:
            context = knobs_of(state, None, self.defaults, self.pool)
        # Before anything is paid.
        if runtime and context.approve_above_usd is not None and not remembers(config):
            raise ConfigError(
                "approve_above_usd: to wait for a person, the graph needs a checkpointer; "
                "compile(checkpointer=...)"
            )
        context.check(self.pool)
        messages = state.get("messages") or []
        question = question_of(state.get("question", ""), messages, self.pool)
        fresh: RouterState = {
            "scratchpad": [question.model_copy(update={"id": _new_id()})],
            "router_r1": {"context": context.to_state()},
        }
        if runtime:
            fresh["router_r1"]["started_at"] = time.time()
        # The conversation is not copied into the checkpoint once more: think reads it where it is.
        if read_channel(config, "messages") is None:
            fresh["messages"] = messages
        return Send("think", fresh)

    def answer(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> dict[str, Any]:
        """Return one message, with the bill in its metadata."""
        end_question(self.controller, state["scratchpad"])
        context = knobs_of(state, runtime.context, self.defaults, self.pool)
        calls = call_records(state["scratchpad"])
        reason, error = _ending(state, calls)
        remaining = left_of(state, state["ledger"], state["round"], context)
        runtime.stream_writer(events.budget(remaining))
        runs.label_router(
            config,
            lambda: {
                **described(self.pool, self.controller, context),
                "stop_reason": reason,
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
        if_any: dict[str, Any] = {}
        if totals["stored_calls"]:
            if_any = {"stored_calls": totals["stored_calls"], "saved_usd": totals["saved_usd"]}
        if uncertain := totals.get("uncertain_usd"):
            if_any["uncertain_usd"] = uncertain
        message = AIMessage(
            answer or f"(no answer: {reason})",
            id=_new_id(),
            name=self.name,
            response_metadata={
                **_cut(answer, calls),
                "router_r1": {
                    "stop_reason": reason,
                    "rounds": state["round"],
                    "cost_usd": totals["cost_usd"],
                    "input_tokens": totals["input_tokens"],
                    "output_tokens": totals["output_tokens"],
                    "seconds": totals["seconds"],
                    "calls": totals["calls"],
                    "failed_calls": totals["failed_calls"],
                    **if_any,
                },
            },
        )
        hide(config, state["scratchpad"])
        hand_up(config, message, alone=not self.stream_steps)
        told = {"error": error} if error else {}
        return {"answer": answer, "stop_reason": reason, "messages": [message], **told}


def _ending(state: RouterState, calls: Sequence[CallRecord]) -> tuple[str, str]:
    """Return the stop reason, and why no candidate replied; "" = one did, or none was asked.

    A controller that knows an answer of its own has answered all the same. A deadline, say, is the
    reason in an outage too.
    """
    reason = state["ending"]
    replied = not calls or any(call.ok for call in calls)
    if replied or reason == StopReason.CONTROLLER_ERROR or not is_abstention(state["answer"]):
        return reason, ""
    if reason in (StopReason.ANSWERED, StopReason.ROUND_LIMIT):
        reason = StopReason.NO_REPLY.value
    return reason, calls[-1].error or ""


def _cut(answer: str, calls: Sequence[CallRecord]) -> dict[str, Any]:
    """Return the finish reason of an answer that is a candidate's own reply and was cut; {} = none.

    The controller's own words are whole. So is text before the cut, or in another reply.
    """
    answer = answer.strip()
    told = [call for call in calls if call.ok and answer]
    own = [c for c in told if answer in (c.reply.strip(), bare_answer(c.reply))]
    ends = [c.error or "" for c in own if c.reply.rstrip().endswith(answer)]
    if not own or len(ends) < len(own) or not all(end.startswith("cut:") for end in ends):
        return {}
    return {"finish_reason": "content_filter" if "content filter" in ends[-1] else "length"}


def described(
    pool: CandidatePool, controller: Controller, context: RouterContext
) -> dict[str, Any]:
    """Return a trace's description of a router: its candidates, its controller and its versions."""
    return {
        "pool": pool.name,
        "controller": controller.name,
        "cost_weight": context.cost_weight,
        "router_r1_version": _our_version(),
        "protocol_version": protocol.VERSION,
    }


def _new_id() -> str:
    return f"r1-{secrets.token_urlsafe(6)}"


@cache
def _our_version() -> str:
    # Python reads it off a file each time, which took a tenth of a question's CPU.
    return version("router-r1-graph")
