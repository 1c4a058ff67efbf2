"""`router-r1 chat`: a conversation in the terminal, or one question a line from a pipe."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..console import make_console, print_note
from ..errors import ConfigError
from ..files import require_lines
from ..invalid import masked
from .options import (
    ControllerOption,
    PoolOption,
    RecordOption,
    load_controller,
    load_pool,
    loading,
    note_simulated,
    takes_knobs,
    warn_budget,
)
from .store_options import takes_replies

EXAMPLES = """[bold]Examples[/bold]

router-r1 chat

router-r1 chat --pool mine.yaml --controller openai:gpt-4.1 --budget-usd 0.01

router-r1 chat < questions.txt
"""


@takes_replies
@takes_knobs()
def chat(
    pool: PoolOption = "embedded",
    controller: ControllerOption = None,
    context: Any = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Append each answer's run to this JSONL file.")
    ] = None,
    record: RecordOption = None,
    replies: Any = None,
) -> None:
    """Ask questions one after the other, in one conversation, with the bill below each answer.

    The limits of a run apply to each answer. Ctrl-C stops an answer, Ctrl-D leaves.

    Commands: /bill, /trace, /help, /quit.

    Without a terminal, each line of standard input is a question.
    """
    if context.approve_above_usd is not None and not sys.stdin.isatty():
        raise ConfigError("--approve-above-usd asks you: standard input has to be a terminal")
    require_lines("--trace", trace, "traces")
    require_lines("--record", record, "replies")
    candidates = load_pool(pool)
    context.check(candidates)
    with loading(masked(controller or "the controller")):
        from langgraph.checkpoint.memory import InMemorySaver

        from ..candidates.records import Recorder
        from ..controllers import ChatModelController
        from ..graph import create_router_r1
        from ..transcript import Transcript
        from .session import Session

        decides = load_controller(controller, candidates, context)
    graph = create_router_r1(candidates, decides, context=context, replies=replies)
    warn_budget(candidates, context)
    note_simulated(candidates)
    if not isinstance(decides, ChatModelController):
        print_note(
            f"note: {decides.name} sees only the question, not the conversation before it; chat "
            "models (openai:MODEL) see both"
        )
    session = Session(
        graph.compile(InMemorySaver(), name="router_r1"),
        Transcript(make_console(), candidates),
        context,
        as_json=as_json,
        trace_file=trace,
        callbacks=[Recorder(record)] if record else [],
    )
    with _ends_on_sigterm():
        session.run()


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the session: it acts like Ctrl-C otherwise, and that only stops an answer."""

    def end(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
