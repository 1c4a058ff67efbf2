"""Data that servers of OpenAI's API send, and that LangChain's client does not read.

Usage and a cost may come in any chunk of a stream, and in several; an error may come with status
200; a stream may end too early.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from ..outside import read_reply_json, writable_within
from .failures import BrokenReplyError, handed_on, words_handed_on
from .retry_after import with_wait
from .returned import RETURNED, returned_in
from .thoughts import reported
from .usage import COSTS, at, reported_usd, usage_metadata

REPORT = "token_usage"
"""In a message's response metadata, as LangChain has it: the usage block as it was sent."""
CHOICE = "choice"
"""In a normalized choice, and in the response metadata of a chunk until `Ending` takes it: the name
under which the server has what it says, such as `delta`; empty = the chunk holds no choice."""
NAMED = "named_error"
"""In an event of a stream, in the place of `error`, which openai's client does not let through."""
_KEPT = "router_r1_usage"
"""In the metadata of a reply of the Responses API, as a JSON text: its usage block."""
#: The names that servers give an error's words and its code; case and underscores do not matter.
_WORDS = ("message", "detail", "msg", "errormsg", "errormessage", "statusmsg")
_CODES = ("code", "status", "type", "errorcode", "statuscode", "httpcode", "httpstatus")
_OF_GATEWAY = ("provider_metadata", "gateway", "cost")
"""The field of Vercel's gateway for a cost, beside the text."""
_SUCCESS = ("code", "status_code")
_LONGEST = 2**14
"""Characters of an error's words, and of its codes: they are searched dozens of times."""
_SAID = ("message", "delta", "text")
#: The types of a part of a content that is a text.
_TEXTS = (None, "text", "output_text")


def error_in(body: Mapping[str, Any]) -> BrokenReplyError | None:
    """Return the error that a body or a chunk of status 200 names; None = it names none.

    Args:
        body: the JSON of a chat completion, of an older completion, or of a chunk of either.
    """
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    choice = choice if isinstance(choice, Mapping) else {}
    named = body.get("error") or body.get(NAMED) or choice.get("error")
    named = named or at(body, ("x_groq", "error"))
    if isinstance(choices, list) and isinstance(named, Mapping) and _says_none(named):
        named = None
    if named and not isinstance(named, Mapping) and not choices:
        named = {**body, "error": named}  # Spring, Nest: its words and its code stand beside it
    if not named and not choices:
        named = _named_in_place_of_a_choice(body)
    if not named and choice.get("finish_reason") != "error":
        return None
    return named_error(named, report_in(body))


def _named_in_place_of_a_choice(body: Mapping[str, Any]) -> Any:
    """Return the error in a body that has only words and no choice; None = it has no words."""
    errors = body.get("errors")  # Cloudflare
    if errors := errors[:1] if isinstance(errors, list) else [errors] if errors else []:
        return errors[0]
    for place in (body.get("base_resp"), body):  # MiniMax; vLLM, FastAPI and others
        if not isinstance(place, Mapping) or _says_none(place):
            continue
        if isinstance(next(_values(place, _WORDS), None), str | list):  # not Ollama's `message`
            return place
    return None


def _says_none(named: Mapping[str, Any]) -> bool:
    """Return whether an error object is empty, or has the code of success."""
    return not any(named.values()) or any(named.get(code) in (0, "0") for code in _SUCCESS)


