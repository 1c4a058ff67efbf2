"""A run as people read it: live in a terminal, plain text in a pipe.

Text of candidates is never trusted here either: control characters are removed, and no text is
read as markup.
"""

from __future__ import annotations

import io
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
from .console import print_line
from .ledger import LedgerTotals, most_paid_usd, price_usd, total
from .trace import Trace
from .words import counted, rounded, shortened, unconfirmed, usd

_WHY = {
    StopReason.ANSWERED: "the controller answered",
    StopReason.ROUND_LIMIT: "all rounds were used",
    StopReason.BUDGET_USD: "the budget did not allow another call",
    StopReason.DEADLINE: "the time was up",
    StopReason.INVALID: "the controller wrote nothing that can be read",
    StopReason.NO_REPLY: "no candidate replied",
    StopReason.CONTROLLER_ERROR: "the controller failed",
}


class Transcript:
    """Prints the events of a run as they happen.

    Args:
        console: where to; colours and the spinner appear in a terminal only.
        pool: the pool, for names.
    """

    def __init__(self, console: Console, pool: CandidatePool) -> None:
        self.console = console
        self.pool = pool
        self._asking: list[str] = []
        self._replied: set[str] = set()  # the calls of the round whose replies are printed
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
        """Print the question."""
        self._line(("question  ", "bold"), (shortened(question), "bold"))

    def event(self, event: Mapping[str, Any]) -> None:
        """Print one event of `stream_mode="tasks"`: a step that begins, or its result."""
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
                bill = message.artifact
                came = (bill.get("instead_of") or bill)["candidate"]
                self._asking = [name for name in self._asking if name != came]
                self._busy(f"asking {', '.join(self._asking)} ..." if self._asking else "")
                self._replied.add(message.tool_call_id)
                self.reply(message)
        elif result and name == "aggregate":
            for message in _messages(result.get("scratchpad")):
                if message.artifact and message.tool_call_id not in self._replied:
                    # The same query to the same candidate again: nobody was asked.
                    self.reply(message.model_copy(update={"content": message.artifact["reply"]}))
            self._replied.clear()

    def turn(self, message: Any) -> None:
        """Print one turn of the controller."""
        if not isinstance(message, AIMessage):
            return
        turn = protocol.parse(str(message.text))
        for thought in turn.thoughts:
            self._line(("think     ", "magenta"), (thought, "dim"))
        for call in message.tool_calls:
            name = self._name(call["name"])
            query = shortened(call["args"]["query"])
            self._line(("route     ", "cyan"), (f"{name}: ", "bold"), (query, ""))
        for refused in message.invalid_tool_calls:
            name = f"{self._name(refused['name'])}: " if refused["name"] else ""
            self._line(("not done  ", "yellow"), (name, "bold"), (refused["error"] or "", "yellow"))

    def reply(self, message: ToolMessage) -> None:
        """Print the reply to one call, and its cost."""
        bill = message.artifact
        price = _price(bill)
        if bill["cached"]:
            price += " (cached)"
        if bill.get("stored"):
            price += f" (stored; {usd(bill['saved_usd'])} saved)"
        cost = (
            f"  [{counted(bill['output_tokens'], 'token')}, {price}, "
            f"{rounded(bill['seconds'], 1)} s]"
        )
        if failed := bill.get("instead_of"):
            self._line(
                ("reply     ", "red"),
                (f"{failed['candidate']}: ", "bold"),
                (f"error: {failed['error']['message']}", "red"),
                (f"  [{_price(failed)}, {rounded(failed['seconds'], 1)} s]", "dim"),
            )
        style = "" if bill["ok"] else "red"
        self._line(
            ("reply     ", "green" if bill["ok"] else "red"),
            (f"{bill['candidate']}: ", "bold"),
            (str(message.text), style),
            (
                f"  ({doubt['message']})" if bill["ok"] and (doubt := bill["error"]) else "",
                "yellow",
            ),
            (cost, "dim"),
        )

    def answer(self, answer: str) -> None:
        """Print the answer."""
        self._line(("answer    ", "bold green"), (answer or "(none)", "bold green"))

    def stopped(self, stop_reason: str, error: str = "") -> None:
        """Print why the run ended."""
        why = _WHY[StopReason(stop_reason)] if stop_reason in list(StopReason) else stop_reason
        self._line(("stopped   ", "dim"), (why + (f": {shortened(error)}" if error else ""), "dim"))

    def bill(self, totals: LedgerTotals, ledger: Mapping[str, Any]) -> None:
        """Print the bill, a line for each candidate or controller that was or may be paid."""
        lines = [(name, line) for name, line in ledger["candidates"].items()]
        if price_usd(ledger["controller"]) or most_paid_usd(ledger["controller"]):
            lines.append(("controller", ledger["controller"]))
        width = max([len(name) for name, _ in lines], default=5)
        for name, line in lines:
            failed = f", {line['failed_calls']} failed" if line["failed_calls"] else ""
            retries = f", {counted(line['retries'], 'retry', 'retries')}" if line["retries"] else ""
            stored = f", {stored} stored" if (stored := line.get("stored_calls")) else ""
            self._line(
                ("bill      ", "blue"),
                (
                    f"{name:<{width}}  {_price(line)}  "
                    f"{counted(line['calls'], 'call')}{failed}{retries}{stored}, "
                    f"{line['input_tokens']} + {counted(line['output_tokens'], 'token')}",
                    "",
                ),
            )
        saved = f" ({usd(totals['saved_usd'])} saved)" if totals["stored_calls"] else ""
        self._line(
            ("bill      ", "blue"),
            (
                f"{'total':<{width}}  {_price(totals)}{saved}  {rounded(totals['seconds'], 1)} s",
                "bold",
            ),
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
        self.answer(trace.answer)
        self.stopped(trace.stop_reason, trace.error)
        self.bill(total(trace.ledger), trace.ledger)

    def _busy(self, words: str) -> None:
        if self._status:
            self._status.update(Text(words or "thinking ...", style="dim"))

    def _name(self, tool: str) -> str:
        candidate = self.pool.find(tool)
        return candidate.name if candidate else tool

    def _line(self, label: tuple[str, str], *parts: tuple[str, str]) -> None:
        print_line(self.console, label, *parts)


def as_text(trace: Trace) -> str:
    """Return a finished run as plain text."""
    buffer = io.StringIO()
    console = Console(file=buffer, color_system=None, force_terminal=False, width=100)
    Transcript(console, trace.pool).whole(trace)
    return buffer.getvalue().rstrip()


def _price(bill: Mapping[str, Any]) -> str:
    return usd(bill["cost_usd"]) + unconfirmed(bill.get("uncertain_usd", 0.0))


def _messages(update: Any) -> list[Any]:
    """Return the messages of an update, whether it adds to the old ones or replaces them."""
    return list(getattr(update, "value", update) or [])
