"""The calls of a run as records: candidate, query and reply of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from .observations import SUMMARY, ObservedBill, whole_reply


@dataclass(frozen=True)
class CallRecord:
    """One call that was made, and its reply.

    Attributes:
        round: the round in which it was made, from 1.
        candidate: the name of the candidate.
        query: the query that it got.
        reply: the whole text of the reply; for a failed call the error.
        thoughts: the thoughts of a reasoning model before its reply.
        ok: whether the reply can be used.
        error: why it failed, or what is doubtful about it; None = nothing.
        cached: whether no call was made: this run had asked the same before, or LangChain's or
            LangGraph's cache had the reply.
        stored: whether the reply came out of the reply store, free of charge.
        saved_usd: the price of a stored reply, had the call been made.
    """

    round: int
    candidate: str
    query: str
    reply: str
    ok: bool
    error: str | None
    input_tokens: int
    output_tokens: int
    cost_usd: float
    seconds: float
    cached: bool
    stored: bool = False
    saved_usd: float = 0.0
    thoughts: str = ""


def call_records(scratchpad: Iterable[AnyMessage], *, summaries: bool = True) -> list[CallRecord]:
    """Return the calls in a scratchpad that got a reply or an error, in order.

    Args:
        scratchpad: turns and observations.
        summaries: whether calls that summarised a round count; the controller did not make them.
    """
    records: list[CallRecord] = []
    round_ = 0
    for message in scratchpad:
        if isinstance(message, AIMessage):
            round_ += 1
        elif isinstance(message, ToolMessage) and message.artifact:
            if failed := message.artifact.get("instead_of"):
                text = f"error: {failed['error']['message']}"
                about = {"query": message.artifact["query"], "reply": text}
                records.append(_call_record(cast("ObservedBill", {**failed, **about}), round_))
            records.append(_call_record(message.artifact, round_))
            if summaries and (summary := message.artifact.get(SUMMARY)):
                records.append(_call_record(summary, round_))
    return records


def _call_record(bill: ObservedBill, round_: int) -> CallRecord:
    error = bill["error"] and f"{bill['error']['kind']}: {bill['error']['message']}"
    return CallRecord(
        round=round_,
        candidate=bill["candidate"],
        query=bill["query"],
        reply=whole_reply(bill),
        ok=bill["ok"],
        error=error,
        input_tokens=bill["input_tokens"],
        output_tokens=bill["output_tokens"],
        cost_usd=bill["cost_usd"],
        seconds=bill["seconds"],
        cached=bill["cached"],
        stored=bill.get("stored", False),  # traces of earlier releases have neither
        saved_usd=bill.get("saved_usd", 0.0),
        thoughts=bill.get("thoughts", ""),
    )
