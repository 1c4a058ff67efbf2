"""The cost-quality curve as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from ..outside import visible
from ..words import counted
from .summary import Summary, SummaryRow

if TYPE_CHECKING:
    from ..controllers.learned import LearnedController

_Point = tuple[float, float, float, float]
"""Cost, and the low end, middle and high end of the score."""
_Label = tuple[float, float, str, str]
"""Cost and score of a point, its text and colour."""
_MOST_LETTERS = 60
"""The most characters of a name; a longer one loses its middle."""
_MOST_LABELS = 24
"""The number of labels that are written even if they cover something."""
#: Places of a label beside its point, the preferred ones first: x and y in points.
_PLACES = ((6, 4), (6, -4), (-6, 4), (-6, -4), (6, 12), (-6, 12), (6, -12), (-6, -12))


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Draw score against cost as `curve.png` and `curve.svg`; return their paths.

    The same numbers give the same files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    pyplot = load_pyplot("the picture of a report", "eval")
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    labels: list[_Label] = []
    lines: list[Any] = []
    drawn = [row for row in summary.rows if not row.error]
    constants = [row for row in drawn if row.is_single]
    _scatter(axes, constants, color="0.55", marker="o", label="always the same candidate")
    rest = [row for row in drawn if row not in constants]
    for number, controller in enumerate(dict.fromkeys(row.controller for row in rest)):
        rows = sorted(
            (row for row in rest if row.controller == controller), key=lambda r: r.cost_weight
        )
        marker = "*" if controller.startswith("oracle") else "s" if rows[0].is_control else "D"
        color = f"C{number % 10}"
        _scatter(axes, rows, color=color, marker=marker, label=shown(controller))
        if len(rows) > 1:
            xs, ys = [_cost(row) for row in rows], [_score(row) for row in rows]
            lines += axes.plot(xs, ys, color=color, lw=1)
            labels += [(_cost(r), _score(r), f"a={r.cost_weight:g}", color) for r in rows]
    labels += [(_cost(row), _score(row), row.name, "0.35") for row in constants]
    frontier = _frontier([row for row in drawn if not row.controller.startswith("oracle")])
    if len(frontier) > 1:
        # In steps: a little more money than a point's cost buys no more than the point.
        xs = [_cost(row) for row in frontier for _ in (0, 1)][1:]
        ys = [_score(row) for row in frontier for _ in (0, 1)][:-1]
        lines += axes.plot(xs, ys, color="0.2", lw=1, ls="--", label="frontier")
    axes.set_xlabel("USD per 1,000 questions")
    axes.set_ylabel(shown(summary.metric.replace("_", " ")))
    asked = counted(summary.questions, "question")
    weights = "; a = cost weight" if any(text.startswith("a=") for _, _, text, _ in labels) else ""
    axes.set_title(f"{asked}, pool {shown(summary.pool)}; bars are 95% intervals{weights}")
    axes.grid(alpha=0.25)
    axes.margins(x=0.07)
    _scale(axes, [_cost(row) for row in drawn])
    _legend(figure, axes)
    figure.draw_without_rendering()  # gives everything its place
    figure.set_layout_engine(None)  # where it stays, also while labels are added
    points = [(_cost(r), s.low, s.mean, s.high) for r in drawn for s in [r.measures["score"]]]
    _name(axes, points, lines, labels)
    return _write(pyplot, figure, folder)


def draw_fit(controller: LearnedController, folder: Path) -> list[Path]:
    """Draw the choices of `fit auto`, cross-validated, as `curve.png` and `curve.svg` in a folder.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    pyplot = load_pyplot("the curve of fit auto", "eval")
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    measured = controller.cost_source == "measured"
    scale = 1000 if measured else 1
    costs = scale * controller.costs
    axes.plot(costs, controller.means, "o", color="0.55", label="always the same candidate")
    points = [(cost, mean, mean, mean) for cost, mean in zip(costs, controller.means, strict=True)]
    labels: list[_Label] = [
        (cost, mean, candidate.name, "0.35")
        for candidate, (cost, mean, *_) in zip(controller.known.candidates, points, strict=True)
    ]
    lines: list[Any] = []
    verdicts = controller.verdicts
    for label, style, found in (
        ("auto", "D-", [verdict.kept for verdict in verdicts]),
        (
            "random mix at the same cost",
            "x:",
            [(v.mix_score, v.cost) for v in verdicts if v.part is not None],
        ),
        ("oracle", "*-", [(v.oracle_score, v.oracle_cost) for v in verdicts]),
    ):
        if not found:  # as of the mix, where the constant is kept at every cost weight
            continue
        line = sorted((scale * cost, score) for score, cost in found)
        points += [(cost, score, score, score) for cost, score in line]
        xs, ys = [cost for cost, _ in line], [score for _, score in line]
        lines += axes.plot(xs, ys, style, lw=1, label=label)
    kept: dict[tuple[float, float], list[float]] = {}
    for verdict in verdicts:
        kept.setdefault(verdict.kept, []).append(verdict.cost_weight)
    for (score, cost), weights in kept.items():
        span = f" to {weights[-1]:g}" if len(weights) > 1 else ""
        labels.append((scale * cost, score, f"a={weights[0]:g}{span}", "C0"))
    asked = counted(controller.about["questions"], "question")
    title = f"{asked}, {counted(len(costs), 'candidate')}; cross-validated; a = cost weight"
    if any(verdict.some_missing for verdict in verdicts):
        title += "\nscores are missing; each mean is over the questions that have a score"
    axes.set_title(title)
    axes.set_xlabel("USD per 1,000 questions" if measured else "USD per million tokens, in + out")
    axes.set_ylabel("score")
    axes.grid(alpha=0.25)
    axes.margins(x=0.15)
    _scale(axes, costs.tolist())
    _legend(figure, axes)
    figure.draw_without_rendering()  # gives everything its place
    _name(axes, points, lines, labels)
    return _write(pyplot, figure, folder)


