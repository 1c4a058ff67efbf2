"""The report of an evaluation: summary.json, report.md, report.html and the pictures."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..trace import Trace, read_traces
from ..transcript import as_text
from ..words import counted, fixed, rounded, usd
from .plots import draw
from .run import Key, Outcome
from .statistics import Interval
from .summary import Summary

Table = list[list[str]]
"""Rows of cells; the first row is the head."""

Block = tuple[str, "str | Table"]
"""A piece of the report: h1, h2, p, code or img with its text, or a table."""

_WORST = 10

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2024; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
td, th { padding: .25rem .6rem; border-bottom: 1px solid #d8dde3; text-align: right;
  white-space: nowrap }
td:first-child, th:first-child { text-align: left }
img { max-width: 100% } pre { background: #f5f6f8; padding: .8rem; white-space: pre-wrap }
@media (prefers-color-scheme: dark) {
  body { color: #e6e8ea; background: #16181b } td, th { border-color: #333a41 }
  pre { background: #22262a } img { background: #fff } }
"""


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
        folder: where.
        outcomes: every question's, for the worst ones.
        evaluated: the controllers that are no controls; of each the worst questions are shown.
        skipped: rows of the data that were left out, with why.
        pictures: whether to draw; needs matplotlib.
    """
    text = json.dumps(summary.to_json(), indent=2, ensure_ascii=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    if pictures:
        draw(summary, folder)
    worst = _worst(folder / "results.jsonl", list(outcomes), evaluated, summary)
    blocks = _blocks(summary, worst, skipped, pictures)
    (folder / "report.md").write_text(_markdown(blocks), encoding="utf-8")
    (folder / "report.html").write_text(_html(blocks, f"Evaluation: {summary.pool}"), "utf-8")


def main_table(summary: Summary) -> Table:
    """Return the table that is looked at first."""
    metric = summary.metric.replace("_", " ")
    head = ["controller", "cost weight", metric, "F1", "USD / 1,000", "calls", "rounds"]
    head += ["seconds", "failures", "against constant best", "at matched cost"]
    rows = [head]
    for row in summary.rows:
        m = row.measures
        thousand = Interval(*(1000 * v for v in vars(m["cost_usd"]).values()))
        rows.append(
            [
                row.controller,
                f"{row.cost_weight:g}",
                _cell(m["score"]),
                _cell(m["f1"]),
                _money(thousand),
                _cell(m["calls"], 2),
                _cell(m["rounds"], 2),
                _cell(m["seconds"], 2),
                _cell(m["failures"], 2),
                _difference(row.against_constant_best),
                _difference(row.against_matched_cost),
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
    for name in ("a", metric, "USD/1000", "calls", "to constant best"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in summary.rows:
        m = row.measures
        table.add_row(
            Text(row.controller.removeprefix("constant:")),
            f"{row.cost_weight:g}",
            Text(_cell(m["score"])),
            fixed(1000 * m["cost_usd"].mean, 4),
            rounded(m["calls"].mean, 2),
            Text(_difference(row.against_constant_best, 2)),
        )
    console.print(table)
    note = "a = cost weight; [95% intervals]"
    asked = counted(summary.questions, "question")
    console.print(Text(f"{asked}, pool {summary.pool}; {note}", style="dim"), soft_wrap=True)
    for line in [*verdict(summary), *savings(summary)]:
        console.print(Text(line), soft_wrap=True)


def share_table(summary: Summary) -> Table:
    """Return who was asked how often, and how even that is against the oracle."""
    names = list(dict.fromkeys(name for row in summary.rows for name in row.share))
    rows = [["controller", "cost weight", "entropy, bits", *names[:12]]]
    for row in summary.rows:
        if not row.controller.startswith("constant:"):
            parts = [f"{row.share.get(name, 0):.0%}" for name in names[:12]]
            rows.append(
                [row.controller, f"{row.cost_weight:g}", rounded(row.entropy_bits, 2), *parts]
            )
    return rows


def verdict(summary: Summary) -> list[str]:
    """Return plain sentences: who beats the best single candidate, and who does not."""
    if summary.constant_best is None:
        return ["No constant candidate was asked, so nothing is said about beating one."]
    name = summary.constant_best.removeprefix("constant:")
    lines = [f"The best single candidate is {name}."]
    better = 0
    for row in summary.rows:
        d = row.against_constant_best
        if row.is_control or d is None or row.controller.startswith("constant:"):
            continue
        ours = f"{row.controller} at cost weight {row.cost_weight:g}"
        better += d.low > 0
        if d.low > 0:
            lines.append(f"{ours} is better than it: {_difference(d)}.")
        elif d.high < 0:
            lines.append(f"{ours} is worse than it: {_difference(d)}.")
        else:
            lines.append(f"{ours} is not told apart from it: {_difference(d)}.")
    if len(lines) > 1 and not better:
        lines.insert(1, "No controller is better than it with its interval clear of zero.")
    return lines


def savings(summary: Summary) -> list[str]:
    """Return a sentence on what the reply store saved; none where nothing was stored."""
    if not summary.stored_calls:
        return []
    stored = counted(summary.stored_calls, "stored reply", "stored replies")
    return [f"{stored} saved {usd(summary.saved_usd)}, which the costs include."]


def slice_tables(summary: Summary) -> dict[str, Table]:
    """Return a table of mean scores for each thing that questions are grouped by."""
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


def _money(value: Interval) -> str:
    return f"{fixed(value.mean, 4)} [{fixed(value.low, 4)}, {fixed(value.high, 4)}]"


def _difference(value: Interval | None, digits: int = 3) -> str:
    if value is None:
        return ""
    mean, low, high = (rounded(v, digits, "+") for v in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def _worst(
    results: Path, outcomes: list[Outcome], evaluated: Sequence[str], summary: Summary
) -> dict[str, list[Trace]]:
    """Return the traces where each controller is wrong and loses most to a single candidate."""
    if not evaluated or not results.is_file():
        return {}
    best: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.controller not in evaluated:
            best[outcome.id] = max(best.get(outcome.id, 0.0), outcome.score)
    wanted: dict[Key, int] = {}
    for name in evaluated:
        weight = next((r.cost_weight for r in summary.rows if r.controller == name), None)
        wrong = [
            o for o in outcomes if o.controller == name and o.cost_weight == weight and o.score < 1
        ]
        wrong.sort(key=lambda o: (o.score - best.get(o.id, 0.0), -o.cost_usd))
        wanted |= {o.key: place for place, o in enumerate(wrong[:_WORST])}
    found: dict[str, dict[int, Trace]] = {name: {} for name in evaluated}
    for trace in read_traces(results):
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
        (
            "p",
            f"{counted(summary.questions, 'question')}. "
            "Means with 95% bootstrap intervals over questions; differences are paired, in the "
            "metric. The one at matched cost is against a random mix of two candidates that spends "
            "as much; it is empty where every candidate costs more.",
        ),
        *(("p", line) for line in [*verdict(summary), *savings(summary)]),
        ("table", main_table(summary)),
    ]
    if pictures:
        blocks.append(("img", "curve"))
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


def _markdown(blocks: Sequence[Block]) -> str:
    parts = []
    for kind, content in blocks:
        if not isinstance(content, str):
            parts.append(table_markdown(content))
        elif kind == "img":
            parts.append("![score against cost](curve.png)")
        elif kind == "code":
            fence = "````"
            parts.append(f"{fence}text\n{content}\n{fence}")
        else:
            parts.append({"h1": "# ", "h2": "## "}.get(kind, "") + str(content))
    return "\n\n".join(parts) + "\n"


def table_markdown(table: Table) -> str:
    """Return a table in Markdown."""
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in table]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _html(blocks: Sequence[Block], title: str) -> str:
    parts = []
    for kind, content in blocks:
        if not isinstance(content, str):
            head, *rows = content
            cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
            body = "".join(
                "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
                for row in rows
            )
            parts.append(f"<table><tr>{cells}</tr>{body}</table>")
        elif kind == "img":
            parts.append('<p><img src="curve.svg" alt="score against cost"></p>')
        elif kind == "code":
            parts.append(f"<pre>{html.escape(str(content))}</pre>")
        else:
            parts.append(f"<{kind}>{html.escape(str(content))}</{kind}>")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        + "\n".join(parts)
        + "</html>\n"
    )
