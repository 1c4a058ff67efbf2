"""What a round brought back, as messages: one for each of its calls, made or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

_FREE: Mapping[str, Any] = {
    "cached": True,
    "input_tokens": 0,
    "output_tokens": 0,
    "reasoning_tokens": 0,
    "cost_usd": 0.0,
    "seconds": 0.0,
    "attempts": 0,
}


def observe(
    turn: AIMessage, replies: Sequence[AnyMessage], scratchpad: Sequence[AnyMessage]
) -> list[ToolMessage]:
    """Return one observation for each call of a turn, made or refused, in the order written.

    Args:
        turn: the controller's turn.
        replies: what the route node brought back in this round.
        scratchpad: all that came before: a call that was made already is answered from it, free.
    """
    fresh = {m.tool_call_id: m for m in replies if isinstance(m, ToolMessage)}
    seen = [m for m in scratchpad if isinstance(m, ToolMessage) and m.artifact]
    observations: list[ToolMessage] = []
    for call in turn.tool_calls:
        query = call["args"]["query"]
        if reply := fresh.get(call["id"] or ""):
            text = str(reply.text)
            artifact = {**reply.artifact, "query": query, "reply": text}
        else:
            earlier = next(
                m
                for m in reversed([*seen, *observations])
                if m.name == call["name"] and m.artifact["query"] == query
            )
            text = earlier.artifact["reply"]
            artifact = {**earlier.artifact, **_FREE}
        observations.append(
            ToolMessage(
                text,
                name=call["name"],
                tool_call_id=call["id"],
                artifact=artifact,
                status="success" if artifact["ok"] else "error",
            )
        )
    return observations + [
        ToolMessage(
            f"not done: {invalid['error']}",
            name=invalid["name"] or "error",
            tool_call_id=invalid["id"],
            status="error",
        )
        for invalid in turn.invalid_tool_calls
    ]
