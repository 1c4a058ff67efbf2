"""Recorded replies as candidates: `provider: recorded`.

Each query gets its recorded reply, with the recorded cost and seconds; nothing is paid, and no
network is needed. A recorded reply can be used with other prices: `cost: list` computes its cost
from its tokens at the candidate's prices. A query without a record fails with an error of the kind
`no_record`.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..errors import PoolError, did_you_mean
from .candidate import Candidate
from .pool import CandidatePool
from .providers import read_options
from .records import CandidateRecords, Record, read_records, unknown_field
from .reply import RECORDED_SECONDS
from .usage import estimate_tokens


class NoRecordError(LookupError):
    """A recorded candidate has no record of this query."""


class RecordedOptions(BaseModel):
    """The `options:` of a recorded candidate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    records: str
    """The JSONL file; in a pool file, relative to the pool file."""
    fields: dict[str, str] = Field(default_factory=dict)
    """Name of a field here (`question`, `candidate`, `reply`, ...) -> its name in the file, where
    the two differ."""
    recorded_as: str | None = None
    """The candidate's name in the records; None = its name, its model's name or an alias."""
    cost: Literal["recorded", "list"] = "recorded"
    """The cost of a reply: the recorded one, or that of its tokens at the candidate's prices. A
    cost that was not recorded is computed from the prices anyway."""
    nearest: Annotated[float, Field(ge=0, le=1)] | None = None
    """If a query has no record, the reply to the most similar recorded question is used, provided
    that their similarity is at least this. Similarity = twice the shared words / the words of both;
    1 = the same words. None = never."""
    latency_scale: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0
    """Wait this many times the recorded seconds before replying. The ledger always shows the
    recorded seconds."""

    @field_validator("fields")
    @classmethod
    def _fields_of_a_record(cls, value: dict[str, str]) -> dict[str, str]:
        if wrong := unknown_field(value):
            raise ValueError(wrong)
        return value


def load_records(options: RecordedOptions) -> Mapping[str, CandidateRecords]:
    """Return the records of a file: a candidate's name in lower case -> its records.

    Each process reads a file once, and again when it has changed.

    Raises:
        PoolError: see `read_records`.
    """
    file = Path(options.records)
    try:
        stat = file.stat()
    except OSError as error:
        raise PoolError(f"{file}: the records cannot be read: {error.strerror}") from error
    fields = tuple(sorted(options.fields.items()))
    return _load(str(file), fields, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _load(
    file: str, fields: tuple[tuple[str, str], ...], *_version: int
) -> Mapping[str, CandidateRecords]:
    of: defaultdict[str, CandidateRecords] = defaultdict(CandidateRecords)
    for record, _ in read_records(file, dict(fields)):
        of[record.candidate.casefold()].add(record)
    return dict(of)


def _names(candidate: Candidate) -> list[str]:
    """Return the names that the records may use for a candidate."""
    own = read_options(candidate, RecordedOptions).recorded_as or candidate.name
    return [n.casefold() for n in (own, candidate.model_name, *candidate.aliases)]


def strangers(pool: CandidatePool) -> list[str]:
    """Return the names in the pool's records files that match no candidate of the pool.

    Raises:
        PoolError: a file cannot be read.
    """
    recorded = [c for c in pool.candidates if c.provider == "recorded"]
    known = {name for candidate in recorded for name in _names(candidate)}
    found = {name for c in recorded for name in load_records(read_options(c, RecordedOptions))}
    return sorted(found - known)


def recorded_chat_model(candidate: Candidate) -> BaseChatModel:
    """Return the chat model of a candidate with `provider: recorded`.

    Raises:
        PoolError: an option is wrong, the file cannot be read, or it has no record of the
            candidate.
    """
    options = read_options(candidate, RecordedOptions)
    found = load_records(options)
    records = next((found[name] for name in _names(candidate) if name in found), None)
    if records is None:
        raise PoolError(
            f"{options.records}: no record of {candidate.name!r}"
            f"{did_you_mean(candidate.name, found)}; there are records of "
            f"{', '.join(sorted(found)) or 'nobody'} (the model's name or an alias will do)"
        )
    return RecordedChatModel(candidate=candidate, options=options, records=records)


class RecordedChatModel(BaseChatModel):
    """Answers the last human message with the candidate's recorded reply."""

    candidate: Candidate
    options: RecordedOptions
    records: CandidateRecords

    @property
    def _llm_type(self) -> str:
        return "router-r1-recorded"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.candidate.model_name, "records": self.options.records}

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        # As in the base class, without the warning that it raises and catches on each call.
        return {**self._identifying_params, "_type": self._llm_type, "stop": stop, **kwargs}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        record, result = self._replay(messages)
        time.sleep(self.options.latency_scale * (record.seconds or 0.0))
        return result

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        record, result = self._replay(messages)
        await asyncio.sleep(self.options.latency_scale * (record.seconds or 0.0))
        return result

    def _replay(self, messages: Sequence[BaseMessage]) -> tuple[Record, ChatResult]:
        asked = (m for m in reversed(messages) if isinstance(m, HumanMessage))
        query = next((str(m.text) for m in asked), "")
        record = self.records.find(
            query, self.options.nearest, background=self._background(messages)
        )
        if record is None:
            raise NoRecordError(f"{self.candidate.name} was never asked {query!r:.200}")
        metadata: dict[str, Any] = {"model_name": self.candidate.model_name}
        if record.cost_usd is not None and self.options.cost == "recorded":
            metadata["token_usage"] = {"cost": record.cost_usd}
        if record.seconds is not None:
            metadata[RECORDED_SECONDS] = record.seconds
        message = AIMessage(
            record.reply, usage_metadata=_usage(record, query), response_metadata=metadata
        )
        return record, ChatResult(generations=[ChatGeneration(message=message)])

    def _background(self, messages: Sequence[BaseMessage]) -> str:
        """Return the text besides the query, without the candidate's own system prompt."""
        told = next((str(m.text) for m in messages if isinstance(m, SystemMessage)), "")
        return told.removeprefix(self.candidate.system_prompt or "").removeprefix("\n")


def _usage(record: Record, query: str) -> UsageMetadata | None:
    """Return the recorded tokens; where one count is missing, an estimate of it."""
    input_tokens, output_tokens = record.input_tokens, record.output_tokens
    if input_tokens is None and output_tokens is None:
        return None  # the caller estimates both, and says so
    if input_tokens is None:
        input_tokens = estimate_tokens(query)
    if output_tokens is None:
        output_tokens = estimate_tokens(record.reply)
    return UsageMetadata(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=input_tokens + output_tokens,
    )
