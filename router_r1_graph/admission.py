"""Which calls of a turn are made: known, not too many, affordable, and not twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, InvalidToolCall, ToolCall, ToolMessage
from langchain_core.messages.ai import UsageMetadata

from .background import background
from .candidates.reply import Reply
from .controllers.controller import View
from .protocol import Turn
from .state import RouteCall
from .words import usd


@dataclass(frozen=True)
class Admission:
    """A controller's turn as a message, and the calls of it that go to the route node."""

    message: AIMessage
    """`tool_calls`: calls that get a reply; `invalid_tool_calls`: what is refused, and why."""
    routed: tuple[RouteCall, ...]
    """The calls to make: those of the message without the ones that were made before."""
    over_budget: bool
    """Whether a call was refused because its worst-case price exceeds what is left."""


def admit(turn: Turn, view: View, reply: Reply, round_: int, *, ends_at: float | None) -> Admission:
    """Decide on every call of a turn; every refusal carries the reason that the controller sees.

    Args:
        turn: what the controller wrote.
        view: what it was shown.
        reply: what the turn cost.
        round_: the round, from 0.
        ends_at: when the run has to end, in seconds since the epoch; None = no deadline.
    """
    tool_calls: list[ToolCall] = []
    refused: list[InvalidToolCall] = []
    routed: list[RouteCall] = []
    over_budget = False
    price = reply.cost_usd + reply.saved_usd
    usd_left = None if view.left.usd is None else view.left.usd - price
    reserved = 0.0  # for the calls of this round: together they must not overspend either
    asked = {
        (m.name, m.artifact["query"])
        for m in view.scratchpad
        if isinstance(m, ToolMessage) and m.artifact and m.artifact["ok"]
    }

    def refuse(name: str | None, text: str, reason: str) -> None:
        call_id = f"call_{round_}_{len(tool_calls) + len(refused)}"
        refused.append(
            InvalidToolCall(
                type="invalid_tool_call", name=name, args=text[:500], id=call_id, error=reason
            )
        )

    for call in turn.calls:
        candidate = view.pool.find(call.candidate)
        if candidate is None:
            refuse(None, call.query, view.pool.unknown(call.candidate))
            continue
        slug = candidate.slug
        if view.must_answer:
            refuse(slug, call.query, "no calls are left; answer now")
            continue
        if len(tool_calls) >= view.context.max_calls_per_round:
            limit = view.context.max_calls_per_round
            refuse(slug, call.query, f"at most {limit} call{'s' * (limit != 1)} in one round")
            continue
        call_id = f"call_{round_}_{len(tool_calls) + len(refused)}"
        # Where replies are sampled, asking again may well bring another one.
        if candidate.temperature != 0 or (slug, call.query) not in asked:
            told = background(candidate, call.query, view)
            images = list(view.images) if candidate.image_inputs else []
            price = candidate.worst_case_usd(told + call.query, len(images))
            if usd_left is not None and price > usd_left - reserved:
                # Alone, it may still be affordable once the real cost of the others is known.
                over_budget |= price > usd_left
                free = max(0.0, usd_left - reserved)
                may, left = usd(price, exact=True), usd(free, exact=True)
                refuse(slug, call.query, f"may cost {may}, and only {left} are left")
                continue
            reserved += price
            known = price if candidate.bounded else None
            route = RouteCall(
                id=call_id,
                tool=slug,
                query=call.query,
                background=told,
                worst_case_usd=known,
                needs_approval=view.context.needs_approval(known),
                max_reply_tokens=view.context.max_information_tokens,
                round=round_ + 1,
                ends_at=ends_at,
            )
            if images:
                route["images"] = images
            routed.append(route)
            asked.add((slug, call.query))
        args = {"query": call.query}
        tool_calls.append(ToolCall(type="tool_call", name=slug, args=args, id=call_id))
    for mistake in turn.mistakes:
        refuse(None, mistake.text, mistake.reason)
    if turn.calls and turn.answer is not None and not view.must_answer:
        refuse(None, turn.answer, "an answer beside a search is not taken; read the replies first")
    return Admission(_message(reply, tool_calls, refused), tuple(routed), over_budget)


def _message(reply: Reply, calls: list[ToolCall], refused: list[InvalidToolCall]) -> AIMessage:
    details: dict[str, Any] = {"cost_usd": reply.cost_usd, "seconds": reply.seconds}
    return AIMessage(
        reply.text,
        # The id under which its tokens were streamed, so that LangGraph does not stream it again.
        id=reply.message.id if reply.message else None,
        tool_calls=calls,
        invalid_tool_calls=refused,
        usage_metadata=UsageMetadata(
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            total_tokens=reply.input_tokens + reply.output_tokens,
        ),
        additional_kwargs=reply.message.additional_kwargs if reply.message else {},
        response_metadata={"router_r1": {**details, "attempts": reply.attempts}},
    )
