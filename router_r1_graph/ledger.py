"""The bill of a run: tokens, USD and seconds, for each candidate and for the controller.

Plain dicts, so that a checkpoint gives back what went in; every function returns a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, cast

from typing_extensions import TypedDict

from .candidates.reply import Reply
from .outside import AmountOfRun, CountOfRun


class LedgerLine(TypedDict):
    """The bill of one candidate, or of the controller.

    `stored_calls` are those whose reply came out of the reply store: they cost nothing, and would
    have cost `saved_usd`. Traces of earlier releases have neither. Where prompt caches were used or
    left, there are also `cached_input_tokens`, a part of the input tokens, and `cache_loss_usd`, a
    part of the cost: the price of changes of the model in an agent. Four more appear if they are
    not 0: `waited_seconds`, the waits for candidates' own limits; `hedges` among the retries;
    `uncertain_attempts`, which may be billed although no answer came that could be read; and
    `uncertain_usd`, the most that they cost, which is no part of `cost_usd`.
    """

    calls: CountOfRun
    failed_calls: CountOfRun
    retries: CountOfRun
    input_tokens: CountOfRun
    output_tokens: CountOfRun
    reasoning_tokens: CountOfRun
    cost_usd: AmountOfRun
    seconds: AmountOfRun
    stored_calls: NotRequired[CountOfRun]
    saved_usd: NotRequired[AmountOfRun]
    cached_input_tokens: NotRequired[CountOfRun]
    cache_loss_usd: NotRequired[AmountOfRun]
    waited_seconds: NotRequired[AmountOfRun]
    hedges: NotRequired[CountOfRun]
    uncertain_attempts: NotRequired[CountOfRun]
    uncertain_usd: NotRequired[AmountOfRun]


class Ledger(TypedDict):
    """The bill of a run. `seconds` is how long the run took: parallel calls count once."""

    controller: LedgerLine
    """The controller's turns, as calls; those of a rule cost nothing."""
    candidates: dict[str, LedgerLine]
    """The calls, by the candidate's name; only candidates that were asked."""
    seconds: AmountOfRun


class LedgerTotals(TypedDict):
    """The ledger in one line.

    `calls` and `failed_calls` are the candidates'; `stored_calls` and `saved_usd` are the
    controller's too.
    """

    cost_usd: float
    candidates_cost_usd: float
    controller_cost_usd: float
    input_tokens: int
    output_tokens: int
    seconds: float
    calls: int
    failed_calls: int
    stored_calls: int
    saved_usd: float
    cached_input_tokens: NotRequired[int]
    cache_loss_usd: NotRequired[float]
    waited_seconds: NotRequired[float]
    hedges: NotRequired[int]
    uncertain_attempts: NotRequired[int]
    uncertain_usd: NotRequired[float]


WHERE_ANY = (
    *("cached_input_tokens", "cache_loss_usd"),
    *("waited_seconds", "hedges", "uncertain_attempts", "uncertain_usd"),
)
"""Fields of a bill that are left out if they are 0."""


def new_ledger() -> Ledger:
    """Return an empty bill."""
    return {"controller": _line(), "candidates": {}, "seconds": 0.0}


def _line() -> LedgerLine:
    return {
        "calls": 0,
        "failed_calls": 0,
        "retries": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "reasoning_tokens": 0,
        "cost_usd": 0.0,
        "seconds": 0.0,
        "stored_calls": 0,
        "saved_usd": 0.0,
    }


def _where_any(*parts: Mapping[str, Any]) -> dict[str, Any]:
    sums: dict[str, Any] = {}
    for name in WHERE_ANY:
        for part in parts:
            if name in part:
                sums[name] = part[name] + sums.get(name, 0)
    return {name: amount for name, amount in sums.items() if amount}


