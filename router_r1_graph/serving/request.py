"""The common part of both APIs' requests: how they are read, and the fields that are ignored."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from ..chat.built import KNOBS
from ..chat.router import ChatRouterR1
from ..context import knobs
from ..errors import LONGEST_NAME
from .knobs import (
    MODEL,
    WithKnobs,
    capped,
    checked,
    knobs_in_name,
    knobs_under_key,
    misspelt,
    or_meant,
)
from .refused import RefusedError

_MOST_FIELDS = 1000
"""Fields of a request; unknown ones are compared with the knobs, which takes time."""


def _token_limit(limit: int) -> int | None:
    if limit == 0:
        raise ValueError("at least 1; left out or below 0, there is no limit")
    return limit if limit > 0 else None


TokenLimit = Annotated[int, AfterValidator(_token_limit)] | None
"""The most tokens of an answer; -1, as llama.cpp and Ollama say it, or null = no limit."""


_KINDS = {
    **{"string": "a text", "bool": "true or false", "list": "a list", "too": "a list"},
    **{"int": "a whole number", "finite": "a whole number"},
    **{"dict": "an object", "model": "an object"},
}
"""What a value has to be, by the beginning of pydantic's name for the error."""
_NEEDED = {
    "model": repr(MODEL),
    "messages": "a list with a message of role 'user', which holds the question",
    "stop": "a text, or a list of texts",
    "input": "the question: a text, or a list with a message of role 'user'",
}
"""What fields have to be that are more than one kind of value."""


class Asked(WithKnobs):
    """A request: fields of OpenAI's API, and the knobs of `RouterContext`.

    Null is the same as a missing field. Unknown fields are ignored, since clients send sampling
    settings of all kinds of servers. But a misspelt knob is refused, and so is a field that would
    change the answer's form.
    """

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str, Field(max_length=1000)]
    stream: bool = False

    only: ClassVar[Mapping[str, tuple[object, ...]]] = {}
    """Fields with only these supported values."""
    called: ClassVar[Mapping[str, str]] = {}
    """What an error calls the fields of chat completions -> what they are called here."""

    @abstractmethod
    def conversation(self, *, images: bool) -> list[BaseMessage]:
        """Return the messages as LangChain's.

        Args:
            images: whether somebody takes images.

        Raises:
            RefusedError: one cannot be read.
        """

    @abstractmethod
    def limits(self) -> dict[str, Any]:
        """Return where the answer is cut off: `max_tokens` and `stop`."""

    @abstractmethod
    def form(self) -> dict[str, Any]:
        """Return the options of a chat model for the form of the answer; {} for a plain text."""

    @abstractmethod
    def response(self, message: AIMessage) -> dict[str, Any]:
        """Return the answer as the API's object, with the bill under `router_r1`."""

    @abstractmethod
    def events(self, pieces: AsyncIterable[AIMessageChunk]) -> AsyncIterator[str]:
        """Yield the server-sent events of a stream; the one that ends the answer has the bill.

        If the answer breaks off, the last event is an error in the form that OpenAI's clients read.
        """

    def options(self, served: ChatRouterR1) -> dict[str, Any]:
        """Return the arguments for the chat model: the knobs and limits, as far as allowed.

        Args:
            served: the model as its operator has set it up. Its own knobs are caps.

        Raises:
            RefusedError: a knob is unknown or out of range.
        """
        own = {name: getattr(self, name) for name in KNOBS if getattr(self, name) is not None}
        keyed = knobs_under_key(self.router_r1 or {})
        given = checked({**knobs_in_name(self.model), **keyed, **own})
        caps = {name: getattr(served, name) for name in served.model_fields_set & set(KNOBS)}
        limits = self.limits()
        tokens = [n for n in (limits["max_tokens"], served.max_tokens) if n is not None]
        tokens_at_most = {"max_tokens": min(tokens, default=None)}
        return {**capped(given, caps), **self.form(), **limits, **tokens_at_most}


_Asked = TypeVar("_Asked", bound=Asked)


def read_request(kind: type[_Asked], data: object) -> _Asked:
    """Check the body of a request.

    Raises:
        RefusedError: a field is not allowed; the error names it.
    """
    if not isinstance(data, dict):
        raise RefusedError(400, f"the body has to be a JSON object, not {json.dumps(data)[:60]}")
    if len(data) > _MOST_FIELDS:
        raise RefusedError(400, f"{len(data)} fields; at most {_MOST_FIELDS}")
    given = {name: value for name, value in data.items() if value is not None}
    for name, value in given.items():
        if name in kind.model_fields or len(name) > LONGEST_NAME:
            continue
        if name in kind.only:
            _check_only(name, value, kind.only[name])
        elif name in knobs():
            raise RefusedError(400, "unknown field: no person can approve a call here", param=name)
        elif meant := misspelt(name):
            raise RefusedError(400, f"unknown field{or_meant(meant)}", param=name)
    try:
        asked = kind.model_validate(given)
    except ValidationError as error:
        raise _refusal(error) from None
    knobs_in_name(asked.model)
    return asked


def _refusal(error: ValidationError) -> RefusedError:
    """Return the refusal of a field in words of OpenAI's API: pydantic has words of its own."""
    # The second one may be about the same field, where that may be of two kinds.
    wrong = [(_field(one["loc"]), one) for one in error.errors(include_url=False)[:2]]
    param, first = wrong[0]
    kinds = [_KINDS.get(one["type"].partition("_")[0], "") for name, one in wrong if name == param]
    needed = _NEEDED.get(param) or " or ".join(kinds)
    if first["type"] == "value_error":
        why = str(first["ctx"]["error"])
    elif first["type"] == "missing":
        why = f"{param} is missing: it has to be {needed}"
    elif first["type"] == "string_too_short":
        why = f"{param} has to be a text of at least 1 character"
    else:
        why = f"{param} has to be {needed}, not {first['input']!r:.60}"
    return RefusedError(400, why, param=param)


def _field(place: tuple[int | str, ...]) -> str:
    """Return the field at a place of the body, without pydantic's names for the kinds it may be."""
    return ".".join(str(part) for part in place if part not in ("str", "dict[str,any]"))


def _check_only(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        what = " or ".join(map(repr, allowed)) or "null"
        why = f"only {what} is possible here, not {value!r:.60}"
        raise RefusedError(400, why, param=name, code="unsupported_value")


def called(message: AIMessage) -> list[dict[str, str | None]]:
    """Return the tool calls of an answer: `id`, `name` and `arguments`, which are JSON."""
    return [
        {"id": call["id"], "name": call["name"], "arguments": json.dumps(call["args"])}
        for call in message.tool_calls
    ]


def bill(message: AIMessage) -> dict[str, Any]:
    """Return the bill and the run's totals, as both APIs have them under `router_r1`."""
    ours = ("model_name", "finish_reason")
    return {name: v for name, v in message.response_metadata.items() if name not in ours}


def reasoning_tokens(message: AIMessage) -> int:
    """Return the reasoning tokens of the candidates, which the output tokens hold too."""
    lines = message.response_metadata["candidates"].values()
    return sum(line["reasoning_tokens"] for line in lines)
