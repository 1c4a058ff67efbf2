"""Score matrices: what each candidate scored and cost on each question, and its files.

Shapes: Q questions x C candidates. NaN = not measured. Needs numpy (extra `eval`).

| file | what it holds |
|---|---|
| `.jsonl` | a line for each cell: `question`, `candidate` or `model`, `score`, `cost_usd` |
| `.csv` | RouterBench's shape: `prompt`, `<model>` (score) and `<model>|total_cost` (USD) |
| `.npz` | everything, with the candidates' descriptors |

Source: arXiv 2403.12031 (RouterBench) for the columns of the wide file.
"""

from __future__ import annotations

import csv
import json
import math
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ...candidates import Candidate, CandidatePool
from ...errors import MatrixError, did_you_mean
from ...files import read_jsonl

_COST = "|total_cost"
#: Columns of RouterBench's files that are no candidates.
_OTHER_COLUMNS = ("prompt", "sample_id", "eval_name", "oracle_model_to_route_to")


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


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """What each candidate scored and cost on each question.

    Attributes:
        questions: Q texts, each once.
        pool: the C candidates with their descriptors (prices, latency), in the order of columns.
        scores: Q x C, in [0, 1]; NaN = not measured.
        costs_usd: Q x C, at least 0; NaN = not measured.

    Raises:
        MatrixError: the shapes do not fit, a question occurs twice, a number is out of range, or
            nothing was measured.
    """

    questions: tuple[str, ...]
    pool: CandidatePool
    scores: np.ndarray
    costs_usd: np.ndarray

    def __post_init__(self) -> None:
        shape = (len(self.questions), len(self.pool.candidates))
        for name, values, top in (
            ("scores", self.scores, 1.0),
            ("costs_usd", self.costs_usd, math.inf),
        ):
            if values.shape != shape:
                raise MatrixError(f"{name} has the shape {values.shape}, not {shape}")
            wrong = ~((values >= 0) & (values <= top) & ~np.isinf(values) | np.isnan(values))
            if wrong.any():
                row, column = np.argwhere(wrong)[0]
                candidate = self.pool.candidates[column].name
                raise MatrixError(
                    f"{name}: {values[row, column]} of {candidate!r} on "
                    f"{self.questions[row][:60]!r} is no number from 0"
                    + (" to 1" if top == 1 else "")
                )
        seen: set[str] = set()
        for question in self.questions:
            if question in seen:
                raise MatrixError(f"the question {question[:60]!r} stands twice")
            seen.add(question)
        if np.isnan(self.scores).all():
            raise MatrixError("nothing was measured: there is no score")

    @classmethod
    def from_cells(
        cls, cells: Iterable[Cell], pool: CandidatePool | None = None, *, source: str = "scores"
    ) -> ScoreMatrix:
        """Build a matrix from its measured cells, in any order.

        Args:
            cells: the measurements.
            pool: the allowed candidates, found by name, alias or the provider's model name; a
                candidate without a cell is left out. None = all that occur, with prices unknown.
            source: where the cells come from, for messages.

        Raises:
            MatrixError: there is no cell, or a cell occurs twice or names no candidate of the pool.
        """
        questions: dict[str, int] = {}
        names: dict[str, int] = {}
        rows, columns, scores, costs = array("q"), array("q"), array("d"), array("d")
        seen: set[int] = set()
        named: dict[str, str] = {}
        for cell in cells:
            if cell.candidate not in named:
                named[cell.candidate] = _name(cell.candidate, pool, f"{source}, {cell.where}")
            row = questions.setdefault(cell.question, len(questions))
            column = names.setdefault(named[cell.candidate], len(names))
            key = row << 24 | column
            if key in seen:
                raise MatrixError(
                    f"{source}, {cell.where}: a second score of {cell.candidate!r} on "
                    f"{cell.question[:60]!r}"
                )
            seen.add(key)
            rows.append(row)
            columns.append(column)
            scores.append(cell.score)
            costs.append(cell.cost_usd)
        if not questions:
            raise MatrixError(f"{source}: there is nothing in it")
        shape = (len(questions), len(names))
        filled = [np.full(shape, np.nan), np.full(shape, np.nan)]
        filled[0][rows, columns] = scores
        filled[1][rows, columns] = costs
        return _checked(source, tuple(questions), list(names), pool, *filled)

    def select(
        self, questions: Sequence[int] | None = None, candidates: Sequence[int] | None = None
    ) -> ScoreMatrix:
        """Return the matrix of some rows and columns, by number; None = all."""
        rows = list(range(len(self.questions)) if questions is None else questions)
        columns = list(range(len(self.pool.candidates)) if candidates is None else candidates)
        chosen = tuple(self.pool.candidates[c] for c in columns)
        return ScoreMatrix(
            tuple(self.questions[r] for r in rows),
            self.pool.model_copy(update={"candidates": chosen}),
            self.scores[np.ix_(rows, columns)],
            self.costs_usd[np.ix_(rows, columns)],
        )

    @property
    def names(self) -> list[str]:
        """The candidates' names, in the order of columns."""
        return [candidate.name for candidate in self.pool.candidates]

    def cells(self) -> Iterator[Cell]:
        """Yield what was measured, question by question."""
        for question, scores, costs in zip(
            self.questions, self.scores, self.costs_usd, strict=True
        ):
            for name, score, cost in zip(self.names, scores, costs, strict=True):
                if not (math.isnan(score) and math.isnan(cost)):
                    yield Cell(question, name, float(score), float(cost))

    def write(self, path: str | Path) -> None:
        """Write the matrix in the format of the file's ending: .jsonl, .csv or .npz.

        A `.jsonl` keeps measured cells only, and neither it nor a `.csv` keeps descriptors.

        Raises:
            MatrixError: the ending is another one.
            OSError: the file cannot be written.
        """
        writer = _WRITERS.get(Path(path).suffix)
        if writer is None:
            raise MatrixError(f"{path}: a score matrix ends in {', '.join(_WRITERS)}")
        writer(self, Path(path))


