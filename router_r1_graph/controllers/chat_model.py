"""Any LangChain chat model as the controller: by tags in its text, or by native tool calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig

from .. import protocol
from ..candidates import ControllerSettings
from ..candidates.call import aask, ask
from ..candidates.candidate import QUERY
from ..candidates.providers import make_chat_model
from ..candidates.reply import ChatModel, Reply
from ..errors import ControllerError
from ..protocol import Call, Turn
from .controller import View, render_view

_CUT_SHORT = ("length", "max_tokens", "MAX_TOKENS")  # finish reasons, by provider


class ChatModelController:
    """Asks a chat model for each turn.

    With protocol `tags`, the model writes the tag language, and the observations of each round come
    back as a user message. With protocol `tools`, the candidates are bound as tools, and a message
    without tool calls is the answer. These turns are stored in tags too, so that one parser and one
    trace serve both protocols.

    Args:
        model: a LangChain chat model; None builds the one that `settings` describe.
        settings: prices, time-out, retries, protocol and prompt template.
        name: what to call it in traces.

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
        self.model = model if model is not None else make_chat_model(self.settings)
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
        return self.settings.worst_case_usd(
            tools + "".join(str(message.text) for message in self.prompt(view))
        )

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn."""
        model, kwargs = self._bound(view)
        reply = ask(model, self.prompt(view), self.settings, config=config, **kwargs)
        return self._in_tags(reply)

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn without blocking the event loop."""
        model, kwargs = self._bound(view)
        reply = await aask(model, self.prompt(view), self.settings, config=config, **kwargs)
        return self._in_tags(reply)

    def prompt(self, view: View) -> list[AnyMessage]:
        """Return the messages that the model is asked with."""
        first = render_view(self.template, view)
        history = _as_tool_calls if self.by_tools else _as_text
        return [*view.conversation, HumanMessage(first), *history(view.scratchpad)]

    def _bound(self, view: View) -> tuple[ChatModel, dict[str, Any]]:
        """Return the model to invoke and the keyword arguments of `ask`."""
        kwargs: dict[str, Any] = {"seconds_left": view.left.seconds}
        kwargs["store"] = None if self._given else view.store
        if view.context.temperature is not None:
            kwargs["temperature"] = view.context.temperature
        if isinstance(self.model, BaseChatModel) and self.by_tools:
            choice = "none" if view.must_answer else "auto"
            return self.model.bind_tools(_tools(view), tool_choice=choice), kwargs
        return self.model, {**kwargs, "stop": list(protocol.STOP)}

    def _in_tags(self, reply: Reply) -> Reply:
        """Return the reply with its text in tags; an empty text is a mistake, not a failure."""
        if reply.message is None:
            return reply
        error = None if reply.error and reply.error.kind == "empty" else reply.error
        message = reply.message
        text = reply.text
        whole = message.response_metadata.get("finish_reason") not in _CUT_SHORT
        if self.by_tools:
            text = _tool_calls_in_tags(message, text, whole)
        elif whole:
            text = protocol.close(text)
        return replace(reply, text=text, error=error)


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


def _tool_calls_in_tags(message: AIMessage, text: str, whole: bool) -> str:
    if not (message.tool_calls or message.invalid_tool_calls):
        answer = protocol.render(Turn(answer=text.strip())) if text.strip() else ""
        # Half an answer is a mistake, as it is in tags.
        return answer if whole else answer.removesuffix("</answer>")
    calls = tuple(
        Call(call["name"], str(call["args"].get("query") or "").strip())
        for call in message.tool_calls
    )
    # A call with invalid JSON arguments is written without a query, so that the parser reports it.
    broken = tuple(Call(call["name"] or "", "") for call in message.invalid_tool_calls)
    return protocol.render(Turn((text.strip(),) if text.strip() else (), calls + broken))


def _as_text(scratchpad: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Return the turns as assistant messages and each round's observations as one user message."""
    messages: list[AnyMessage] = []
    observed: list[ToolMessage] = []
    for message in scratchpad:
        if isinstance(message, ToolMessage):
            observed.append(message)
            continue
        if observed:
            messages.append(HumanMessage(protocol.render_observations(observed)))
            observed = []
        messages.append(AIMessage(str(message.text)))
    if observed:
        messages.append(HumanMessage(protocol.render_observations(observed)))
    return messages


def _as_tool_calls(scratchpad: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Return the turns with native calls; every observation answers one, refused calls included."""
    messages: list[AnyMessage] = []
    for message in scratchpad:
        if not isinstance(message, AIMessage):
            messages.append(message)
            continue
        refused = [
            {
                "type": "tool_call",
                "name": call["name"] or "invalid",
                "args": {"query": call["args"]},
                "id": call["id"],
            }
            for call in message.invalid_tool_calls
        ]
        thoughts = "\n".join(protocol.parse(str(message.text)).thoughts)
        messages.append(AIMessage(thoughts, tool_calls=[*message.tool_calls, *refused]))
    return messages
