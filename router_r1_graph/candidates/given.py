"""Chat models that others have made: what is done for them that our own client does by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.base import RunnableBindingBase

from .refusals import refused_by, refused_in
from .reply import ChatModel
from .settings import ModelSettings

_LEARNED = "temperature"
"""The one parameter that is a client's own, and that it can do without."""
_CONNECTIONS = ("http_client", "http_async_client", "http_socket_options", "openai_proxy")
"""The settings by which a user of LangChain's client chooses connections."""


def read_leniently(model: ChatModel, secrets: Sequence[str] = ()) -> ChatModel:
    """Return LangChain's `ChatOpenAI` as our own client.

    LangChain adds up the usage of all chunks, drops a cost, and takes half a stream for a reply.
    Also behind `bind` or `with_retry`; any other model, a class of the user's among them, comes
    back as it is.

    Args:
        model: it stays as it is.
        secrets: what no exception of the client may hold, besides its key.
    """
    if isinstance(model, RunnableBindingBase):
        bound = read_leniently(model.bound, secrets)
        return model if bound is model.bound else model.model_copy(update={"bound": bound})
    # By name: to import its module takes half a second.
    kind = (type(model).__module__, type(model).__name__)
    if kind != ("langchain_openai.chat_models.base", "ChatOpenAI"):
        return model
    return _our_client(model, secrets)


def _our_client(model: Any, secrets: Sequence[str]) -> ChatModel:
    """Return our own client, with its connections unless the user chose others."""
    from .connections import clients_of
    from .openai import ChatOpenAI
    from .server_events import let_through

    made = ChatOpenAI.model_construct(model.model_fields_set, **vars(model))
    if made.stream_usage is None:  # LangChain asks nobody but OpenAI for it
        made.stream_usage = True
    made._secrets = tuple(secrets)
    sync_client, async_client = clients_of(made.openai_api_base, None)
    if made.model_fields_set.intersection(_CONNECTIONS):
        sync_client, async_client = made.http_client, made.http_async_client
    if _is_plain(made.root_client, made.client):
        made.root_client = made.root_client.with_options(http_client=sync_client)
        made.client = made.root_client.chat.completions
        let_through(made.root_client)
    if _is_plain(made.root_async_client, made.async_client):
        made.root_async_client = made.root_async_client.with_options(http_client=async_client)
        made.async_client = made.root_async_client.chat.completions
        let_through(made.root_async_client)
    return made


def _is_plain(client: Any, completions: Any) -> bool:
    """Return whether a client is openai's, and has no function of the user's in it."""
    import openai

    known = isinstance(client, openai.OpenAI | openai.AsyncOpenAI)
    return known and "create" not in vars(completions)


def without_refused(model: ChatModel, settings: ModelSettings) -> ChatModel:
    """Return the model without a temperature, where it has refused one."""
    if isinstance(model, BaseChatModel) and _LEARNED in _refused(model, settings):
        return model.model_copy(update={_LEARNED: None})
    return model


def learn(model: ChatModel, settings: ModelSettings, error: BaseException) -> bool:
    """Remember that a model refuses its temperature, and return whether to ask again without."""
    if not isinstance(model, BaseChatModel) or vars(model).get(_LEARNED) is None:
        return False
    if refused_in(error, {_LEARNED}) != _LEARNED:
        return False
    _refused(model, settings).add(_LEARNED)
    return True


def _refused(model: BaseChatModel, settings: ModelSettings) -> set[str]:
    """Return what a model has refused; a given one may be another than the settings name."""
    fields = vars(model)
    name = fields.get("model_name") or fields.get("model") or settings.model
    return refused_by(f"{type(model).__name__} {settings.base_url}", str(name))