def read_matrix(
    path: str | Path, pool: CandidatePool | None = None, *, split: str | None = None
) -> ScoreMatrix:
    """Read a score matrix in the format of the file's ending: .jsonl, .csv or .npz.

    Args:
        path: the file.
        pool: the allowed candidates, with their order and descriptors; None = as in the file.
        split: only lines of a `.jsonl` whose `split` is this; None = all.

    Raises:
        MatrixError: the file is missing, empty or broken; the message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise MatrixError(f"{path}: no such file")
    if path.suffix not in _WRITERS:
        raise MatrixError(f"{path}: a score matrix ends in {', '.join(_WRITERS)}")
    if split is not None and path.suffix != ".jsonl":
        raise MatrixError(f"{path}: only a .jsonl has splits")
    if path.suffix == ".jsonl":
        return ScoreMatrix.from_cells(_long(path, split), pool, source=str(path))
    return _read_wide(path, pool) if path.suffix == ".csv" else _read_npz(path, pool)


def read_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the objects of a JSONL file with their line numbers; blank lines are skipped.

    Raises:
        MatrixError: a line is no JSON object.
    """
    for number, record in read_jsonl(path):
        if isinstance(record, ValueError):
            raise MatrixError(f"{path}, line {number}: {record}")
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
    """Return the number under a key; null, "" and a missing key are NaN: not measured.

    Raises:
        MatrixError: it is no number.
    """
    value = record.get(key)
    if value is None or value == "":
        return math.nan
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise MatrixError(f"{where}: {key!r} is a number, not {value!r:.60}") from None


def _long(path: Path, split: str | None) -> Iterator[Cell]:
    for number, record in read_lines(path):
        if split is not None and record.get("split") != split:
            continue
        where = f"{path}, line {number}"
        if "score" not in record:
            raise MatrixError(f"{where}: there is no 'score'")
        yield Cell(
            text_of(record, "question", where=where),
            text_of(record, "candidate", "model", where=where),
            number_of(record, "score", where=where),
            number_of(record, "cost_usd", where=where),
            f"line {number}",
        )


