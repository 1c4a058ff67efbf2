"""From settings to a LangChain chat model, by the factory that `provider:` names."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import Runnable

from .candidates import PROVIDERS, Candidate, ModelSettings
from .errors import PoolError, RouterR1Error
from .failures import scrub
from .reply import ChatModel


def make_chat_model(settings: ModelSettings) -> ChatModel:
    """Build the chat model that a candidate or a controller is reached by.

    Raises:
        PoolError: the provider cannot be imported, fails, or does not return a chat model.
    """
    who = settings.name if isinstance(settings, Candidate) else "controller"
    path = PROVIDERS.get(settings.provider, settings.provider)
    module, _, name = path.partition(":")
    try:
        factory: Callable[[ModelSettings], Any] = getattr(importlib.import_module(module), name)
        model = factory(settings)
    except RouterR1Error:
        raise
    except Exception as error:  # whatever a provider raises, an option of the pool brought it about
        secret = os.environ.get(settings.key_variable or "", "")
        why = " ".join(scrub(f"{type(error).__name__}: {error}", secret).split())[:500]
        raise PoolError(f"{who}: provider {settings.provider!r}: {why}") from error
    if not isinstance(model, Runnable):
        raise PoolError(
            f"{who}: provider {settings.provider!r} returned {type(model).__name__}, "
            "not a LangChain chat model"
        )
    return model
