"""What came back from one call: text, tokens, USD, seconds, a typed error, and the bill of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NotRequired

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import Runnable
from typing_extensions import TypedDict

from .failures import ErrorKind, ReplyError
from .settings import ModelSettings
from .thoughts import apart, reasoning_of

logger = logging.getLogger(__name__)

ChatModel = Runnable[Any, Any]
"""A LangChain chat model, or a runnable around one (`with_retry`, `init_chat_model`, ...)."""

RECORDED_SECONDS = "recorded_seconds"
"""In a message's response metadata: how long the call took when it was really made."""
NO_TOKENS = "no_tokens"
"""In a message's response metadata: no model wrote it, so there are no tokens to estimate."""


@dataclass(frozen=True)
class Reply:
    """What came back from one call, after all retries.

    `cost_usd` is what the provider reported, else tokens at list prices. `attempts` counts requests
    sent; all but the last failed. `seconds` is wall time over all attempts and the waits between,
    or what a recorded or stored reply took.
    """

    text: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    attempts: int = 1
    stored: bool = False
    """Whether it came out of the reply store, free of charge."""
    saved_usd: float = 0.0
    """What a stored reply would have cost, at the prices of now."""
    error: ReplyError | None = None
    thoughts: str = ""
    """What a reasoning model thought; the text does not have it."""
    message: AIMessage | None = field(default=None, repr=False, compare=False)
    """The model's message, if one came back, with native tool calls and token ids."""

    @property
    def ok(self) -> bool:
        """Whether the text can be used."""
        return self.error is None or self.error.kind == "missing_usage"


class BilledError(TypedDict):
    """Why a call failed, as it is written in a bill."""

    kind: ErrorKind
    message: str


class Bill(TypedDict):
    """The bill of one call: the artifact of a candidate's tool message.

    A plain dict, so that a checkpoint gives back what went in. `attempts` counts the requests that
    were sent. `cached`: this run has asked the same before, so no call was made. `stored`: the
    reply to the call came out of the reply store, and would have cost `saved_usd`.
    """

    candidate: str
    ok: bool
    error: BilledError | None
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_usd: float
    seconds: float
    attempts: int
    cached: bool
    stored: bool
    saved_usd: float
    thoughts: NotRequired[str]
    """What a reasoning model thought, where it did."""
    whole: NotRequired[str]
    """The whole reply, where the controller sees it cut."""


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
        "cached": False,
        "stored": reply.stored,
        "saved_usd": reply.saved_usd,
    }
    if reply.thoughts:
        billed["thoughts"] = reply.thoughts
    return reply.text if reply.ok else f"error: {error.message if error else ''}", billed


def with_thoughts_apart(reply: Reply) -> Reply:
    """Return a candidate's reply without its thoughts in the text; thoughts alone are no reply."""
    thoughts, text = apart(reply.text)
    reported = reasoning_of(reply.message) if reply.message else ""
    if not (thoughts or reported):
        return reply
    error = reply.error
    if reply.ok and not text:
        error = ReplyError("empty", "the reply has no text, only reasoning")
    thoughts = writable("\n\n".join(filter(None, (reported, thoughts))))
    return replace(reply, text=text, thoughts=thoughts, error=error)


def read_reply(
    message: AIMessage,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    seconds: float,
    attempts: int,
) -> Reply:
    """Read text, usage and cost from a message."""
    text = writable(str(message.text))
    error = None
    input_tokens, output_tokens, reasoning, estimated = tokens_of(message, messages)
    if estimated:
        error = ReplyError("missing_usage", "the endpoint reported no usage; tokens are estimated")
    if not text.strip() and not message.tool_calls:
        error = ReplyError("empty", "the reply has no text")
    if output_tokens > settings.max_tokens:
        logger.warning(
            "%s wrote %d tokens, more than its limit of %d: a budget in USD cannot bound it",
            settings.model,
            output_tokens,
            settings.max_tokens,
        )
    return Reply(
        text=text,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning,
        cost_usd=cost_of(message, settings, input_tokens, output_tokens),
        seconds=message.response_metadata.get(RECORDED_SECONDS, seconds),
        attempts=attempts,
        error=error,
        message=message,
    )


def tokens_of(message: AIMessage, messages: Sequence[AnyMessage]) -> tuple[int, int, int, bool]:
    """Return tokens in, out and of reasoning, and whether they are estimates."""
    if message.response_metadata.get(NO_TOKENS):
        return 0, 0, 0, False
    usage = message.usage_metadata
    if usage and (usage["input_tokens"] or usage["output_tokens"]):
        reasoning = _count(usage.get("output_token_details", {}).get("reasoning", 0))
        return _count(usage["input_tokens"]), _count(usage["output_tokens"]), reasoning, False
    asked = sum(estimate_tokens(str(m.text)) for m in messages)
    return asked, estimate_tokens(writable(str(message.text))), 0, True


def cost_of(
    message: AIMessage, settings: ModelSettings, input_tokens: int, output_tokens: int
) -> float:
    """Return USD of a call: what the provider reported, else tokens at list prices."""
    reported = reported_usd(message)
    return settings.cost_usd(input_tokens, output_tokens) if reported is None else reported


def reported_usd(message: AIMessage) -> float | None:
    """Return the cost that the provider reports; None if it reports no valid price."""
    cost = (message.response_metadata.get("token_usage") or {}).get("cost")
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        return None
    return float(cost) if 0 <= cost <= sys.float_info.max else None


def _count(tokens: int) -> int:
    """Keep an invalid count of an endpoint from breaking the bill."""
    return min(max(0, tokens), 10**12)


def writable(text: str) -> str:
    """Replace lone surrogates: legal in JSON, but no checkpoint or file can hold one."""
    return text.encode(errors="replace").decode()


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a text has: 4 bytes each."""
    return -(-len(text.encode(errors="replace")) // 4)
