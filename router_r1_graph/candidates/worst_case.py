"""The worst case of a call that is made: what it can cost, and what it did cost beyond that."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AnyMessage

from ..words import usd
from .images import images_in
from .settings import ModelSettings

logger = logging.getLogger(__name__)

_UNSENT = frozenset({"stop", "ls_structured_output_format"})
"""Options that are no part of the prompt."""


def text_of_options(options: Mapping[str, Any]) -> str:
    """Return what the options of a call add to its prompt: schemas of tools and of the reply."""
    parts = {
        name: value
        for name, value in options.items()
        if isinstance(value, dict | list) and name not in _UNSENT
    }
    return json.dumps(parts, default=str) if parts else ""


def learn(
    cost_usd: float,
    messages: Sequence[AnyMessage],
    settings: ModelSettings,
    options: Mapping[str, Any],
) -> None:
    """Expect the next call to cost as much as this one, and warn if it exceeded its worst case."""
    if messages and settings.excess.learn(cost_usd, _fair_usd(messages, settings, options)):
        logger.warning(
            "%s: a call cost %s, more than its prices and max_tokens allow; from now on, "
            "budgets expect calls of this price",
            getattr(settings, "name", settings.model),
            usd(cost_usd),
        )


def most_usd(
    messages: Sequence[AnyMessage], settings: ModelSettings, options: Mapping[str, Any]
) -> float:
    """Return the most in USD that one attempt at a call can cost."""
    return settings.excess.worst_usd(_fair_usd(messages, settings, options))


def _fair_usd(
    messages: Sequence[AnyMessage], settings: ModelSettings, options: Mapping[str, Any]
) -> float:
    prompt = "".join(str(message.text) for message in messages) + text_of_options(options)
    return settings.fair_usd(prompt, sum(len(images_in(message)) for message in messages))
