"""The calls of a run as records: candidate, query and reply of each; and their gate.

A trace keeps bills, queries and decisions inside LangChain's messages, which take anything. Those
that come from outside have to pass the gate: then they can be added up, asked again, and judged by
their probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, cast

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from .observations import SUMMARY, ObservedBill, whole_reply

_SUM_WITHIN = 1e-3
"""How far the sum of the probabilities may be from 1: other programs round them."""
_FIX = "mend the line; or remove its 'decisions', and no estimate uses the run"

_Chance = Annotated[float, Strict(), Field(ge=0, le=1)]


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


class _Decision(BaseModel):
    """A decision as a turn keeps it; keys of newer releases are ignored."""

    model_config = ConfigDict(allow_inf_nan=False)

    call: str
    query: str
    proposed: str
    asked: str
    probabilities: dict[str, _Chance]
    digest: str

    @model_validator(mode="after")
    def _can_be_weighed(self) -> _Decision:
        """Refuse probabilities that no draw can have had."""
        chances, total = self.probabilities, sum(self.probabilities.values())
        if never := [name for name, chance in chances.items() if not chance]:
            raise ValueError(
                f"the probability of {never[0]!r} is 0, and only candidates that could have been "
                f"asked are listed; {_FIX}"
            )
        if self.asked not in chances:
            raise ValueError(f"{self.asked!r} was asked, and has no probability; {_FIX}")
        if not math.isclose(total, 1, abs_tol=_SUM_WITHIN):
            raise ValueError(f"the probabilities add up to {total:.4g}, not to 1; {_FIX}")
        return self


class _Read(BaseModel):
    """The values that are read from a scratchpad: real texts, and numbers that can be added."""

    model_config = ConfigDict(allow_inf_nan=False)

    bills: list[ObservedBill]
    queries: list[str]
    decisions: list[_Decision]


def check_scratchpad(scratchpad: Iterable[AnyMessage]) -> None:
    """Refuse messages in which a bill, a query or a decision cannot be read.

    Raises:
        ValidationError: the first that cannot, by its number in the run.
    """
    messages = list(scratchpad)
    turns = [message for message in messages if isinstance(message, AIMessage)]
    about = [turn.response_metadata.get("router_r1") or {} for turn in turns]
    _Read.model_validate(
        {
            "bills": [
                {"stored": False, "saved_usd": 0.0, **message.artifact}  # as of earlier releases
                for message in messages
                if isinstance(message, ToolMessage) and message.artifact
            ],
            "queries": [call["args"].get("query") for turn in turns for call in turn.tool_calls],
            "decisions": [one for told in about for one in told.get("decisions") or ()],
        }
    )
