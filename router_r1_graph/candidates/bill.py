"""The bill of one call: the data of a candidate's tool message beside its text."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from ..outside import Amount, Count
from .error_kinds import ErrorKind
from .reply import Reply


class BilledError(TypedDict):
    """Why a call failed, as it is written in a bill."""

    kind: ErrorKind
    message: str


class Bill(TypedDict):
    """The bill of one call: the artifact of a candidate's tool message.

    A plain dict, so that a checkpoint gives back what went in. `attempts` counts the requests that
    were sent. `cached`: no call was made, since this run has asked the same before, or LangChain's
    or LangGraph's cache had the reply. `stored`: the reply to the call came out of the reply store,
    and would have cost `saved_usd`. `error`: why the call failed, or what is doubtful about a reply
    that can be used (`cut`, `missing_usage`).
    """

    candidate: str
    ok: bool
    error: BilledError | None
    input_tokens: Count
    """Tokens of the prompts, over all attempts that were billed."""
    output_tokens: Count
    """Tokens of the replies over the same attempts, reasoning included."""
    reasoning_tokens: Count
    """The part of the output tokens that a reasoning model thought with."""
    cost_usd: Amount
    """USD of the same attempts; 0 for a cached or stored reply."""
    seconds: Amount
    """Seconds over all attempts and the waits between them; for a stored or recorded reply, those
    of the original call."""
    attempts: Count
    cached: bool
    stored: bool
    saved_usd: Amount
    thoughts: NotRequired[str]
    """The thoughts of a reasoning model, if there are any."""
    cached_input_tokens: NotRequired[Count]
    """How many of the input tokens the provider read from its prompt cache, if any."""
    waited_seconds: NotRequired[Amount]
    """The seconds that the call waited for the candidate's own limits, if it did."""
    hedges: NotRequired[Count]
    """How many of the attempts were hedges (the same request, sent a second time), if any."""
    uncertain_attempts: NotRequired[Count]
    """Attempts without an answer that could be read, if any; the provider may bill them
    nevertheless. The loser of a hedge is billed like the reply; the cost of all others is not
    known."""
    uncertain_usd: NotRequired[Amount]
    """The most that these others cost, if anything: a budget counts it, `cost_usd` does not."""
    instead_of: NotRequired[Bill]
    """If a fallback replied: the bill of the candidate that was asked first, and failed."""
    cache_loss_usd: NotRequired[Amount]
    """In agents: how much of the cost is due to a prefix that another candidate has cached."""
    whole: NotRequired[str]
    """The whole reply, if the controller sees it cut."""
    background: NotRequired[str]
    """The text that the candidate saw besides the query (`candidate_context`), if any."""


def bill(candidate: str, reply: Reply) -> tuple[str, Bill]:
    """Return a reply as a tool's content (the text, or the error) and artifact (the bill)."""
    error = reply.error
    billed: Bill = {
        "candidate": candidate,
        "ok": reply.ok,
        "error": {"kind": error.kind, "message": error.message} if error else None,
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        "reasoning_tokens": reply.reasoning_tokens,
        "cost_usd": reply.cost_usd,
        "seconds": reply.seconds,
        "attempts": reply.attempts,
        "cached": reply.cached,
        "stored": reply.stored,
        "saved_usd": reply.saved_usd,
    }
    if reply.cached_input_tokens:
        billed["cached_input_tokens"] = reply.cached_input_tokens
    if reply.waited_seconds:
        billed["waited_seconds"] = reply.waited_seconds
    if reply.hedges:
        billed["hedges"] = reply.hedges
    if reply.uncertain_attempts:
        billed["uncertain_attempts"] = reply.uncertain_attempts
    if reply.uncertain_usd:
        billed["uncertain_usd"] = reply.uncertain_usd
    if reply.thoughts:
        billed["thoughts"] = reply.thoughts
    return reply.text if reply.ok else f"error: {error.message if error else ''}", billed
