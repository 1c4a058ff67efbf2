"""The candidates' side of the graph: route makes one call, aggregate adds a round to the state.

If a round is to be summarised, aggregate first sends that call to route, and then runs again.
A candidate's failures are values here, never exceptions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite, Send, interrupt

from .. import budget, events, protocol
from .._compat import read_channel
from .._streams import in_silence
from ..budget import Left, StopReason
from ..candidates import CandidatePool
from ..candidates.bill import bill
from ..candidates.bugs import located
from ..candidates.failures import classify
from ..candidates.reply import Reply
from ..candidates.resilience.counts import count
from ..candidates.resilience.fallback import is_unreachable
from ..context import RouterContext
from ..controllers.controller import Controller
from ..controllers.own import end_question
from ..langsmith import runs
from ..ledger import Ledger, charge_candidates
from ..observations import SUMMARY, free, keep_majority, keep_summary, observe, to_summarize
from ..state import RouteCall, RouterState, knobs_of, left_of
from .approval import decide, request
from .edits import reply_of_a_person

_MADE_AT = "made_at"
"""In a reply's metadata until it is an observation: when it arrived (seconds since the epoch)."""


@dataclass(frozen=True)
class CandidateNodes:
    """route and aggregate over one pool and its tools (tool name -> tool)."""

    pool: CandidatePool
    tools: Mapping[str, BaseTool]
    controller: Controller
    defaults: RouterContext
    """The knobs of runs that pass none."""
    router: str = "router_r1"
    """The router's name, for a person who is to approve a call."""
    stream_steps: bool = True
    """Whether streams of messages show the replies."""

    def route(
        self, call: RouteCall, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> dict[str, Any]:
        """Make one call; a failure is a reply with an error."""
        config = self._traced(call, config)
        call, decided = self._approved(call, config, runtime)
        if decided:
            return self._replied(call, decided, runtime)
        message = self._asked(call, config)
        if other := self._instead(call, message):
            message = _with_both(self._asked(other, config), message)
        return self._replied(call, message, runtime)

    def _asked(self, call: RouteCall, config: RunnableConfig) -> ToolMessage:
        try:
            message: ToolMessage = self.tools[call["tool"]].invoke(_tool_call(call), config)
            return message
        except GraphBubbleUp:
            raise
        except Exception as error:
            return self._failed(call, error)

    async def aroute(
        self, call: RouteCall, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> dict[str, Any]:
        """Make one call without blocking; a failure is a reply with an error."""
        config = self._traced(call, config)
        call, decided = self._approved(call, config, runtime)
        if decided:
            return self._replied(call, decided, runtime)
        message = await self._aasked(call, config)
        if other := self._instead(call, message):
            message = _with_both(await self._aasked(other, config), message)
        return self._replied(call, message, runtime)

    async def _aasked(self, call: RouteCall, config: RunnableConfig) -> ToolMessage:
        try:
            message: ToolMessage = await self.tools[call["tool"]].ainvoke(_tool_call(call), config)
            return message
        except asyncio.CancelledError:  # the run is over
            end_question(self.controller, read_channel(config, "scratchpad") or ())
            raise
        except GraphBubbleUp:
            raise
        except Exception as error:
            return self._failed(call, error)

    def _instead(self, call: RouteCall, message: ToolMessage) -> RouteCall | None:
        """Return the call to the fallback, where the candidate could not be reached."""
        fallback = call.get("fallback")
        late = call["ends_at"] is not None and call["ends_at"] <= time.time()
        if fallback is None or late or not is_unreachable(message.artifact):
            return None
        count(self._name(call), "fallbacks")
        return {**call, "images": [], **fallback}

    def _approved(
        self, call: RouteCall, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> tuple[RouteCall, ToolMessage | None]:
        """Wait for a person if one has to approve the call; emit an event if the call is made.

        The node starts again at its top when the person has decided: nothing may happen before.

        Returns:
            The call, which the person may have edited, and the text in place of its reply if it is
            not made.
        """
        if call["needs_approval"]:
            question = next(iter(read_channel(config, "scratchpad") or ()), None)
            text = str(question.text) if question else ""
            said = interrupt(request(call, self._name(call), self.router, text))
            verdict = decide(said, call, self.pool)
            call = verdict.call
            if verdict.reply:
                return call, self._without_asking(call, verdict.reply)
        runtime.stream_writer(events.route_start(call, self._name(call)))
        return call, None

    def _replied(
        self, call: RouteCall, message: ToolMessage, runtime: Runtime[RouterContext]
    ) -> dict[str, Any]:
        """Cut a reply to the part that the controller may see, before any checkpoint holds it.

        The artifact keeps a usable one whole.
        """
        whole = str(message.text)
        cut = protocol.cut(
            whole, call.get("max_reply_tokens", RouterContext.max_information_tokens)
        )
        artifact = dict(message.artifact)
        if cut != whole and artifact["ok"]:
            artifact["whole"] = protocol.beginning(whole, self._longest(call))
        if thoughts := artifact.get("thoughts"):
            artifact["thoughts"] = protocol.cut(thoughts, self._longest(call))
        if call["needs_approval"]:  # the query may be the person's
            artifact["query"] = call["query"]
        # A copy: the tool's run is yet to be uploaded as it was.
        made = {_MADE_AT: time.time()}
        message = message.model_copy(
            update={"content": cut, "artifact": artifact, "response_metadata": made}
        )
        runtime.stream_writer(events.route_end(call, message.artifact))
        return {"replies": [message]}

    def _longest(self, call: RouteCall) -> int:
        """Return how many tokens of 4 bytes are kept: many more than a candidate may write.

        A hostile server sends megabytes, and every checkpoint would hold them.
        """
        candidate = self.pool.find(call["tool"])
        shown = call.get("max_reply_tokens", RouterContext.max_information_tokens)
        return max(8 * candidate.max_tokens if candidate else 0, shown)

    def _failed(self, call: RouteCall, error: Exception) -> ToolMessage:
        known = located(classify(error), error, f"candidate {self._name(call)}")
        return self._without_asking(call, Reply(error=known))

    def _without_asking(self, call: RouteCall, reply: Reply) -> ToolMessage:
        text, artifact = bill(self._name(call), reply)
        return ToolMessage(text, name=call["tool"], tool_call_id=call["id"], artifact=artifact)

    def _name(self, call: RouteCall) -> str:
        candidate = self.pool.find(call["tool"])
        return candidate.name if candidate else call["tool"]

    def aggregate(
        self, state: RouterState, config: RunnableConfig, runtime: Runtime[RouterContext]
    ) -> Command[str]:
        """Add the replies of the round to the scratchpad and the ledger; check the budget."""
        if not self.stream_steps:
            in_silence(config)
        context = knobs_of(state, runtime.context, self.defaults, self.pool)
        turn = state["scratchpad"][-1]
        assert isinstance(turn, AIMessage)
        began = (state.get("router_r1") or {}).get("started_at", 0.0)
        calls = {call["id"]: call for call in turn.tool_calls}
        replies = [
            _paid_once(m, began)
            if m.artifact
            else reply_of_a_person(m, calls[m.tool_call_id], m.text, self.pool)
            for m in state["replies"]
            if isinstance(m, ToolMessage) and (m.artifact or m.tool_call_id in calls)
        ]
        observations = observe(turn, replies, state["scratchpad"])
        made = {m.tool_call_id for m in replies}
        ledger = charge_candidates(
            state["ledger"], [m.artifact for m in observations if m.tool_call_id in made]
        )
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
        remaining = left_of(state, ledger, round_, context)
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
        remaining = left_of(state, ledger, state["round"], context)
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
            most_usd=remaining.usd,
            max_reply_tokens=context.max_information_tokens,
            round=state["round"] + 1,
            ends_at=remaining.seconds and time.time() + remaining.seconds,
        )

    def _traced(self, call: RouteCall, config: RunnableConfig) -> RunnableConfig:
        name = self._name(call)
        tag = f"route:{name}"
        runs.label(config, tag, name=tag, candidate=name, round=call["round"])
        if not self.stream_steps:
            config = in_silence(config)
        return runs.inside(config, tag, candidate=name, round=call["round"])


def _with_both(reply: ToolMessage, failed: ToolMessage) -> ToolMessage:
    """Return the reply of a fallback with the bill of the call that had failed."""
    artifact = {**reply.artifact, "instead_of": failed.artifact}
    return reply.model_copy(update={"artifact": artifact})


def _paid_once(reply: ToolMessage, began: float) -> ToolMessage:
    """Return a reply free of charge if it is older than the run: a node cache of LangGraph gave it.

    The cache replays the node's output, with the bill of that time.
    """
    if reply.response_metadata.get(_MADE_AT, began) >= began:
        return reply
    return reply.model_copy(update={"artifact": free(reply.artifact)})


def _tool_call(call: RouteCall) -> dict[str, Any]:
    # Computed here, not when the call was admitted: it may have waited for its turn.
    seconds_left = None if call["ends_at"] is None else call["ends_at"] - time.time()
    args = {
        "query": call["query"],
        "background": call["background"],
        "images": call.get("images", []),
        "seconds_left": seconds_left,
    }
    return {"type": "tool_call", "id": call["id"], "name": call["tool"], "args": args}
