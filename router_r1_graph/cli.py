"""The command line: `router-r1 ask | demo | pool | traces`.

Whatever is wrong with the input is one line on stderr and exit code 2, before anything is asked.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import ConfigError, QuestionError, RouterR1Error

if TYPE_CHECKING:  # LangGraph takes half a second: imported by the commands, not for --help
    from .candidates import CandidatePool
    from .context import RouterContext

_HELP = {"context_settings": {"help_option_names": ["-h", "--help"]}}
app = typer.Typer(
    help="Router-R1: asks the right LLMs the right questions for the least money.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    **_HELP,  # type: ignore[arg-type]
)
pools = typer.Typer(
    help="Look at pools of candidates.",
    no_args_is_help=True,
    **_HELP,  # type: ignore[arg-type]
)
app.add_typer(pools, name="pool")
trace_files = typer.Typer(
    help="Fetch finished runs.",
    no_args_is_help=True,
    **_HELP,  # type: ignore[arg-type]
)
app.add_typer(trace_files, name="traces")

PoolOption = Annotated[
    str,
    typer.Option(
        "--pool", help="A pool file, or a shipped pool: embedded, embedded_unseen, router_r1."
    ),
]
ControllerOption = Annotated[
    str | None,
    typer.Option(
        "--controller",
        help="Who decides: keyword, cheapest, random[:SEED], constant:NAME, oracle, openai:MODEL, "
        "policy:PATH, or pool (the pool's controller block, the default where there is one).",
        show_default="pool, else keyword",
    ),
]

_ASK_EXAMPLES = """[bold]Examples[/bold]

router-r1 ask "What is the currency of the country where the author of Hamlet was born?"

router-r1 ask "Who wrote Hamlet?" --pool mine.yaml --controller openai:gpt-4.1 --budget-usd 0.01

router-r1 ask "Who wrote Hamlet?" --json | jq .answer
"""


@app.command(epilog=_ASK_EXAMPLES)
def ask(
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    pool: PoolOption = "embedded",
    controller: ControllerOption = None,
    cost_weight: Annotated[
        float, typer.Option(help="0 = only the answer counts, 1 = only the cost.")
    ] = 0.5,
    max_rounds: Annotated[int, typer.Option(help="Rounds of calls before it has to answer.")] = 4,
    max_calls: Annotated[int, typer.Option(help="Most calls in one round.")] = 4,
    budget_usd: Annotated[float | None, typer.Option(help="Most USD of the run.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Most seconds of the run.")] = None,
    seed: Annotated[int, typer.Option(help="For controllers that draw at random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Append the whole run to this JSONL file.")
    ] = None,
) -> None:
    """Ask a question, and see who was asked what, what it cost, and why it stopped."""
    from .context import RouterContext

    if question == "-":
        question = sys.stdin.buffer.read().decode(errors="replace")
    question = os.fsencode(question).decode(errors="replace").strip()
    if not question:
        raise QuestionError("the question is empty; ask something: router-r1 ask QUESTION")
    context = RouterContext(
        cost_weight=cost_weight,
        max_rounds=max_rounds,
        max_calls_per_round=max_calls,
        budget_usd=budget_usd,
        deadline_seconds=deadline,
        seed=seed,
    )
    if trace is not None:
        try:
            new = not trace.exists()
            trace.open("a", encoding="utf-8").close()
            if new:
                trace.unlink()
        except OSError as error:
            raise ConfigError(f"--trace {trace}: cannot be written: {error.strerror}") from error
    _ask(question, _pool(pool), controller, context, as_json, trace)


def _ask(
    question: str,
    pool: CandidatePool,
    spec: str | None,
    context: RouterContext,
    as_json: bool,
    trace_file: Path | None,
) -> None:
    from .graph import create_router_r1
    from .ledger import total
    from .live import LiveRun
    from .trace import Trace, write_traces
    from .transcript import Transcript, make_console

    controller = _controller(spec, pool)
    unpriced = [c.name for c in pool.candidates if c.output_usd_per_mtok is None]
    if context.budget_usd is not None and unpriced:
        print(
            f"warning: no price for {', '.join(unpriced)}: the budget does not bound them",
            file=sys.stderr,
        )
    graph = create_router_r1(pool, controller, context=context).compile(name="router_r1")
    transcript = None if as_json else Transcript(make_console(), pool)
    live = LiveRun(graph, pool, question, context, transcript)
    try:
        if transcript:
            transcript.question(question)
            with transcript:
                state = asyncio.run(live.run())
        else:
            state = asyncio.run(live.run())
    except KeyboardInterrupt:
        known = live.known()
        if transcript:
            for unanswered in live.unanswered():
                transcript.reply(unanswered)
            transcript.answer(known["answer"], "interrupted")
            transcript.bill(known["ledger"], live.ledger())
        else:
            _print_json(known)
        raise
    record = Trace.from_state(state, pool=pool, controller=controller.name, context=context)
    if trace_file is not None:
        write_traces(trace_file, [record], append=True)
    if transcript:
        transcript.answer(record.answer, record.stop_reason, record.error)
        transcript.bill(total(record.ledger), record.ledger)
    else:
        if record.error:
            print(f"controller {controller.name} failed: {record.error}", file=sys.stderr)
        _print_json(record.summary())


_DEMO_EXAMPLES = """[bold]Examples[/bold]

