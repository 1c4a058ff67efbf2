"""`router-r1 replies stats | clear | export`: the file in which replies are kept."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError, did_you_mean
from ..files import require_file
from ..outside import visible
from ..words import counted, usd
from .options import print_json
from .store_options import seconds

if TYPE_CHECKING:
    from ..candidates.store import ReplyStore

FileArgument = Annotated[Path, typer.Argument(help="The file of --replies.")]

STATS_EXAMPLES = """[bold]Examples[/bold]

router-r1 replies stats replies.sqlite

router-r1 replies stats replies.sqlite --json | jq .saved_usd
"""
CLEAR_EXAMPLES = """[bold]Examples[/bold]

router-r1 replies clear replies.sqlite --older-than 7d

router-r1 replies clear replies.sqlite --candidate Wikipedia --yes
"""
EXPORT_EXAMPLES = """[bold]Examples[/bold]

router-r1 replies export replies.sqlite records.jsonl

router-r1 pool from-records records.jsonl --out replay.yaml
"""


def _open(file: Path) -> ReplyStore:
    """Open a store that is there already."""
    from ..candidates.store import ReplyStore

    return ReplyStore(file, make=False)


def stats(
    file: FileArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the number of kept replies, their cost, and their savings."""
    with _open(file) as store:
        lines, size = store.stats(), store.bytes
    whole = {
        "replies": sum(line.replies for line in lines),
        "paid_usd": math.fsum(line.paid_usd for line in lines),
        "hits": sum(line.hits for line in lines),
        "saved_usd": math.fsum(line.saved_usd for line in lines),
    }
    if as_json:
        print_json({**whole, "bytes": size, "candidates": [asdict(line) for line in lines]})
        return
    rows = [
        [
            visible(line.candidate or "(controllers)"),
            f"{line.replies:,}",
            usd(line.paid_usd),
            f"{line.hits:,}",
            usd(line.saved_usd),
        ]
        for line in lines
    ]
    last = [f"{whole['replies']:,}", usd(whole["paid_usd"])]
    last += [f"{whole['hits']:,}", usd(whole["saved_usd"])]
    table = [["candidate", "replies", "paid", "used again", "saved"], *rows, ["total", *last]]
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    for name, *cells in table:
        numbers = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        print(f"{name:<{widths[0]}}", *numbers, sep="  ")
    print(f"{size / 1e6:,.1f} MB")


def clear(
    file: FileArgument,
    older_than: Annotated[
        str | None, typer.Option(help="Delete only older replies: 90s, 30m, 12h, 7d.")
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(help="Delete only the replies of this candidate.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Delete without asking for confirmation.")
    ] = False,
) -> None:
    """Delete replies: the same calls will be paid again."""
    age = seconds("--older-than", older_than) if older_than else None
    with _open(file) as store:
        names = {line.candidate: line for line in store.stats()}
        if candidate is not None and candidate not in names:
            near = did_you_mean(candidate, [name for name in names if name])
            raise ConfigError(f"--candidate {candidate!r}: no reply of it in {file}{near}")
        if not yes:
            if not sys.stdin.isatty():
                raise ConfigError(f"{file}: to delete without being asked, say --yes")
            what = f"of {candidate} " if candidate else ""
            what += f"older than {older_than} " if older_than else ""
            typer.confirm(f"Delete the replies {what}in {file}?", abort=True, err=True)
        deleted = store.clear(older_than_seconds=age, candidate=candidate)
    print(f"{file}: {counted(deleted, 'reply', 'replies')} deleted")


def export(
    file: FileArgument,
    out: Annotated[Path, typer.Argument(help="The JSONL file to write.")],
    model_names: Annotated[
        bool,
        typer.Option(
            "--model-names", help="Name candidates by their models, not by their names in the pool."
        ),
    ] = False,
) -> None:
    """Write the replies as records; router-r1 pool from-records makes a pool of them."""
    from ..candidates.records import stored_records, write_records

    with _open(file) as store:
        require_file("OUT", out)
        try:
            count = write_records(out, stored_records(store, model_names=model_names))
        except OSError as error:
            raise ConfigError(f"OUT {out}: cannot be written: {error.strerror}") from error
    print(f"{out}: {counted(count, 'record')}", file=sys.stderr)
