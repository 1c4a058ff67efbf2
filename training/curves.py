"""The curves of a run as pictures: each step of GRPO, and the validations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from router_r1_graph.evaluation.plots import load_pyplot, shown, usd_tick

from .history import History
from .measurement import Numbers

_STEPS = {
    "reward": "reward",
    "outcome": "outcome, by reward functions",
    "exact_match": "exact match",
    "cost_usd": "cost, USD per question",
    "entropy": "entropy of the tokens",
    "left_out": "share of rollouts left out",
    "stored_calls": "stored calls per question",
    "saved_usd": "saved by the store, USD per question",
}
_SHARE = "share/"


def draw_curves(history: History, folder: Path) -> list[Path]:
    """Draw `steps.png` and `validation.png` into a folder, as far as there are numbers.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    pyplot = load_pyplot("the curves of a report", "train")
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    if history.steps:
        figures["steps"] = _steps(pyplot, history)
    if history.validations:
        figures["validation"] = _validations(pyplot, history)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110)
        pyplot.close(figure)
    return paths


def _steps(pyplot: Any, history: History) -> Any:
    figure, axes = pyplot.subplots(2, 4, figsize=(15, 6), layout="constrained")
    panels = iter(axes.flat)
    names = _without_the_other(_STEPS, history.steps)
    for name in names[:3]:
        _step_panel(next(panels), history.steps, {name: ""}, _STEPS[name])
    _step_panel(next(panels), history.steps, _shares(history.steps), "share of calls")
    _legend(axes[0][-1])
    for name in names[3:]:
        _step_panel(next(panels), history.steps, {name: ""}, _STEPS[name])
    for panel in axes[-1]:
        panel.set_xlabel("step of GRPO")
    return figure


def _step_panel(axes: Any, lines: Sequence[Numbers], names: dict[str, str], title: str) -> None:
    """Draw one or several numbers over the steps, pale, and their running means."""
    window = max(1, len(lines) // 20)
    for place, (name, label) in enumerate(names.items()):
        known = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        xs, ys = [step for step, _ in known], [value for _, value in known]
        means = [fmean(ys[max(0, i - window + 1) : i + 1]) for i in range(len(ys))]
        color = f"C{place % 10}"
        if window > 1:
            axes.plot(xs, ys, color=color, lw=0.7, alpha=0.35)
        axes.plot(xs, means, color=color, lw=1.5, marker="." if len(xs) < 30 else "", label=label)
    _dress(axes, title)


def _validations(pyplot: Any, history: History) -> Any:
    weights = sorted({weight for rows in history.validations.values() for weight in rows})
    lines = [row for rows in history.validations.values() for row in rows.values()]
    shares = _shares(lines)
    validated = _without_the_other(("reward", "outcome", "exact_match", "cost_usd"), lines)
    wide = max(len(validated), len(weights) if shares else 0)
    figure, axes = pyplot.subplots(
        2 if shares else 1,
        wide,
        figsize=(5 * wide, 7 if shares else 3.7),
        layout="constrained",
        squeeze=False,
    )
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, name in zip(axes[0], validated, strict=False):
        for place, weight in enumerate(weights):
            _over_steps(panel, history, weight, name, f"C{place % 10}", f"cost weight {weight:g}")
        _mark_best(panel, history)
        _dress(panel, _STEPS[name])
    for panel, weight in zip(axes[-1] if shares else (), weights, strict=False):
        for place, (name, label) in enumerate(shares.items()):
            _over_steps(panel, history, weight, name, f"C{place % 10}", label)
        _mark_best(panel, history)
        _dress(panel, f"share of calls, cost weight {weight:g}")
    _legend(axes[0][len(validated) - 1])
    if shares:
        _legend(axes[-1][len(weights) - 1])
    for panel in axes[-1]:
        panel.set_xlabel("step of GRPO")
    return figure


def _without_the_other(names: Iterable[str], lines: Iterable[Numbers]) -> list[str]:
    """Return the names without `exact_match`, or without `outcome` if no line has that."""
    other = "exact_match" if any("outcome" in line for line in lines) else "outcome"
    return [name for name in names if name != other]


def _over_steps(
    axes: Any, history: History, weight: float, name: str, color: str, label: str
) -> None:
    """Draw a number of a cost weight over the validated steps, with its interval if it has one."""
    rows = [(s, rows[weight]) for s, rows in history.validations.items() if weight in rows]
    known = [(step, row) for step, row in rows if name in row]
    xs = [step for step, _ in known]
    axes.plot(xs, [row[name] for _, row in known], color=color, marker="o", ms=4, label=label)
    if known and f"{name}_low" in known[0][1]:
        lows, highs = ([row[f"{name}_{end}"] for _, row in known] for end in ("low", "high"))
        axes.fill_between(xs, lows, highs, color=color, alpha=0.12, lw=0)


def _mark_best(axes: Any, history: History) -> None:
    best = history.best_step
    if best is not None:
        axes.axvline(best, color="0.3", lw=1, ls="--", label=f"best: step {best}")


def _dress(axes: Any, title: str) -> None:
    from matplotlib import ticker

    axes.set_axis_on()
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    if "USD" in title:
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(usd_tick))
    if title != _STEPS["reward"]:  # nothing else can be below 0
        axes.set_ylim(bottom=0)


def _legend(axes: Any) -> None:
    """Name the lines beside the last picture of a row, where the names hide no line."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _shares(lines: Sequence[Numbers]) -> dict[str, str]:
    """Return the metrics that are shares of calls, with the names of the candidates.

    In alphabetical order, so that a candidate has one colour in all pictures.
    """
    names = sorted({n for line in lines for n in line if n.startswith(_SHARE)})
    return {name: shown(name.removeprefix(_SHARE)) for name in names}
