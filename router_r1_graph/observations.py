"""The controller's input: the conversation before the question, and each round's observations.

An observation is a message for one call of a round, made or refused. If a round does not keep all
(`keep`), the artifact still has the whole `reply`, and `kept` has the part that was kept.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from .answers import bare_answer, normalize_answer
from .candidates.bill import Bill
from .candidates.images import images_in, text_asked
from .candidates.reply import writable_message
from .candidates.usage import estimate_tokens
from .outside import writable
from .protocol import cut_inside

SUMMARY = "summary"
"""The id of the call that summarises a round, and the artifact's key for its bill."""

FREE: Mapping[str, Any] = {
    "cached": True,
    "input_tokens": 0,
    "output_tokens": 0,
    "reasoning_tokens": 0,
    "cost_usd": 0.0,
    "seconds": 0.0,
    "attempts": 0,
    "stored": False,
    "saved_usd": 0.0,
}
"""The fields in the bill of a call for which no candidate was asked."""


_LEAST_OF_A_TURN = 32
"""With fewer tokens left, an earlier turn that does not fit is not begun."""
_OF_A_CALL_MADE = frozenset(
    {"waited_seconds", "hedges", "uncertain_attempts", "uncertain_usd", "instead_of"}
)


def free(bill: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bill of a call for which no candidate was asked, since its reply was known."""
    return {**{k: v for k, v in bill.items() if k not in _OF_A_CALL_MADE}, **FREE}


def conversation(
    messages: Iterable[AnyMessage], question: str, max_tokens: int
) -> tuple[AnyMessage, ...]:
    """Return the messages before a question that the controller sees.

    Only those of people and assistants: incomplete tool calls of a parent graph make an API answer
    400. System messages are separate (`instructions`).

    The latest turns are taken first; a turn is a person's message and the answers to it. The newest
    is always shown. In the turn that crosses the bound, a long message is cut inside, and what is
    before that turn is left out.

    Args:
        messages: the conversation, the question at its end.
        question: the question.
        max_tokens: the most tokens of them, marks of what is cut included; 0 = none of them.
    """
    said = [
        m
        for m in messages
        if isinstance(m, HumanMessage) or (isinstance(m, AIMessage) and not m.tool_calls)
    ]
    if said and text_asked(said[-1]) == question:
        said.pop()
    shown, turn, room = list[AnyMessage](), list[AnyMessage](), max_tokens
    for message in reversed(said) if room else ():
        turn.insert(0, message)
        if not isinstance(message, HumanMessage):
            continue  # an answer whose question is not shown says nothing
        tokens = sum(map(_tokens, turn))
        if tokens > room and shown and room < _LEAST_OF_A_TURN:
            break
        shown[:0] = turn if tokens <= room else _cut_turn(turn, room)
        turn, room = [], room - tokens
        if room < 0:
            break
    return tuple(writable_message(message) for message in shown)


def _cut_turn(turn: Sequence[AnyMessage], max_tokens: int) -> list[AnyMessage]:
    """Return what fits of a turn that is too long: up to half of the tokens are the question's.

    What that half does not need is the answers'. The last answer comes before the others.
    """
    room, cut = max_tokens, list[AnyMessage]()
    kept = min(_tokens(turn[0]), -(-max_tokens // 2))
    for message in reversed(turn):
        most = room if message is turn[0] else room - kept
        if (tokens := _tokens(message)) > most:
            text = cut_inside(str(message.text), most)
            if not text:
                continue
            content: Any = [{"type": "text", "text": text}, *images_in(message)]
            message = message.model_copy(update={"content": content if content[1:] else text})
            tokens = most
        cut.insert(0, message)
        room -= tokens
    return cut


def _tokens(message: AnyMessage) -> int:
    return estimate_tokens(str(message.text))


def instructions(messages: Iterable[AnyMessage]) -> str:
    """Return the text of the system messages of a conversation; "" = there is none."""
    told = (str(m.text).strip() for m in messages if isinstance(m, SystemMessage))
    return writable("\n\n".join(filter(None, told)))


def observe(
    turn: AIMessage, replies: Sequence[ToolMessage], scratchpad: Sequence[AnyMessage]
) -> list[ToolMessage]:
    """Return one observation for each call of a turn, made or refused, in the order written.

    Args:
        turn: the controller's turn.
        replies: the replies from the route node in this round.
        scratchpad: all that came before; a repeated call is answered from it, free of charge.
    """
    fresh = {m.tool_call_id: m for m in replies}
    seen = [m for m in scratchpad if isinstance(m, ToolMessage) and m.artifact]
    observations: list[ToolMessage] = []
    refused = [(call["id"], call["name"], call["error"]) for call in turn.invalid_tool_calls]
    for call in turn.tool_calls:
        query = call["args"]["query"]
        if reply := fresh.get(call["id"] or ""):
            # Its id, so that a stream shows it once; its name and query, which may be a person's.
            name, id_ = reply.name or call["name"], reply.id
            artifact = {"query": query, **reply.artifact, "reply": str(reply.text)}
        elif earlier := _earlier(call["name"], query, [*seen, *observations]):
            name, id_ = call["name"], None
            whole = {k: v for k, v in earlier.artifact.items() if k not in ("kept", SUMMARY)}
            artifact = free(whole)
        else:
            refused.append((call["id"], call["name"], "a person went on without its reply"))
            continue
        observations.append(
            ToolMessage(
                shown(artifact),
                name=name,
                tool_call_id=call["id"],
                artifact=artifact,
                id=id_,
                status="success" if artifact["ok"] else "error",
            )
        )
    return observations + [
        ToolMessage(f"not done: {why}", name=name or "error", tool_call_id=id_, status="error")
        for id_, name, why in refused
    ]


def shown(bill: Mapping[str, Any]) -> str:
    """Return a reply as the controller sees it, with a note if it was cut.

    A second note says that a fallback was asked in place of the candidate, if so.
    """
    error, failed = bill["error"], bill.get("instead_of")
    text = str(bill["reply"])
    if error and error["kind"] == "cut":
        text = f"{text}\n({error['message']})"
    if failed:
        why = failed["error"]["kind"]
        text = f"(instead of {failed['candidate']}, which could not be reached: {why})\n{text}"
    return text


def _earlier(name: str, query: str, observations: Sequence[ToolMessage]) -> ToolMessage | None:
    """Return the last observation of the same call."""
    found = (m for m in reversed(observations) if m.name == name and m.artifact["query"] == query)
    return next(found, None)


def kept(observation: ToolMessage, *, whole: bool = False) -> str:
    """Return the part of a usable reply that a round kept; "" for any other reply.

    Args:
        observation: of a call.
        whole: whether a reply or summary is returned uncut, where the controller sees it cut.
    """
    artifact = observation.artifact
    if not (artifact and artifact["ok"]):
        return ""
    if "kept" not in artifact:
        return whole_reply(artifact) if whole else str(artifact["reply"])
    return whole_reply(artifact[SUMMARY]) if whole and artifact["kept"] else str(artifact["kept"])


def whole_reply(artifact: Mapping[str, Any]) -> str:
    """Return the reply of a call, uncut."""
    return str(artifact.get("whole", artifact["reply"]))


def keep_majority(observations: Sequence[ToolMessage]) -> None:
    """Keep one of the replies to each query: the first with the most common answer.

    Replies to different queries do not compete. A reply that declines to answer loses to any that
    does not.
    """
    asked = defaultdict(list)
    for observation in observations:
        if kept(observation):
            asked[observation.artifact["query"]].append(observation)
    for replies in asked.values():
        answers = [normalize_answer(bare_answer(whole_reply(m.artifact))) for m in replies]
        votes = Counter(filter(None, answers)) or Counter(answers)
        best, count = votes.most_common(1)[0]
        first = answers.index(best)
        for place, reply in enumerate(replies):
            if place != first:
                winner = replies[first].artifact["candidate"]
                _keep(reply, "", f"(not kept: {count} of {len(replies)} say as {winner})")


def to_summarize(question: str, observations: Sequence[ToolMessage]) -> str:
    """Return the query that asks for a round's summary; "" if the round has no usable reply."""
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
    """Replace a round's usable replies with the summary; keep them all if the summary failed.

    Args:
        observations: the observations of the round.
        summary: the reply to the summary call.
        query: the query of that call.
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


class ObservedBill(Bill, total=False):
    """The artifact of an observation: the bill of the call, with its query and reply."""

    query: str
    reply: str
    """The reply up to `max_information_tokens`; `whole` has all of it, where that is more."""
    kept: str
    """The part that the round kept; missing if it kept all."""
    summary: ObservedBill
    """The bill of the call that summarised the round; only on the first usable reply."""
