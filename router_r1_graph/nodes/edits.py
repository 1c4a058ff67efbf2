"""A person's edits of the state of a run (LangGraph's `update_state`), and its next step.

A person may write the input, a turn or a reply in place of the node that writes it. The turn is
taken as the controller's; a reply counts as the candidate's, and costs nothing more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Send

from .._compat import pending_sends, read_channel, runtime_of
from ..candidates import CandidatePool
from ..candidates.bill import bill
from ..candidates.reply import Reply
from ..errors import QuestionError
from ..observations import kept, shown
from ..protocol import Call, Turn, parse, render
from ..state import RouterState


def go_on(_: Any, config: RunnableConfig) -> list[str | Send]:
    """Return where a run goes on from a state that a person wrote as think or aggregate.

    In a run, these nodes name the next step themselves, and this returns nothing.
    """
    if runtime_of(config):
        return []
    known = read_channel(config, "scratchpad") or []
    now = read_channel(config, "scratchpad", written=True) or []
    for begun in pending_sends(config, "think"):
        # The first turn has not been written: the question is only in what begin sent.
        added = [message for message in now if message not in known]
        if not (added and isinstance(added[0], HumanMessage)):
            added = [*begun["scratchpad"], *added]
        return [Send("think", {**begun, "scratchpad": added})]
    # LangGraph takes think for the last node where route was: a person may have edited a reply.
    replied = read_channel(config, "replies", written=True)
    return ["aggregate" if replied and now == known else "think"]


def check_input(state: RouterState, config: RunnableConfig) -> None:
    """Check that a person who edited the input gave one.

    Raises:
        QuestionError: LangGraph took the input for the last node, since the first turn and its
            calls are reached by `Send`; the edit is lost.
    """
    if runtime_of(config) or state.get("question"):
        return
    if state.get("messages") == read_channel(config, "messages"):
        raise QuestionError(
            "update_state: there is no question or message in it; to edit a turn, a round or a "
            "reply, name its node: as_node='think', 'aggregate' or 'route'"
        )


def turn_of_a_person(scratchpad: Sequence[AnyMessage], pool: CandidatePool) -> Reply | None:
    """Return the turn that a person wrote; None where the controller is to write one.

    An edited text counts, or else edited calls.
    """
    message = scratchpad[-1]
    if not isinstance(message, AIMessage):
        return None
    text = str(message.text)
    same_text = message.response_metadata.get("router_r1", {}).get("crc32") == crc32(text.encode())
    fresh = "router_r1" not in message.response_metadata
    calls = message.tool_calls
    if calls and (same_text or fresh) and _asked(calls, pool) != _asked_in(text, message, pool):
        asked = tuple(Call(name, query) for name, query in _asked(calls, pool))
        text, same_text = render(Turn(parse(text).thoughts, asked)), False
    tokens = message.additional_kwargs if same_text else {}
    return Reply(text, attempts=0, message=AIMessage("", id=message.id, additional_kwargs=tokens))


def _asked(calls: Sequence[ToolCall], pool: CandidatePool) -> list[tuple[str, str]]:
    found = ((pool.find(call["name"]), call) for call in calls)
    return [
        (candidate.name if candidate else call["name"], str(call["args"].get("query", "")))
        for candidate, call in found
    ]


def _asked_in(text: str, message: AIMessage, pool: CandidatePool) -> list[tuple[str, str]]:
    """Return the calls that a text makes, without those that were refused when it was read."""
    refused = [call["args"] for call in message.invalid_tool_calls]
    written = [
        ToolCall(name=call.candidate, args={"query": call.query}, id=None)
        for call in parse(text).calls
        if call.query[:500] not in refused
    ]
    return _asked(written, pool)


_LEFT = re.compile(r"\n\(left: [^\n]*\)\Z")
"""The budget, which ends the last observation of a round."""


def reread(scratchpad: Sequence[AnyMessage], pool: CandidatePool) -> tuple[AnyMessage, ...]:
    """Return the messages; changed or added observations get a bill that fits their new text."""
    calls: dict[str | None, ToolCall] = {}
    read: list[AnyMessage] = []
    for message in scratchpad:
        if isinstance(message, AIMessage):
            calls = {call["id"]: call for call in message.tool_calls}
        elif isinstance(message, ToolMessage) and (call := calls.get(message.tool_call_id)):
            whole = str(message.text)
            text = _LEFT.sub("", whole)  # a candidate may write such a line too
            if not message.artifact or not any(_as_written(message, t) for t in (whole, text)):
                message = reply_of_a_person(message, call, text, pool)
        read.append(message)
    return tuple(read)


def _as_written(observation: ToolMessage, text: str) -> bool:
    if "kept" not in observation.artifact:
        return text == shown(observation.artifact)
    return text.startswith("(") and text.endswith(kept(observation))


_OF_WHAT_CAME = ("ok", "error", "kept", "whole")
"""The key in a bill for the reply that a person's reply replaces."""


def reply_of_a_person(
    message: ToolMessage, call: ToolCall, text: str, pool: CandidatePool
) -> ToolMessage:
    """Return a reply that a person wrote or changed, with a bill: earlier payments stay on it."""
    candidate = pool.find(call["name"])
    _, free = bill(candidate.name if candidate else call["name"], Reply(text, attempts=0))
    paid: dict[str, Any] = message.artifact or {}
    artifact = {
        **free,
        **{key: value for key, value in paid.items() if key not in _OF_WHAT_CAME},
        "query": paid.get("query", call["args"]["query"]),
        "reply": text,
    }
    return ToolMessage(
        message.content,
        id=message.id,
        name=call["name"],
        tool_call_id=call["id"],
        artifact=artifact,
    )
