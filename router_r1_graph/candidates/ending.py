"""The end of a streamed reply: reports on the whole of it, and whether it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from .failures import CutReplyError, NoChoiceError
from .returned import RETURNED
from .usage import usage_metadata
from .wire import CHOICE, REPORT, billed, with_kept

_ERROR = "error"
_ONCE = ("finish_reason", "model_name", "system_fingerprint", "service_tier")


def broken(error: Exception, report: Any) -> ChatGenerationChunk:
    """Return a chunk that replaces a chunk with an error; `Ending` raises the error.

    Args:
        error: the error, without keys: callbacks see the chunk.
        report: its usage block; any other value counts as none.
    """
    message = AIMessageChunk(content="", response_metadata={REPORT: report})
    return ChatGenerationChunk(message=message, generation_info={_ERROR: error})


class Ending:
    """Collects what must be reported once per stream, though many servers repeat it in each chunk.

    LangChain adds the numbers of two chunks up, and joins their words.
    """

    def __init__(self) -> None:
        self.report: dict[str, Any] = {}
        self.info: dict[str, Any] = {}
        self.chunks = self.choices = 0
        self.complete = False
        self.error: Exception | None = None

    def without(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        """Take over a chunk's reports on the whole reply, and return the rest of the chunk."""
        self.chunks += 1
        message = chunk.message
        metadata = message.response_metadata
        choice = bool(metadata.pop(CHOICE, False))
        self.choices += choice
        report = metadata.pop(REPORT, None)
        if isinstance(report, Mapping):  # the last one counts
            self.report = _latest(self.report, report)
            # Usage alone comes after the reply, also from a server that gives no finish reason.
            self.complete |= bool(self.choices and not choice)
        if isinstance(message, AIMessageChunk):
            message.usage_metadata = None
        if info := chunk.generation_info:
            self.error = self.error or info.pop(_ERROR, None)
            self.info |= {name: info.pop(name) for name in _ONCE if info.get(name)}
            self.complete |= "finish_reason" in self.info
        return chunk

    @property
    def begun(self) -> bool:
        """Whether a part of the reply has come."""
        return bool(self.choices)

    @property
    def billed(self) -> AIMessage | None:
        """The usage so far, as of a reply without text; None = none was reported."""
        return billed(self.report)

    def chunk(self) -> ChatGenerationChunk:
        """Return the last chunk.

        Raises:
            NoChoiceError: the stream holds chunks, but no reply.
            CutReplyError: it ended before the reply did.
            Exception: the first error that a chunk named.
        """
        if self.error:
            raise self.error
        if self.chunks and not self.choices:
            raise NoChoiceError("the stream holds no reply", self.billed)
        if not self.complete:
            raise CutReplyError(
                "the stream ended before the reply did"
                if self.chunks
                else "there was no event in the stream (if the server does not stream, set "
                "options: {disable_streaming: true})",
                partial=self.billed,
            )
        message = AIMessageChunk(content="", chunk_position="last")
        message.usage_metadata = usage_metadata(self.report)
        if self.report:
            message.response_metadata[REPORT] = self.report
        return ChatGenerationChunk(message=message, generation_info=self.info)


class Deltas:
    """What the deltas of a stream have said, which MiniMax's last chunk says again as a message."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def without(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        """Return a chunk; if it is a message, without the kinds of parts that deltas have had.

        A stream all of whose chunks are messages stays as it is.
        """
        message, info = chunk.message, chunk.generation_info or {}
        if not isinstance(message, AIMessageChunk):
            return chunk
        parts = {
            **{"content": message.content, "calls": message.tool_call_chunks},
            **{RETURNED: info.get(RETURNED), **message.additional_kwargs},
        }
        if message.response_metadata.get(CHOICE) != "message":
            self._said |= {name for name, part in parts.items() if part}
            return chunk
        kwargs = {n: part for n, part in message.additional_kwargs.items() if n not in self._said}
        new: dict[str, Any] = {"additional_kwargs": kwargs}
        if "content" in self._said:
            new["content"] = ""
        if "calls" in self._said:
            new |= {"tool_call_chunks": [], "tool_calls": [], "invalid_tool_calls": []}
        return ChatGenerationChunk(
            message=message.model_copy(update=new),
            generation_info={n: v for n, v in info.items() if n != RETURNED or n not in self._said},
        )


class ResponsesEnding:
    """The end of a stream of OpenAI's Responses API; LangChain does not notice if it is missing."""

    error = None
    billed = None

    def __init__(self) -> None:
        self.complete = self.begun = False

    def without(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        """Return a chunk; the last one has the reports on the reply where LangChain keeps them."""
        # Earlier releases of LangChain tell the last one by the status of the response alone.
        message = chunk.message
        message.response_metadata.pop(CHOICE, None)
        with_kept(message)
        self.begun |= bool(message.content)
        is_last = isinstance(message, AIMessageChunk) and message.chunk_position == "last"
        self.complete |= is_last or "status" in message.response_metadata
        return chunk

    def chunk(self) -> None:
        """Return nothing: the reply has ended.

        Raises:
            CutReplyError: it has not.
        """
        if not self.complete:
            raise CutReplyError("the stream ended before the reply did")


def _latest(known: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the usage after one more report of it.

    A count of 0 replaces no other count. If every count is 0, the cost replaces none either.
    """
    tokens = [value for name, value in report.items() if name.endswith("_tokens")]
    nothing = bool(known and tokens) and not any(tokens)
    latest = dict(known)
    for name, value in report.items():
        before = known.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            latest[name] = _latest(before, value)
        elif value is not None and (value != 0 or not (nothing or name.endswith("_tokens"))):
            latest[name] = value
    return latest
