"""From settings to a LangChain chat model: an OpenAI-compatible one, or `module:factory`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import Runnable

from .candidates import PROVIDERS, Candidate, ModelSettings
from .errors import PoolError
from .reply import ChatModel


def make_chat_model(settings: ModelSettings) -> ChatModel:
    """Build the chat model that a candidate or a controller is reached by.

    Raises:
        PoolError: the provider cannot be imported, or does not return a chat model.
    """
    who = settings.name if isinstance(settings, Candidate) else "controller"
    path = PROVIDERS.get(settings.provider, settings.provider)
    module, _, name = path.partition(":")
    try:
        factory: Callable[[ModelSettings], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise PoolError(f"{who}: provider {settings.provider!r}: {error}") from error
    model = factory(settings)
    if not isinstance(model, Runnable):
        raise PoolError(
            f"{who}: provider {settings.provider!r} returned {type(model).__name__}, "
            "not a LangChain chat model"
        )
    return model


def openai_chat_model(settings: ModelSettings) -> ChatModel:
    """Build a client for any OpenAI-compatible endpoint. It does not retry: `reply` does."""
    from langchain_openai import ChatOpenAI  # imported when used: it takes half a second

    variable = settings.key_variable
    name = settings.model_name if isinstance(settings, Candidate) else settings.model
    options = {
        "model": name,
        "base_url": settings.base_url,
        "api_key": os.environ.get(variable, "") if variable else "no-key-needed",
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "timeout": settings.timeout_seconds,
        "max_retries": 0,
        "stream_usage": True,  # else a streamed reply would be free of charge
        **settings.options,
    }
    return ChatOpenAI(**options)
