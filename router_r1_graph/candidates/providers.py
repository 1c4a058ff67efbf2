"""From settings to a LangChain chat model, by the factory that `provider:` names."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, TypeVar

from langchain_core.runnables import Runnable
from pydantic import BaseModel, ValidationError

from ..errors import PoolError, RouterR1Error, did_you_mean
from .candidate import Candidate
from .failures import scrub
from .reply import ChatModel
from .settings import PROVIDERS, ModelSettings

Options = TypeVar("Options", bound=BaseModel)


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


def read_options(candidate: Candidate, model: type[Options]) -> Options:
    """Read the `options:` of a candidate whose provider is one of ours.

    Raises:
        PoolError: an option is unknown, missing, or has an impossible value.
    """
    for option in candidate.options:
        if option not in model.model_fields:
            raise PoolError(
                f"candidate {candidate.name!r}: unknown option {option!r}"
                f"{did_you_mean(option, model.model_fields)}; a {candidate.provider} candidate has "
                f"{', '.join(model.model_fields)}"
            )
    try:
        return model.model_validate(candidate.options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in ("options", *first["loc"]))
        shown = "" if first["type"] == "missing" else f"{first['input']!r}: "
        why = first["msg"].removeprefix("Value error, ")
        raise PoolError(f"candidate {candidate.name!r}: {key}: {shown}{why}") from error
