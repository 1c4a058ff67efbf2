"""Any provider that LangChain knows, by name. Needs the extra `langchain`, and its own package.

candidates:
- {name: Claude, provider: langchain, model: "anthropic:claude-sonnet-4-5"}
"""

from __future__ import annotations

import os
import re
from typing import Any

from ..errors import ConfigError, MissingExtraError
from .candidate import Candidate
from .reply import ChatModel
from .settings import ModelSettings

#: Provider -> our settings by its own name for them; None = it has no such setting.
_NAMES: dict[str, dict[str, str | None]] = {
    "ollama": {"max_tokens": "num_predict", "timeout": None, "max_retries": None},
    "bedrock_converse": {"timeout": None, "max_retries": None, "base_url": "endpoint_url"},
    "bedrock": {"timeout": None, "max_retries": None, "base_url": "endpoint_url"},
}


def langchain_chat_model(settings: ModelSettings) -> ChatModel:
    """Build the chat model that `init_chat_model` of LangChain makes of `model: provider:name`.

    It does not retry: `call` does.

    Raises:
        MissingExtraError: langchain is not installed.
        ConfigError: the provider is unknown, or its package is not installed.
    """
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtraError("provider langchain", "langchain", error) from error
    name = settings.model_name if isinstance(settings, Candidate) else settings.model
    given: dict[str, Any] = {
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "timeout": settings.socket_seconds,
        "max_retries": 0,
        "base_url": settings.base_url,
        "api_key": os.environ.get(settings.api_key_env or "") or None,
    }
    names = _NAMES.get(name.partition(":")[0], {})
    renamed = {names.get(ours, ours): value for ours, value in given.items() if value is not None}
    options = {theirs: value for theirs, value in renamed.items() if theirs} | settings.options
    try:
        model: ChatModel = init_chat_model(name, **options)
    except ImportError as error:
        found = re.search(r"pip install (?:-U )?([\w.\[\]-]+)", str(error))
        package = found[1] if found else str(error.name or "").replace("_", "-")
        raise ConfigError(f"model {name!r} needs another package: pip install {package}") from error
    return model
