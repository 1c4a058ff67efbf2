"""LangChain's client for servers and models that differ from OpenAI's.

A parameter that a model refuses is not sent again (`refusals`), and tool calls are read in any
spelling (`tool_calls`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.language_models.chat_models import (
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from .connections import StreamedReplyError, WholeReplyError, read_in_its_mode
from .ending import Deltas
from .failures import attribute, chain
from .refusals import (
    OF_RESPONSES,
    STREAM,
    SYSTEM,
    TOKEN_LIMITS,
    WHOLE,
    ZERO,
    refused_by,
    refused_in,
)
from .returned import FIELDS, RETURNED, give_back, returned_in
from .streamed_calls import StreamedCalls, chunks_of
from .tool_calls import plain_arguments
from .wire import CHOICE

if TYPE_CHECKING:
    from langchain_openai.chat_models.base import BaseChatOpenAI as _Client
else:  # beside a class of its family, whose fields stay as they are
    _Client = object

logger = logging.getLogger(__name__)

AS_LANGCHAIN = "auto"
"""The limit of tokens is sent under the name that the client has for it."""
_LOW_TEMPERATURE = 0.01
"""The temperature in place of 0, if a server refuses 0."""


@dataclass(frozen=True)
class Known:
    """What a client knows besides its fields."""

    secrets: tuple[str, ...] = ()
    """What the environment holds for it, besides its key."""
    token_limit: str | None = AS_LANGCHAIN
    """The name under which `max_tokens` is sent; None = it is not sent."""
    never: tuple[str, ...] = ()
    """Parameters that the user has set to null."""


class Lenient(_Client):
    """In front of a client of OpenAI's family: learns what it is refused, reads what comes."""

    __slots__ = ()  # an object of the client's class may become one of both

    _known: Known = Known()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        while WHOLE not in (known := frozenset(self._refused)):
            try:
                return super()._generate(messages, stop, run_manager, **kwargs)
            except Exception as error:
                if not self._learn(error, known, messages, stop, kwargs):
                    raise
        return generate_from_stream(self._stream(messages, stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        while WHOLE not in (known := frozenset(self._refused)):
            try:
                return await super()._agenerate(messages, stop, run_manager, **kwargs)
            except Exception as error:
                if not self._learn(error, known, messages, stop, kwargs):
                    raise
        return await agenerate_from_stream(self._astream(messages, stop, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        while STREAM not in (known := frozenset(self._refused)):
            calls, deltas, begun = StreamedCalls(), Deltas(), False
            try:
                for chunk in super()._stream(messages, stop, run_manager, **kwargs):
                    begun = True
                    yield calls.without(deltas.without(chunk))
                if last := calls.chunk():
                    yield last
                return
            except Exception as error:
                if begun or not self._learn(error, known, messages, stop, kwargs, streamed=True):
                    raise
        yield _as_chunk(self._generate(messages, stop, run_manager, **kwargs))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        while STREAM not in (known := frozenset(self._refused)):
            calls, deltas, begun = StreamedCalls(), Deltas(), False
            try:
                async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                    begun = True
                    yield calls.without(deltas.without(chunk))
                if last := calls.chunk():
                    yield last
                return
            except Exception as error:
                if begun or not self._learn(error, known, messages, stop, kwargs, streamed=True):
                    raise
        yield _as_chunk(await self._agenerate(messages, stop, run_manager, **kwargs))

    @property
    def _refused(self) -> set[str]:
        client = self.root_client or self.root_async_client
        return refused_by(str(attribute(client, "base_url")), str(self.model_name))

    def _learn(
        self,
        error: Exception,
        known: frozenset[str],
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
        *,
        streamed: bool = False,
    ) -> bool:
        """Remember a refused parameter, and return whether to ask the model again without it.

        Args:
            known: what was known to be refused when the call was sent. Calls at once are refused
                the same: the first one's error teaches it, and the others go again, too.
        """
        payload = self._get_request_payload(messages, stop=stop, **kwargs)
        since = self._refused - known
        sent = {name for name in payload if name != STREAM} | since
        sent |= {ZERO} if payload.get("temperature") == 0 else set()
        if streamed:
            sent |= {STREAM, "stream_options"} - known
        sent |= {name for m in payload.get("messages", ()) for name in FIELDS if name in m}
        roles = {m["role"] for m in payload.get("messages", ())}
        system = SYSTEM in since or bool(roles & {"system", "developer"})
        kinds = {type(e) for e in chain(error)}
        if kinds & {WholeReplyError, StreamedReplyError}:
            name: str | None = STREAM if WholeReplyError in kinds else WHOLE
        else:
            name = refused_in(error, sent, system=system)
        if name in since:
            read_in_its_mode(error)
            return True
        if kinds & {WholeReplyError, StreamedReplyError}:  # it takes the mode that it refused
            self._refused.discard(WHOLE if name == STREAM else STREAM)
        both = {name} | self._refused >= {STREAM, WHOLE}  # nothing is left to ask for
        if name is None or name in known or both:
            return False
        self._refused.add(name)
        logger.info("%s refuses %s: it is not sent again", self.model_name, name)
        read_in_its_mode(error)
        return True

    def _get_request_payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Leave out refused parameters, and send the token limit under the name the model takes."""
        payload: dict[str, Any] = super()._get_request_payload(*args, **kwargs)
        without = {*self._refused, *self._known.never}
        limits = {name: payload.pop(name) for name in TOKEN_LIMITS if name in payload}
        preferred = self._known.token_limit
        if preferred == AS_LANGCHAIN:
            preferred = next(iter(limits), "")
        taken = [preferred, *TOKEN_LIMITS] if preferred else []
        name = next((name for name in taken if name not in without), None)
        if limits and name:
            payload[name] = next(iter(limits.values()))
        if preferred is None:
            payload.pop(OF_RESPONSES, None)
        if ZERO in without and payload.get("temperature") == 0:
            payload["temperature"] = _LOW_TEMPERATURE
        if "messages" in payload:
            asked = [args[0]] if isinstance(args[0], str) else args[0]
            give_back(payload["messages"], convert_to_messages(asked), without)
        if SYSTEM in without and "messages" in payload:
            payload["messages"] = _without_system(payload["messages"])
        if STREAM in without and STREAM in payload:  # LangChain counts on its being there
            payload[STREAM] = False
        return {k: v for k, v in payload.items() if k not in without or k == STREAM}

    def _create_chat_result(self, response: Any, *args: Any, **kwargs: Any) -> ChatResult:
        """Let LangChain read the arguments of tool calls, in any form."""
        for choice in getattr(response, "choices", None) or []:
            if calls := getattr(choice.message, "tool_calls", None):
                calls[:] = [call for call in calls if getattr(call, "function", None)]
                for call in calls:
                    call.id = call.id if call.id is None else str(call.id)
                    call.function.arguments = plain_arguments(call.function.arguments)
        return super()._create_chat_result(response, *args, **kwargs)

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], *args: Any, **kwargs: Any
    ) -> ChatGenerationChunk | None:
        """Let LangChain read arguments that come as an object."""
        returned: dict[str, Any] = {}
        for choice in chunk.get("choices") or []:
            returned = returned or returned_in(choice.get("delta") or {})
            delta = choice.get("delta") or {}
            if calls := delta.get("tool_calls"):
                delta["tool_calls"] = [call for call in calls if isinstance(call, dict)]
            for call in delta.get("tool_calls") or ():
                call["id"] = call.get("id") if call.get("id") is None else str(call["id"])
                function = call["function"] = call.get("function") or {}
                if not isinstance(function.get("arguments"), str | None):
                    function["arguments"] = plain_arguments(function["arguments"])
        generation = super()._convert_chunk_to_generation_chunk(chunk, *args, **kwargs)
        if generation is not None and returned:
            generation.generation_info = {**(generation.generation_info or {}), RETURNED: returned}
        return generation


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with the system's text moved into the first user's."""
    told = [m["content"] for m in messages if m["role"] in ("system", "developer")]
    rest = [dict(m) for m in messages if m["role"] not in ("system", "developer")]
    user = next((m for m in rest if m["role"] == "user"), None)
    if user is None:
        return [{"role": "user", "content": "\n\n".join(map(str, told))}, *rest]
    if isinstance(user["content"], str):
        user["content"] = "\n\n".join([*map(str, told), user["content"]])
    else:
        user["content"] = [*({"type": "text", "text": str(t)} for t in told), *user["content"]]
    return rest


def _as_chunk(result: ChatResult) -> ChatGenerationChunk:
    """Return a whole reply as the one chunk of a stream."""
    generation = result.generations[0]
    message = generation.message
    assert isinstance(message, AIMessage)
    told = result.llm_output or {}
    names = ("token_usage", "model_name", "model_provider")
    kept = {name: told[name] for name in names if name in told}
    whole = AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata={CHOICE: True, **message.response_metadata, **kept},
        usage_metadata=message.usage_metadata,
        tool_call_chunks=chunks_of(message),
        chunk_position="last",
    )
    return ChatGenerationChunk(message=whole, generation_info=generation.generation_info)
