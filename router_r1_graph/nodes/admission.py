"""Which calls of a turn are made: known, not too many, affordable, and not twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zlib import crc32

from langchain_core.messages import AIMessage, InvalidToolCall, ToolCall, ToolMessage
from langchain_core.messages.ai import UsageMetadata

from ..candidates import Candidate
from ..candidates.reply import Reply
from ..candidates.resilience.fallback import fallback_of
from ..controllers.controller import View
from ..decisions import Decision, Draws, decide, to_message
from ..protocol import Turn
from ..state import RouteCall
from ..words import usd
from .background import background

_MOST_REFUSED = 16
"""The most refusals that a controller reads of one turn; the rest of the turn is counted."""


@dataclass(frozen=True)
class Admission:
    """A controller's turn as a message, and the calls of it that go to the route node."""

    message: AIMessage
    """`tool_calls`: calls that get a reply; `invalid_tool_calls`: refused calls with reasons."""
    routed: tuple[RouteCall, ...]
    """The calls to make: those of the message without the ones that were made before."""
    over_budget: bool
    """Whether a call was refused because its worst-case price exceeds what is left."""


def admit(
    turn: Turn,
    view: View,
    reply: Reply,
    round_: int,
    *,
    ends_at: float | None,
    draws: Draws | None = None,
    decides: bool = True,
) -> Admission:
    """Decide on every call of a turn; every refusal carries the reason that the controller sees.

    A turn with very many refusals is not read to its end: the last refusal counts the rest.

    Args:
        turn: the controller's turn.
        view: the view that it had.
        reply: the reply with the cost of the turn.
        round_: the round, from 0.
        ends_at: when the run has to end, in seconds since the epoch; None = no deadline.
        draws: the controller, if it draws its candidates and knows the probabilities.
        decides: whether the calls are decisions, which `explore` may change and a trace keeps;
            those that a person wrote are not.
    """
    tool_calls: list[ToolCall] = []
    refused: list[InvalidToolCall] = []
    routed: list[RouteCall] = []
    prices: list[float] = []
    decisions: list[Decision] = []
    over_budget, unread = False, 0
    price = reply.cost_usd + reply.saved_usd + reply.uncertain_usd
    usd_left = None if view.left.usd is None else view.left.usd - price
    reserved = 0.0  # for the calls of this round: together they must not overspend either
    asked = {
        (m.name, m.artifact["query"])
        for m in view.scratchpad
        if isinstance(m, ToolMessage) and m.artifact and m.artifact["ok"]
    }

    explores = view.context.explore > 0 or draws is not None

    def refuse(name: str | None, text: str, reason: str) -> None:
        call_id = f"call_{round_}_{len(tool_calls) + len(refused)}"
        refused.append(
            InvalidToolCall(
                type="invalid_tool_call", name=name, args=text[:500], id=call_id, error=reason
            )
        )

    for number, call in enumerate(turn.calls):
        if len(refused) == _MOST_REFUSED:
            unread += len(turn.calls) - number
            break
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
            price = _price(candidate, call.query, view)
            if usd_left is not None and price > usd_left - reserved:
                # Alone, it may still be affordable once the real cost of the others is known.
                over_budget |= price > usd_left
                free = max(0.0, usd_left - reserved)
                may, left = usd(price, exact=True), usd(free, exact=True)
                refuse(slug, call.query, f"may cost {may}, and only {left} are left")
                continue
            if decides:
                afford = None if usd_left is None else usd_left - reserved
                others = _others(candidate, call.query, view, afford, asked) if explores else []
                named = [other.name for other in others]
                decision = decide(call, call_id, candidate.name, named, view, draws)
                decisions.append(decision)
                if decision.asked != candidate.name:
                    candidate = next(other for other in others if other.name == decision.asked)
                    slug, price = candidate.slug, _price(candidate, call.query, view)
            told = background(candidate, call.query, view)
            images = list(view.all_images) if candidate.image_inputs else []
            reserved += price
            prices.append(price)
            known = price if candidate.bounded else None
            route = RouteCall(
                id=call_id,
                tool=slug,
                query=call.query,
                background=told,
                worst_case_usd=known,
                needs_approval=view.context.needs_approval(known),
                most_usd=None,
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
    for route in routed:
        free_usd = None if usd_left is None else usd_left - reserved
        reserved += _add_fallback(route, view, free_usd, asked)
    if usd_left is not None and routed:
        # What no call has reserved is shared by those that a person may edit.
        share = (usd_left - reserved) / len(routed)
        routed = [
            {**call, "most_usd": share + price} for call, price in zip(routed, prices, strict=True)
        ]
    listed = turn.mistakes[: _MOST_REFUSED - len(refused)]
    for mistake in listed:
        refuse(None, mistake.text, mistake.reason)
    if unread := unread + len(turn.mistakes) - len(listed):
        refuse(None, "", f"and {unread} more searches and mistakes of this turn")
    if turn.calls and turn.answer is not None and not view.must_answer:
        refuse(None, turn.answer, "an answer beside a search is not taken; read the replies first")
    message = _message(reply, tool_calls, refused, decisions)
    if any(m.id == message.id for m in view.scratchpad):  # of an endpoint that counts from 0
        message.id = None
    return Admission(message, tuple(routed), over_budget)


def _add_fallback(
    route: RouteCall, view: View, usd_left: float | None, asked: set[tuple[str | None, str]]
) -> float:
    """Add the fallback to a call.

    None is added if it is too expensive, if it was asked the same already, or if the call waits for
    a person's approval.

    Returns:
        The most that it can cost, in USD.
    """
    candidate = view.pool.find(route["tool"])
    other = candidate and fallback_of(candidate, view.pool)
    if not (candidate and other) or route["needs_approval"]:
        return 0.0
    if not _may_be_asked(other, route["query"], view, usd_left, asked):
        return 0.0
    told = background(other, route["query"], view)
    route["fallback"] = {"tool": other.slug, "background": told}
    if view.all_images and other.image_inputs:
        route["fallback"]["images"] = list(view.all_images)
    return _price(other, route["query"], view)


def _price(candidate: Candidate, query: str, view: View) -> float:
    """Return the most that a call can cost, in USD."""
    told = background(candidate, query, view)
    return candidate.worst_case_usd(told + query, len(view.all_images) * candidate.image_inputs)


def _others(
    proposed: Candidate,
    query: str,
    view: View,
    usd_left: float | None,
    asked: set[tuple[str | None, str]],
) -> list[Candidate]:
    """Return the others that may be asked: new, within the budget, and without a person's approval.

    Args:
        proposed: the candidate that the controller wrote.
        query: the query.
        view: the view that the controller had.
        usd_left: the rest of the budget; None = there is no budget.
        asked: the calls that were made, as candidate and query.
    """
    return [
        candidate
        for candidate in view.pool.candidates
        if candidate is not proposed and _may_be_asked(candidate, query, view, usd_left, asked)
    ]


def _may_be_asked(
    candidate: Candidate,
    query: str,
    view: View,
    usd_left: float | None,
    asked: set[tuple[str | None, str]],
) -> bool:
    if (candidate.slug, query) in asked:
        return False
    if usd_left is None and view.context.approve_above_usd is None:
        return True
    price = _price(candidate, query, view)
    if usd_left is not None and not (candidate.bounded and price <= usd_left):
        return False
    return not view.context.needs_approval(price if candidate.bounded else None)


def _message(
    reply: Reply,
    calls: list[ToolCall],
    refused: list[InvalidToolCall],
    decisions: list[Decision],
) -> AIMessage:
    details: dict[str, Any] = {"cost_usd": reply.cost_usd, "seconds": reply.seconds}
    if decisions:
        details["decisions"] = to_message(decisions)
    details["crc32"] = crc32(reply.text.encode())  # tells whether a person has edited the text
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
