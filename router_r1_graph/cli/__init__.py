"""The command line: `router-r1 ask`, `chat`, `evaluate`, `fit`, `train`, `serve` and others.

Any mistake in the input is one line on stderr and exit code 2, before anything is asked.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Annotated, Any

import typer

from ..console import plain_logs
from ..errors import RouterR1Error
from ..outside import visible
from . import ask, bench, chat, evaluate, fit, measure, pool, replies, report, serve, traces, train

_HELP = {"context_settings": {"help_option_names": ["-h", "--help"]}}
app = typer.Typer(
    help="Router-R1: asks the right LLMs the right questions for the least money.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    **_HELP,  # type: ignore[arg-type]
)
of_pools = typer.Typer(
    help="Look at pools of candidates, measure them, and make one from records.",
    no_args_is_help=True,
    **_HELP,  # type: ignore[arg-type]
)
app.add_typer(of_pools, name="pool")
of_replies = typer.Typer(
    help="Look at the file in which replies are kept, empty it, or export it.",
    no_args_is_help=True,
    **_HELP,  # type: ignore[arg-type]
)
app.add_typer(of_replies, name="replies")
of_traces = typer.Typer(
    help="Show finished runs, or fetch them from LangSmith.",
    no_args_is_help=True,
    **_HELP,  # type: ignore[arg-type]
)
app.add_typer(of_traces, name="traces")
of_benchmarks = typer.Typer(
    help="Write and measure the files of public benchmarks of routers; no candidate is asked.",
    no_args_is_help=True,
    **_HELP,  # type: ignore[arg-type]
)
app.add_typer(of_benchmarks, name="bench")

of_training = typer.Typer(
    help="Train a policy, or write a config for it.",
    cls=train.ConfigOrCommand,
    epilog=train.EXAMPLES,
    subcommand_metavar="CONFIG [KEY=VALUE]... | init",
    no_args_is_help=True,
    **_HELP,  # type: ignore[arg-type]
)
app.add_typer(of_training, name="train")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"router-r1-graph {version('router-r1-graph')}")
        raise typer.Exit


app.command(epilog=ask.ASK_EXAMPLES)(ask.ask)
app.command(epilog=chat.EXAMPLES)(chat.chat)
app.command(epilog=ask.DEMO_EXAMPLES)(ask.demo)
app.command(epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=fit.EXAMPLES)(fit.fit)
app.command(epilog=serve.EXAMPLES)(serve.serve)
of_training.command("run", hidden=True, epilog=train.EXAMPLES)(train.run)
of_training.command("init", epilog=train.INIT_EXAMPLES)(train.init)
of_training.command("report", epilog=train.REPORT_EXAMPLES)(train.report)
of_pools.command("show", epilog=pool.SHOW_EXAMPLES)(pool.show)
of_pools.command("check", epilog=pool.CHECK_EXAMPLES)(pool.check)
of_pools.command("from-records", epilog=pool.FROM_RECORDS_EXAMPLES)(pool.from_records)
of_pools.command("measure", epilog=measure.EXAMPLES)(measure.measure)
of_replies.command("stats", epilog=replies.STATS_EXAMPLES)(replies.stats)
of_replies.command("clear", epilog=replies.CLEAR_EXAMPLES)(replies.clear)
of_replies.command("export", epilog=replies.EXPORT_EXAMPLES)(replies.export)
of_benchmarks.command("routerarena", epilog=bench.ARENA_EXAMPLES)(bench.routerarena)
of_benchmarks.command("routereval", epilog=bench.EVAL_EXAMPLES)(bench.routereval)
of_benchmarks.command("routerbench", epilog=bench.BENCH_EXAMPLES)(bench.routerbench)
of_traces.command("show", epilog=traces.SHOW_EXAMPLES)(traces.show)
of_traces.command("from-langsmith", epilog=traces.FROM_LANGSMITH_EXAMPLES)(traces.from_langsmith)


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@cache
def command() -> Callable[..., Any]:
    """Return what typer makes of `app`: once, as it takes 20 ms."""
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal in ASCII is no reason to crash
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    plain_logs()
    try:
        command()()
    except RouterR1Error as error:
        print(f"router-r1: {visible(str(error))}", file=sys.stderr)
        sys.exit(2)
