"""The cells of a score matrix in text files: a line for each, or a column for each candidate."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...candidates import CandidatePool
from ...errors import MatrixError, did_you_mean
from ...files import csv_reader, read_jsonl

COST = "|total_cost"
#: Columns of RouterBench's files that are no candidates.
_OTHER_COLUMNS = ("", "sample_id", "eval_name", "oracle_model_to_route_to")
_INDEX = "Unnamed: "
"""How pandas calls a column without a name, such as the rows' numbers that it writes."""
_QUESTION_COLUMNS = ("prompt", "question")
_NOT_MEASURED = ("", "none", "null", "nan", "na", "n/a")
FIELDS = ("question", "candidate", "score", "cost_usd", "reply", "response", "gold", "split")
"""What a line of a `.jsonl` may have, under other names too (`fields`)."""


@dataclass(frozen=True)
class Cell:
    """One measurement: the score in [0, 1] and the cost in USD, NaN where unknown.

    `where` says where it comes from, for messages ("line 3").
    """

    question: str
    candidate: str
    score: float
    cost_usd: float = math.nan
    where: str = ""


def read_lines(
    path: Path, fields: Mapping[str, str] | None = None
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the objects of a JSONL file with their line numbers; blank lines are skipped.

    Args:
        path: the file.
        fields: names of ours -> those of the file. Each object has both.

    Raises:
        MatrixError: a line is no JSON object, or has no such field.
    """
    for number, record in read_jsonl(path):
        if isinstance(record, ValueError):
            raise MatrixError(f"{path}, line {number}: {record}")
        if fields:
            for name in fields.values():
                if name not in record:
                    raise MatrixError(f"{path}, line {number}: there is no {name!r}")
            record = {**record, **{ours: record[theirs] for ours, theirs in fields.items()}}
        yield number, record


def text_of(record: Mapping[str, Any], *keys: str, where: str) -> str:
    """Return the text under the first of these keys that a record has.

    Raises:
        MatrixError: there is none, or it is no text.
    """
    key = next((key for key in keys if key in record), keys[0])
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise MatrixError(f"{where}: {key!r} is a text, not {value!r:.60}")
    return value


def number_of(record: Mapping[str, Any], key: str, *, where: str) -> float:
    """Return the number under a key; null, "", "None" and a missing key are NaN: not measured.

    Raises:
        MatrixError: it is no number.
    """
    value = record.get(key)
    if value is None or (isinstance(value, str) and value.strip().casefold() in _NOT_MEASURED):
        return math.nan
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise MatrixError(f"{where}: {key!r} is a number, not {value!r:.60}") from None


def score_of(record: Mapping[str, Any], key: str, *, where: str) -> float:
    """Return the score under a key: a number, one with a percent sign, or true or false (1 or 0).

    Raises:
        MatrixError: it is neither.
    """
    value = record.get(key)
    told = value.strip().casefold() if isinstance(value, str) else value
    if told in ("true", "false") or isinstance(told, bool):
        return float(told in ("true", True))
    if isinstance(told, str) and told.endswith("%"):
        return number_of({key: told[:-1]}, key, where=where) / 100
    return number_of(record, key, where=where)


def long_cells(path: Path, split: str | None, fields: Mapping[str, str]) -> Iterator[Cell]:
    """Yield the cells of a `.jsonl`.

    Raises:
        MatrixError: a line is broken.
    """
    for number, record in read_lines(path, fields):
        if split is not None and record.get("split") != split:
            continue
        where = f"{path}, line {number}"
        if "score" not in record:
            raise MatrixError(f"{where}: there is no 'score' (another name of it: --fields)")
        yield Cell(
            text_of(record, "question", where=where),
            text_of(record, "candidate", "model", where=where),
            score_of(record, "score", where=where),
            number_of(record, "cost_usd", where=where),
            f"line {number}",
        )


def wide_cells(path: Path, pool: CandidatePool | None, fields: Mapping[str, str]) -> Iterator[Cell]:
    """Yield the cells of a `.csv` of RouterBench's shape.

    Raises:
        MatrixError: a column is missing or is there twice, or a line is broken.
    """
    if set(fields) - {"question"}:
        raise MatrixError(f"{path}: of a .csv, only the column of the question can be named")
    with csv_reader(path) as reader:
        try:
            question, models = _columns(path, reader.fieldnames or [], fields.get("question"))
            names = [name_in(model, pool, str(path)) for model in models]
            if twice := [name for name in names if names.count(name) > 1]:
                raise MatrixError(f"{path}: two columns are of the candidate {twice[0]!r}")
            for row in reader:
                where = f"line {reader.line_num}"
                if None in row or None in row.values():
                    wide = len(reader.fieldnames or [])
                    raise MatrixError(f"{path}, {where}: not {wide} columns")
                text = text_of(row, question, where=f"{path}, {where}")
                for model in models:
                    score = score_of(row, model, where=f"{path}, {where}")
                    cost = number_of(row, model + COST, where=f"{path}, {where}")
                    yield Cell(text, model, score, cost, where)
        except (csv.Error, UnicodeDecodeError) as error:
            raise MatrixError(f"{path}, line {reader.line_num}: {error}") from None


def _columns(path: Path, columns: Sequence[str], asked: str | None) -> tuple[str, list[str]]:
    """Return the column of the question and those of the candidates' scores."""
    names = [asked] if asked else _QUESTION_COLUMNS
    question = next((name for name in names if name in columns), None)
    if question is None:
        raise MatrixError(f"{path}: there is no column {names[0]!r}")
    if len(set(columns)) < len(columns):
        raise MatrixError(f"{path}: a column is there twice")
    others = {question, *_OTHER_COLUMNS}
    models = [c for c in columns if c + COST in columns] or [
        c for c in columns if c not in others and not c.startswith(_INDEX) and "|" not in c
    ]
    if not models:
        raise MatrixError(f"{path}: there is no column of a candidate")
    return question, models


def name_in(name: str, pool: CandidatePool | None, where: str) -> str:
    """Return the candidate's own name, found by name, alias or the provider's model name.

    Raises:
        MatrixError: the pool has no such candidate.
    """
    if pool is None:
        return name
    by_model = (c for c in pool.candidates if c.model_name.casefold() == name.casefold())
    candidate = pool.find(name) or next(by_model, None)
    if candidate is None:
        names = [c.name for c in pool.candidates]
        raise MatrixError(
            f"{where}: no candidate {name[:100]!r}{did_you_mean(name[:100], names)} in {pool.where}"
        )
    return candidate.name