def _write_long(matrix: ScoreMatrix, path: Path) -> None:
    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    with path.open("w", encoding="utf-8") as file:
        for cell in matrix.cells():
            record = {
                "question": cell.question,
                "candidate": cell.candidate,
                "score": number(cell.score),
                "cost_usd": number(cell.cost_usd),
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _read_wide(path: Path, pool: CandidatePool | None) -> ScoreMatrix:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            columns = reader.fieldnames or []
            if "prompt" not in columns:
                raise MatrixError(f"{path}: there is no column 'prompt'")
            if len(set(columns)) < len(columns):
                raise MatrixError(f"{path}: a column stands twice")
            models = [c for c in columns if c + _COST in columns] or [
                c for c in columns if c not in _OTHER_COLUMNS and "|" not in c
            ]
            names = [_name(model, pool, str(path)) for model in models]
            if not names:
                raise MatrixError(f"{path}: there is no column of a candidate")
            lines: dict[str, int] = {}
            scores, costs = array("d"), array("d")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise MatrixError(f"{where}: not {len(columns)} columns")
                question = text_of(row, "prompt", where=where)
                if question in lines:
                    raise MatrixError(
                        f"{where}: the question of line {lines[question]} again: {question[:60]!r}"
                    )
                lines[question] = reader.line_num
                for model in models:
                    scores.append(number_of(row, model, where=where))
                    costs.append(number_of(row, model + _COST, where=where))
        except (csv.Error, UnicodeDecodeError) as error:
            raise MatrixError(f"{path}, line {reader.line_num}: {error}") from None
    if not lines:
        raise MatrixError(f"{path}: there is nothing in it")
    filled = [np.array(v, dtype=float).reshape(len(lines), len(names)) for v in (scores, costs)]
    return _checked(str(path), tuple(lines), names, pool, *filled)


def _write_wide(matrix: ScoreMatrix, path: Path) -> None:
    def cell(value: float) -> str:
        return "" if math.isnan(value) else repr(float(value))

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", *matrix.names, *(name + _COST for name in matrix.names)])
        rows = zip(matrix.questions, matrix.scores, matrix.costs_usd, strict=True)
        for question, scores, costs in rows:
            writer.writerow([question, *map(cell, scores), *map(cell, costs)])


def _read_npz(path: Path, pool: CandidatePool | None) -> ScoreMatrix:
    try:
        # Opened here, since np.load leaves a broken file open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            head = json.loads(bytes(file["head"]).decode())
            own = CandidatePool.model_validate(head["pool"])
            scores, costs = file["scores"].astype(float), file["costs_usd"].astype(float)
        questions = tuple(map(str, head["questions"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        why = str(error).partition("\n")[0]
        raise MatrixError(f"{path}: not a score matrix: {why}") from None
    names = [candidate.name for candidate in own.candidates]
    if pool is not None:
        names = [_name(name, pool, str(path)) for name in names]
    return _checked(str(path), questions, names, pool or own, scores, costs)


def _write_npz(matrix: ScoreMatrix, path: Path) -> None:
    head = {
        "questions": matrix.questions,
        "pool": matrix.pool.descriptors().model_dump(mode="json", exclude_defaults=True),
    }
    text = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    np.savez_compressed(path, head=text, scores=matrix.scores, costs_usd=matrix.costs_usd)


_WRITERS = {".jsonl": _write_long, ".csv": _write_wide, ".npz": _write_npz}


def _name(name: str, pool: CandidatePool | None, where: str) -> str:
    """Return the candidate's own name, found by name, alias or the provider's model name."""
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


def _checked(
    source: str,
    questions: tuple[str, ...],
    names: list[str],
    pool: CandidatePool | None,
    scores: np.ndarray,
    costs_usd: np.ndarray,
) -> ScoreMatrix:
    """Return the matrix, in the pool's order; errors name its source."""
    try:
        if pool:
            place = {c.name: i for i, c in enumerate(pool.candidates)}
            order = sorted(range(len(names)), key=lambda column: place[names[column]])
            names = [names[column] for column in order]
            scores, costs_usd = scores[:, order], costs_usd[:, order]
        known = {c.name: c for c in pool.descriptors().candidates} if pool else {}
        candidates = tuple(known.get(name) or Candidate(name=name) for name in names)
        columns = CandidatePool(name=pool.name if pool else "matrix", candidates=candidates)
        return ScoreMatrix(questions, columns, scores, costs_usd)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise MatrixError(f"{source}: {why}") from None
    except MatrixError as error:
        raise MatrixError(f"{source}: {error}") from None
