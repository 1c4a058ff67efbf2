"""A call as a store keeps it: the key that determines its reply, and the reply itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableBinding

from ..outside import MOST_OF_A_CALL, count, number, writable
from . import finish
from .candidate import Candidate
from .in_vain import UNREAD, UNREAD_MARKS
from .keys import hide, hide_within
from .reply import RECORDED_SECONDS, ChatModel, Reply
from .resilience.settings import Resilience
from .returned import returned_kwargs
from .settings import ModelSettings
from .usage import NO_TOKENS, reported_usd

_KEY_VERSION = 1
"""Raise it when keys are made differently: then older replies are never found again."""

#: Settings that no reply depends on: what a call costs, how long it may take, how it is described.
_IRRELEVANT = frozenset(
    {
        *("input_usd_per_mtok", "output_usd_per_mtok", "usd_per_call", "prices_checked"),
        *("cached_input_usd_per_mtok", "cache_write_usd_per_mtok"),
        *Resilience.model_fields,
        *("fallback", "latency_seconds", "api_key_env", "base_url"),
        *("aliases", "strengths", "measured", "protocol", "prompt_template"),
        *("token_limit_parameter", "image_inputs"),
    }
)
#: All parameters of an OpenAI-compatible request, beside the address and the messages.
_SENT = frozenset({"provider", "max_tokens", "temperature", "options"})
_PROXY = "openai_proxy"
#: What is kept of a message's response metadata: the rest is of no use to a later run.
_METADATA = (*finish.KEYS, finish.DETAILS, "model_name", NO_TOKENS, *UNREAD_MARKS)
_PARTS = ("content", "tool_calls", "invalid_tool_calls", "usage_metadata")
_SAID_BESIDE = ("reasoning_content", "function_call")
"""In additional kwargs, what a model says beside its text: thoughts, and OpenAI's old call."""


@dataclass(frozen=True)
class StoredReply:
    """A reply in the store, with the cost that was paid."""

    candidate: str | None
    """The candidate's name at that time, and that of its pool file in a training that draws names;
    None = a controller's turn."""
    model: str
    question: str
    """The last human message."""
    message: str
    """The model's message, as JSON."""
    input_tokens: int
    output_tokens: int
    cost_usd: float
    seconds: float
    created_at: float
    """Seconds since the epoch."""

    def __post_init__(self) -> None:
        """Make the amounts valid: the file comes from outside."""
        for name in ("input_tokens", "output_tokens"):
            vars(self)[name] = count(vars(self)[name]) or 0
        for name in ("cost_usd", "seconds"):
            vars(self)[name] = number(vars(self)[name], MOST_OF_A_CALL) or 0.0

    @property
    def text(self) -> str:
        """The text of the reply."""
        return writable(str(self.as_message().text))

    @property
    def unread(self) -> bool:
        """Whether it is kept because it was paid, and is of no use."""
        return UNREAD in self.as_message().response_metadata

    def as_message(self) -> AIMessage:
        """Return the model's message."""
        return AIMessage(**json.loads(self.message))

    def row(self) -> tuple[Any, ...]:
        """Return the values of its columns, in the order of `COLUMNS`."""
        return astuple(self)


COLUMNS = ", ".join(field.name for field in fields(StoredReply))


def store_reply(
    reply: Reply, messages: Sequence[AnyMessage], settings: ModelSettings, now: float
) -> StoredReply | None:
    """Return a reply in its stored form; None if it cannot be written as JSON.

    Args:
        reply: a usable one, or one that is paid and of no use.
        messages: the prompt.
        settings: of the candidate or controller that was asked.
        now: seconds since the epoch.
    """
    message = reply.unread or reply.message
    assert message is not None
    secrets = settings.secrets
    asked = (m for m in reversed(messages) if isinstance(m, HumanMessage))
    question = next((writable(str(m.text)) for m in asked), "")
    told = message.response_metadata
    metadata: dict[str, Any] = {name: told[name] for name in _METADATA if name in told}
    if (cost := reported_usd(message)) is not None:
        metadata["token_usage"] = {"cost": cost}
    metadata[RECORDED_SECONDS] = reply.seconds
    kept = {part: getattr(message, part) for part in _PARTS}
    kwargs = message.additional_kwargs
    beside = {name: kwargs[name] for name in _SAID_BESIDE if kwargs.get(name)}
    kept["additional_kwargs"] = {**beside, **returned_kwargs(message)}
    try:
        # In ASCII: a lone surrogate is legal in JSON, and nowhere else.
        text = json.dumps(hide_within({**kept, "response_metadata": metadata}, *secrets))
    except (TypeError, ValueError):
        return None
    return StoredReply(
        candidate=settings.stored_as if isinstance(settings, Candidate) else None,
        model=_model(settings),
        question=hide(question, *secrets),
        message=text,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        cost_usd=reply.cost_usd,
        seconds=reply.seconds,
        created_at=now,
    )


def key_of(
    model: ChatModel,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    sampling: Mapping[str, Any],
    *,
    every: bool,
) -> str | None:
    """Return the key of a call: the same for two calls exactly if they would bring the same reply.

    Args:
        model: the model, as the provider of `settings` made it.
        messages: the prompt.
        settings: of the candidate or controller.
        sampling: the parameters of the call: `stop`, `temperature`, ...
        every: whether a call has a key although it is sampled, or no model is asked.

    Returns:
        A SHA-256; None if the reply is not to be stored.
    """
    if settings.provider == "recorded" or not _model(settings):
        return None  # recorded already, or an unknown object
    temperature = sampling.get("temperature", settings.temperature)
    is_model = settings.kind == "model" if isinstance(settings, Candidate) else True
    if not every and not (is_model and temperature == 0):
        return None
    bound = model.kwargs if isinstance(model, RunnableBinding) else {}  # tools
    call = {
        "version": _KEY_VERSION,
        "asked": _asked(settings),
        "messages": [_as_sent(message) for message in messages],
        "sampling": {**bound, **sampling},
    }
    try:
        text = json.dumps(call, sort_keys=True)
    except (TypeError, ValueError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _model(settings: ModelSettings) -> str:
    return settings.model_name if isinstance(settings, Candidate) else settings.model


def _asked(settings: ModelSettings) -> dict[str, Any]:
    """Return the settings on which a reply depends."""
    is_openai = settings.provider == "openai"
    named = type(settings).model_fields
    names = _SENT if is_openai else frozenset(named) - _IRRELEVANT
    asked = {name: getattr(settings, name) for name in names}
    asked["model"] = _model(settings)
    asked["options"] = {n: v for n, v in settings.options.items() if n != _PROXY}
    address = settings.base_url
    if is_openai and not address:  # as the clients find it
        address = os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
    asked["address"] = re.sub(r"(?<=//)[^/@]*@", "", address or "").rstrip("/")
    if not is_openai and settings.provider != "simulated":
        asked.pop("benchmarks", None)  # only a simulated candidate knows what they say
        asked["folder"] = str(settings.folder and settings.folder.resolve())  # of its own modules
    return asked


def _as_sent(message: AnyMessage) -> list[Any]:
    sent: list[Any] = [message.type, message.content]
    if isinstance(message, AIMessage):
        sent.append(message.tool_calls)
    elif isinstance(message, ToolMessage):
        sent.append(message.tool_call_id)
    return sent
