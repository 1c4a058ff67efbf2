"""One run, followed while it happens, so that an interrupt still shows the results so far."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from ..call_records import call_records
from ..candidates import CandidatePool
from ..candidates.bill import bill
from ..candidates.failures import ReplyError
from ..candidates.reply import Reply
from ..context import RouterContext
from ..ledger import Ledger, charge_candidates, new_ledger, total
from ..state import RouteCall
from ..transcript import Transcript

INTERRUPTED = "interrupted"


class LiveRun:
    """Streams a run and keeps its results so far.

    Args:
        graph: the compiled router.
        pool: the pool it was built over.
        question: the question.
        context: the knobs.
        transcript: prints the events of the run; None = no transcript.
        callbacks: of the run, such as a `Recorder`.
        approve: gets the value of the interrupt of a call that waits for a person, and returns
            whether to make the call; the graph then needs a checkpointer.
        thread: the thread of a conversation that the question continues; None = no conversation.
    """

    def __init__(
        self,
        graph: CompiledStateGraph[Any, RouterContext, Any, Any],
        pool: CandidatePool,
        question: str,
        context: RouterContext,
        transcript: Transcript | None = None,
        callbacks: Sequence[BaseCallbackHandler] = (),
        approve: Callable[[Mapping[str, Any]], bool] | None = None,
        thread: str | None = None,
    ) -> None:
        self.graph = graph
        self.pool = pool
        self.question = question
        self.context = context
        self.transcript = transcript
        self.approve = approve
        self.config: RunnableConfig = {
            "callbacks": list(callbacks),
            "configurable": {"thread_id": thread or "run"},
        }
        self._given: dict[str, Any] = {"question": question}
        if thread is not None:
            self._given = {"messages": [HumanMessage(question)]}
        self._begun = False  # until then, the state is that of the thread's question before
        self.state: Mapping[str, Any] = {}
        self._asked: dict[str, tuple[RouteCall, float]] = {}  # of the round under way, by call id
        self._replies: dict[str, ToolMessage] = {}

    async def run(self) -> Mapping[str, Any]:
        """Run to the end and return the state."""
        asyncio.get_running_loop().set_default_executor(_DaemonThreads())
        await self._stream(self._given)
        while self.approve and (waiting := (await self.graph.aget_state(self.config)).interrupts):
            self._asked = {i: c for i, c in self._asked.items() if i in self._replies}
            with self.transcript.paused() if self.transcript else nullcontext():
                verdicts = {asked.id: self.approve(asked.value) for asked in waiting}
            await self._stream(Command(resume=verdicts))
        return self.state

    async def _stream(self, given: Any) -> None:
        """Run to the end, or until a call waits for a person."""
        stream = self.graph.astream(
            given, self.config, context=self.context, stream_mode=["tasks", "values"]
        )
        async for mode, part in stream:
            assert isinstance(part, dict)
            if mode == "values":
                if not self._begun:
                    continue
                if part.get("round", 0) != self.state.get("round", 0):
                    self._asked, self._replies = {}, {}  # aggregate has folded them in
                self.state = part
                continue
            self._follow(part)
            if self.transcript:
                self.transcript.event(part)

    def _follow(self, event: Mapping[str, Any]) -> None:
        self._begun = self._begun or "result" in event  # its first think clears the state
        if event["name"] != "route":
            return
        if "input" in event:
            call: RouteCall = event["input"]
            self._asked[call["id"]] = call, time.perf_counter()
        elif event.get("result"):
            for reply in event["result"]["replies"]:
                self._replies[reply.tool_call_id] = reply

    def known(self) -> dict[str, Any]:
        """Return the results so far, in the form of `Trace.summary`.

        A call in progress counts as failed: its provider may bill it all the same.
        """
        calls = call_records([*(self.state.get("scratchpad") or []), *self._round()])
        return {
            "question": self.question,
            "answer": self.state.get("answer", ""),
            "stop_reason": INTERRUPTED,
            "rounds": self.state.get("round", 0) + bool(self._asked),
            "calls": [asdict(call) for call in calls],
            "ledger": dict(total(self.ledger())),
        }

    def unanswered(self) -> list[ToolMessage]:
        """Return the calls in progress, as failed ones."""
        return [m for m in self._round() if m.tool_call_id not in self._replies]

    def ledger(self) -> Ledger:
        """Return the bill so far, the calls of the round under way included."""
        ledger = self.state.get("ledger") or new_ledger()
        return charge_candidates(ledger, [message.artifact for message in self._round()])

    def _round(self) -> list[ToolMessage]:
        """Return the calls of the round under way, each with its reply so far."""
        messages = []
        for id_, (call, start) in self._asked.items():
            message = self._replies.get(id_)
            if message is None:
                error = ReplyError("other", "interrupted before a reply came")
                candidate = self.pool.find(call["tool"])
                name = candidate.name if candidate else call["tool"]
                reply = Reply(seconds=time.perf_counter() - start, error=error)
                text, billed = bill(name, reply)
                message = ToolMessage(
                    text, name=call["tool"], tool_call_id=id_, artifact=billed, status="error"
                )
            artifact = {**message.artifact, "query": call["query"], "reply": str(message.text)}
            messages.append(message.model_copy(update={"artifact": artifact}))
        return messages


class _DaemonThreads(ThreadPoolExecutor):
    """Runs models that cannot be awaited, in threads that do not delay the exit.

    The usual executor joins its threads when the loop closes and when the program ends: one
    hanging call would keep Ctrl-C, a deadline and the way out waiting for it.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a thread of its own."""
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, daemon=True).start()
        return future
