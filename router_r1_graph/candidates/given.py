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
    # By name: to import it takes half a second.
    kind = (type(model).__module__, type(model).__name__)
    if kind != ("langchain_openai.chat_models.base", "ChatOpenAI"):
        return model
    from .openai import ChatOpenAI

    client: Any = model
    return ChatOpenAI.of(client, secrets)


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
