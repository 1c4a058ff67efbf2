"""A client for any OpenAI-compatible endpoint whose errors never hold the key.

Imported when a pool uses it: `langchain_openai` takes half a second.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from functools import cache
from json import JSONDecodeError
from types import SimpleNamespace, new_class
from typing import Any, ClassVar

import langchain_openai
import openai
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from openai.types.chat import ChatCompletionMessage
from pydantic import SecretStr

from .._compat import asks_responses
from ..outside import visible, writable, writable_within
from .candidate import Candidate
from .connections import (
    Client,
    StreamedReplyError,
    clients_of,
    cost_in_headers,
    forget_reply,
    reported_so_far,
)
from .ending import Ending, ResponsesEnding, broken
from .error_kinds import BROAD, matching
from .failures import CutReplyError, NoChoiceError, address_of, is_cut, said, told
from .keys import beginning, hide_within, of_its_kind, scrub
from .lenient import AS_LANGCHAIN, Known, Lenient
from .reply import ChatModel, writable_message
from .retry_after import with_wait
from .server_events import is_stream, let_through
from .settings import ModelSettings
from .uncertain import never_sent
from .wire import (
    REPORT,
    billed,
    complete,
    error_in,
    named_error,
    normalized,
    report_in,
    report_of_failure,
    with_costs,
)

#: The settings that reach a server: a key may hide in any of them.
_ACCESS = (
    *("openai_api_base", "azure_endpoint", "api_base", "xai_api_base"),
    *("openai_proxy", "default_headers", "default_query"),
)

_LONGEST = 2**13
"""Characters of an error's message: half of what is read, whose end is not shown."""


def openai_chat_model(settings: ModelSettings) -> ChatModel:
    """Build a client for any OpenAI-compatible endpoint. It does not retry: `call` does."""
    variable = settings.key_variable
    name = settings.model_name if isinstance(settings, Candidate) else settings.model
    proxy = settings.options.get("openai_proxy") or os.environ.get("OPENAI_PROXY")
    sync_client, async_client = clients_of(settings.base_url, str(proxy) if proxy else None)
    limit = settings.token_limit_parameter
    if limit == AS_LANGCHAIN:  # other servers than OpenAI's may ignore its new name
        limit = "max_tokens" if settings.base_url else "max_completion_tokens"
    options = {
        "model": name,
        "base_url": settings.base_url,
        "api_key": os.environ.get(variable, "") if variable else "no-key-needed",
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "timeout": settings.socket_seconds,
        "max_retries": 0,
        "stream_usage": True,  # else a streamed reply would be free of charge
        **{option: value for option, value in settings.options.items() if value is not None},
        "openai_proxy": None,  # the clients know it
        "http_client": sync_client,
        "http_async_client": async_client,
    }
    never = tuple(option for option, value in settings.options.items() if value is None)
    model: Any = reading(langchain_openai.ChatOpenAI)(**options)
    model._known = Known(settings.secrets, limit, never)
    let_through(model.root_client)
    let_through(model.root_async_client)
    return model  # type: ignore[no-any-return]


@cache
def reading(kind: type[Any]) -> type[Any]:
    """Return a client of OpenAI's family, under its name, with `Reading` in front of it."""
    own = {"__module__": kind.__module__}
    return new_class(kind.__name__, (Reading, kind), None, lambda names: names.update(own))