router-r1 demo

router-r1 demo --questions 50 --pool embedded_unseen

router-r1 demo --json | jq .controllers
"""


@app.command(epilog=_DEMO_EXAMPLES)
def demo(
    questions: Annotated[int, typer.Option(min=1, help="Test questions of the table.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the questions.")] = 0,
    pool: PoolOption = "embedded",
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON only.")] = False,
) -> None:
    """Take a two-minute tour: a pool, some questions, and a table of controllers."""
    from .tour import compare, run_tour
    from .transcript import make_console

    if not as_json:
        run_tour(make_console(), _pool(pool), questions=questions, seed=seed)
        return
    scores = asyncio.run(compare(_pool(pool), questions, seed))
    rows = [asdict(score) for score in scores]
    _print_json({"questions": questions, "seed": seed, "controllers": rows})


@pools.command("show", epilog="[bold]Example[/bold]\n\nrouter-r1 pool show router_r1")
def pool_show(
    file: Annotated[str, typer.Argument(help="A pool file or a shipped pool.")] = "embedded",
) -> None:
    """Show the candidates of a pool with their descriptors."""
    from .tour import pool_table
    from .transcript import make_console

    console = make_console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console.width = 200
    console.print(pool_table(_pool(file)))


@pools.command("check", epilog="[bold]Example[/bold]\n\nrouter-r1 pool check mine.yaml")
def pool_check(
    file: Annotated[str, typer.Argument(help="A pool file or a shipped pool.")],
) -> None:
    """Check a pool file, its keys and its providers, without asking anybody."""
    from .controllers import parse_controller
    from .tools import pool_tools

    pool = _pool(file)
    tools = pool_tools(pool)
    if pool.controller:
        parse_controller("pool", pool)
    unpriced = [c.name for c in pool.candidates if c.output_usd_per_mtok is None]
    print(f"{pool.name}: {len(tools)} candidates, all can be asked")
    if pool.controller:
        print(f"controller: {pool.controller.model} ({pool.controller.protocol})")
    if unpriced:
        names = ", ".join(unpriced)
        print(f"warning: no price for {names}: a budget in USD does not bound them")


_FROM_LANGSMITH_EXAMPLES = """[bold]Examples[/bold]

router-r1 traces from-langsmith my-project --since 2026-11-01 --out traces.jsonl

router-r1 traces from-langsmith my-project --filter 'gte(start_time, "2026-11-20")' | jq .answer
"""


@trace_files.command("from-langsmith", epilog=_FROM_LANGSMITH_EXAMPLES)
def traces_from_langsmith(
    project: Annotated[str, typer.Argument(help="A LangSmith project or experiment.")],
    filter: Annotated[
        str | None, typer.Option(help="Which of its router runs, in LangSmith's filter language.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Runs that began at this time (UTC) or later.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; standard output when left out.")
    ] = None,
) -> None:
    """Turn LangSmith's runs back into traces, a JSON line each (for training, among others)."""
    from .trace import write_traces
    from .tracing import read_langsmith

    since = since and since.replace(tzinfo=UTC)
    traces = read_langsmith(project, filter=filter, since=since)
    if out is None:
        for trace in traces:
            _print_json(trace.model_dump(mode="json"))
        return
    try:
        count = write_traces(out, traces)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    print(f"{out}: {count} traces", file=sys.stderr)


def _print_json(data: dict[str, Any]) -> None:
    """Print one object, as it is where standard output can say it, and escaped elsewhere.

    What could control a terminal is escaped in any case: it is the same JSON.
    """
    from .transcript import CONTROL

    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(data, ensure_ascii=not utf8)
    print(CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"router-r1-graph {version('router-r1-graph')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _pool(name: str) -> CandidatePool:
    from .candidates import CandidatePool

    return CandidatePool.from_yaml(name)


def _controller(spec: str | None, pool: CandidatePool) -> Any:
    from .controllers import parse_controller

    return parse_controller(spec or ("pool" if pool.controller else "keyword"), pool)


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal in ASCII is no reason to crash
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    try:
        app()
    except RouterR1Error as error:
        print(f"router-r1: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
