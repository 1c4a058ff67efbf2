"""`router-r1 pool show | check | from-records`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..candidates.settings import ModelSettings
from ..console import make_console, print_note
from ..errors import ConfigError, PoolError, RouterR1Error
from ..files import require_file
from ..outside import visible
from ..words import counted
from .data_options import FieldsOption, read_fields
from .options import load_pool

SHOW_EXAMPLES = "[bold]Example[/bold]\n\nrouter-r1 pool show router_r1"
CHECK_EXAMPLES = """[bold]Examples[/bold]

router-r1 pool check mine.yaml

router-r1 pool check mine.yaml --live
"""


def show(
    file: Annotated[str, typer.Argument(help="A pool file or a shipped pool.")] = "embedded",
) -> None:
    """Show the candidates of a pool with their descriptors."""
    from .tables import pool_table

    console = make_console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console.width = 200
    console.print(pool_table(load_pool(file)))


def check(
    file: Annotated[str, typer.Argument(help="A pool file or a shipped pool.")],
    load: Annotated[
        bool, typer.Option("--load", help="Import the code that the file names, and start servers.")
    ] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Ask each model for one word, which costs a little; show its limits."
        ),
    ] = False,
) -> None:
    """Check a pool file, its keys and its providers; only --live asks the models.

    A pool file can name code: the code is shown, and run only with --load or --live.
    """
    from langchain_core.runnables import RunnablePassthrough

    from ..candidates.replay import strangers
    from ..candidates.tool import pool_tools
    from ..controllers import parse_controller

    pool = load_pool(file)
    pool.require_keys()
    load = load or live
    runs = {} if load else {c.name: code for c in pool.candidates if (code := _runs(c, c.name))}
    tools = pool_tools(pool, dict.fromkeys(runs, RunnablePassthrough()))
    if pool.controller and not load and (code := _runs(pool.controller, "controller")):
        runs["controller"] = code
    elif pool.controller:
        parse_controller("pool", pool)
    unpriced = [c.name for c in pool.candidates if not c.bounded]
    found = "keys and providers are in order"
    found += "" if live else "; --live asks each model"
    found = "the file names code, which was not run" if runs else found
    print(f"{visible(pool.name)}: {counted(len(pool.candidates), 'candidate')}; {found}")
    for name, code in runs.items():
        print(f"{name}: would {visible(code)} (--load does)")
    if pool.controller:
        print(f"controller: {visible(pool.controller.model)} ({pool.controller.protocol})")
    if unpriced:
        names = ", ".join(unpriced)
        print(f"warning: no price for {names}: a budget in USD cannot limit them")
    if others := strangers(pool):
        print(f"warning: there are records of {', '.join(others)}, which are not in this pool")
    if live:
        from .reached import ask_each, controller_tool, reached_table

        tools += [controller_tool(pool.controller)] if pool.controller else []
        bills = ask_each(tools)
        make_console().print(reached_table(tools, bills))
        if silent := [b["candidate"] for b in bills if b and not b["ok"]]:
            raise RouterR1Error(f"not reached: {', '.join(silent)}")


def _runs(settings: ModelSettings, name: str) -> str:
    """Return the user's code that building the chat model would run; "" for none."""
    from ..candidates.providers import code_of, find_code

    if settings.provider == "mcp":
        command = settings.options.get("command")
        return f"start {command}" if command else f"connect to {settings.options.get('url')}"
    code = code_of(settings)
    try:
        return f"import {code} from {find_code(code, settings.folder)}" if code else ""
    except ConfigError as error:
        raise PoolError(f"{name}: {error}") from None


FROM_RECORDS_EXAMPLES = """[bold]Examples[/bold]

router-r1 pool from-records records.jsonl --out replay.yaml

router-r1 pool from-records nq.jsonl --out nq.yaml --split train \\
  --fields candidate=model,reply=response --gold-field gold
"""


def from_records(
    file: Annotated[
        Path, typer.Argument(help="JSON lines, as router-r1 ask --record writes them.")
    ],
    out: Annotated[Path, typer.Option(help="The pool file to write; an existing one is replaced.")],
    fields: FieldsOption = "",
    gold_field: Annotated[
        str | None, typer.Option(help="The field with the gold answers, to score the candidates.")
    ] = None,
    split_field: Annotated[
        str, typer.Option(help="The field with the name of the split.")
    ] = "split",
    split: Annotated[
        str | None, typer.Option(help="Score on this split only, such as train.")
    ] = None,
) -> None:
    """Write a pool that replays recorded replies, with measured prices, latency and scores."""
    from ..candidates.measure import Source, pool_from_records
    from ..candidates.records import unknown_field

    require_file("--out", out)
    names = read_fields(fields, "question=q,reply=text")
    if wrong := unknown_field(names):
        raise ConfigError(f"--fields: {wrong}")
    pool = pool_from_records(Source(file, names, gold_field, split_field, split), out)
    if gold_field and split is None:
        print_note(
            "warning: scored on all the questions; name a --split to keep test questions out"
        )
    print(f"{out}: {counted(len(pool.candidates), 'candidate')}")
