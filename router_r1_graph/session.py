"""One run as it happens: followed event by event, and what is known of it when it is broken off."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from .candidates import CandidatePool
from .controllers import Controller
from .graph import create_router_r1
from .reply import Reply, ReplyError, bill
from .state import RouteCall, RouterContext, charge_candidates, new_ledger
from .trace import Trace

INTERRUPTED = "interrupted"
"""The stop reason of a run that was broken off from outside. No graph ever sets it."""


class InterruptedRun(Exception):  # noqa: N818 - not an error: what the user asked for
    """A run was broken off. Carries what was known by then, and the exit code of the signal."""

    def __init__(self, trace: Trace, exit_code: int) -> None:
        super().__init__(INTERRUPTED)
        self.trace = trace
        self.exit_code = exit_code


class Watcher:
    """Sees a run as it goes on. This one looks away."""

    def thinking(self) -> None:
        """The controller is being asked."""

    def turn(self, round_: int, message: AIMessage) -> None:
        """The controller has written a turn; `round_` counts from 1."""

    def asking(self, call: RouteCall) -> None:
        """A call has been sent."""

    def reply(self, call: RouteCall, message: ToolMessage) -> None:
        """A reply, or an error, has come back."""

    def folded(self, observations: list[ToolMessage]) -> None:
        """The round is over: all that the controller will see of it, refusals included."""


@dataclass
class _Known:
    """What is known of a run: the state after the last step, and the calls since."""

    question: str
    state: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, tuple[RouteCall, float]] = field(default_factory=dict)
    replies: dict[str, ToolMessage] = field(default_factory=dict)


class Session:
    """A pool, a controller and knobs, ready to be asked.

    Args:
        pool: the candidates on offer.
        controller: decides whom to ask what.
        context: the knobs of every run.
        watcher: sees what happens.

    Raises:
        PoolError: a provider cannot be used, or a key variable is not set.
    """

    def __init__(
        self,
        pool: CandidatePool,
        controller: Controller,
        context: RouterContext,
        watcher: Watcher | None = None,
    ) -> None:
        self.pool, self.controller, self.context = pool, controller, context
        self.watcher = watcher or Watcher()
        self.graph = create_router_r1(pool, controller, context=context).compile(name="router_r1")

    def ask(self, question: str) -> Trace:
        """Run one question to its end.

        Raises:
            InterruptedRun: SIGINT or SIGTERM came first. What still runs (a hanging request, a
                thread) is left behind: exit with `os._exit`.
        """
        known = _Known(question)
        # Not asyncio.run: that waits for what hangs, and handles no signal while a step computes.
        loop = asyncio.new_event_loop()
        with sigterm_interrupts():
            try:
                loop.run_until_complete(self._follow(known))
            except KeyboardInterrupt as interrupt:
                raise InterruptedRun(self._broken_off(known), exit_code(interrupt)) from None
        loop.close()
        return Trace.from_state(
            known.state, pool=self.pool, controller=self.controller.name, context=self.context
        )

    async def _follow(self, known: _Known) -> None:
        events = self.graph.astream(
            {"question": known.question}, context=self.context, stream_mode=["values", "tasks"]
        )
        async for mode, event in events:
            if mode == "values":
                self._step(known, event)
            elif event["name"] == "think" and "input" in event:
                self.watcher.thinking()
            elif event["name"] == "route" and "input" in event:
                call: RouteCall = event["input"]
                known.asked[call["id"]] = call, time.perf_counter()
                self.watcher.asking(call)
            elif event["name"] == "route" and event.get("result"):
                (message,) = event["result"]["replies"]
                known.replies[message.tool_call_id] = message
                self.watcher.reply(known.asked[message.tool_call_id][0], message)

    def _step(self, known: _Known, state: dict[str, Any]) -> None:
        before = known.state.get("scratchpad") or [None]  # the question comes first
        known.state = state
        added = state["scratchpad"][len(before) :]
        observations: list[ToolMessage] = []
        for message in added:
            if isinstance(message, AIMessage):
                self.watcher.turn(state["round"] + 1, message)
            else:
                observations.append(message)
        if observations:
            known.asked, known.replies = {}, {}
            self.watcher.folded(observations)

    def _broken_off(self, known: _Known) -> Trace:
        """Return what is known as a trace: calls without a reply are failed ones."""
        state = known.state
        scratchpad: list[AnyMessage] = state.get("scratchpad") or [HumanMessage(known.question)]
        pending = []
        for id_, (call, start) in known.asked.items():
            message = known.replies.get(id_)
            if message is None:
                error = ReplyError("other", "interrupted before a reply came; it may be billed")
                seconds = time.perf_counter() - start
                candidate = self.pool.find(call["tool"])
                text, artifact = bill(
                    candidate.name if candidate else call["tool"],
                    Reply(seconds=seconds, error=error),
                )
                message = ToolMessage(
                    text, name=call["tool"], tool_call_id=id_, artifact=artifact, status="error"
                )
            details = {**message.artifact, "query": call["query"], "reply": str(message.text)}
            pending.append(message.model_copy(update={"artifact": details}))
        ledger = charge_candidates(
            state.get("ledger") or new_ledger(), [message.artifact for message in pending]
        )
        return Trace(
            question=str(scratchpad[0].text),
            answer="",
            stop_reason=INTERRUPTED,
            rounds=state.get("round", 0) + bool(pending),
            controller=self.controller.name,
            context=self.context,
            pool=self.pool.descriptors(),
            scratchpad=tuple([*scratchpad[1:], *pending]),  # type: ignore[arg-type]
            ledger=ledger,
        )


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Return what a shell expects of a program that ended by this signal."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM end a run as Ctrl-C does, unless somebody handles it already."""

    def terminate(*_: object) -> None:
        raise _Terminated

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
