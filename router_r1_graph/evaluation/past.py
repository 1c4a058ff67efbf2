"""Finished and running evaluations: read again from their folders, and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..words import counted, fixed, rounded
from .origin import Origin
from .page import Block, Table
from .recorded_replies import RESULTS
from .run import Outcome, outcome_of, read_results
from .scorers import parse_scorer
from .statistics import Bootstrap
from .summary import Summary, SummaryRow, summarise
from .verdict import difference, verdict

_CONTROLS = ("random", "oracle")
_Key = tuple[str, float | None]
"""A controller and its cost weight; None = a candidate alone, which reads none."""


@dataclass(frozen=True)
class Past:
    """An evaluation as its folder has it.

    Attributes:
        folder: the folder, of `evaluate --out`.
        origin: its origin; for a folder of an earlier release, as far as its results show it.
        outcomes: of every controller and question so far.
        summary: the numbers.
    """

    folder: Path
    origin: Origin
    outcomes: Sequence[Outcome]
    summary: Summary

    @property
    def report(self) -> Path:
        """The report, which may be older than the results, or not there yet."""
        return self.folder / "report.html"

    @property
    def is_reported(self) -> bool:
        """Whether the report has all results."""
        results = self.folder / RESULTS
        return self.report.is_file() and self.report.stat().st_mtime >= results.stat().st_mtime


def read_past(folder: Path) -> Past:
    """Read an evaluation, also one that is still running.

    Raises:
        ConfigError: there are no results in the folder.
        TraceError: a line of the results is broken.
    """
    file = folder / RESULTS
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; `router-r1 evaluate --out {folder}` writes it")
    origin = Origin.read(folder)
    scorer = parse_scorer(origin.metric if origin else "exact_match")
    pool, found = "", {}
    for trace, _ in read_results(file):
        outcome = outcome_of(trace, scorer)
        found[outcome.key], pool = outcome, trace.pool.name
    if not found:
        raise ConfigError(f"{file}: there are no results yet")
    names = list(dict.fromkeys(name for name, _, _ in found))
    if origin is None:
        controls = [n for n in names if n.startswith("constant:") or n in _CONTROLS]
        evaluated = [name for name in names if name not in controls]
        origin = Origin(
            evaluated=tuple(evaluated), controls=tuple(controls), date="", commit="", version=""
        )
    order = [*origin.evaluated, *origin.controls, *names]
    outcomes = sorted(found.values(), key=lambda o: (order.index(o.controller), o.cost_weight))
    summary = summarise(
        outcomes, pool=pool, metric=origin.metric, controls=origin.controls, seed=origin.seed
    )
    known = origin if origin.date else None
    return Past(folder, origin, outcomes, dataclasses.replace(summary, origin=known))


def comparison(runs: Sequence[Past], *, brief: bool = False) -> Table:
    """Return a table of several evaluations side by side: a row for each controller.

    The difference is paired, over the questions that both runs asked the controller: the score in a
    run minus the score in the first run.

    Args:
        runs: the evaluations.
        brief: for a terminal: short heads, and scores without intervals.
    """
    head = ["controller", "a" if brief else "cost weight"]
    for number, run in enumerate(runs):
        name = run.folder.name
        metric = run.summary.metric.replace("_", " ")
        head += [name, "USD/1000"] if brief else [f"{name}: {metric}", f"{name}: USD / 1,000"]
        if number:
            head.append("difference" if brief else f"{name} - {runs[0].folder.name}")
    rows = [row for run in runs for row in run.summary.rows]
    keys = dict.fromkeys(map(_key, rows))
    names = {row.controller: row.name if brief else row.controller for row in rows}
    weights = {key: "" if key[1] is None else f"{key[1]:g}" for key in keys}
    return [head, *([names[k[0]], weights[k], *_cells(runs, k, brief)] for k in keys)]


def comparison_page(runs: Sequence[Past]) -> list[Block]:
    """Return several evaluations side by side as a page: their table, and the verdict of each."""
    blocks: list[Block] = [
        ("h1", f"{counted(len(runs), 'evaluation')} side by side"),
        ("p", "Differences are paired, over the questions that both asked; 95% intervals."),
        ("table", comparison(runs)),
    ]
    for run in runs:
        asked = counted(run.summary.questions, "question")
        blocks += [("h2", str(run.folder)), ("p", f"{asked}, pool {run.summary.pool}.")]
        blocks += [("p", f"{run.summary.origin}.")] if run.summary.origin else []
        blocks += [("p", line) for line in verdict(run.summary)]
    return blocks


def _key(row: SummaryRow) -> _Key:
    return row.controller, None if row.is_single else row.cost_weight


def _cells(runs: Sequence[Past], key: _Key, brief: bool) -> list[str]:
    cells: list[str] = []
    first = _scores(runs[0], key)
    for number, run in enumerate(runs):
        row = next((r for r in run.summary.rows if _key(r) == key), None)
        if row is None:
            cells += ["", ""]
        else:
            score = row.measures["score"]
            interval = "" if brief else f" [{rounded(score.low, 3)}, {rounded(score.high, 3)}]"
            cells.append(f"{rounded(score.mean, 3)}{interval}")
            cells.append(fixed(1000 * row.measures["cost_usd"].mean, 4))
        if number:
            ours = _scores(run, key)
            both = [question for question in ours if question in first]
            pairs = [ours[q] for q in both], [first[q] for q in both]
            digits = 2 if brief else 3
            cells.append(
                difference(Bootstrap(len(both)).difference(*pairs), digits) if both else ""
            )
    return cells


def _scores(run: Past, key: _Key) -> dict[str, float]:
    name, weight = key
    return {
        o.id: o.score
        for o in run.outcomes
        if o.controller == name and weight in (None, o.cost_weight)
    }
