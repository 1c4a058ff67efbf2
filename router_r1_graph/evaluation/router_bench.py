"""RouterBench: the table of its CSV: performance and cost of models and routers on each data set.

Its files have a row for each prompt of a data set (`eval_name`), with each model's score and cost.

Source: arXiv 2403.12031 (RouterBench); table and AIQ are those of its code
(withmartian/routerbench, commit 30e0925): `evaluate_routers.py` (`get_results_for_all_evals`) and
`evaluation/AIQ.py`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from ..candidates import CandidatePool
from ..controllers.learned.cells import Cell, csv_cells
from ..controllers.learned.matrix import ScoreMatrix
from ..errors import MatrixError
from ..files import csv_reader
from .predictions import Predictions

ALL = "all"
"""The name of all data sets together."""
ORACLE = "oracle"
CANDIDATES = "candidates"
"""The hull of the candidates, as a curve: RouterBench's zero router."""


@dataclass(frozen=True, eq=False)
class BenchSet:
    """One data set.

    Attributes:
        name: its `eval_name`; "" where the file has none.
        matrix: the scores and costs of its Q different prompts; the means, if a prompt occurs
            several times.
            counts: length Q, how often each occurs in the file.
    """

    name: str
    matrix: ScoreMatrix
    counts: np.ndarray


@dataclass(frozen=True)
class BenchRow:
    """One row of the table.

    Attributes:
        eval_name: the data set, or `ALL`.
        model_name: a candidate, a router, or `ORACLE`.
        performance: the mean score.
        total_cost: the sum of costs in USD.
        cost_weight: the one at which a router was asked; None = not a router.
    """

    eval_name: str
    model_name: str
    performance: float
    total_cost: float
    cost_weight: float | None = None


def read_bench(
    path: Path, pool: CandidatePool | None = None, candidates: Sequence[str] = ()
) -> list[BenchSet]:
    """Read the data sets of a RouterBench CSV.

    Args:
        path: the file.
        pool: the allowed candidates, with descriptors; None = as in the file.
        candidates: only these candidates, called as the file calls them; none = all.

    Raises:
        MatrixError: it cannot be used; the message names file and line.
    """
    if not path.is_file():
        raise MatrixError(f"{path}: no such file")
    if path.suffix != ".csv":
        raise MatrixError(f"{path}: RouterBench's table is a .csv")
    with csv_reader(path) as reader:
        names = {f"line {reader.line_num}": row.get("eval_name") or "" for row in reader}
    cells: dict[str, list[Cell]] = {}
    for cell in csv_cells(path, pool, {}, candidates):
        cells.setdefault(names[cell.where], []).append(cell)
    if not cells:
        raise MatrixError(f"{path}: there is nothing in it")
    found = []
    for name, own in cells.items():
        matrix = ScoreMatrix.from_cells(own, pool, source=str(path))
        rows = {cell.where: cell.question for cell in own}.values()
        place = {question: i for i, question in enumerate(matrix.questions)}
        counts = np.bincount([place[question] for question in rows])
        found.append(BenchSet(name, matrix, counts))
    return found


def bench_table(
    sets: Sequence[BenchSet], routers: Callable[[BenchSet], Sequence[tuple[Predictions, float]]]
) -> list[BenchRow]:
    """Return the table: the candidates, the oracle and the routers on each data set and on all.

    The oracle asks the cheapest of the best. If none scores, it asks none, at no cost.

    Args:
        sets: the data sets, of the same candidates.
        routers: for a data set, the predictions of each router at each cost weight.
    """
    rows: dict[tuple[str, float | None], list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for one in sets:
        scores, costs = one.matrix.scores, one.matrix.costs_usd
        number = np.arange(len(scores))
        for column, name in enumerate(one.matrix.names):
            rows.setdefault((name, None), []).append(
                (scores[:, column], costs[:, column], one.counts)
            )
        rows.setdefault((ORACLE, None), []).append((*_oracle(scores, costs), one.counts))
        for found, weight in routers(one):
            rows.setdefault((found.router, weight), []).append(
                (scores[number, found.choices], costs[number, found.choices], one.counts)
            )
    names = [one.name for one in sets]
    table = [
        _row(name, model, weight, parts[place : place + 1])
        for place, name in enumerate(names)
        for (model, weight), parts in rows.items()
    ]
    if len(names) > 1:
        table += [_row(ALL, model, weight, parts) for (model, weight), parts in rows.items()]
    return table


def areas(rows: Sequence[BenchRow]) -> dict[str, float]:
    """Return the AIQ of each router, and of the candidates together, on one data set.

    It is the area under the router's non-decreasing convex hull of cost and performance, from its
    cheapest point to the highest cost in the table, divided by that cost.

    Args:
        rows: those of one data set.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.model_name != ORACLE:
            name = CANDIDATES if row.cost_weight is None else row.model_name
            curves.setdefault(name, []).append((row.total_cost, row.performance))
    highest = max(cost for points in curves.values() for cost, _ in points)
    found = {}
    for name, points in curves.items():
        hull = _hull(points)
        hull.append((highest, hull[-1][1]))
        costs, scores = np.array(hull).T
        area = (np.diff(costs) * (scores[1:] + scores[:-1])).sum() / 2
        found[name] = float(area / highest) if highest else float("nan")
    return found


def write_table(rows: Sequence[BenchRow], path: Path) -> None:
    """Write the table in RouterBench's long form, a line for each model and data set.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(BenchRow)])
        writer.writerows(astuple(row) for row in rows)


def by_set(rows: Sequence[BenchRow]) -> Mapping[str, list[BenchRow]]:
    """Return the rows of each data set."""
    found: dict[str, list[BenchRow]] = {}
    for row in rows:
        found.setdefault(row.eval_name, []).append(row)
    return found


def _row(
    eval_name: str,
    model: str,
    weight: float | None,
    parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> BenchRow:
    scores, costs, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    known = ~np.isnan(scores)
    mean = (scores * counts)[known].sum() / counts[known].sum() if known.any() else float("nan")
    return BenchRow(eval_name, model, float(mean), float(np.nansum(costs * counts)), weight)


def _oracle(scores: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return score and cost of the cheapest of the best candidates, length Q each."""
    best = np.nan_to_num(scores, nan=-1.0).max(axis=1)
    paid = np.where(scores == best[:, None], np.nan_to_num(costs), np.inf).min(axis=1)
    return np.where(best < 0, np.nan, best), np.where(best > 0, paid, 0.0)


def _hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the upper convex hull of points, from the cheapest up to the highest score."""
    hull: list[tuple[float, float]] = []
    for point in _rising(points):
        while len(hull) > 1 and _turns_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _rising(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield points by cost, each with a higher score than all cheaper ones."""
    best = -1.0
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if score > best:
            yield cost, score
            best = score


def _turns_up(
    one: tuple[float, float], two: tuple[float, float], three: tuple[float, float]
) -> bool:
    """Whether the middle of three points lies on or below the line from the first to the last."""
    return (two[1] - one[1]) * (three[0] - one[0]) <= (three[1] - one[1]) * (two[0] - one[0])
