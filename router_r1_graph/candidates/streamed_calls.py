"""The tool calls of a stream; servers cut them into pieces in different ways.

A piece may come without an index, with another id, with a repeated name, or with all earlier
pieces. Several calls may come under one index, and without ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, ToolCallChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from .returned import RETURNED, joined
from .tool_calls import plain_arguments, read_arguments


@dataclass
class _Call:
    index: int | None
    id: str
    name: str = ""
    arguments: str = ""

    def add(self, id_: str, name: str, arguments: str) -> None:
        """Add a piece; it may also repeat everything so far, or the whole."""
        self.id = self.id or id_
        if not self.name or not (id_ or self.arguments or name == self.name):
            self.name += name
        known = self.arguments.strip()
        if known == "{}" or (len(known) > 1 and arguments.startswith(known)):
            self.arguments = arguments or known
        elif not (known and (arguments.strip() == "{}" or self._is(arguments))):
            self.arguments += arguments

    def is_over(self, id_: str, name: str, arguments: str) -> bool:
        """Return whether a piece belongs to another call: this one is whole, and it says new."""
        new, other = arguments.strip(), bool(name and name != self.name)
        if (id_ and id_ == self.id) or not (other or new.startswith("{")):
            return False
        if read_arguments(self.arguments) is None:
            return False
        return other or not ("{}" in (new, self.arguments.strip()) or self._is(new))

    def _is(self, arguments: str) -> bool:
        """Return whether a piece is all the arguments of this call, however it is written."""
        given = read_arguments(arguments) if arguments.lstrip().startswith("{") else None
        return given is not None and given == read_arguments(self.arguments)


@dataclass
class StreamedCalls:
    """The tool calls of a stream, put together from their pieces."""

    calls: list[_Call] = field(default_factory=list)
    returned: dict[str, Any] = field(default_factory=dict)
    """The data that goes back to the provider with them."""

    def without(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        """Take over the pieces of calls in a chunk, and return the rest of it."""
        message = chunk.message
        if returned := (chunk.generation_info or {}).pop(RETURNED, None):
            self.returned = joined(self.returned, returned)
        if not isinstance(message, AIMessageChunk) or not message.tool_call_chunks:
            return chunk
        for piece in message.tool_call_chunks:
            said = piece["id"] or "", piece["name"] or "", piece["args"] or ""
            self._of(piece["index"], *said).add(*said)
        empty: dict[str, Any] = {"tool_call_chunks": [], "tool_calls": [], "invalid_tool_calls": []}
        rest = message.model_copy(update=empty)
        return ChatGenerationChunk(message=rest, generation_info=chunk.generation_info)

    def _of(self, index: int | None, id_: str, name: str, arguments: str) -> _Call:
        """Return the call that a piece belongs to: a known one, or a new one."""
        here = [call for call in self.calls if call.index == index]
        if id_ and (name or index is None):  # without a name, it is the id that is new
            here = [c for c in here if c.id == id_ or (index is not None and not c.id)]
        elif index is None and name:
            here = []
        if here and not here[-1].is_over(id_, name, arguments):
            return here[-1]
        before = here[-1].name if here and not name else ""
        self.calls.append(_Call(index, id_, before))
        return self.calls[-1]

    def chunk(self) -> ChatGenerationChunk | None:
        """Return all calls in one chunk; None where there are none."""
        if not self.calls:
            return None
        chunks = [
            tool_call_chunk(
                name=call.name or None,
                args=plain_arguments(call.arguments),
                id=call.id or None,
                index=number,
            )
            for number, call in enumerate(self.calls)
        ]
        kept = {RETURNED: self.returned} if self.returned else {}
        return ChatGenerationChunk(
            message=AIMessageChunk(content="", tool_call_chunks=chunks, additional_kwargs=kept)
        )


def chunks_of(message: AIMessage) -> list[ToolCallChunk]:
    """Return the calls of a message as pieces of a stream, each whole or said to be invalid."""
    return [
        tool_call_chunk(
            name=call["name"], args=plain_arguments(call["args"]), id=call["id"], index=number
        )
        for number, call in enumerate([*message.tool_calls, *message.invalid_tool_calls])
    ]
