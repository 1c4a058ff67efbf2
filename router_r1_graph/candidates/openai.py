"""A client for any OpenAI-compatible endpoint whose errors never hold the key.

Imported when a pool uses it: `langchain_openai` takes half a second.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import SecretStr

from .candidate import Candidate
from .connections import clients_of
from .failures import scrub
from .lenient import LenientChatOpenAI
from .reply import ChatModel
from .settings import ModelSettings

#: The settings that reach a server: a key may hide in any of them.
_ACCESS = ("openai_api_base", "openai_proxy", "default_headers", "default_query")


def openai_chat_model(settings: ModelSettings) -> ChatModel:
    """Build a client for any OpenAI-compatible endpoint. It does not retry: `call` does."""
    variable = settings.key_variable
    name = settings.model_name if isinstance(settings, Candidate) else settings.model
    proxy = settings.options.get("openai_proxy") or os.environ.get("OPENAI_PROXY")
    sync_client, async_client = clients_of(settings.base_url, str(proxy) if proxy else None)
    limit = settings.token_limit_parameter
    if limit == "auto":  # other servers than OpenAI's may ignore its new name
        limit = "max_tokens" if settings.base_url else "max_completion_tokens"
    options = {
        "model": name,
        "base_url": settings.base_url,
        "api_key": os.environ.get(variable, "") if variable else "no-key-needed",
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "token_limit_parameter": limit,
        "never_sent": [option for option, value in settings.options.items() if value is None],
        "timeout": settings.timeout_seconds,
        "max_retries": 0,
        "stream_usage": True,  # else a streamed reply would be free of charge
        **{option: value for option, value in settings.options.items() if value is not None},
        "openai_proxy": None,  # the clients know it
        "http_client": sync_client,
        "http_async_client": async_client,
    }
    return ChatOpenAI(**options)


class ChatOpenAI(LenientChatOpenAI):
    """LangChain's client, under its name, with the key removed from its exceptions.

    A server may echo the key, and callbacks (LangSmith's among them) receive an exception before we
    can catch it. Each method raises outside of its `except`, so that the original exception is
    neither the cause nor the context of the new one.
    """

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        try:
            return super()._generate(*args, **kwargs)
        except Exception as error:
            keyless = self._keyless(error)
        raise keyless

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        try:
            return await super()._agenerate(*args, **kwargs)
        except Exception as error:
            keyless = self._keyless(error)
        raise keyless

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        try:
            yield from super()._stream(*args, **kwargs)
            return
        except Exception as error:
            keyless = self._keyless(error)
        raise keyless

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        try:
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
            return
        except Exception as error:
            keyless = self._keyless(error)
        raise keyless

    def to_json(self) -> Any:
        """Return this client as LangSmith sees it: without its address, proxy, headers and query.

        Each of them may hold a key, as `https://user:key@host` does.
        """
        data = super().to_json()
        if data["type"] == "constructor":
            kept = {k: v for k, v in data["kwargs"].items() if k not in _ACCESS}
            data = {**data, "kwargs": kept}
        return data

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], *args: Any, **kwargs: Any
    ) -> ChatGenerationChunk | None:
        """Keep the cost that a provider reports at the end of a stream; LangChain drops it."""
        generation = super()._convert_chunk_to_generation_chunk(chunk, *args, **kwargs)
        cost = (chunk.get("usage") or {}).get("cost")
        # Only of the last chunk: LangChain cannot merge the numbers of two.
        if generation is not None and cost is not None and not chunk.get("choices"):
            generation.message.response_metadata["token_usage"] = {"cost": cost}
        return generation

    def _keyless(self, error: Exception) -> Exception:
        """Return an exception of the same class with only the message, the status and the headers.

        Everything else on the original (request, body, causes, frames) may hold the key.
        """
        key = self.openai_api_key
        secret = key.get_secret_value() if isinstance(key, SecretStr) else ""
        message = scrub(str(error), secret)
        kind = type(error)
        try:
            keyless = kind.__new__(kind, message)
            faithful = str(keyless) == message
        except Exception:
            faithful = False
        if not faithful:  # it needs more than a message, as pydantic's ValidationError does
            keyless = type(kind.__name__, (Exception,), {})(message)
        known: dict[str, Any] = {"message": message, "body": None}  # what openai's errors promise
        if isinstance(status := getattr(error, "status_code", None), int):
            headers = getattr(getattr(error, "response", None), "headers", {})
            safe = {name: scrub(value, secret) for name, value in headers.items()}
            known |= {"status_code": status, "response": SimpleNamespace(headers=safe)}
        vars(keyless).update(known)
        return keyless