def _charge(line: LedgerLine, bill: Mapping[str, Any]) -> LedgerLine:
    charged: LedgerLine = {
        "calls": line["calls"] + 1,
        "failed_calls": line["failed_calls"] + (not bill["ok"]),
        "retries": line["retries"] + max(0, bill["attempts"] - 1),
        "input_tokens": line["input_tokens"] + bill["input_tokens"],
        "output_tokens": line["output_tokens"] + bill["output_tokens"],
        "reasoning_tokens": line["reasoning_tokens"] + bill["reasoning_tokens"],
        "cost_usd": line["cost_usd"] + bill["cost_usd"],
        "seconds": line["seconds"] + bill["seconds"],
        "stored_calls": line.get("stored_calls", 0) + bill.get("stored", False),
        "saved_usd": line.get("saved_usd", 0.0) + bill.get("saved_usd", 0.0),
    }
    return cast("LedgerLine", {**charged, **_where_any(line, bill)})


def charge_controller(ledger: Ledger, reply: Reply) -> Ledger:
    """Return the ledger with one turn of the controller added."""
    line = _charge(ledger["controller"], {**vars(reply), "ok": reply.ok})
    return {**ledger, "controller": line, "seconds": ledger["seconds"] + reply.seconds}


def charge_candidates(ledger: Ledger, bills: list[Mapping[str, Any]]) -> Ledger:
    """Return the ledger with the calls of one round added; its time is that of the slowest."""
    lines = dict(ledger["candidates"])
    slowest = 0.0
    for bill in bills:
        failed = bill.get("instead_of")  # asked first, one after the other
        made = [failed, bill] if failed else [bill]
        for one in made:
            lines[one["candidate"]] = _charge(lines.get(one["candidate"], _line()), one)
        slowest = max(slowest, sum(one["seconds"] for one in made))
    return {**ledger, "candidates": lines, "seconds": ledger["seconds"] + slowest}


def added(one: Ledger, other: Ledger) -> Ledger:
    """Return the bill of two runs together."""
    names = [*one["candidates"], *other["candidates"]]
    return {
        "controller": _sum(one["controller"], other["controller"]),
        "candidates": {
            name: _sum(one["candidates"].get(name, _line()), other["candidates"].get(name, _line()))
            for name in names
        },
        "seconds": one["seconds"] + other["seconds"],
    }


def _sum(one: LedgerLine, other: LedgerLine) -> LedgerLine:
    first, second = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
    sums = {key: first.get(key, 0) + second.get(key, 0) for key in _line()}
    return cast("LedgerLine", {**sums, **_where_any(first, second)})


def total(ledger: Ledger) -> LedgerTotals:
    """Add the ledger up."""
    candidates = list(ledger["candidates"].values())
    everyone = [ledger["controller"], *candidates]
    paid = sum(line["cost_usd"] for line in candidates)
    totals: LedgerTotals = {
        "cost_usd": paid + ledger["controller"]["cost_usd"],
        "candidates_cost_usd": paid,
        "controller_cost_usd": ledger["controller"]["cost_usd"],
        "input_tokens": sum(line["input_tokens"] for line in everyone),
        "output_tokens": sum(line["output_tokens"] for line in everyone),
        "seconds": ledger["seconds"],
        "calls": sum(line["calls"] for line in candidates),
        "failed_calls": sum(line["failed_calls"] for line in candidates),
        "stored_calls": sum(line.get("stored_calls", 0) for line in everyone),
        "saved_usd": sum(line.get("saved_usd", 0.0) for line in everyone),
    }
    return cast("LedgerTotals", {**totals, **_where_any(*everyone)})


def most_paid_usd(line: LedgerLine | LedgerTotals) -> float:
    """Return the cost of a bill with the most that its uncertain attempts can have cost."""
    return line["cost_usd"] + line.get("uncertain_usd", 0.0)


def price_usd(line: LedgerLine | LedgerTotals) -> float:
    """Return the cost of a bill as if nothing was stored; rewards use this cost.

    A run that finds replies in the store is thus the same as one that pays for them.
    """
    return line["cost_usd"] + line.get("saved_usd", 0.0)
