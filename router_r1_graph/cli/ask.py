"""`router-r1 ask | demo`: questions through the graph, looked at one by one."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import make_console, print_note
from ..errors import ConfigError, QuestionError
from ..files import require_lines
from ..invalid import masked
from ..outside import visible
from ..words import shortened, usd
from .options import (
    ControllerOption,
    PoolOption,
    RecordOption,
    SeedOption,
    load_controller,
    load_pool,
    loading,
    note_simulated,
    print_json,
    takes_knobs,
    warn_budget,
)
from .route import show_explained, show_routing
from .store_options import takes_replies

if TYPE_CHECKING:
    from ..candidates import CandidatePool
    from ..candidates.store import ReplyStore
    from ..context import RouterContext
    from ..routing.planned_calls import Routing

ASK_EXAMPLES = """[bold]Examples[/bold]

router-r1 ask "In which city was the author of Hamlet born?"

router-r1 ask "Who wrote Hamlet?" --pool mine.yaml \\
  --controller openai:gpt-4.1 --budget-usd 0.01

router-r1 ask "Who wrote Hamlet?" --json | jq .answer

router-r1 ask "Who wrote Hamlet?" --route-only --explain
"""


_EXPLAINED = ("text", "calls", "descriptors", "reasons")
"""The keys of an explained turn in --json; its bill is the run's."""


@takes_replies
@takes_knobs()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    pool: PoolOption = "embedded",
    controller: ControllerOption = None,
    context: Any = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Append the whole run to this JSONL file.")
    ] = None,
    record: RecordOption = None,
    route_only: Annotated[
        bool,
        typer.Option(
            "--route-only",
            help="Let the controller write its first turn, show how likely each candidate was, "
            "and ask no candidate.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="With policy:PATH: show each descriptor as the policy reads it, and the effect of "
            "each part of it on the choice (occlusion). With reader:DIR: show its evidence.",
        ),
    ] = False,
    replies: Any = None,
) -> None:
    """Ask a question, and see the calls to candidates, their cost, and why the run ended.

    The exit code is 0 with an answer, even the candidates' "unknown", and 1 without one.
    """
    if question == "-":
        question = sys.stdin.buffer.read().decode(errors="replace")
    question = os.fsencode(question).decode(errors="replace").strip()
    if not question:
        raise QuestionError("the question is empty; ask something: router-r1 ask QUESTION")
    if route_only:
        for option, file in (("--trace", trace), ("--record", record)):
            if file is not None:
                raise ConfigError(f"{option}: with --route-only there is no run to keep")
        show_routing(question, load_pool(pool), controller, context, as_json, explain, replies)
        return
    if context.approve_above_usd is not None and not sys.stdin.isatty():
        raise ConfigError("--approve-above-usd asks you: standard input has to be a terminal")
    require_lines("--trace", trace, "traces")
    require_lines("--record", record, "replies")
    _ask(question, load_pool(pool), controller, context, as_json, trace, record, explain, replies)


def _ask(
    question: str,
    pool: CandidatePool,
    spec: str | None,
    context: RouterContext,
    as_json: bool,
    trace_file: Path | None,
    record_file: Path | None,
    explain: bool,
    replies: ReplyStore | None,
) -> None:
    context.check(pool)
    with loading(masked(spec or "the controller")):
        from langgraph.checkpoint.memory import InMemorySaver

        from ..answers import is_abstention
        from ..candidates.records import Recorder
        from ..graph import create_router_r1
        from ..ledger import total
        from ..routing.planned_calls import check_explains, explain_run
        from ..trace import Trace, write_traces
        from ..transcript import Transcript
        from .live import LiveRun

        controller = load_controller(spec, pool, context)
    if explain:
        check_explains(controller)
    warn_budget(pool, context)
    saver = InMemorySaver() if context.approve_above_usd is not None else None
    graph = create_router_r1(pool, controller, context=context, replies=replies)
    note_simulated(pool)
    transcript = None if as_json else Transcript(make_console(), pool)
    callbacks = [Recorder(record_file)] if record_file else []
    approve = approve_call if saver else None
    live = LiveRun(
        graph.compile(saver, name="router_r1"),
        pool,
        question,
        context,
        transcript,
        callbacks,
        approve,
    )
    try:
        if transcript:
            transcript.question(question)
        with transcript or nullcontext(), told_once():
            state = asyncio.run(live.run())
    except KeyboardInterrupt:
        known = live.known()
        if transcript:
            for unanswered in live.unanswered():
                transcript.reply(unanswered)
            transcript.answer(known["answer"])
            transcript.stopped("interrupted")
            transcript.bill(known["ledger"], live.ledger())
        else:
            print_json(known)
        raise
    record = Trace.from_state(state)
    outage = any(call.error == record.error for call in record.calls)
    explained: list[Routing] = []
    if explain:
        with loading("the explanation"):
            explained = list(explain_run(record, controller))
    if trace_file is not None:
        write_traces(trace_file, [record], append=True)
    if transcript:
        transcript.answer(record.answer)
        transcript.stopped(record.stop_reason, record.error)
        transcript.bill(total(record.ledger), record.ledger)
        show_explained(transcript.console, explained)
    else:
        if record.error:
            who = "no candidate replied" if outage else f"controller {controller.name} failed"
            print_note(f"{who}: {shortened(record.error)}")
        turns = [{name: turn.summary()[name] for name in _EXPLAINED} for turn in explained]
        print_json({**record.summary(), **({"explained": turns} if explain else {})})
    replied = any(call.ok for call in record.calls)
    if not record.answer or (not replied and is_abstention(record.answer)):
        raise SystemExit(1)


@contextmanager
def told_once() -> Iterator[None]:
    """Keep the library from logging that a controller failed: the last lines say so."""
    logger = logging.getLogger("router_r1_graph.nodes")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def approve_call(call: Mapping[str, Any]) -> bool:
    """Ask the person at the terminal whether a call may be made; any answer but "y" is a no."""
    worst = call["worst_case_usd"]
    price = "no price is known" if worst is None else f"at most {usd(worst)}"
    asked = visible(f"{call['candidate']}: {shortened(call['query'])}  [{price}]")
    # Nothing else runs meanwhile, and Ctrl-C is not to wait for asyncio, which waits for us.
    asyncios = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # On standard error: with --json, standard output is one object.
        print(f"approve?  {asked} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    finally:
        signal.signal(signal.SIGINT, asyncios)


DEMO_EXAMPLES = """[bold]Examples[/bold]

router-r1 demo

router-r1 demo --questions 50 --pool embedded_unseen

router-r1 demo --json | jq .controllers
"""


def demo(
    questions: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many test questions the table is made of.")
    ] = 100,
    seed: SeedOption = 0,
    pool: PoolOption = "embedded",
    out: Annotated[Path, typer.Option(help="The folder for the picture.")] = Path("runs/tour"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON only.")] = False,
) -> None:
    """Take a two-minute tour: a pool, some questions, a table of controllers, and its picture."""
    candidates = load_pool(pool)
    with loading("the tour"):
        from .tour import compared, run_tour
    if not as_json:
        run_tour(make_console(), candidates, questions=questions, seed=seed, out=out)
        return
    print_json(compared(candidates, questions, seed, make_console(stderr=True)).to_json())
