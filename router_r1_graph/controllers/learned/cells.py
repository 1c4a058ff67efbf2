"""The cells of a score matrix in text files: a line for each, or a column for each candidate."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ...candidates import CandidatePool
from ...errors import MatrixError, did_you_mean
from ...files import csv_reader, read_jsonl
from .columns import CANDIDATE, Columns, columns_of, name_in

_QUESTION = ("question", "prompt")
_NOT_MEASURED = ("", "none", "null", "nan", "na", "n/a")
FIELDS = ("question", "candidate", "score", "cost_usd", "reply", "response", "gold", "split")
"""The fields that a line of a `.jsonl` may have, under other names too (`fields`)."""


@dataclass(frozen=True)
class Cell:
    """One measurement: the score in [0, 1] and the cost in USD, NaN where unknown.

    `where` is its source, for messages ("line 3").
    """

    question: str
    candidate: str
    score: float
    cost_usd: float = math.nan
    where: str = ""


class _OfCandidate(Protocol):
    @property
    def candidate(self) -> str: ...


_Item = TypeVar("_Item", bound=_OfCandidate)


def only(found: Iterable[_Item], names: Sequence[str], where: str) -> Iterator[_Item]:
    """Yield the cells of these candidates, by their names in the data; no names = all.

    Raises:
        MatrixError: there is none of one of them; raised at the end.
    """
    known: dict[str, None] = {}
    for item in found:
        known[item.candidate] = None
        if not names or item.candidate in names:
            yield item
    for name in names:
        if name not in known:
            raise MatrixError(
                f"{where}: no candidate {name!r}{did_you_mean(name, known)}; there are: "
                f"{', '.join(known)[:200]}"
            )


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
        if split is None or record.get("split") == split:
            yield _cell(record, path, f"line {number}")


def _cell(record: Mapping[str, Any], path: Path, line: str) -> Cell:
    """Return the cell of a line that is about one candidate."""
    where = f"{path}, {line}"
    for names in (_QUESTION, CANDIDATE, ("score",)):
        if not record.keys() & set(names):
            raise MatrixError(f"{where}: there is no {names[0]!r} (another name of it: --fields)")
    return Cell(
        text_of(record, *_QUESTION, where=where),
        text_of(record, *CANDIDATE, where=where),
        score_of(record, "score", where=where),
        number_of(record, "cost_usd", where=where),
        line,
    )


def csv_cells(
    path: Path,
    pool: CandidatePool | None,
    fields: Mapping[str, str],
    candidates: Sequence[str] = (),
) -> Iterator[Cell]:
    """Yield the cells of a `.csv`: of RouterBench's shape, or with a line for each cell.

    Spaces around a column's name do not count, nor do capitals in that of the question.

    Args:
        path: the file.
        pool: the allowed candidates; None = those of the file.
        fields: the file's own names for those of `FIELDS` that it names differently.
        candidates: only these candidates, by their names in the file; none = all.

    Raises:
        MatrixError: a column is missing or is there twice, or a line is broken.
    """
    with csv_reader(path) as reader:
        try:
            columns = columns_of(path, reader, pool, fields, candidates)
            if columns is None:
                yield from only(_long_rows(path, reader, fields), candidates, str(path))
            else:
                yield from _wide_rows(path, reader, pool, columns)
        except (csv.Error, UnicodeDecodeError) as error:
            raise MatrixError(f"{path}, line {reader.line_num}: {error}") from None


def _rows(path: Path, reader: csv.DictReader[str]) -> Iterator[tuple[str, dict[str, str]]]:
    for row in reader:
        line = f"line {reader.line_num}"
        if None in row or None in row.values():
            raise MatrixError(f"{path}, {line}: not {len(reader.fieldnames or [])} columns")
        yield line, row


def _long_rows(
    path: Path, reader: csv.DictReader[str], fields: Mapping[str, str]
) -> Iterator[Cell]:
    for name in fields.values():
        if name not in (reader.fieldnames or []):
            raise MatrixError(f"{path}: there is no column {name!r}")
    for line, row in _rows(path, reader):
        yield _cell({**row, **{ours: row[theirs] for ours, theirs in fields.items()}}, path, line)


def _wide_rows(
    path: Path, reader: csv.DictReader[str], pool: CandidatePool | None, columns: Columns
) -> Iterator[Cell]:
    names = [name_in(model, pool, str(path)) for model in columns.costs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise MatrixError(f"{path}: two columns are of the candidate {twice[0]!r}")
    for line, row in _rows(path, reader):
        where = f"{path}, {line}"
        text = text_of(row, columns.question, where=where)
        for model, paid in columns.costs.items():
            try:
                score = score_of(row, model, where=where)
            except MatrixError as error:
                raise MatrixError(
                    f"{error}; if this column is no candidate's, name those that are: "
                    "--candidates NAME,NAME"
                ) from None
            yield Cell(text, model, score, number_of(row, paid, where=where), line)
