"""The calls of a run as records: candidate, query and reply of each; and their gate.

A trace keeps bills, queries and decisions inside LangChain's messages, which take anything. Those
that come from outside have to pass the gate: then they can be added up, asked again, and judged by
their probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Annotated, Any, cast

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationInfo, model_validator

from .candidates import CandidatePool
from .observations import SUMMARY, ObservedBill, whole_reply

_SUM_WITHIN = 1e-3
"""How far the sum of the probabilities may be from 1: other programs round them."""
_FIX = "mend the line; or remove its 'decisions', and no estimate uses the run"
_NO_OBJECT = "mend or remove the 'router_r1' of the message: it is an object"

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
        input_tokens: tokens of the prompts, over all attempts that were billed.
        output_tokens: tokens of the replies, reasoning included, over the same attempts.
        cost_usd: USD of the same attempts; 0 for a cached or stored reply.
        seconds: seconds over all attempts and the waits between them; for a stored or recorded
            reply, those of the original call.
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
    """A decision as a turn keeps it; keys of newer releases are ignored.

    The context of the validation is the run's pool, if there is one.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    call: str
    query: str
    proposed: str
    asked: str
    probabilities: dict[str, _Chance]
    digest: str
    went_to: list[str] | None = []
    """The candidates that its call and its bill name, as far as known; None = no such call."""

    @model_validator(mode="after")
    def _can_be_weighed(self, info: ValidationInfo) -> _Decision:
        """Refuse candidates that cannot have been asked, and probabilities that no draw can have.

        Raises:
            ValueError: one of these.
        """
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
        if info.context is not None:
            for what, name in (
                ("proposed", self.proposed),
                *(("probabilities", n) for n in chances),
            ):
                if info.context.find(name) is None:
                    raise ValueError(f"{what}: {info.context.unknown(name)}; {_FIX}")
        if self.went_to is None:
            raise ValueError(f"there is no call {self.call!r} in its turn; {_FIX}")
        if other := [name for name in self.went_to if name != self.asked]:
            raise ValueError(f"{self.asked!r} is 'asked', but {other[0]!r} was asked; {_FIX}")
        return self


class _Told(BaseModel):
    """What a turn of the controller keeps about itself."""

    decisions: list[Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_one(cls, told: Any) -> Any:
        """Refuse what holds no decisions.

        Raises:
            ValueError: it is no object, or its decisions are no list.
        """
        if not isinstance(told, Mapping):
            raise ValueError(f"{_NO_OBJECT}, not {type(told).__name__}")
        found = told.get("decisions")
        if found is not None and not isinstance(found, list):
            raise ValueError(f"'decisions' is a list, not {type(found).__name__}; {_FIX}")
        return told


class _Shape(BaseModel):
    """The turns, before their decisions are read."""

    router_r1: list[_Told | None]


class _Read(BaseModel):
    """The values that are read from a scratchpad: real texts, and numbers that can be added."""

    model_config = ConfigDict(allow_inf_nan=False)

    bills: list[ObservedBill]
    queries: list[str]
    decisions: list[_Decision]


def check_scratchpad(
    scratchpad: Iterable[AnyMessage], pool: CandidatePool | None = None, *, edited: bool = False
) -> None:
    """Refuse messages in which a bill, a query or a decision cannot be read.

    Args:
        scratchpad: turns and observations.
        pool: the candidates of the run; None = any.
        edited: whether a person may have sent calls to other candidates than were decided.

    Raises:
        ValidationError: the first that cannot, by its number in the run.
    """
    messages = list(scratchpad)
    turns = [message for message in messages if isinstance(message, AIMessage)]
    _Shape.model_validate({"router_r1": [t.response_metadata.get("router_r1") for t in turns]})
    _Read.model_validate(
        {
            "bills": [
                # As of earlier releases.
                {"stored": False, "saved_usd": 0.0, **message.artifact}
                if isinstance(message.artifact, Mapping)
                else message.artifact
                for message in messages
                if isinstance(message, ToolMessage) and message.artifact
            ],
            "queries": [call["args"].get("query") for turn in turns for call in turn.tool_calls],
            "decisions": list(_decisions(messages, pool, edited=edited)),
        },
        context=pool,
    )


def _decisions(
    messages: Sequence[AnyMessage], pool: CandidatePool | None, *, edited: bool
) -> Iterator[Any]:
    """Yield each decision with the candidates that its call went to."""
    for place, turn in enumerate(messages):
        if not isinstance(turn, AIMessage):
            continue
        went_to: dict[str | None, list[str]] = {call["id"]: [] for call in turn.tool_calls}
        for call in turn.tool_calls:
            if pool and (named := pool.find(call["name"])):
                went_to[call["id"]].append(named.name)
        for reply in takewhile(lambda m: not isinstance(m, AIMessage), messages[place + 1 :]):
            if edited or not isinstance(reply, ToolMessage) or reply.tool_call_id not in went_to:
                continue
            if isinstance(bill := reply.artifact, Mapping):
                first = bill.get("instead_of") or bill  # a fallback was asked behind it
                name = first.get("candidate") if isinstance(first, Mapping) else None
                went_to[reply.tool_call_id] += [name] if isinstance(name, str) else []
        told = turn.response_metadata.get("router_r1") or {}
        for one in told.get("decisions") or ():
            call_id = one.get("call") if isinstance(one, Mapping) else None
            if isinstance(call_id, str):
                yield {**one, "went_to": went_to.get(call_id)}
            else:
                yield one
