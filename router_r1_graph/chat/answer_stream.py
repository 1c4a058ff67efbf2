"""The answer of `ChatRouterR1` in pieces, out of the graph's stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from ..errors import ControllerError
from ..outside import writable
from .answer_reader import AnswerReader
from .result import UNANSWERED


@dataclass
class AnswerStream:
    """A run's answer, taken from the graph's stream while it is written."""

    state: Mapping[str, Any] = field(default_factory=dict)
    """The latest state."""
    _told: list[str] = field(default_factory=list)
    """The parts of the answer that were streamed."""
    _again: str = ""
    """The part of them that another turn has to repeat before it is streamed."""
    _turn: AnswerReader | None = None
    _id: str | None = None

    def heard(self, mode: str, part: Any) -> Iterator[ChatGenerationChunk]:
        """Take one part of the graph's stream; yield the new part of the answer."""
        if mode == "values":
            self.state = part
        elif text := self._heard(*part):
            self._told.append(text)
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))

    def _heard(self, message: AnyMessage, metadata: Mapping[str, Any]) -> str:
        """Return the new part of the answer in a piece of the controller's turn."""
        # A candidate that is a router too has a controller of its own, below a route.
        ours = metadata["langgraph_node"] == "think" and "candidate" not in metadata
        if not (ours and isinstance(message, AIMessageChunk)):
            return ""
        if message.id != self._id:  # the next turn, or another attempt at this one
            self._id, self._turn, self._again = message.id, AnswerReader(), "".join(self._told)
        if self._turn is None:  # it says something else than was streamed
            return ""
        text = self._turn.read(writable(str(message.text)))
        if not self._again.startswith(text[: len(self._again)]):
            self._turn = None
            return ""
        text, self._again = text[len(self._again) :], self._again[len(text) :]
        return text

    def rest(self, result: ChatResult) -> Iterator[ChatGenerationChunk]:
        """Yield the rest of the answer, word by word; the last chunk has the bill.

        Raises:
            ControllerError: the answer does not begin with the text that was streamed.
        """
        message = result.generations[0].message
        assert isinstance(message, AIMessage)
        told, answer = "".join(self._told), str(message.text)
        if not answer.startswith(told):
            raise ControllerError(
                "the streamed text is not the beginning of the final answer (stop reason: "
                f"{message.response_metadata['stop_reason']}); ask again, or without a stream",
                cost_usd=message.response_metadata["cost_usd"],
            )
        # A server that forwards the stream can still report an outage before its first byte.
        unanswered = UNANSWERED in message.response_metadata
        left = answer[len(told) :]
        *first, last = [left] if unanswered else words(left) or [""]
        for word in first:
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        chunk = AIMessageChunk(
            content=last,
            tool_call_chunks=[_chunk(call, n) for n, call in enumerate(message.tool_calls)],
            additional_kwargs=message.additional_kwargs,
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=chunk)


def _chunk(call: Mapping[str, Any], index: int) -> ToolCallChunk:
    text = json.dumps(call["args"], ensure_ascii=False)
    return tool_call_chunk(name=call["name"], args=text, id=call["id"], index=index)


def words(text: str) -> list[str]:
    """Cut a text into words, each with the space after it."""
    return re.findall(r"\s*\S+\s*", text)
