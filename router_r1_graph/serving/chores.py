"""Prompts that a chat UI sends by itself: for a title, tags or follow-up questions.

One rule tells these prompts: one of the first three sentences of the last user message orders such
a thing, and says that it is for a conversation. In a system message, only the order of a title
counts, since an assistant's instructions may ask for further questions with each answer. An
order of code (`Write a function that ...`) and a question are no such prompts.

Source: read in the public sources of Open WebUI, LibreChat, LobeChat, NextChat, Chatbox, Vercel's
chatbot, big-AGI and n8n in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from ..chat.form_options import form_of
from ..chat.formatter import CONTROLLER
from ..chat.result import ROUTED
from ..chat.router import ChatRouterR1
from ..controllers import ChatModelController, as_controller
from ..controllers.rules import ConstantController

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_ITEM = re.compile(r"\n\s*(?:\d+[.)]|[-*])\s+")
"""The beginning of an item of a list, which belongs to the sentence before."""
_FIRST = 3
_LONGEST = 400
"""Characters of a sentence; a longer one is no order."""

_ORDER = (
    r"\b(?:generat|creat|writ|provid|giv|mak|suggest|propos|find|summari[sz]|extract|produc|output|"
    r"com(?:e|ing) up with)\w*"
)
_UP_TO_IT = r"(?:[^\w.!?]+(?!(?:that|which|who|with|about)\b)[\w'/-]+){0,12}?[^\w.!?]+"
_OF = re.compile(
    r"\b(?:conversations?|chats?|dialog(?:ue)?s?|discussion|thread|exchange"
    r"|(?:first|user'?s?|previous) (?:message|query))\b",
    re.I,
)
_TITLE = re.compile(
    rf"{_ORDER}{_UP_TO_IT}(?<!\bthe )titles?\b"
    r"|\b(?:conversation|chat)\s+an?\s+(?:\w+\s+){0,3}(?:name|title)\b",
    re.I,
)
_OTHERS = re.compile(rf"{_ORDER}{_UP_TO_IT}(?:tags|follow-?ups?|search queries)\b", re.I)
_CHINESE = re.compile(
    r"(?:会话|对话|對話|聊天).{0,40}(?:标题|標題)|(?:标题|標題).{0,40}(?:会话|对话|對話|聊天)"
)
_NO_ORDER = re.compile(
    r"\b(?:code|function|script|program|prompt for|regex|class|python|javascript|typescript|sql)\b"
    r"|\?\s*$",
    re.I,
)


def aside(model: ChatRouterR1, controller: str) -> ChatRouterR1:
    """Return the router that answers a chat UI's own prompts.

    Args:
        model: the served router.
        controller: the spec of what answers instead of its own. A candidate that this names gives
            an answer its form too.

    Raises:
        ControllerError: it is no controller.
    """
    who = as_controller(controller, model.pool)
    formatter = model.formatter
    if isinstance(who, ConstantController):
        named = model.pool.find(who.candidate)
        formatter = named.name if named and named.kind == "model" else formatter
    if formatter == CONTROLLER and not isinstance(who, ChatModelController):
        formatter = None  # it was another controller's name
    return model.model_copy(update={"controller": who, "formatter": formatter})


def is_chore(messages: Sequence[BaseMessage]) -> bool:
    """Return whether a conversation is a chat UI's own prompt.

    Example:
        >>> is_chore([HumanMessage("Write a title of at most 5 words for this conversation.")])
        True
        >>> is_chore([HumanMessage("Who wrote Hamlet?")])
        False
    """
    if not messages or not isinstance(messages[-1], HumanMessage):
        return False
    *earlier, last = messages
    system = [m for m in earlier if isinstance(m, SystemMessage)][:1]
    return _orders(str(last.text), others=True) or any(_orders(str(m.text)) for m in system)


def _orders(text: str, *, others: bool = False) -> bool:
    sentences = _SENTENCE.split(_ITEM.sub(" ", text.strip()[:2000]))
    for sentence in [s for s in sentences if s.strip("#*- ")][:_FIRST]:
        if _CHINESE.search(sentence):
            return True
        if len(sentence) > _LONGEST or _NO_ORDER.search(sentence) or not _OF.search(sentence):
            continue
        if _TITLE.search(sentence) or (others and _OTHERS.search(sentence)):
            return True
    return False


def as_chore(messages: Sequence[BaseMessage], options: Mapping[str, Any]) -> list[BaseMessage]:
    """Return a whole conversation as one question, since the prompt is about it.

    If the answer has a form, the formatter answers too, so this is one call as well.

    Args:
        messages: the conversation; the last one is the chat UI's prompt.
        options: of the call, which may ask for a form.

    Raises:
        ConfigError: the form cannot be understood.
    """
    names = {"human": "User", "ai": "Assistant", "tool": "Tool"}
    *earlier, last = messages
    told = [
        f"{names[m.type]}: {m.text}" if m.type in names else str(m.text)
        for m in earlier
        if str(m.text).strip()
    ]
    question = HumanMessage("\n\n".join([*told, str(last.text)]))
    return (
        [question, AIMessage("", response_metadata={ROUTED: ""})]
        if form_of(options)
        else [question]
    )
