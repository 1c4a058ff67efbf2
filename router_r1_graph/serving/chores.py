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
from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_ITEM = re.compile(r"\n\s*(?:\d+[.)]|[-*])\s+")
"""The beginning of an item of a list, which belongs to the sentence before."""
_FIRST = 3
_LONGEST = 400
"""Characters of a sentence; a longer one is no order."""

_ORDER = (
    r"\b(?:generat|creat|writ|provid|giv|mak|suggest|propos|find|summari[sz]|extract|produc|"
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


def as_question(messages: Sequence[BaseMessage]) -> HumanMessage:
    """Return a whole conversation as one question, since the prompt is about it."""
    names = {"human": "User", "ai": "Assistant", "tool": "Tool"}
    *earlier, last = messages
    told = [
        f"{names[m.type]}: {m.text}" if m.type in names else str(m.text)
        for m in earlier
        if str(m.text).strip()
    ]
    return HumanMessage("\n\n".join([*told, str(last.text)]))
