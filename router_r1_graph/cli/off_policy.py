"""`router-r1 evaluate --off-policy`: controllers judged by logged runs; no candidate is asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..console import make_console, print_line
from ..errors import ConfigError
from ..outside import visible
from ..words import counted

if TYPE_CHECKING:
    from ..evaluation.off_policy import OffPolicy


_WIDE = 140
"""Columns of a terminal that has room for all estimates."""


def judge_logs(
    file: Path,
    specs: Sequence[str],
    cost_weights: Sequence[float | None],
    gold: Mapping[str, tuple[str, ...]],
    metric: str,
    feedback: str,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Judge controllers by the runs in a file, and print the table.

    Args:
        file: JSONL of traces.
        specs: the controllers; none = each candidate of the pool alone.
        cost_weights: of the controllers; None = as in each run.
        gold: question -> its gold answers, for runs without.
        metric: scores the answers.
        feedback: the key of the feedback that is the score; "" = the metric.
        seed: of the model of outcomes.
        out: the folder in which `off_policy.json` is written; None = nowhere.
        as_json: whether JSON is printed.

    Raises:
        ConfigError: no run can be used, or their pools differ.
    """
    from ..controllers import parse_controller
    from ..evaluation.off_policy import judge
    from ..evaluation.scorers import parse_scorer
    from ..trace import read_traces

    traces = [
        trace if trace.gold else trace.model_copy(update={"gold": gold.get(trace.question, ())})
        for trace in read_traces(file)
    ]
    if not traces:
        raise ConfigError(f"--off-policy {file}: there is no trace in it")
    pool = traces[-1].pool
    names = {candidate.name for candidate in pool.candidates}
    others = [t for t in traces if {c.name for c in t.pool.candidates} != names]
    if others:
        raise ConfigError(
            f"--off-policy {file}: {counted(len(others), 'run')} had another pool than the last "
            f"one ({', '.join(sorted(names))}); judge the runs of each pool apart"
        )
    chosen = specs or [f"constant:{candidate.name}" for candidate in pool.candidates]
    controllers = [parse_controller(spec, pool) for spec in chosen]
    found: list[OffPolicy] = []
    for weight in cost_weights:
        report = judge(
            traces,
            controllers,
            scorer=parse_scorer(metric),
            metric=metric,
            feedback=feedback,
            cost_weight=weight,
            seed=seed,
        )
        mark = "" if len(cost_weights) == 1 else f" at a={weight:g}"
        rows = [replace(row, controller=row.controller + mark) for row in report.rows]
        found.append(replace(report, rows=rows))
    whole = replace(found[0], rows=[row for report in found for row in report.rows])
    text = json.dumps(whole.to_json(), ensure_ascii=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "off_policy.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        print(text)
        return
    show_judged(whole, make_console())
    for reason, count in whole.left_out.items():
        print(f"{counted(count, 'run')} left out: {visible(reason)}", file=sys.stderr)


def show_judged(report: OffPolicy, console: Console) -> None:
    """Print the estimates for each controller; a narrow terminal has no room for IPS, SNIPS."""
    from ..evaluation.off_policy import TOO_MUCH_LOST

    if not console.is_terminal:
        console.width = 200
    whole = console.width >= _WIDE
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("controller", overflow="fold", min_width=12)
    estimates = ("IPS", "SNIPS", "doubly robust", "to logged") if whole else ("doubly robust",)
    for name in (*estimates, "USD/1000", "runs", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.rows:
        score, cost = row.score, row.cost_usd.dr
        cells = [str(score.dr)]
        if whole:
            cells = [*map(str, (score.ips, score.snips, score.dr, score.difference))]
        cells += [f"{1000 * cost.mean:.4f} [{1000 * cost.low:.4f}, {1000 * cost.high:.4f}]"]
        runs = f"{row.effective:.0f}"
        if row.lost >= TOO_MUCH_LOST or not row.effective:
            cells, runs = ["cannot tell"] * len(cells), "0"
        name = visible(row.controller.removeprefix("constant:"))
        table.add_row(*map(Text, (name, *cells, runs, f"{row.lost:.1%}")))
    console.print(table)
    note = (
        f"{counted(report.runs, 'logged run')}, {report.outcome} {report.logged_score:.3f}, "
        f"USD/1000 {1000 * report.logged_cost_usd:.4f} as logged; [95% intervals]; runs = "
        "effective number; lost = share of questions for which the logs cannot tell"
    )
    if not whole:
        note += "; all estimates: --json, or a wider terminal"
    print_line(console, ("", ""), (note, "dim"))
    for row in report.rows:
        print_line(console, ("", ""), (f"{row.controller}: {row.verdict}", ""))
