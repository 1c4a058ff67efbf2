"""The response of a completions server: a body or the events of a stream, with ids, or an error."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
from pydantic import BaseModel, NonNegativeInt, ValidationError

from ...candidates.failures import CutReplyError, is_cut
from ...candidates.keys import beginning
from ...candidates.wire import billed, error_in, report_in, report_of_failure
from ...outside import read_reply_json


class _Token(BaseModel):
    id: NonNegativeInt | None = None
    logprob: float | None = None


class _Logprobs(BaseModel):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    content: list[_Token] | None = None  # llama.cpp

    @property
    def ids(self) -> list[int] | None:
        """The ids of the sampled tokens, if the server writes them here."""
        if self.content is not None:
            ids = [token.id for token in self.content if token.id is not None]
            return ids if len(ids) == len(self.content) else None
        found = [re.fullmatch(r"token_id:(\d+)", token) for token in self.tokens]
        named = [int(match[1]) for match in found if match]
        return named if named and len(named) == len(found) else None

    @property
    def scores(self) -> list[float]:
        """The log-probabilities of the sampled tokens."""
        scores = [token.logprob for token in self.content or []] or self.token_logprobs
        return [score for score in scores if score is not None]


class _Choice(BaseModel):
    text: str = ""
    token_ids: list[NonNegativeInt] | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None  # vLLM
    matched_stop: str | int | None = None  # SGLang

    @property
    def ids(self) -> list[int] | None:
        """The sampled ids; None if the server does not give them."""
        if self.token_ids is not None:
            return self.token_ids
        return self.logprobs.ids if self.logprobs else None


class _Body(BaseModel):
    choices: list[_Choice]


@dataclass
class Completion:
    """The response of a server so far: a body, or the events of a stream."""

    secrets: tuple[str, ...] = ()
    """What must not be shown of it."""
    text: str = ""
    ids: list[int] | None = None
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    stopped_at: str | int | None = None
    report: dict[str, Any] = field(default_factory=dict)
    without_stop: bool = False
    """Whether the ids lack the text that stopped the turn, as llama.cpp's do."""
    chosen: bool = False
    streamed: bool = False

    def add(self, data: str | bytes) -> None:
        """Take in a body, or one event.

        Raises:
            BrokenReplyError: it names an error, or breaks off.
            ValueError: it is not a completion; the message quotes the response.
        """
        try:
            sent = read_reply_json(data)
            report = report_in(sent) if isinstance(sent, dict) else None
            self.report |= {name: v for name, v in (report or {}).items() if v is not None}
            if isinstance(sent, dict) and (error_named := error_in(sent)):
                raise error_named
            body = _Body.model_validate(sent)
        except json.JSONDecodeError as error:
            if is_cut(error):
                raise CutReplyError("the reply broke off in the middle") from None
            body_said = words(data, self.secrets)
            raise ValueError(f"not a completion: {error}; the body is {body_said}") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
            body_said = words(data, self.secrets)
            raise ValueError(f"not a completion: {why}; the body is {body_said}") from None
        for choice in body.choices[:1]:
            if choice.ids is not None:
                self.ids = [*(self.ids or []), *choice.ids]
            self.without_stop |= bool(choice.logprobs and choice.logprobs.content is not None)
            self.logprobs += choice.logprobs.scores if choice.logprobs else []
            self.text += choice.text
            self.finish_reason = choice.finish_reason or self.finish_reason
            self.stopped_at = choice.stop_reason or choice.matched_stop or self.stopped_at
            self.chosen = True


#: How servers say that a prompt is a text to them, or that they do not know what ids need.
_REFUSES_IDS = re.compile(
    r"prompt.{0,200}(valid string|a string|string_type|type str\b)"
    r"|(unexpected|extra|unknown|unrecognized|unsupported).{0,200}(return_token_ids|stop_token_ids)",
    re.IGNORECASE | re.DOTALL,
)
_LONGEST = 2**12
"""Characters of a body that are read for its words."""


class TokenIdsError(Exception):
    """A server takes no token ids as a prompt; a retry cannot help."""

    status_code = 400

    def __init__(self, address: str, words: str) -> None:
        super().__init__(
            f"{address} takes no token ids, which a policy is asked by; vLLM, SGLang and "
            "llama.cpp's llama-server do. Serve the policy with one of them, or ask this server "
            f"as a chat model. It says: {words}"
        )


def status_error(
    address: str, response: httpx.Response, body: bytes, secrets: tuple[str, ...] = ()
) -> Exception:
    """Return the error of a response whose status is not 200."""
    said = words(body, secrets)
    if response.status_code <= 500 and _REFUSES_IDS.search(said):
        return TokenIdsError(address, said)
    return HTTPStatusError(response, body, said)


class HTTPStatusError(Exception):
    """An error response of a server: its status, its message, its usage, and when to retry."""

    def __init__(self, response: httpx.Response, body: bytes, words: str) -> None:
        super().__init__(f"{response.status_code} {words}")
        self.status_code = response.status_code
        self.response = SimpleNamespace(headers=dict(response.headers))
        self.partial = billed(report_of_failure(response.status_code, body))
        self.no_reply = not response.is_success


def words(body: str | bytes, secrets: tuple[str, ...]) -> str:
    """Return the beginning of a server's message, on one line and without secrets.

    They are taken out first: a cut, or the spaces that go, may bring half of one to light.
    """
    text = body if isinstance(body, str) else body[: 8 * _LONGEST].decode(errors="replace")
    return " ".join(beginning(text[: 2 * _LONGEST], _LONGEST, *secrets).split()) or "empty"
