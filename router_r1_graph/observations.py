"""What a round brought back, as messages: one for each of its calls, made or refused.

A message's text is what the controller sees. Where a round does not keep all (`keep`), its artifact
has the whole `reply` still, and under `kept` what is left of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from .answers import bare_answer, normalize_answer

SUMMARY = "summary"
"""The id of the call that summarises a round, and the artifact's key under which its bill is."""

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
    turn: AIMessage, replies: Sequence[ToolMessage], scratchpad: Sequence[AnyMessage]
) -> list[ToolMessage]:
    """Return one observation for each call of a turn, made or refused, in the order written.

    Args:
        turn: the controller's turn.
        replies: what the route node brought back in this round.
        scratchpad: all that came before: a call that was made already is answered from it, free.
    """
    fresh = {m.tool_call_id: m for m in replies}
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
            whole = {k: v for k, v in earlier.artifact.items() if k not in ("kept", SUMMARY)}
            artifact = {**whole, **_FREE}
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


def kept(observation: ToolMessage) -> str:
    """Return what a round kept of a usable reply; "" of any other."""
    artifact = observation.artifact
    return artifact.get("kept", artifact["reply"]) if artifact and artifact["ok"] else ""


def keep_majority(observations: Sequence[ToolMessage]) -> None:
    """Keep one of the replies to each query: the first whose answer most give.

    Replies to different queries do not compete; one that declines to answer loses to any that
    does not.
    """
    asked = defaultdict(list)
    for observation in observations:
        if kept(observation):
            asked[observation.artifact["query"]].append(observation)
    for replies in asked.values():
        answers = [normalize_answer(bare_answer(m.artifact["reply"])) for m in replies]
        votes = Counter(filter(None, answers)) or Counter(answers)
        best, count = votes.most_common(1)[0]
        first = answers.index(best)
        for place, reply in enumerate(replies):
            if place != first:
                winner = replies[first].artifact["candidate"]
                _keep(reply, "", f"(not kept: {count} of {len(replies)} say as {winner})")


def to_summarize(question: str, observations: Sequence[ToolMessage]) -> str:
    """Return the query that asks for a round's summary; "" where it brought nothing usable."""
    replies = [
        f"{m.artifact['candidate']} on {m.artifact['query']!r}: {m.artifact['reply']}"
        for m in observations
        if kept(m)
    ]
    if not replies:
        return ""
    task = "Summarise in a few sentences what these replies say that helps to answer the question."
    return "\n\n".join([task, f"Question: {question}", *replies])


def keep_summary(observations: Sequence[ToolMessage], summary: ToolMessage, query: str) -> None:
    """Keep the summary in the place of a round's usable replies; all of them where it failed.

    Args:
        observations: of the round.
        summary: what came back of the call for it.
        query: of that call.
    """
    usable = [m for m in observations if kept(m)]
    text, bill = str(summary.text), summary.artifact
    usable[0].artifact[SUMMARY] = {**bill, "query": query, "reply": text}
    if bill["ok"]:
        for reply in usable[1:]:
            _keep(reply, "", "(in the summary)")
        _keep(usable[0], text, f"(summary of the round by {bill['candidate']}) {text}")


def _keep(observation: ToolMessage, text: str, shown: str) -> None:
    observation.artifact["kept"] = text
    observation.content = shown
