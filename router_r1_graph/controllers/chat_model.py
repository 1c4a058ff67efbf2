"""Any LangChain chat model as the controller: by tags in its text, or by native tool calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig

from .. import protocol
from ..candidates import ControllerSettings
from ..candidates.call import aask, ask
from ..candidates.candidate import QUERY
from ..candidates.finish import CUT, finish_of
from ..candidates.given import read_leniently
from ..candidates.images import images_in, with_images
from ..candidates.providers import make_chat_model
from ..candidates.reply import ChatModel, Reply, comes_from
from ..errors import ControllerError
from .chat_messages import (
    alternating,
    as_text,
    said_before,
    system_message,
    with_plain_thoughts,
)
from .controller import View, render_view
from .tool_turns import as_tool_calls, turn_in_tags

_LONGEST_TURN = 64 * 1024
"""Tokens that are kept of a turn, or 8 times its limit if that is more: a server may ignore it, and
all that comes later would read megabytes."""


class ChatModelController:
    """Asks a chat model for each turn.

    With protocol `tags`, the model writes the tag language, and the observations of each round come
    back as a user message. With protocol `tools`, the candidates are bound as tools, and a message
    without tool calls is the answer. These turns are stored in tags too, so that one parser and one
    trace serve both protocols.

    Args:
        model: a LangChain chat model; None builds the one that `settings` describe.
        settings: prices, time-out, retries, protocol and prompt template.
        name: its name in traces.

    Raises:
        ControllerError: the protocol is `tools` and the model cannot bind tools.
        ConfigError: the prompt template cannot be used.
    """

    def __init__(
        self,
        model: ChatModel | None = None,
        settings: ControllerSettings | None = None,
        *,
        name: str = "chat_model",
    ) -> None:
        self.settings = settings or ControllerSettings()
        self.name = name
        self.by_tools = self.settings.protocol == "tools"
        #: Whether the streamed tokens are the turn itself, in tags, as it will be parsed. With
        #: tools, only the end of a message shows whether its text is the answer: a call may follow.
        self.streams_turns = not self.by_tools
        self.template = protocol.load_template(
            self.settings.prompt_template or (protocol.TOOLS_TEMPLATE if self.by_tools else None)
        )
        self.model = make_chat_model(self.settings) if model is None else read_leniently(model)
        self._given = model is not None  # nothing tells it apart from another: it is not stored
        if self.by_tools and not isinstance(self.model, BaseChatModel):
            raise ControllerError(
                f"controller {name}: protocol 'tools' needs a chat model with bind_tools, not "
                f"{type(self.model).__name__}; use protocol: tags"
            )

    def worst_case_usd(self, view: View) -> float:
        """Return the price of the whole prompt and the longest turn."""
        if not self.settings.priced:
            return 0.0
        tools = str(_tools(view)) if self.by_tools else ""
        prompt = self.prompt(view)
        return self.settings.worst_case_usd(
            tools + "".join(str(message.text) for message in prompt),
            sum(len(images_in(message)) for message in prompt),
        )

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn."""
        model, settings, kwargs = self._bound(view)
        reply = ask(model, self.prompt(view), settings, config=config, **kwargs)
        return self._in_tags(reply, view)

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn without blocking the event loop."""
        model, settings, kwargs = self._bound(view)
        reply = await aask(model, self.prompt(view), settings, config=config, **kwargs)
        return self._in_tags(reply, view)

    def prompt(self, view: View) -> list[AnyMessage]:
        """Return the messages of the prompt."""
        images = view.images if self.settings.image_inputs else ()
        history = as_tool_calls if self.by_tools else as_text
        return alternating(
            [
                *system_message(view.instructions),
                *said_before(view.conversation, images=self.settings.image_inputs),
                with_images(render_view(self.template, view), images),
                *history(view.scratchpad),
            ]
        )

    def _bound(self, view: View) -> tuple[ChatModel, ControllerSettings, dict[str, Any]]:
        """Return the model to invoke, its settings, and the keyword arguments of `ask`."""
        model, settings, sent = self.model, self.settings, self._sent(view)
        kwargs: dict[str, Any] = {"seconds_left": view.left.seconds}
        kwargs["store"] = None if self._given else view.store
        temperature = sent.get("temperature")
        if not isinstance(model, BaseChatModel):
            return model, settings, {**kwargs, **sent}
        is_ours = not self._given and settings.provider == "openai"
        if temperature is not None and not is_ours and "temperature" in type(model).model_fields:
            # Not every client takes it with a call. A stored reply is one of the settings.
            update = {"temperature": sent.pop("temperature")}
            model, settings = model.model_copy(update=update), settings.model_copy(update=update)
        if not self.by_tools:
            return model, settings, {**kwargs, **sent}
        choice = {"tool_choice": sent.pop("tool_choice")} if "tool_choice" in sent else {}
        return model.bind_tools(_tools(view), **choice), settings, {**kwargs, **sent}

    def _sent(self, view: View) -> dict[str, Any]:
        """Return the parameters that are sent with a call."""
        sent: dict[str, Any] = {}
        if view.context.temperature is not None:
            sent["temperature"] = view.context.temperature
        if not self.by_tools:
            sent["stop"] = list(protocol.STOP)
        elif comes_from(self.model, "langchain_openai"):  # others know other words for it
            sent["tool_choice"] = "none" if view.must_answer else "auto"
        return sent

    def _in_tags(self, reply: Reply, view: View) -> Reply:
        """Return the reply with its text in tags; an empty text is a mistake, not a failure."""
        if reply.message is None:
            return reply
        error = None if reply.error and reply.error.kind == "empty" else reply.error
        message = reply.message
        said = protocol.cut_inside(reply.text, max(8 * self.settings.max_tokens, _LONGEST_TURN))
        whole = finish_of(message) not in CUT
        if self.by_tools:
            names = [candidate.slug for candidate in view.pool.candidates]
            text, message = turn_in_tags(message, said, whole=whole, names=names)
        else:
            text = with_plain_thoughts(said).removesuffix(protocol.STOP[0])
            text = protocol.close(text) if whole else text
        return replace(reply, text=text, error=error, message=message)


def _tools(view: View) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {
                "name": candidate.slug,
                "description": candidate.describe_tool(),
                "parameters": {
                    "type": "object",
                    "properties": {"query": {"type": "string", "description": QUERY}},
                    "required": ["query"],
                },
            },
        }
        for candidate in view.pool.candidates
    ]
