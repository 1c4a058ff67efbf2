"""Why a model stopped writing: one word for what each provider calls differently."""

from __future__ import annotations

from typing import Literal

from langchain_core.messages import AIMessage

Finish = Literal["stop", "length", "content_filter", "refusal", "error"]

#: Where the providers' clients keep it: most, Anthropic and AWS, Ollama.
KEYS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_WORDS: dict[Finish, frozenset[str]] = {
    "length": frozenset(
        {"length", "max_tokens", "max_output_tokens", "model_length", "error_limit"}
        | {"model_context_window_exceeded", "max_length", "token_limit"}
    ),
    "content_filter": frozenset(
        {"content_filter", "content_filtered", "guardrail_intervened", "error_toxic", "sensitive"}
        | {"safety", "recitation", "prohibited_content", "blocklist", "spii", "image_safety"}
    ),
    "refusal": frozenset({"refusal"}),
    "error": frozenset(
        {"error", "network_error", "insufficient_system_resource", "abort", "aborted", "cancelled"}
        | {"malformed_function_call", "model_error", "server_error", "timeout", "interrupted"}
    ),
}


def finish_of(message: AIMessage) -> Finish:
    """Return why a model stopped; `stop` for whatever is no reason to doubt the reply.

    Example:
        >>> finish_of(AIMessage("The capital is Pa", response_metadata={"done_reason": "length"}))
        'length'
    """
    if message.additional_kwargs.get("refusal") or any(
        isinstance(block, dict) and block.get("type") == "refusal" for block in message.content
    ):
        return "refusal"
    told = message.response_metadata
    details = told.get("incomplete_details")  # OpenAI's Responses API
    reasons = [told.get(key) for key in KEYS] + [details and dict(details).get("reason")]
    for reason in filter(None, reasons):
        # A client may hand an enum on, or its name.
        word = str(getattr(reason, "name", reason)).rpartition(".")[2].lower()
        for finish, words in _WORDS.items():
            if word in words:
                return finish
    return "stop"