class Reading(Lenient):
    """In front of a client: its replies are read as they are meant, no exception holds its key.

    A server may echo the key, and callbacks (LangSmith's among them) receive an exception before we
    can catch it. Each method raises outside of its `except`, so that the original exception is
    neither the cause nor the context of the new one.
    """

    __slots__ = ()

    tells_what_it_sends: ClassVar[bool] = True

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        forget_reply()
        try:
            return with_costs(super()._generate(*args, **kwargs), cost_in_headers())
        except Exception as error:
            keyless = self._keyless(error)
        raise keyless

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        forget_reply()
        try:
            return with_costs(await super()._agenerate(*args, **kwargs), cost_in_headers())
        except Exception as error:
            keyless = self._keyless(error)
        raise keyless

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        ending = self._ending(kwargs)
        forget_reply()
        try:
            for chunk in super()._stream(*args, **kwargs):
                yield ending.without(chunk)
            if last := ending.chunk():
                yield last
            return
        except Exception as error:
            keyless = self._keyless(error, ending)
        raise keyless

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        ending = self._ending(kwargs)
        forget_reply()
        try:
            async for chunk in super()._astream(*args, **kwargs):
                yield ending.without(chunk)
            if last := ending.chunk():
                yield last
            return
        except Exception as error:
            keyless = self._keyless(error, ending)
        raise keyless

    def _ending(self, given: dict[str, Any]) -> Ending | ResponsesEnding:
        return ResponsesEnding() if asks_responses(self, given | self.model_kwargs) else Ending()

    def to_json(self) -> Any:
        """Return this client as LangSmith sees it: without its address, proxy, headers and query.

        Each of them may hold a key, as `https://user:key@host` does.
        """
        data = super().to_json()
        if data["type"] == "constructor":
            kept = {k: v for k, v in data["kwargs"].items() if k not in _ACCESS}
            data = {**data, "kwargs": hide_within(kept, *self._known.secrets)}
        return data

    def __repr_args__(self) -> Any:
        """Leave out fields that may hold a secret."""
        for name, value in super().__repr_args__():
            if name not in _ACCESS:
                yield name, hide_within(value, *self._known.secrets)

    def _get_invocation_params(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return a call's parameters for callbacks, without secrets."""
        told: dict[str, Any] = super()._get_invocation_params(*args, **kwargs)
        return {name: hide_within(value, *self._known.secrets) for name, value in told.items()}

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], *args: Any, **kwargs: Any
    ) -> ChatGenerationChunk | None:
        """Keep what LangChain drops; `_stream` moves reports on the whole reply to the end."""
        chunk = writable_within(chunk)
        if error := error_in(chunk):  # raised at the end: what it is billed for may come later
            return broken(self._keyless(error), report_in(chunk))
        report, choices = report_in(chunk), chunk.get("choices") or []
        # Where there is no delta, LangChain drops the finish reason too.
        choices = [normalized(choice, "delta") for choice in choices]
        chunk = {**chunk, "usage": None, "choices": choices}
        generation = super()._convert_chunk_to_generation_chunk(chunk, *args, **kwargs)
        if generation is not None:
            complete(generation, report, choices[0] if choices else {})
        return generation

    def _create_chat_result(self, response: Any, *args: Any, **kwargs: Any) -> ChatResult:
        """Raise the error that a reply of status 200 names, and read its whole usage."""
        if isinstance(response, list) and response:  # Gemini puts an error into one
            response = response[0]
        if isinstance(response, str) and (words := response.strip())[:1] != "<":
            if is_stream(words):
                raise StreamedReplyError
            if matching(words, BROAD):
                raise named_error(words)
        if not isinstance(response, openai.BaseModel):
            return super()._create_chat_result(response, *args, **kwargs)
        whole: Any = response
        sent = response.model_dump(
            exclude={"choices": {"__all__": {"message": {"parsed"}}}}, warnings=False
        )
        if error := error_in(sent):
            raise error
        report = {**cost_in_headers(), **(report_in(sent) or {})} or None
        if sent.get("choices") == []:
            raise NoChoiceError("the reply holds no choice", billed(report))
        whole.usage = None  # `complete` reads it more leniently
        whole.error = None  # one of success
        sent["choices"] = [normalized(choice, "message") for choice in sent.get("choices") or ()]
        for choice, read in zip(
            getattr(whole, "choices", None) or (), sent["choices"], strict=True
        ):
            if not read["message"]:
                raise NoChoiceError("the reply's message is null", billed(report))
            message = choice.message
            if not isinstance(message, openai.BaseModel):
                message = ChatCompletionMessage.construct(**read["message"])
            choice.message = message.model_copy(
                update={
                    "content": read["message"].get("content"),
                    "role": "assistant",  # even if a server names another role
                }
            )
            choice.finish_reason = None  # Azure's class raises at `content_filter`, and bills none
        result = super()._create_chat_result(response, *args, **kwargs)
        for generation, choice in zip(result.generations, sent["choices"], strict=True):
            complete(generation, report, choice)
            end = choice.get("finish_reason")
            generation.generation_info = {
                **(generation.generation_info or {}),
                "finish_reason": end,
            }
        return ChatResult(
            generations=[
                ChatGeneration(
                    message=writable_message(generation.message),
                    generation_info=writable_within(generation.generation_info),
                )
                for generation in result.generations
            ],
            llm_output=writable_within({**(result.llm_output or {}), REPORT: report}),
        )

    def _keyless(
        self, error: Exception, ending: Ending | ResponsesEnding | None = None
    ) -> Exception:
        """Return an exception of the same class with only what is known to hold no key.

        Everything else on the original (request, body, causes, frames) may hold it.

        Args:
            error: the original.
            ending: of the broken stream; the server may bill it, or may have named an error
                before.
        """
        error = (ending and ending.error) or error
        keys = (value for value in vars(self).values() if isinstance(value, SecretStr))
        secrets = (*self._known.secrets, *(key.get_secret_value() for key in keys))
        if isinstance(error, JSONDecodeError) and is_cut(error):
            error = CutReplyError("the reply broke off in the middle")
        if type(error) is openai.APIError:  # an event of a stream named it
            error = named_error(error.body)
        elif type(error) is ValueError and isinstance(ending, ResponsesEnding):  # LangChain's words
            error = named_error(str(error))
        words = with_wait(said(error), getattr(error, "body", None))
        message = visible(writable(beginning(words, _LONGEST, *secrets)))
        status, words = told(error)
        partial = (ending and ending.billed) or getattr(error, "partial", None)
        came = reported_so_far()
        response = getattr(error, "response", None)
        own = getattr(error, "status_code", None)
        failed = report_of_failure(own, getattr(response, "content", None))
        partial = partial or billed(came) or billed(failed)
        headers = getattr(response, "headers", {})
        safe = {name: scrub(value, *secrets) for name, value in headers.items()}
        known = {
            **{"message": message, "body": None},  # what openai's errors promise
            **{"code": beginning(words, _LONGEST, *secrets) or None, "partial": partial},
            "no_reply": came is None and isinstance(self.http_client, Client),
            "unsent": never_sent(error),
            "begun": getattr(ending, "begun", False) or getattr(error, "begun", False),
            **({"status_code": status} if status else {}),
            **({"response": SimpleNamespace(headers=safe)} if safe else {}),
        }
        if address := address_of(error):
            known["request"] = SimpleNamespace(url=scrub(address, *secrets))
        keyless = of_its_kind(error, message)
        vars(keyless).update(known)
        return keyless
