"""A turn by native tool calls as a turn in tags, and back again for the model's own history."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy

from langchain_core.messages import AIMessage, AnyMessage, ToolCall, ToolMessage

from .. import protocol
from ..candidates.returned import as_it_came, kept_of
from ..candidates.thoughts import apart, unboxed
from ..candidates.tool_calls import read_arguments
from ..candidates.written_calls import final_answer, written_calls
from ..protocol import Call, Turn

CALL_IDS = "tool_call_ids"
"""In a turn's additional kwargs: the provider's ids of its calls, in the order of ours."""
_NAME = re.compile(r"\W*(?:(?:functions?|default_api|tools?)[.:/])?([\w-]*)")
"""Additions of models around a name: quotes, `functions.` before it, `:0` after it."""


def turn_in_tags(
    message: AIMessage, text: str, *, whole: bool, names: Collection[str]
) -> tuple[str, AIMessage]:
    """Return the turn in tags, and the message with its thoughts and the ids of its calls separate.

    A call whose arguments cannot be read is written without a query, so that the parser reports it;
    so is the last call of a turn that was cut: it may be half a query.

    Args:
        message: the model's message.
        text: its text.
        whole: whether it is complete.
        names: of the tools that it has.
    """
    thoughts, said = apart(text)
    calls = _calls(message)
    ids = [id_ for _, id_ in calls]
    if not calls:
        said, written = written_calls(said, names)
        calls = [(_call(call.name, call.arguments), None) for call in written]
    if not calls:
        steps, said = final_answer(said)
        if re.fullmatch(r"\s*<answer>.*</answer>\s*", said, re.S):  # all of it: else it is text
            said = unboxed(protocol.tagged_answer(said) or said)
        thoughts = "\n\n".join(filter(None, (thoughts, steps)))
    if calls and not whole:
        last, id_ = calls[-1]
        calls[-1] = (Call(last.candidate, ""), id_)
    # The calls that are admitted come first, as they do among the admitted ones.
    calls.sort(key=lambda call: not (call[0].candidate and call[0].query))
    kwargs = dict(message.additional_kwargs)
    if thoughts:
        known = kwargs.get("reasoning_content")
        kwargs["reasoning_content"] = f"{known}\n\n{thoughts}" if known else thoughts
    if ids and all(ids) and len({*ids}) == len(ids):
        kwargs[CALL_IDS] = [id_ for _, id_ in calls]
    if calls:
        kwargs |= kept_of(message)
    said = said.strip()
    if calls:
        turn = protocol.render(Turn((said,) if said else (), tuple(call for call, _ in calls)))
    elif said:
        turn = protocol.render(Turn(answer=said))
        # Half an answer is a mistake, as it is in tags.
        turn = turn if whole else turn.removesuffix("</answer>")
    else:
        turn = ""
    return turn, message.model_copy(update={"additional_kwargs": kwargs})


def _calls(message: AIMessage) -> list[tuple[Call, str | None]]:
    """Return the calls of a message, with the provider's ids."""
    written = [*message.tool_calls, *message.invalid_tool_calls]
    calls = [(_call(call["name"], call["args"]), call["id"]) for call in written]
    old = message.additional_kwargs.get("function_call")  # OpenAI's, before there were tools
    if not calls and isinstance(old, Mapping):
        calls = [(_call(old.get("name"), old.get("arguments")), None)]
    return calls


def plain_name(name: str | None) -> str:
    """Return the name of a tool without what models write around it; "" = there is none."""
    match = _NAME.match(name or "")
    return match[1] if match else ""


def _call(name: str | None, arguments: object) -> Call:
    query = (read_arguments(arguments) or {}).get("query")
    is_text = isinstance(query, str | int | float) and not isinstance(query, bool)
    return Call(plain_name(name), str(query).strip() if is_text else "")


def as_tool_calls(scratchpad: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Return the turns with native calls; each observation answers one, even of refused calls."""
    messages: list[AnyMessage] = []
    theirs: dict[str, str] = {}
    for message in scratchpad:
        if isinstance(message, ToolMessage):
            id_ = _theirs(message.tool_call_id, theirs)
            messages.append(message.model_copy(update={"tool_call_id": id_}))
        elif isinstance(message, AIMessage):
            refused = (
                ToolCall(
                    type="tool_call",
                    name=call["name"] or "invalid",
                    args={"query": call["args"]},
                    id=call["id"],
                )
                for call in message.invalid_tool_calls
            )
            calls = [*(copy(call) for call in message.tool_calls), *refused]
            theirs |= _by_ours(calls, message.additional_kwargs.get(CALL_IDS) or ())
            thoughts = "\n".join(protocol.parse(str(message.text)).thoughts)
            for call in calls:
                call["id"] = _theirs(call["id"] or "", theirs)
            kept = kept_of(message) if calls else {}
            turn = AIMessage(thoughts, tool_calls=calls, additional_kwargs=kept)
            messages.append(as_it_came(turn))
        else:
            messages.append(message)
    return messages


def _by_ours(calls: Iterable[ToolCall], ids: Sequence[str]) -> dict[str, str]:
    """Return the provider's id by ours: ours are numbered in the order of the calls."""
    ours = [call["id"] or "" for call in calls]
    numbered = {id_.rpartition("_")[2]: id_ for id_ in ours}
    return {numbered[str(n)]: id_ for n, id_ in enumerate(ids) if str(n) in numbered}


def _theirs(ours: str, theirs: Mapping[str, str]) -> str:
    """Return the provider's id; else nine letters and digits, as the strictest provider wants."""
    return theirs.get(ours) or hashlib.sha256(ours.encode()).hexdigest()[:9]
