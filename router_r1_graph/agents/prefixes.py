"""The parts of an agent's prompt that are in the candidates' caches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from langchain_core.messages import AnyMessage
from typing_extensions import TypedDict

from ..candidates import CandidatePool


class Prefix(TypedDict):
    """The prompt that a candidate has read last: its messages and tokens, and the time (Unix)."""

    messages: int
    digest: str
    tokens: int
    at: float


def prefix_of(messages: Sequence[AnyMessage], tools: str, tokens: int, now: float) -> Prefix:
    """Return the prefix that a candidate has read after these messages and tools."""
    return {
        "messages": len(messages),
        "digest": _digest(messages, tools),
        "tokens": tokens,
        "at": now,
    }


def warm_tokens(
    prefixes: Mapping[str, Prefix],
    pool: CandidatePool,
    messages: Sequence[AnyMessage],
    tools: str,
    now: float,
) -> dict[str, int]:
    """Return how many tokens of a prompt each candidate still has in its cache.

    A prompt that does not begin with what the candidate has read, to the letter, has none.
    """
    warm = {}
    for candidate in pool.candidates:
        prefix = prefixes.get(candidate.name)
        ttl = candidate.cache_ttl_seconds
        if not prefix or not ttl or now - prefix["at"] > ttl:
            continue
        if _digest(messages[: prefix["messages"]], tools) == prefix["digest"]:
            warm[candidate.name] = prefix["tokens"]
    return warm


def _digest(messages: Sequence[AnyMessage], tools: str) -> str:
    digest = hashlib.sha256(tools.encode(errors="replace"))
    for message in messages:
        calls = getattr(message, "tool_calls", "")
        text = f"\0{message.type}\0{message.content}\0{calls}"
        digest.update(text.encode(errors="replace"))
    return digest.hexdigest()[:16]
