"""The report of an evaluation: summary.json, report.md, report.html and the pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..console import print_line
from ..outside import visible
from ..trace import Trace
from ..transcript import as_text
from ..words import counted, fixed, plain, rounded
from .page import Block, Table, as_html, markdown
from .plots import draw
from .recorded_replies import RESULTS
from .run import Key, Outcome, read_results
from .statistics import Interval
from .summary import Summary
from .verdict import difference, savings, verdict

_WORST = 10
_EXPLAINED = (
    "The best is the best single candidate; x best's is the cost divided by its cost. At matched "
    "cost: the difference to a random mix of two candidates that costs as much; empty if every "
    "candidate costs more. States it: the share of answers that state a gold answer in any form, "
    "extracted by the same rules for all."
)


def write_report(
    summary: Summary,
    folder: Path,
    outcomes: Iterable[Outcome],
    *,
    evaluated: Sequence[str],
    skipped: Sequence[str] = (),
    pictures: bool = True,
) -> None:
    """Write the report into a folder that holds `results.jsonl`.

    Args:
        summary: the numbers.
        folder: the folder.
        outcomes: those of all questions, for the worst ones.
        evaluated: the controllers that are no controls; the worst questions of each are shown.
        skipped: rows of the data that were left out, with the reasons.
        pictures: whether to draw; needs matplotlib.
    """
    text = json.dumps(summary.to_json(), indent=2, ensure_ascii=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    if pictures:
        draw(summary, folder)
    worst = _worst(folder / RESULTS, list(outcomes), evaluated, summary)
    blocks = _blocks(summary, worst, skipped, pictures)
    (folder / "report.md").write_text(markdown(blocks), encoding="utf-8")
    (folder / "report.html").write_text(as_html(blocks, f"Evaluation: {summary.pool}"), "utf-8")


def main_table(summary: Summary) -> Table:
    """Return the main table."""
    metric = summary.metric.replace("_", " ")
    head = [
        "controller",
        "weight",
        metric,
        "against best",
        "USD / 1,000",
        "x best's",
    ]
    head += ["at matched cost", "states it", "F1", "calls", "rounds", "seconds", "failed"]
    rows = [head]
    for row in summary.rows:
        m = row.measures
        if row.error:
            said = [row.controller, f"{row.cost_weight:g}", f"none: {row.error}"]
            rows.append([*said, *("" for _ in head[len(said) :])])
            continue
        rows.append(
            [
                row.controller,
                f"{row.cost_weight:g}",
                _cell(m["score"]),
                difference(row.against_constant_best),
                fixed(1000 * m["cost_usd"].mean, 4),
                "" if row.cost_ratio is None else plain(row.cost_ratio.mean, 2),
                difference(row.against_matched_cost),
                rounded(m["stated"].mean, 3),
                rounded(m["f1"].mean, 3),
                *(rounded(m[name].mean, 2) for name in ("calls", "rounds", "seconds", "failures")),
            ]
        )
    return rows


def show(summary: Summary, console: Console) -> None:
    """Print the main numbers in a terminal."""
    # 79 columns, what a terminal has at least; a file or a pipe has no width to keep to.
    if not console.is_terminal:
        console.width = 200
    table = RichTable(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("controller", overflow="fold")
    metric = summary.metric.replace("_", " ")
    for name in ("a", metric, "USD/1000", "cost", "to the best"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in summary.rows:
        m = row.measures
        if row.error:
            table.add_row(Text(visible(row.name)), f"{row.cost_weight:g}", "none")
            continue
        table.add_row(
            Text(visible(row.name)),
            f"{row.cost_weight:g}",
            Text(_cell(m["score"])),
            fixed(1000 * m["cost_usd"].mean, 4),
            "" if row.cost_ratio is None else f"x{plain(row.cost_ratio.mean, 2)}",
            Text(difference(row.against_constant_best, 2)),
        )
    console.print(table)
    note = "a = cost weight; cost = times the best's; [95% intervals]"
    asked = counted(summary.questions, "question")
    print_line(console, ("", ""), (f"{asked}, pool {summary.pool}; {note}", "dim"))
    for line in [*verdict(summary), *savings(summary)]:
        print_line(console, ("", ""), (line, ""))


def share_table(summary: Summary) -> Table:
    """Return how often each candidate was asked, and how even that is against the oracle."""
    names = list(dict.fromkeys(name for row in summary.rows for name in row.share))
    rows = [["controller", "cost weight", "entropy, bits", *names[:12]]]
    for row in summary.rows:
        if not row.is_single:
            parts = [f"{row.share.get(name, 0):.0%}" for name in names[:12]]
            rows.append(
                [row.controller, f"{row.cost_weight:g}", rounded(row.entropy_bits, 2), *parts]
            )
    return rows


def slice_tables(summary: Summary) -> dict[str, Table]:
    """Return a table of mean scores for each grouping of the questions."""
    tables: dict[str, Table] = {}
    for row in summary.rows:
        for name, values in row.slices.items():
            table = tables.setdefault(
                name,
                [["controller", "cost weight", *(f"{v} ({n})" for v, (_, n) in values.items())]],
            )
            scores = [f"{score:.3f}" for score, _ in values.values()]
            table.append([row.controller, f"{row.cost_weight:g}", *scores])
    return tables


def _cell(value: Interval, digits: int = 3) -> str:
    mean, low, high = (rounded(v, digits) for v in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def _worst(
    results: Path, outcomes: list[Outcome], evaluated: Sequence[str], summary: Summary
) -> dict[str, list[Trace]]:
    """Return the traces where each controller is wrong and loses most to another.

    If only controls were run, those of the best single candidate.
    """
    if not results.is_file():
        return {}
    evaluated = evaluated or [name for name in [summary.constant_best] if name]
    best: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.controller not in evaluated:
            best[outcome.id] = max(best.get(outcome.id, 0.0), outcome.score)
    wanted: dict[Key, int] = {}
    for name in evaluated:
        weight = next((r.cost_weight for r in summary.rows if r.controller == name), None)
        wrong = [
            o
            for o in outcomes
            if o.controller == name and o.cost_weight == weight and o.score < 0.5
        ]
        # Those that state the answer in another form are wrong by their form alone.
        wrong.sort(key=lambda o: (o.stated, o.score - best.get(o.id, 0.0), -o.cost_usd))
        wanted |= {o.key: place for place, o in enumerate(wrong[:_WORST])}
    found: dict[str, dict[int, Trace]] = {name: {} for name in evaluated}
    for trace, _ in read_results(results):
        place = wanted.get((trace.controller, trace.context.cost_weight, trace.id))
        if place is not None:
            found[trace.controller][place] = trace
    return {name: [of[place] for place in sorted(of)] for name, of in found.items() if of}


def _blocks(
    summary: Summary, worst: dict[str, list[Trace]], skipped: Sequence[str], pictures: bool
) -> list[Block]:
    """Return the report as (kind, content): heading, text, table, picture or code."""
    blocks: list[Block] = [
        ("h1", f"Evaluation over pool {summary.pool}"),
        *([("p", f"{summary.origin}.")] if summary.origin else []),
        *(("p", line) for line in [*verdict(summary), *savings(summary)]),
        ("table", main_table(summary)),
        (
            "p",
            f"{counted(summary.questions, 'question')}. "
            "Means with 95% bootstrap intervals over questions; differences are paired, in the "
            f"metric. {_EXPLAINED}",
        ),
    ]
    if pictures:
        blocks.append(("img", "curve"))
    if summary.origin and summary.origin.command:
        blocks += [("h2", "The command"), ("code", summary.origin.command)]
    blocks += [("h2", "Who was asked"), ("table", share_table(summary))]
    for name, table in slice_tables(summary).items():
        blocks += [("h2", f"By {name}"), ("table", table)]
    if skipped:
        blocks += [
            ("h2", f"{counted(len(skipped), 'row')} left out"),
            ("code", "\n".join(skipped[:50])),
        ]
    for name, traces in worst.items():
        blocks.append(("h2", f"The worst questions of {name}"))
        for trace in traces:
            blocks += [
                ("p", f"{trace.id}; right would be: {' | '.join(trace.gold)}"),
                ("code", as_text(trace)),
            ]
    return blocks
