"""A run as people read it: live in a terminal, plain text in a pipe.

Text of candidates is never trusted here either: control characters are taken out, and nothing is
read as markup.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from rich.console import Console
from rich.status import Status
from rich.text import Text

from . import protocol
from .budget import StopReason
from .candidates import CandidatePool
from .ledger import LedgerTotals, total
from .trace import Trace

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_WHY = {
    StopReason.ANSWERED: "the controller answered",
    StopReason.ROUND_LIMIT: "all rounds were used",
    StopReason.BUDGET_USD: "the budget did not allow another call",
    StopReason.DEADLINE: "the time was up",
    StopReason.INVALID: "the controller wrote nothing that can be read",
    StopReason.CONTROLLER_ERROR: "the controller failed",
}


def clean(text: str) -> str:
    """Take out what could control a terminal; line breaks and tabs stay."""
    return CONTROL.sub("", text)


def make_console() -> Console:
    """Return the console of standard output: live in a terminal, unless NO_COLOR is set."""
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(
        highlight=False,
        color_system=None if plain else "auto",
        force_interactive=None if sys.stdout.isatty() and not plain else False,
    )


def usd(amount: float) -> str:
    """Write an amount with as many digits as it needs."""
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.6f}"


class Transcript:
    """Prints what happens in a run while it happens.

    Args:
        console: where to; colours and the spinner appear in a terminal only.
        pool: the pool, for names.
    """

    def __init__(self, console: Console, pool: CandidatePool) -> None:
        self.console = console
        self.pool = pool
        self._asking: list[str] = []
        self._status: Status | None = None

    def __enter__(self) -> Transcript:
        """Start the spinner, in a terminal."""
        if self.console.is_interactive:
            self._status = self.console.status("thinking ...", spinner="dots")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the spinner."""
        if self._status:
            self._status.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to somebody else for a while."""
        self._asking = []
        if self._status:
            self._status.stop()
        yield
        if self._status:
            self._status.start()

    def question(self, question: str) -> None:
        """Print what was asked."""
        self._line(("question  ", "bold"), (question, "bold"))

    def event(self, event: Mapping[str, Any]) -> None:
        """Print one event of `stream_mode="tasks"`: a step that begins, or what it gave."""
        name, result = event["name"], event.get("result")
        if result is None and name == "think":
            self._busy("thinking ...")
        elif result is None and name == "route":
            self._asking.append(self._name(event["input"]["tool"]))
            self._busy(f"asking {', '.join(self._asking)} ...")
        elif result and name == "think":
            for message in _messages(result.get("scratchpad")):
                self.turn(message)
        elif result and name == "route":
            for message in _messages(result.get("replies")):
                self._asking = [n for n in self._asking if n != message.artifact["candidate"]]
                self._busy(f"asking {', '.join(self._asking)} ..." if self._asking else "")
                self.reply(message)

    def turn(self, message: Any) -> None:
        """Print one turn of the controller."""
        if not isinstance(message, AIMessage):
            return
        turn = protocol.parse(str(message.text))
        for thought in turn.thoughts:
            self._line(("think     ", "magenta"), (thought, "dim"))
        for call in message.tool_calls:
            name = self._name(call["name"])
            self._line(("route     ", "cyan"), (f"{name}: ", "bold"), (call["args"]["query"], ""))
        for refused in message.invalid_tool_calls:
            name = f"{self._name(refused['name'])}: " if refused["name"] else ""
            self._line(("not done  ", "yellow"), (name, "bold"), (refused["error"] or "", "yellow"))

    def reply(self, message: ToolMessage) -> None:
        """Print what one call brought back and cost."""
        bill = message.artifact
        cost = (
            f"  [{bill['output_tokens']} tokens, {usd(bill['cost_usd'])}, {bill['seconds']:.1f} s]"
        )
        style = "" if bill["ok"] else "red"
        self._line(
            ("reply     ", "green" if bill["ok"] else "red"),
            (f"{bill['candidate']}: ", "bold"),
            (str(message.text), style),
            (cost, "dim"),
        )

    def answer(self, answer: str, stop_reason: str, error: str = "") -> None:
        """Print the answer and why the run ended."""
        self._line(("answer    ", "bold green"), (answer or "(none)", "bold green"))
        why = _WHY[StopReason(stop_reason)] if stop_reason in list(StopReason) else stop_reason
        self._line(("stopped   ", "dim"), (why + (f": {error}" if error else ""), "dim"))

    def bill(self, totals: LedgerTotals, ledger: Mapping[str, Any]) -> None:
        """Print the bill, a line for everyone who was paid."""
        lines = [(name, line) for name, line in ledger["candidates"].items()]
        if ledger["controller"]["cost_usd"]:
            lines.append(("controller", ledger["controller"]))
        width = max([len(name) for name, _ in lines], default=5)
        for name, line in lines:
            failed = f", {line['failed_calls']} failed" if line["failed_calls"] else ""
            retries = f", {line['retries']} retries" if line["retries"] else ""
            self._line(
                ("bill      ", "blue"),
                (
                    f"{name:<{width}}  {usd(line['cost_usd'])}  {line['calls']} "
                    f"call{'s' * (line['calls'] != 1)}{failed}{retries}, "
                    f"{line['input_tokens']} + {line['output_tokens']} tokens",
                    "",
                ),
            )
        self._line(
            ("bill      ", "blue"),
            (f"{'total':<{width}}  {usd(totals['cost_usd'])}  {totals['seconds']:.1f} s", "bold"),
        )

    def whole(self, trace: Trace) -> None:
        """Print a finished run from beginning to end."""
        self.question(trace.question)
        for message in trace.scratchpad:
            if isinstance(message, ToolMessage):
                if message.artifact:
                    self.reply(message)
            else:
                self.turn(message)
        self.answer(trace.answer, trace.stop_reason, trace.error)
        self.bill(total(trace.ledger), trace.ledger)

    def _busy(self, words: str) -> None:
        if self._status:
            self._status.update(Text(words or "thinking ...", style="dim"))

    def _name(self, tool: str) -> str:
        candidate = self.pool.find(tool)
        return candidate.name if candidate else tool

    def _line(self, label: tuple[str, str], *parts: tuple[str, str]) -> None:
        text = Text()
        for words, style in parts:
            text.append(clean(words), style=style)
        indent = len(label[0])
        # In a terminal, lines break between words; a pipe has no width to keep to.
        width = self.console.width - indent if self.console.is_terminal else 1_000_000
        for number, line in enumerate(text.wrap(self.console, max(20, width))):
            line.rstrip()
            # Assembled: a style of the whole text would colour what is added, too.
            head = Text(" " * indent) if number else Text.assemble(label)
            self.console.print(head + line, soft_wrap=True, highlight=False)


def as_text(trace: Trace) -> str:
    """Return a finished run as plain text."""
    buffer = io.StringIO()
    console = Console(file=buffer, color_system=None, force_terminal=False, width=100)
    Transcript(console, trace.pool).whole(trace)
    return buffer.getvalue().rstrip()


def _messages(update: Any) -> list[Any]:
    """Return the messages of an update, whether it adds them or replaces what was there."""
    return list(getattr(update, "value", update) or [])
