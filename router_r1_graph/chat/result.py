"""The result of `ChatRouterR1`: one message with the bill of the whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from ..answers import is_abstention
from ..budget import StopReason
from ..candidates.finish import finish_of
from ..candidates.returned import kept_of
from ..ledger import WHERE_ANY, new_ledger, total
from ..protocol import beginning

UNANSWERED = "unanswered"
"""In the response metadata of an answer that is none, since nobody replied: True."""
ROUTED = "routed_answer"
"""In the response metadata of an answer in a form: the routed answer, as a text; "" = nobody was
asked, and the form is given to the conversation itself."""


def is_unanswered(state: Mapping[str, Any]) -> bool:
    """Return whether a run has no answer since nobody replied; its `error` has the cause.

    Without an error, its time was up before anybody was asked.

    Args:
        state: the output of the graph.
    """
    totals = total(state["ledger"])
    replied = totals["calls"] > totals["failed_calls"]
    failed = bool(state.get("error")) or state["stop_reason"] == StopReason.DEADLINE
    return failed and not replied and is_abstention(state["answer"])


def result_of(state: Mapping[str, Any], stop: Sequence[str], max_tokens: int | None) -> ChatResult:
    """Turn the output of a run into LangChain's result.

    Args:
        state: the output of the graph; its last message is the answer.
        stop: texts before which the answer is cut off, if it is a plain text; an empty one is none.
        max_tokens: about how many tokens are kept of it; None = all.
    """
    answer = state["messages"][-1]
    text, finish = str(answer.text), finish_of(answer)
    before = answer.response_metadata.get(ROUTED)
    routed = {} if before is None else {ROUTED: before}
    if not routed:  # half a JSON is none
        for mark in filter(None, stop):
            text, found, _ = text.partition(mark)
            finish = "stop" if found else finish
        whole = text
        text = beginning(text, max_tokens) if max_tokens else text
        finish = finish if text == whole else "length"
    totals = total(state["ledger"])
    usage = UsageMetadata(
        input_tokens=totals["input_tokens"],
        output_tokens=totals["output_tokens"],
        total_tokens=totals["input_tokens"] + totals["output_tokens"],
    )
    metadata = {
        **routed,
        "model_name": "router-r1",
        "finish_reason": "tool_calls" if answer.tool_calls else finish,
        "stop_reason": state["stop_reason"],
        "rounds": state["round"],
        **({"error": error} if (error := state.get("error")) else {}),
        **({UNANSWERED: True} if is_unanswered(state) else {}),
        **totals,
        "candidates": state["ledger"]["candidates"],
    }
    message = AIMessage(
        text,
        tool_calls=answer.tool_calls,
        additional_kwargs=kept_of(answer) if answer.tool_calls else {},
        usage_metadata=usage,
        response_metadata=metadata,
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


def free(generation: ChatGeneration) -> ChatGeneration:
    """Return a result that a cache kept, with a bill of nothing: the first run has paid it."""
    message = generation.message
    told = message.response_metadata
    if "cost_usd" not in told:
        return generation
    told = {name: value for name, value in told.items() if name not in WHERE_ANY}
    bill = {**total(new_ledger()), "saved_usd": told["cost_usd"], "candidates": {}, "cached": True}
    message = message.model_copy(update={"response_metadata": {**told, **bill}})
    return generation.model_copy(update={"message": message})
