"""The kinds of columns in a `.csv` of scores: the candidates' scores and costs, or neither."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...candidates import Candidate, CandidatePool
from ...errors import MatrixError, did_you_mean
from ...files import csv_reader

COST = "|total_cost"
CANDIDATE = ("candidate", "model")
"""The names of the column with the candidate of a line."""
_COSTS = (COST, "|cost", "_cost", "_cost_usd")  # what others call it
#: Columns of RouterBench's files that are no candidates.
_OTHER_COLUMNS = ("", "sample_id", "eval_name", "oracle_model_to_route_to")
_INDEX = "Unnamed: "
"""The name that pandas gives a column without one, such as its row numbers."""
_QUESTION_COLUMNS = ("prompt", "question")
_NAMED = "named by --candidates"


@dataclass(frozen=True)
class Columns:
    """The kinds of columns in a `.csv` with a column for each candidate.

    Attributes:
        question: the column of the question.
        costs: each candidate's column -> that of its costs, which need not be there.
        why: the rule by which these are the candidates'.
        others: the columns that are not read.
    """

    question: str
    costs: Mapping[str, str]
    why: str
    others: Sequence[str]

    def __str__(self) -> str:
        unread = f"; not read: {', '.join(self.others)}" if self.others else ""
        named = "" if self.why == _NAMED else "; to change that: --candidates NAME,NAME"
        return f"the candidates are the columns {', '.join(self.costs)} ({self.why}){unread}{named}"


def csv_columns(
    path: Path,
    pool: CandidatePool | None,
    fields: Mapping[str, str],
    candidates: Sequence[str] = (),
) -> Columns | None:
    """Return the kinds of a `.csv`'s columns; None = it has a line for each cell.

    Raises:
        MatrixError: a column is missing or is there twice.
    """
    with csv_reader(path) as reader:
        return columns_of(path, reader, pool, fields, candidates)


def columns_of(
    path: Path,
    reader: csv.DictReader[str],
    pool: CandidatePool | None,
    fields: Mapping[str, str],
    candidates: Sequence[str],
) -> Columns | None:
    """Return the kinds of columns; None = a line is about one candidate."""
    columns = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    if len(set(columns)) < len(columns):
        raise MatrixError(f"{path}: a column is there twice")
    if set(fields) - {"question"} or ("score" in columns and {*CANDIDATE} & {*columns}):
        return None
    names = [fields["question"]] if "question" in fields else _QUESTION_COLUMNS
    question = next((c for name in names for c in columns if c in (name, name.title())), None)
    if question is None:
        raise MatrixError(
            f"{path}: there is no column {names[0]!r} (another name of it: --fields "
            f"question=NAME); there are: {', '.join(columns)[:200]}"
        )
    costs = {c: c + end for c in columns for end in _COSTS if c + end in columns}
    rest = [
        c
        for c in columns
        if c not in (question, *_OTHER_COLUMNS, *costs.values())
        and not c.startswith(_INDEX)
        and "|" not in c
    ]
    if candidates:
        models, why = candidates, _NAMED
        for name in models:
            if name not in columns:
                raise MatrixError(f"{path}: there is no column {name!r}{did_you_mean(name, rest)}")
    elif costs:
        models, why = list(costs), "those with a column of costs"
    elif pool and (known := [c for c in rest if _find(c, pool)]):
        models, why = known, "those in the pool"
    else:
        models, why = rest, "all but the question's"
    if not models:
        raise MatrixError(f"{path}: there is no column of a candidate")
    others = [c for c in rest if c not in models]
    return Columns(question, {c: costs.get(c, c + COST) for c in models}, why, others)


def name_in(name: str, pool: CandidatePool | None, where: str) -> str:
    """Return the candidate's own name, found by name, alias or the provider's model name.

    Raises:
        MatrixError: the pool has no such candidate.
    """
    if pool is None:
        return name
    candidate = _find(name, pool)
    if candidate is None:
        names = [c.name for c in pool.candidates]
        raise MatrixError(
            f"{where}: no candidate {name[:100]!r}{did_you_mean(name[:100], names)} in {pool.where}"
        )
    return candidate.name


def _find(name: str, pool: CandidatePool) -> Candidate | None:
    by_model = (c for c in pool.candidates if c.model_name.casefold() == name.casefold())
    return pool.find(name) or next(by_model, None)
