"""`router-r1 report`: the report of an evaluation, at any time, or several side by side."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..console import make_console, print_line
from ..errors import ConfigError, MissingExtraError
from ..files import require_file
from ..outside import visible

EXAMPLES = """[bold]Examples[/bold]

router-r1 report runs/mine

router-r1 report runs/before runs/after --out comparison.html
"""


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="One or several folders of router-r1 evaluate --out; the evaluation may still be "
            "running."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="For several folders: the page to write.", show_default="FOLDER/comparison.html"
        ),
    ] = None,
    browser: Annotated[
        bool | None,
        typer.Option(help="Open it in a browser.", show_default="in a terminal"),
    ] = None,
) -> None:
    """Show and open the report of an evaluation, or several reports side by side."""
    try:
        from ..evaluation.page import as_html
        from ..evaluation.past import comparison, comparison_page, read_past
        from ..evaluation.report import show, write_report
    except ImportError as error:
        raise MissingExtraError("router-r1 report", "eval", error) from error
    runs = [read_past(folder) for folder in folders]
    console = make_console()
    if len(runs) == 1:
        if out is not None:
            raise ConfigError("--out: the report of one evaluation is in its folder")
        [run] = runs
        if not run.is_reported:
            require_file("report", run.report)
            write_report(run.summary, run.folder, run.outcomes, evaluated=run.origin.evaluated)
        show(run.summary, console)
        page = run.report
    else:
        page = out or folders[0] / "comparison.html"
        require_file("--out", page)
        page.write_text(as_html(comparison_page(runs), "Evaluations side by side"), "utf-8")
        head, *rows = comparison(runs, brief=True)
        table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
        for number, name in enumerate(head):
            table.add_column(
                Text(visible(name)), justify="right" if number else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        if not console.is_terminal:  # a file or a pipe has no width to keep to
            console.width = 400
        console.print(table)
        metrics = " or ".join(dict.fromkeys(r.summary.metric.replace("_", " ") for r in runs))
        note = f"a = cost weight; below its name, the {metrics} of each run; difference = to the "
        note += "first run, over the questions of both, with a 95% interval"
        print_line(console, ("", ""), (note, "dim"))
    print(f"\nReport: {page}")
    if browser or (browser is None and sys.stdout.isatty()):
        webbrowser.open(page.absolute().as_uri())
