"""Chat models of other packages: handling that our own client has built in."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from traceback import walk_tb
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import ensure_config, merge_configs

from .._compat import configured
from .candidate import Candidate
from .error_kinds import ErrorKind
from .failures import classify
from .refusals import refused_by, refused_in
from .reply import ChatModel, comes_from
from .settings import ModelSettings
from .streamed_calls import StreamedCalls, chunks_of
from .tool_calls import read_arguments
from .wire import named_error

logger = logging.getLogger(__name__)

_CONNECTIONS = ("http_client", "http_async_client", "http_socket_options", "openai_proxy")
"""The settings by which a user of LangChain's client chooses connections."""
_FAMILY = ("langchain_openai.chat_models.base", "BaseChatOpenAI")
"""What the clients of OpenAI, Azure, DeepSeek, xAI and others are made of."""
_REFUSALS: tuple[ErrorKind, ...] = ("bad_request", "not_found", "malformed", "other")
"""The kinds of errors that may be about a parameter."""


def read_leniently(model: ChatModel, secrets: Sequence[str] = ()) -> ChatModel:
    """Return a client of `ChatOpenAI`'s family as one that reads as our own client does.

    LangChain adds up the usage of all chunks, drops a cost, and takes half a stream for a reply.
    Also in whatever LangChain puts around a model (`bind`, `with_retry`, `with_fallbacks`, ...).
    Any other model comes back as it is.

    Args:
        model: it stays as it is; the model that comes back is an instance of its class.
        secrets: strings that no exception of the client may hold, besides its key.
    """
    # By names: to import LangChain's client takes half a second.
    if isinstance(model, BaseChatModel):
        kinds = [(kind.__module__, kind.__name__) for kind in type(model).__mro__]
        return _as_ours(model, secrets) if _FAMILY in kinds else model
    is_langchains = type(model).__module__.startswith("langchain_core.")
    if not (is_langchains and isinstance(model, RunnableSerializable)):
        return model
    parts = {name: _read_within(part, secrets) for name, part in vars(model).items()}
    changed = {name: part for name, part in parts.items() if part is not vars(model)[name]}
    return model.model_copy(update=changed) if changed else model


def made_for(model: ChatModel, config: RunnableConfig | None, secrets: Sequence[str]) -> ChatModel:
    """Return the model that one of `init_chat_model` with configurable fields makes for a call.

    Any other comes back as it is; so does one that makes none, since its call says why.
    """
    with suppress(Exception):
        if (made := configured(model, config)) is not model:
            return read_leniently(made, secrets)
    return model


def _read_within(part: Any, secrets: Sequence[str]) -> Any:
    """Return a part of a runnable with the models in it read leniently; else the part itself."""
    if isinstance(part, Runnable):
        return read_leniently(part, secrets)
    if isinstance(part, list | tuple):
        read = [_read_within(one, secrets) for one in part]
        return (
            type(part)(read) if any(a is not b for a, b in zip(read, part, strict=True)) else part
        )
    if isinstance(part, dict):
        of_key = {key: _read_within(one, secrets) for key, one in part.items()}
        return of_key if any(of_key[key] is not part[key] for key in part) else part
    return part


def _as_ours(model: Any, secrets: Sequence[str]) -> ChatModel:
    """Return a copy that reads as our own client, on its connections unless the user chose some."""
    from .connections import clients_of
    from .lenient import Known
    from .openai import Reading, reading
    from .server_events import let_through

    if isinstance(model, Reading):
        return model
    given = vars(model)
    made: dict[str, Any] = {}
    if model.stream_usage is None:  # LangChain asks nobody but OpenAI for it
        made["stream_usage"] = True
    address = str(getattr(model.root_client or model.root_async_client, "base_url", ""))
    connections = clients_of(address, None)
    if model.model_fields_set.intersection(_CONNECTIONS):
        connections = model.http_client, model.http_async_client
    for way, connection in zip(("", "async_"), connections, strict=True):
        root, completions = given[f"root_{way}client"], given[f"{way}client"]
        if _is_plain(root, completions):
            root = root.with_options(http_client=connection)
            let_through(root)
            made |= {f"root_{way}client": root, f"{way}client": root.chat.completions}
    ours = model.model_copy(update=made)
    ours.__class__ = reading(type(model))  # type: ignore[arg-type]
    ours._known = Known(tuple(secrets))
    return ours  # type: ignore[no-any-return]


def _is_plain(client: Any, completions: Any) -> bool:
    """Return whether a client is openai's, and has no function of the user's in it."""
    import openai

    known = isinstance(client, openai.OpenAI | openai.AsyncOpenAI)
    return known and "create" not in vars(completions)


