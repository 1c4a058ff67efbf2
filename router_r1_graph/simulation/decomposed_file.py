"""Files of questions with their sub-questions: read and checked here, and nowhere else.

A line is a JSON object with `question`, a gold answer, and `decomposition`: a list of objects with
`question`, `answer`, and perhaps a `decomposition` of their own. `domain` and `categories` may say
their subjects, and `split` whether training may ask the question.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..answers import GOLD_FIELDS, gold_answers, normalize_answer, rendered
from ..errors import ConfigError, did_you_mean
from ..files import read_jsonl
from ..invalid import explain
from ..words import counted
from .decomposed import Decomposed
from .meaning import Split
from .structure import folded
from .topics import topic_of

logger = logging.getLogger(__name__)

#: The splits that a line may say; another word, such as `dev`, is the file's own business.
_SPLITS: dict[str, Split] = {"train": "train", "test": "test"}


class _Part(BaseModel):
    """A sub-question. Fields that are not listed are the file's own business."""

    model_config = ConfigDict(extra="ignore")

    question: str
    answer: Any
    domain: str | None = None
    decomposition: list[_Part] = []

    @field_validator("question")
    @classmethod
    def _says_something(cls, text: str) -> str:
        return _cleaned(text)

    @field_validator("domain")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        return None if name is None else _cleaned(name).casefold()

    @field_validator("answer")
    @classmethod
    def _answers_something(cls, answer: Any) -> Any:
        if not rendered(answer):
            raise ValueError("is empty; give the right answer, or leave the sub-question out")
        _cleaned(rendered(answer))
        return answer


class _Row(_Part):
    """A line of the file."""

    decomposition: Annotated[list[_Part], Field(min_length=1)]
    categories: list[str] = []
    split: Any = None
    id: str | int | None = None


def _cleaned(text: str) -> str:
    text = " ".join(text.split())
    if not text:
        raise ValueError("is empty")
    if not text.isprintable():
        raise ValueError("contains a character that cannot be printed")
    return text


def read_decomposed(path: str | Path) -> tuple[Decomposed, ...]:
    """Return the questions of a file, in order. The first of two with the same text counts.

    Raises:
        ConfigError: the file cannot be read or is empty, or a line cannot be used; the message
            names line and field.
    """
    found: dict[str, Decomposed] = {}
    facts: dict[str, Decomposed] = {}
    disagreeing: set[str] = set()
    try:
        for number, row in read_jsonl(path):
            where = f"{path}, line {number}"
            if isinstance(row, ValueError):
                raise ConfigError(f"{where}: {row}")
            question = _question(row, where, facts, disagreeing)
            if found.setdefault(folded(question.question), question) is not question:
                logger.warning("%s: this question has been asked before; it is left out", where)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if not found:
        raise ConfigError(f"{path}: no question in it; a line is one, with its decomposition")
    if disagreeing:
        have = "has" if len(disagreeing) == 1 else "have"
        many, one = counted(len(disagreeing), "sub-question"), min(disagreeing)
        logger.warning("%s: %s %s two answers, the first counts: %r", path, many, have, one)
    return tuple(found.values())


def _question(
    row: dict[str, Any], where: str, facts: dict[str, Decomposed], disagreeing: set[str]
) -> Decomposed:
    name = next((name for name in GOLD_FIELDS if row.get(name) is not None), None)
    if name is None:
        raise ConfigError(f"{where}: no gold answer; looked for in {', '.join(GOLD_FIELDS)}")
    if "decomposition" not in row:
        near = did_you_mean("decomposition", row)
        raise ConfigError(
            f"{where}: there is no 'decomposition'{near}; it is a list of "
            '{"question": ..., "answer": ...}'
        )
    try:
        read = _Row.model_validate({**row, "answer": row[name]})
    except ValidationError as error:
        why = re.sub(r"(^|; )answer:", rf"\1{name}:", explain(error))
        raise ConfigError(f"{where}: {why}") from None
    gold = gold_answers(read.answer, [part.answer for part in read.decomposition])
    parts = tuple(_part(part, read, facts, disagreeing) for part in read.decomposition)
    return Decomposed(
        question=read.question,
        gold=gold,
        domain=read.domain or parts[-1].domain,
        parts=parts,
        id=_id(read.question) if read.id is None else str(read.id),
        split=_SPLITS.get(read.split) if isinstance(read.split, str) else None,
        several=len(_entries(read.answer)) > 1 and gold[0] == rendered(read.answer),
    )


def _part(
    part: _Part, row: _Row, facts: dict[str, Decomposed], disagreeing: set[str]
) -> Decomposed:
    """Return a sub-question; a fact that several questions need is one fact."""
    answer = rendered(part.answer)
    parts = tuple(_part(inner, row, facts, disagreeing) for inner in part.decomposition)
    domain = part.domain or row.domain or topic_of(part.question, row.categories)
    read = Decomposed(part.question, (answer,), domain, parts)
    if parts:
        return read
    fact = facts.setdefault(folded(part.question), read)
    if normalize_answer(fact.answer) != normalize_answer(answer):
        disagreeing.add(part.question)
    return fact


def _entries(answer: Any) -> Collection[Any]:
    return answer if isinstance(answer, list | dict) else ()


def _id(question: str) -> str:
    return hashlib.sha256(folded(question).encode()).hexdigest()[:12]
