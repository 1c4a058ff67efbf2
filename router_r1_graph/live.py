"""One run, followed while it happens, so that an interrupt still shows what is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AnyMessage, ToolMessage
from langgraph.graph.state import CompiledStateGraph

from .context import RouterContext
from .ledger import charge_candidates, new_ledger, total
from .trace import call_records
from .transcript import Transcript

INTERRUPTED = "interrupted"


class LiveRun:
    """Streams a run and keeps what has come so far.

    Args:
        graph: the compiled router.
        question: what to ask.
        context: the knobs.
        transcript: where to print what happens; None = nowhere.
    """

    def __init__(
        self,
        graph: CompiledStateGraph[Any, RouterContext, Any, Any],
        question: str,
        context: RouterContext,
        transcript: Transcript | None = None,
    ) -> None:
        self.graph = graph
        self.question = question
        self.context = context
        self.transcript = transcript
        self.state: Mapping[str, Any] = {}
        self._replies: list[ToolMessage] = []
        self._queries: dict[str, str] = {}

    async def run(self) -> Mapping[str, Any]:
        """Run to the end and return the state."""
        stream = self.graph.astream(
            {"question": self.question}, context=self.context, stream_mode=["tasks", "values"]
        )
        async for mode, part in stream:
            assert isinstance(part, dict)
            if mode == "values":
                self.state = part
                continue
            self._follow(part)
            if self.transcript:
                self.transcript.event(part)
        return self.state

    def _follow(self, event: Mapping[str, Any]) -> None:
        if event["name"] == "aggregate":
            self._replies.clear()
        elif event["name"] == "route" and "input" in event:
            self._queries[event["input"]["id"]] = event["input"]["query"]
        elif event["name"] == "route" and event.get("result"):
            self._replies += event["result"]["replies"]

    def known(self) -> dict[str, Any]:
        """Return what is known so far, in the form of `Trace.summary`."""
        scratchpad: list[AnyMessage] = list(self.state.get("scratchpad") or [])
        for reply in self._replies:
            query = self._queries[reply.tool_call_id]
            artifact = {**reply.artifact, "query": query, "reply": str(reply.text)}
            scratchpad.append(reply.model_copy(update={"artifact": artifact}))
        return {
            "question": self.question,
            "answer": self.state.get("answer", ""),
            "stop_reason": INTERRUPTED,
            "rounds": self.state.get("round", 0),
            "calls": [call.model_dump() for call in call_records(scratchpad)],
            "ledger": dict(total(self.ledger())),
        }

    def ledger(self) -> Any:
        """Return the bill so far, the calls that came back in this round included."""
        ledger = self.state.get("ledger") or new_ledger()
        return charge_candidates(ledger, [reply.artifact for reply in self._replies])