def normalized(choice: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a choice with its message under one name alone, and content that LangChain reads.

    Args:
        choice: of a reply, or of a chunk of one.
        name: `message` or `delta`; other servers have the other one, or a text alone. Where there
            are both, Perplexity's message has all that came so far.
    """
    place = next((key for key in (name, *_SAID) if choice.get(key) is not None), name)
    found: Any = choice.get(place) or {}
    said = dict(found) if isinstance(found, Mapping) else {"content": found}
    if "content" in said:
        said["content"] = _content(said["content"])
    rest = {key: value for key, value in choice.items() if key not in _SAID}
    return {**rest, name: said, CHOICE: place}


def _content(content: Any) -> Any:
    if isinstance(content, list):
        return [_part(part) for part in content]
    if (part := _part(content)) is not content:
        return [part]
    return str(content) if isinstance(content, int | float) else content


def _part(part: Any) -> Any:
    """Return a part of a content, if it is a text, in LangChain's form; another as it is."""
    text = part.get("text") if isinstance(part, Mapping) else None
    is_text = isinstance(text, str) and part.get("type") in _TEXTS
    return {"type": "text", "text": text} if is_text else part


def _values(named: Mapping[str, Any], names: Sequence[str]) -> Iterator[Any]:
    """Yield the non-empty values under these names, in any spelling."""
    plain = {str(name).lower().replace("_", ""): value for name, value in named.items()}
    yield from (plain[name] for name in names if plain.get(name))


def report_in(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the usage block of a body or a chunk, in any place; None = there is none.

    Args:
        body: the JSON of a chat completion, or of a chunk.
    """
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    said = choice.get("message") or choice.get("delta") if isinstance(choice, Mapping) else None
    places = (body, choice, said, body.get("x_groq"))  # Moonshot: the choice of its last chunk
    blocks = [place.get("usage") for place in places if isinstance(place, Mapping)]
    sent = [dict(block) for block in blocks if isinstance(block, Mapping)]
    report = next((block for block in sent if any(v is not None for v in block.values())), None)
    costs = {name: body[name] for name in COSTS if body.get(name) is not None}
    if not costs and (cost := at(said, _OF_GATEWAY)) is not None:
        costs = {COSTS[0]: cost}
    return {**costs, **(report or {})} if costs else report


def report_of_failure(status: int | None, content: bytes | None) -> dict[str, Any] | None:
    """Return the usage in the body of an error status of a server's own; None = there is none.

    One of 4xx is the client's error, and what stands there may be the usage of a whole account.

    Args:
        status: of the response; None = the error is of none.
        content: its body; None = an error whose key was taken out, which has told its usage before.
    """
    if (status or 0) < 500 or content is None:
        return None
    try:
        body = read_reply_json(content)
    except ValueError:
        return None
    return report_in(body) if isinstance(body, Mapping) else None


def named_error(named: Any, report: Any = None) -> BrokenReplyError:
    """Return the error that an `error` object, or text, describes.

    Args:
        named: the object; None = the server only says that there was one.
        report: the usage that is billed nevertheless.
    """
    code: object = None
    kind = ""
    sent = named
    if isinstance(named, Mapping):
        inner = named.get("error")
        words = [inner] if isinstance(inner, str) else []
        words += [str(said) for said in _values(named, _WORDS)]
        words += words_handed_on(named)
        codes = [*_values(named, _CODES)]
        if isinstance(inner, Mapping):
            words += [str(said) for said in _values(inner, _WORDS)]
            codes = [*_values(inner, _CODES), *codes]
        codes += [code for own in handed_on(named) for code in _values(own, _CODES)]
        numbers = [c for c in codes if str(c).isdigit()]
        kind = " ".join(str(c) for c in codes if c not in numbers)
        code = numbers[0] if numbers else kind[:_LONGEST]
        named = ": ".join(words) or " ".join(map(str, ["error", *codes] if codes else []))
    message = str(named or "the server reports an error, and no more")[:_LONGEST]
    return BrokenReplyError(with_wait(message, sent), code or None, billed(report), kind[:_LONGEST])


def failure_in(body: Mapping[str, Any]) -> BrokenReplyError | None:
    """Return the error of a response of the Responses API, with its usage; None = it has none.

    Args:
        body: see `kept_for`.
    """
    response = body.get("response", body)
    if not isinstance(response, Mapping):
        return None
    named = response.get("error")
    failed = named or response.get("status") == "failed"
    return named_error(named, report_in(response)) if failed else None


def kept_for(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reply of the Responses API with its usage where LangChain keeps what was sent.

    LangChain reads the counts of `usage` and drops its cost; `metadata` it hands on.

    Args:
        body: the JSON of a response, or of the event that ends a stream of one.
    """
    if isinstance(response := body.get("response"), Mapping):
        return {**body, "response": kept_for(response)}
    if (report := report_in(body)) is None:
        return dict(body)
    metadata = body.get("metadata")
    own = metadata if isinstance(metadata, Mapping) else {}
    return {**body, "usage": None, "metadata": {**own, _KEPT: json.dumps(report)}}


def with_kept(message: BaseMessage, **costs: float) -> None:
    """Move the usage that `kept_for` has kept to its place in a message.

    Args:
        message: a reply, or the last chunk of one.
        **costs: the cost reported beside the body; the body's own has precedence.
    """
    metadata = message.response_metadata.get("metadata") or {}
    if not isinstance(message, AIMessage) or _KEPT not in metadata:
        return
    report = {**costs, **writable_within(json.loads(metadata[_KEPT]))}
    own = {name: value for name, value in metadata.items() if name != _KEPT}
    message.response_metadata |= {"metadata": own, REPORT: report}
    message.usage_metadata = usage_metadata(report)


def complete(generation: ChatGeneration, report: Any, choice: Mapping[str, Any]) -> None:
    """Add to a message what LangChain leaves out: exact counts, thoughts and refusals.

    Args:
        generation: a reply, or a chunk of one.
        report: the usage block; anything else is none.
        choice: its choice, as it was sent.
    """
    message = generation.message
    said = choice.get("message") or choice.get("delta") or {}
    if thoughts := reported(said):
        message.additional_kwargs["reasoning_content"] = thoughts
    if isinstance(message, AIMessageChunk):  # `Ending` takes both, and `StreamedCalls` the calls
        message.response_metadata |= {REPORT: report, CHOICE: choice.get(CHOICE, "")}
    elif said.get("tool_calls") and (returned := returned_in(said)):
        message.additional_kwargs[RETURNED] = returned
    if isinstance(refusal := said.get("refusal"), str) and refusal:
        message.additional_kwargs["refusal"] = refusal
    if isinstance(message, AIMessage):
        message.usage_metadata = usage_metadata(report) if isinstance(report, Mapping) else None


def billed(report: Any) -> AIMessage | None:
    """Return a message without text that has the bill of a broken reply; None if it has none."""
    if not isinstance(report, Mapping):
        return None
    message = AIMessage(
        "", usage_metadata=usage_metadata(report), response_metadata={REPORT: dict(report)}
    )
    told = message.usage_metadata is not None or reported_usd(message) is not None
    return message if told else None


def with_costs(result: ChatResult, costs: Mapping[str, float]) -> ChatResult:
    """Return a result; if it is one of the Responses API, with its usage as it was sent."""
    for generation in result.generations:
        with_kept(generation.message, **costs)
    return result
