"""The cost-quality curve as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import MissingExtraError
from ..words import counted
from .summary import Row, Summary


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Draw score against cost as `curve.png` and `curve.svg`; return their paths.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtraError("the picture of a report", "eval") from error
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    constants = [row for row in summary.rows if row.controller.startswith("constant:")]
    _scatter(axes, constants, color="0.55", marker="o", label="always the same candidate")
    for row in constants:
        _name(axes, row, row.controller.removeprefix("constant:"), color="0.4")
    rest = [row for row in summary.rows if row not in constants]
    for number, controller in enumerate(dict.fromkeys(row.controller for row in rest)):
        rows = sorted(
            (row for row in rest if row.controller == controller), key=lambda r: r.cost_weight
        )
        marker = "*" if controller.startswith("oracle") else "s" if rows[0].is_control else "D"
        color = f"C{number % 10}"
        _scatter(axes, rows, color=color, marker=marker, label=controller)
        if len(rows) > 1:
            axes.plot([_cost(r) for r in rows], [_score(r) for r in rows], color=color, lw=1)
            for row in rows:
                _name(axes, row, f"a={row.cost_weight:g}", color=color)
    costs = [_cost(row) for row in summary.rows if _cost(row) > 0]
    if costs and max(costs) / min(costs) > 20:
        axes.set_xscale("symlog", linthresh=min(costs) / 2)
    axes.set_xlabel("USD per 1,000 questions")
    axes.set_ylabel(summary.metric.replace("_", " "))
    asked = counted(summary.questions, "question")
    axes.set_title(f"{asked}, pool {summary.pool}; bars are 95% intervals")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="best")
    paths = [folder / f"curve.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return paths


def _scatter(axes: Any, rows: list[Row], *, color: str, marker: str, label: str) -> None:
    if not rows:
        return
    scores = [row.measures["score"] for row in rows]
    axes.errorbar(
        [_cost(row) for row in rows],
        [s.mean for s in scores],
        # Where all scores are equal, rounding can put the mean outside of its interval.
        yerr=[[max(0, s.mean - s.low) for s in scores], [max(0, s.high - s.mean) for s in scores]],
        fmt=marker,
        ms=9 if marker == "*" else 6,
        color=color,
        elinewidth=0.8,
        label=label,
    )


def _name(axes: Any, row: Row, text: str, *, color: str) -> None:
    axes.annotate(
        text, (_cost(row), _score(row)), (5, 4), textcoords="offset points", fontsize=7, color=color
    )


def _cost(row: Row) -> float:
    return 1000 * row.measures["cost_usd"].mean


def _score(row: Row) -> float:
    return row.measures["score"].mean
