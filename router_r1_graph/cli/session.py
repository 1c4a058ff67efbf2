"""The session of `router-r1 chat`: questions and commands, one a line, on one thread."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langgraph.graph.state import CompiledStateGraph

from ..console import print_line
from ..context import RouterContext
from ..errors import RouterR1Error, did_you_mean
from ..ledger import Ledger, added, new_ledger, total
from ..outside import visible
from ..trace import Trace, write_traces
from ..transcript import Transcript
from ..words import counted, rounded, shortened, unconfirmed, usd
from .ask import approve_call, told_once
from .live import INTERRUPTED, LiveRun
from .options import print_json

with suppress(ImportError):  # edits lines, and remembers them; not on every system
    import readline  # noqa: F401

_HELP = {
    "/bill": "what this session has cost so far, by candidate",
    "/trace": "the last answer once more, with every call and the whole bill",
    "/help": "these commands",
    "/quit": "leave; Ctrl-D does the same",
}


class Session:
    """A conversation: its thread, its bill and its last answer.

    Args:
        graph: the compiled router, with a checkpointer.
        transcript: where to print.
        context: the knobs of each answer.
        as_json: print JSON objects instead of the transcript.
        trace_file: where to append each finished run; None = nowhere.
        callbacks: of each run.
    """

    def __init__(
        self,
        graph: CompiledStateGraph[Any, RouterContext, Any, Any],
        transcript: Transcript,
        context: RouterContext,
        *,
        as_json: bool,
        trace_file: Path | None,
        callbacks: Sequence[BaseCallbackHandler],
    ) -> None:
        self.graph = graph
        self.transcript = transcript
        self.context = context
        self.as_json = as_json
        self.trace_file = trace_file
        self.callbacks = callbacks
        self.ledger = new_ledger()
        self.last: Trace | None = None
        self.commands: dict[str, Callable[[], None]] = {
            "/bill": self._bill,
            "/trace": self._trace,
            "/help": self._help,
        }

    def run(self) -> None:
        """Answer questions and commands until there are no more."""
        if sys.stdin.isatty():
            print("/help lists the commands; Ctrl-D leaves", file=sys.stderr)
        while True:
            try:
                line = _next_line()
                if line is None or line == "/quit":
                    return
                if line.startswith("/"):
                    self._command(line)
                elif line:
                    self._answer(line)
            except RouterR1Error as error:  # of this question: the next may well be answered
                print(f"router-r1: {visible(str(error))}", file=sys.stderr)
            except KeyboardInterrupt:  # the line that is being typed is dropped
                if not sys.stdin.isatty():
                    raise
                print("  (Ctrl-D leaves)", file=sys.stderr)

    def _command(self, line: str) -> None:
        if command := self.commands.get(line):
            command()
            return
        near = did_you_mean(line, _HELP)
        print(f"router-r1: no command {line!r}{near}; /help lists them", file=sys.stderr)

    def _answer(self, question: str) -> None:
        """Answer one question; Ctrl-C ends the answer, not the session."""
        shown = None if self.as_json else self.transcript
        if shown and not sys.stdin.isatty():
            shown.question(question)  # nobody has typed it here
        live = LiveRun(
            self.graph,
            self.transcript.pool,
            question,
            self.context,
            shown,
            self.callbacks,
            approve_call if self.context.approve_above_usd is not None else None,
            thread="chat",
        )
        try:
            with shown or nullcontext(), told_once():
                state = asyncio.run(live.run())
        except KeyboardInterrupt:
            self._interrupted(live, shown)
            return
        run = self.last = Trace.from_state(state)
        self.ledger = added(self.ledger, run.ledger)
        if self.trace_file is not None:
            write_traces(self.trace_file, [run], append=True)
        if shown is None:
            print_json({**run.summary(), "session_usd": self._session_usd()})
            if run.error:
                outage = any(call.error == run.error for call in run.calls)
                who = "no candidate replied" if outage else "the controller failed"
                print(f"{who}: {shortened(run.error)}", file=sys.stderr)
            return
        shown.answer(run.answer)
        if run.stop_reason != "answered":
            shown.stopped(run.stop_reason, run.error)
        self._line(run.ledger)

    def _interrupted(self, live: LiveRun, shown: Transcript | None) -> None:
        """Show and bill the results of a stopped answer so far; the thread goes on after it."""
        self.ledger = added(self.ledger, live.ledger())
        said = AIMessage("(stopped before there was an answer)")
        self.graph.update_state(live.config, {"messages": [said]}, as_node="answer")
        if shown is None:
            print_json({**live.known(), "session_usd": self._session_usd()})
            return
        for unanswered in live.unanswered():
            shown.reply(unanswered)
        shown.stopped(INTERRUPTED)
        self._line(live.ledger())

    def _line(self, ledger: Ledger) -> None:
        """Print the bill of an answer and that of the session, in one line."""
        one = total(ledger)
        failed = f" ({one['failed_calls']} failed)" if one["failed_calls"] else ""
        saved = f", {usd(one['saved_usd'])} saved" if one["stored_calls"] else ""
        unsure = unconfirmed(one.get("uncertain_usd", 0.0))
        words = f"{usd(one['cost_usd'])}{unsure}{saved}, {counted(one['calls'], 'call')}{failed}, "
        words += f"{rounded(one['seconds'], 1)} s; {usd(self._session_usd())} in this session"
        print_line(self.transcript.console, ("bill      ", "blue"), (words, "dim"))

    def _session_usd(self) -> float:
        return total(self.ledger)["cost_usd"]

    def _bill(self) -> None:
        if self.as_json:
            print_json(dict(total(self.ledger)))
        else:
            self.transcript.bill(total(self.ledger), self.ledger)

    def _trace(self) -> None:
        if self.last is None:
            print("no answer yet", file=sys.stderr)
        elif self.as_json:
            print_json(self.last.model_dump(mode="json"))
        else:
            self.transcript.whole(self.last)

    def _help(self) -> None:
        for name, what in _HELP.items():
            print(f"{name:<8}{what}", file=sys.stderr)


def _next_line() -> str | None:
    """Return the next line without the space around it; None when there are no more."""
    if not sys.stdin.isatty():
        sys.stdout.flush()  # the program at the other end may wait for the answer to ask on
        line = sys.stdin.buffer.readline()
        return line.decode(errors="replace").strip() if line else None
    try:
        typed = input("> ") if sys.stdout.isatty() else _asked_on_stderr()
    except EOFError:
        print(file=sys.stderr)
        return None
    return os.fsencode(typed).decode(errors="replace").strip()


def _asked_on_stderr() -> str:
    print("> ", end="", file=sys.stderr, flush=True)
    if not (line := sys.stdin.readline()):
        raise EOFError
    return line