class ModelRequest:
    """One request to a chat model: without refused parameters; its reply is read correctly.

    Our own client does so by itself, and knows more of what is sent.

    Args:
        model: a chat model, or a runnable around one.
        settings: of the candidate or controller.
        kwargs: passed to the model; what it refuses of them is left out.
    """

    def __init__(self, model: ChatModel, settings: ModelSettings, kwargs: Mapping[str, Any]):
        self._model = model
        self._kwargs = kwargs
        fields = vars(model) if isinstance(model, BaseChatModel) else {}
        kind = f"{type(model).__module__}.{type(model).__qualname__} {settings.base_url}"
        own = settings.model_name if isinstance(settings, Candidate) else settings.model
        name = fields.get("model_name") or fields.get("model") or own  # a given one's may differ
        self._refused = refused_by(kind, str(name))
        self._learns = not comes_from(model, "router_r1_graph.candidates")
        self._known = frozenset[str]()  # what was known to be refused when the call was sent
        self._heard = _Heard()

    def without(self) -> tuple[ChatModel, dict[str, Any]]:
        """Return the model and what is passed with the call, both without what it refuses."""
        self._known = frozenset(self._refused)
        model = self._model
        if without := {name: None for name in self._own() if name in self._known}:
            model = model.model_copy(update=without)  # type: ignore[attr-defined]
        return model, {name: v for name, v in self._kwargs.items() if name not in self._known}

    def config(self, config: RunnableConfig | None) -> RunnableConfig | None:
        """Return the config, with an ear for the calls of tools in a stream."""
        if "tools" not in self._kwargs:
            return config
        return merge_configs(ensure_config(config), {"callbacks": [self._heard]})

    def read(self, message: Any) -> Any:
        """Return the reply with calls that are whole, or said to be invalid."""
        if not isinstance(message, AIMessage):
            return message
        if comes_from(self._model, "langchain_ollama"):  # it names itself in the last line only
            message.response_metadata.setdefault("model_provider", "ollama")
        return _with_whole_calls(message, self._heard.calls)

    def learn(self, error: BaseException) -> bool:
        """Remember a refused parameter, and return whether to ask the model again without it."""
        if not self._learns or classify(error).kind not in _REFUSALS:
            return False
        name = refused_in(error, {*self._own(), *self._kwargs} - self._known)
        if name is None:
            return False
        if name not in self._refused:  # else another call at once has learned it
            self._refused.add(name)
            logger.warning("%s refuses %s: it goes without", type(self._model).__name__, name)
        return True

    def _own(self) -> list[str]:
        """Return the parameters that the client sends of itself."""
        if not isinstance(self._model, BaseChatModel):
            return []
        fields = type(self._model).model_fields.keys() - BaseChatModel.model_fields.keys()
        set_to = vars(self._model)
        return [n for n in fields if isinstance(set_to.get(n), str | int | float | list | dict)]


class _Heard(BaseCallbackHandler):
    """Hears the calls of tools in the chunks of a stream.

    LangChain completes what is cut of them, and its message does not tell.
    """

    run_inline = True

    def __init__(self) -> None:
        self.calls = StreamedCalls()

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.calls = StreamedCalls()  # a model of `with_fallbacks` may have failed before

    def on_llm_new_token(self, *_: Any, chunk: Any = None, **__: Any) -> None:
        if isinstance(chunk, ChatGenerationChunk):
            self.calls.without(chunk)


def _with_whole_calls(message: AIMessage, streamed: StreamedCalls) -> AIMessage:
    """Return a message whose calls have whole arguments; others are invalid, as they came."""
    cut = any(call.arguments and read_arguments(call.arguments) is None for call in streamed.calls)
    if not (cut or message.invalid_tool_calls):
        return message
    pieces = streamed.chunk()
    read = (
        pieces.message
        if pieces
        else AIMessageChunk(content="", tool_call_chunks=chunks_of(message))
    )
    assert isinstance(read, AIMessageChunk)
    why = {call["id"]: call["error"] for call in message.invalid_tool_calls}
    invalid = [{**c, "error": c["error"] or why.get(c["id"])} for c in read.invalid_tool_calls]
    calls = {"tool_calls": read.tool_calls, "invalid_tool_calls": invalid}
    return message.model_copy(update=calls)


def named(error: BaseException) -> BaseException:
    """Return the server's error for a client's exception, if the client broke while it made one.

    Ollama's client expects the error in a stream to be a text, and fails on an object.
    """
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    ollamas = (f for f in frames if f.f_globals.get("__name__", "").startswith("ollama."))
    objects = (frame.f_locals.get("error") for frame in ollamas)
    sent = next((one for one in objects if isinstance(one, Mapping)), None)
    return error if sent is None else named_error(sent)