def _legend(figure: Any, axes: Any) -> None:
    """Write the legend below the axes, so that it hides no point, in as many columns as fit."""
    marks, labels = axes.get_legend_handles_labels()
    columns = 110 // (8 + max(map(len, labels), default=0))  # in letters; a mark is as wide as 8
    figure.legend(
        marks,
        labels,
        loc="outside lower center",
        ncols=min(5, max(1, columns)),
        fontsize=8,
        frameon=False,
    )


def shown(name: str) -> str:
    r"""Return a name as matplotlib shows it as it is: no formula, and none that a legend hides.

    >>> shown("$^2$"), shown("_hidden")
    ('\\$^2\\$', ' _hidden')
    """
    name = visible(name)
    if len(name) > _MOST_LETTERS:
        name = f"{name[: _MOST_LETTERS // 2]}…{name[-_MOST_LETTERS // 2 :]}"
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _write(pyplot: Any, figure: Any, folder: Path) -> list[Path]:
    paths = [folder / f"curve.{kind}" for kind in ("png", "svg")]
    with pyplot.rc_context({"svg.hashsalt": "router_r1"}):
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    pyplot.close(figure)
    return paths


def load_pyplot(what: str, extra: str) -> Any:
    """Return matplotlib's pyplot, which draws into files only.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtraError(what, extra, error) from error
    return pyplot


def _scatter(axes: Any, rows: list[SummaryRow], *, color: str, marker: str, label: str) -> None:
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


def _scale(axes: Any, costs: list[float]) -> None:
    """Write costs as $0.01; if they span several decades, give each the same room."""
    from matplotlib import ticker

    paid = [cost for cost in costs if cost > 1e-12]  # less is nothing, and too little to draw
    if paid and max(paid) / min(paid) > 20:
        if len(paid) == len(costs):
            axes.set_xscale("log", subs=[])
        else:
            axes.set_xscale("symlog", linthresh=min(paid) / 2)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(usd_tick))


def usd_tick(amount: float, place: object = None) -> str:
    r"""Write an amount for an axis; "" below 0, since no cost is negative.

    >>> [usd_tick(amount) for amount in (-0.1, 0, 0.0001, 0.1, 1)]
    ['', '\\$0', '\\$0.0001', '\\$0.10', '\\$1']
    """
    if amount < 0:
        return ""
    whole, _, cents = f"{amount:.9f}".rstrip("0").partition(".")
    return f"\\${whole}" + (f".{cents:0<2}" if cents else "")  # a plain $ would begin a formula


def _name(axes: Any, points: list[_Point], lines: list[Any], labels: list[_Label]) -> None:
    """Write the labels where they cover no point, line or label.

    Of many labels, those that have no such place are left out.
    """
    from matplotlib.transforms import Bbox

    def at(cost: float, score: float) -> Any:
        return axes.transData.transform((cost, score))

    taken = []
    for cost, low, score, high in points:
        x, y = at(cost, score)
        taken.append(Bbox.from_extents(x - 4, y - 4, x + 4, y + 4))
        taken.append(Bbox.from_extents(x - 1, at(cost, low)[1], x + 1, at(cost, high)[1]))
    curves = [line.get_transform().transform_path(line.get_path()) for line in lines]

    def place(
        cost: float, score: float, text: str, color: str, right: int, up: int
    ) -> tuple[Any, Any]:
        label = axes.annotate(
            shown(text),
            (cost, score),
            (right, up),
            textcoords="offset points",
            ha="left" if right > 0 else "right",
            va="bottom" if up > 0 else "top",
            fontsize=7,
            color=color,
        )
        return label, label.get_window_extent()

    for label in labels:
        for where in _PLACES:
            words, box = place(*label, *where)
            outside = box.x0 < axes.bbox.x0 or box.x1 > axes.bbox.x1
            crossed = any(curve.intersects_bbox(box, filled=False) for curve in curves)
            if not (outside or crossed or box.count_overlaps(taken)):
                break
            words.remove()
        else:
            if len(labels) > _MOST_LABELS:
                continue
            _, box = place(*label, *_PLACES[0])
        taken.append(box)


def _frontier(rows: list[SummaryRow]) -> list[SummaryRow]:
    """Return the rows that no other row beats in both score and cost, the cheapest first."""
    found: list[SummaryRow] = []
    for row in sorted(rows, key=lambda row: (_cost(row), -_score(row))):
        if not found or _score(row) > _score(found[-1]):
            found.append(row)
    return found


def _cost(row: SummaryRow) -> float:
    return 1000 * row.measures["cost_usd"].mean


def _score(row: SummaryRow) -> float:
    return row.measures["score"].mean
