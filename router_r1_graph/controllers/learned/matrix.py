"""Score matrices: each candidate's score and cost on each question, and its files.

Shapes: Q questions x C candidates. NaN = not measured. Needs numpy (extra `eval`).

| file | content |
|---|---|
| `.jsonl` | a line for each cell: `question`, `candidate` or `model`, `score`, `cost_usd` |
| `.csv` | the same, or RouterBench's shape: `prompt`, `<model>` and `<model>|total_cost` (USD) |
| `.npz` | everything, with the candidates' descriptors |

A score may also be true or false: 1 or 0. If a cell occurs several times, its measurements are
averaged; RouterBench, for example, has some prompts in two of its sets.

Source: arXiv 2403.12031 (RouterBench) for the columns of the wide file.
"""

from __future__ import annotations

import csv
import json
import math
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ...candidates import Candidate, CandidatePool
from ...candidates.written_down import STORED
from ...errors import MatrixError
from .cells import Cell, csv_cells, long_cells, only
from .columns import COST, name_in

_MOST_USD = 1e9
"""The highest cost of a question; a higher one is a mistake, and too much for pictures and sums."""
_NO_SCORE = " to 1 (another scale: --best-score; no candidate: --candidates names those that are)"


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Each candidate's score and cost on each question.

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
            ("costs_usd", self.costs_usd, _MOST_USD),
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
                    + (_NO_SCORE if top == 1 else f" to {top:,.0f}")
                )
        seen: set[str] = set()
        for question in self.questions:
            if question in seen:
                raise MatrixError(f"the question {question[:60]!r} is there twice")
            seen.add(question)
        if np.isnan(self.scores).all():
            raise MatrixError("nothing was measured: there is no score")

    @classmethod
    def from_cells(
        cls, cells: Iterable[Cell], pool: CandidatePool | None = None, *, source: str = "scores"
    ) -> ScoreMatrix:
        """Build a matrix from its measured cells, in any order.

        Args:
            cells: the measurements; several of one candidate on one question count with their mean.
            pool: the allowed candidates, found by name, alias or the provider's model name; a
                candidate without a cell is left out. None = all that occur, with prices unknown.
            source: the source of the cells, for messages.

        Raises:
            MatrixError: there is no cell, or a cell names no candidate of the pool.
        """
        questions: dict[str, int] = {}
        names: dict[str, int] = {}
        rows, columns, scores, costs = array("q"), array("q"), array("d"), array("d")
        named: dict[str, str] = {}
        for cell in cells:
            if cell.candidate not in named:
                named[cell.candidate] = name_in(cell.candidate, pool, f"{source}, {cell.where}")
            rows.append(questions.setdefault(cell.question, len(questions)))
            columns.append(names.setdefault(named[cell.candidate], len(names)))
            scores.append(cell.score)
            costs.append(cell.cost_usd)
        if not questions:
            raise MatrixError(f"{source}: there is nothing in it")
        shape = (len(questions), len(names))
        filled = [_means(shape, (rows, columns), np.array(values)) for values in (scores, costs)]
        return _checked(source, tuple(questions), list(names), pool, *filled)

    def select(
        self, questions: Sequence[int] | None = None, candidates: Sequence[int] | None = None
    ) -> ScoreMatrix:
        """Return the matrix of some rows and columns, by number; None = all."""
        rows = list(range(len(self.questions)) if questions is None else questions)
        columns = list(range(len(self.pool.candidates)) if candidates is None else candidates)
        return ScoreMatrix(
            tuple(self.questions[r] for r in rows),
            self.pool.with_candidates(self.pool.candidates[c] for c in columns),
            self.scores[np.ix_(rows, columns)],
            self.costs_usd[np.ix_(rows, columns)],
        )

    @property
    def names(self) -> list[str]:
        """The candidates' names, in the order of columns."""
        return [candidate.name for candidate in self.pool.candidates]

    def cells(self) -> Iterator[Cell]:
        """Yield the measured cells, question by question."""
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
    path: str | Path,
    pool: CandidatePool | None = None,
    *,
    split: str | None = None,
    fields: Mapping[str, str] | None = None,
    best_score: float = 1.0,
    candidates: Sequence[str] = (),
) -> ScoreMatrix:
    """Read a score matrix in the format of the file's ending: .jsonl, .csv or .npz.

    Args:
        path: the file.
        pool: the allowed candidates, with their order and descriptors; None = as in the file.
        split: only lines of a `.jsonl` whose `split` is this; None = all.
        fields: the file's own names for those of `FIELDS` that it names differently.
        best_score: the best score that there can be in a text file: 100 for percents, 10 for
            ratings up to 10. Scores are divided by it.
        candidates: only these candidates, by their names in the file; none = all. In a `.csv`
            with a column for each candidate, these columns.

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
    fields = fields or {}
    if path.suffix == ".jsonl":
        cells = only(long_cells(path, split, fields), candidates, str(path))
    elif path.suffix == ".csv":
        cells = csv_cells(path, pool, fields, candidates)
    elif fields or best_score != 1:
        raise MatrixError(f"{path}: an .npz has no fields to be named, and scores from 0 to 1")
    else:
        matrix = _read_npz(path, pool)
        if not candidates:
            return matrix
        cells, pool = only(matrix.cells(), candidates, str(path)), matrix.pool
    scaled = (replace(cell, score=cell.score / best_score) for cell in cells)
    return ScoreMatrix.from_cells(scaled, pool, source=str(path))


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


def _write_wide(matrix: ScoreMatrix, path: Path) -> None:
    def cell(value: float) -> str:
        return "" if math.isnan(value) else repr(float(value))

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", *matrix.names, *(name + COST for name in matrix.names)])
        rows = zip(matrix.questions, matrix.scores, matrix.costs_usd, strict=True)
        for question, scores, costs in rows:
            writer.writerow([question, *map(cell, scores), *map(cell, costs)])


def _read_npz(path: Path, pool: CandidatePool | None) -> ScoreMatrix:
    try:
        # Opened here, since np.load leaves a broken file open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            head = json.loads(bytes(file["head"]).decode())
            own = CandidatePool.model_validate(head["pool"], context=STORED)
            scores, costs = file["scores"].astype(float), file["costs_usd"].astype(float)
        questions = tuple(map(str, head["questions"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        why = str(error).partition("\n")[0]
        raise MatrixError(f"{path}: not a score matrix: {why}") from None
    names = [candidate.name for candidate in own.candidates]
    if pool is not None:
        names = [name_in(name, pool, str(path)) for name in names]
    return _checked(str(path), questions, names, pool or own, scores, costs)


def _write_npz(matrix: ScoreMatrix, path: Path) -> None:
    head = {
        "questions": matrix.questions,
        "pool": matrix.pool.descriptors().model_dump(mode="json", exclude_defaults=True),
    }
    text = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    np.savez_compressed(path, head=text, scores=matrix.scores, costs_usd=matrix.costs_usd)


_WRITERS = {".jsonl": _write_long, ".csv": _write_wide, ".npz": _write_npz}


def _means(
    shape: tuple[int, int], places: tuple[array[int], array[int]], values: np.ndarray
) -> np.ndarray:
    """Return a matrix with the mean of the measurements at each place; NaN where there are none."""
    known = ~np.isnan(values)
    at = tuple(np.array(numbers)[known] for numbers in places)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, at, values[known])
    np.add.at(counts, at, 1)
    return np.divide(sums, counts, out=np.full(shape, np.nan), where=counts > 0)


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
