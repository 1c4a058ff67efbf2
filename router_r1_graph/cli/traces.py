"""`router-r1 traces show | from-langsmith`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, did_you_mean
from ..files import require_file
from ..words import counted
from .options import print_json

SHOW_EXAMPLES = """[bold]Examples[/bold]

router-r1 traces show traces.jsonl

# the runs of one controller, and of one question by its id:
router-r1 traces show runs/evaluation/results.jsonl \\
  --controller keyword --id chain-2159b29d88d6
"""


def show(
    file: Annotated[Path, typer.Argument(help="A JSONL file of traces, or a folder of them.")],
    id: Annotated[
        str | None, typer.Option("--id", help="Print only the runs of the question with this id.")
    ] = None,
    controller: Annotated[
        str | None, typer.Option(help="Print only the runs of this controller.")
    ] = None,
) -> None:
    """Print runs as transcripts."""
    from ..console import make_console
    from ..trace import read_traces
    from ..transcript import Transcript

    shown = 0
    ids: set[str] = set()
    controllers: set[str] = set()
    for trace in read_traces(file):
        ids.add(trace.id)
        controllers.add(trace.controller)
        if (id is not None and trace.id != id) or (controller and trace.controller != controller):
            continue
        if shown:
            print()
        Transcript(make_console(), trace.pool).whole(trace)
        shown += 1
    if not shown:
        if not ids:
            raise ConfigError(f"{file}: no trace is in it")
        if controller and controller not in controllers:
            near = did_you_mean(controller, controllers)
            raise ConfigError(f"{file}: no run of the controller {controller!r} is in it{near}")
        if id is not None and id not in ids:
            raise ConfigError(f"{file}: no question {id!r} is in it{did_you_mean(id, ids)}")
        raise ConfigError(f"{file}: no run of {controller!r} on the question {id!r} is in it")


FROM_LANGSMITH_EXAMPLES = """[bold]Examples[/bold]

router-r1 traces from-langsmith my-project --since 2026-11-01 \\
  --out traces.jsonl

router-r1 traces from-langsmith my-project \\
  --filter 'gte(start_time, "2026-11-20")' | jq .answer
"""


def from_langsmith(
    project: Annotated[str, typer.Argument(help="A LangSmith project or experiment.")],
    filter: Annotated[
        str | None, typer.Option(help="A filter of the router's runs, in LangSmith's language.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Only runs that began at this time (UTC) or later.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="standard output")
    ] = None,
) -> None:
    """Turn LangSmith's runs back into traces, a JSON line each, such as for training."""
    from ..langsmith.traces import read_langsmith
    from ..trace import write_traces

    require_file("--out", out)
    since = since and since.replace(tzinfo=UTC)
    traces = read_langsmith(project, filter=filter, since=since)
    if out is None:
        for trace in traces:
            print_json(trace.model_dump(mode="json"))
        return
    try:
        count = write_traces(out, traces)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    print(f"{out}: {counted(count, 'trace')}", file=sys.stderr)
