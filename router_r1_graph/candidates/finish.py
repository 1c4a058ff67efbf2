"""The reason why a model stopped writing, in one word for all providers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from langchain_core.messages import AIMessage

Finish = Literal["stop", "length", "content_filter", "refusal", "error"]

CUT: frozenset[Finish] = frozenset({"length", "content_filter"})
"""The finish reasons of a text that is not whole."""
#: Where the providers' clients keep it: most, Anthropic and AWS, Ollama.
KEYS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
DETAILS = "incomplete_details"
"""Where OpenAI's Responses API keeps it."""
#: Providers, in LangChain's words, whose every reply says why it ended.
_ALWAYS_SAY = ("anthropic", "google_genai", "ollama")
#: What the words of each kind have in common, in the order in which they are looked for.
_WORDS: dict[Finish, str] = {
    "length": r"length|max_\w*tokens|token_limit|error_limit|context_window|truncat|incomplete",
    "content_filter": (
        r"filter|guardrail|toxic|sensitive|safety|recitation|prohibited|(?:block|black|deny)list|blocked"
        r"|spii|moderation|policy|armor|violat|censor|unsafe"
    ),
    "refusal": r"refus",
    "error": (
        r"error|fail|cancel|abort|malformed|interrupt|insufficient|unavailable|overload|unexpected"
        r"|time(?:d_|_)?(?:out|limit)|not_finished|rate_limit"
    ),
}


def finish_of(message: AIMessage) -> Finish:
    """Return why a model stopped; `stop` for every reason that leaves no doubt about the reply.

    Example:
        >>> finish_of(AIMessage("The capital is Pa", response_metadata={"done_reason": "length"}))
        'length'
    """
    if refusal_in(message) is not None:
        return "refusal"
    told = message.response_metadata
    details = told.get(DETAILS)
    reasons = [told.get(key) for key in KEYS] + [details and dict(details).get("reason")]
    for reason in filter(None, reasons):
        if isinstance(reason, Mapping):  # SGLang: with what it stopped at
            reason = reason.get("type")
        # A client may hand an enum on, or its name.
        word = str(getattr(reason, "name", reason)).rpartition(".")[2].lower()
        for finish, words in _WORDS.items():
            if re.search(words, word):
                return finish
    return "stop"


def broke_off(message: AIMessage) -> bool:
    """Return whether a stream ended before the reply did; LangChain's clients do not report it.

    Our own client recognises it by the stream. For other clients, three signs are known.
    """
    told = message.response_metadata
    says = any(told.get(key) for key in (*KEYS, "done"))  # old servers of Ollama give no reason
    return told.get("model_provider") in _ALWAYS_SAY and not says


def refusal_in(message: AIMessage) -> str | None:
    """Return the words in which a model refuses to reply; None where it does not."""
    if said := message.additional_kwargs.get("refusal"):
        return str(said)
    if isinstance(message.content, str):
        return None
    blocks = (block for block in message.content if isinstance(block, dict))
    refusals = (block for block in blocks if block.get("type") == "refusal")
    return next((str(block.get("refusal") or "") for block in refusals), None)
