"""The output of `router-r1 pool measure`: the estimated cost, and the measurements."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..console import make_console
from ..outside import visible
from ..words import plain, shortened, unconfirmed, usd
from .tables import wilson

if TYPE_CHECKING:
    from ..evaluation.measuring import Measured


def print_estimate(measured: Sequence[Measured]) -> None:
    """Print the cost of the calls by list prices."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate", style="bold")
    for name in ("probes", "about", "at most"):
        table.add_column(name, justify="right")
    likely = most = 0.0
    for one in measured:
        about = sum(one.expected_usd(probe) for probe in one.probes)
        worst = sum(one.candidate.worst_case_usd(probe.question) for probe in one.probes)
        known, bounded = one.candidate.priced, one.candidate.bounded
        table.add_row(
            Text(visible(one.candidate.name)),
            str(len(one.probes)),
            usd(about) if known else "?",
            usd(worst) if bounded else "?",
        )
        likely, most = likely + about, most + worst
    table.add_row("together", str(sum(len(m.probes) for m in measured)), usd(likely), usd(most))
    make_console().print(table)
    if any(not one.candidate.bounded for one in measured):
        print("?: no price is listed; --budget-usd counts what the provider reports")


def measured_table(measured: Sequence[Measured]) -> Table:
    """Return the scores, with a line for each candidate and one for each of its domains."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate", no_wrap=True)
    for name in ("replies", "score", "95%", "$ per 1,000", "p50 s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("failed")
    for one in measured:
        everything = [score.score for score in one.scored]
        price = "?" if one.unpriced else usd(1000 * one.usd_per_call).removeprefix("$")
        table.add_row(
            Text(visible(one.candidate.name), style="bold"),
            *_scores(everything),
            price if one.scored else "-",
            "-" if one.seconds is None else f"{one.seconds:.2f}",
            Text(_failure(one)),
        )
        for domain, scores in one.domains.items():
            table.add_row(Text(f"  {visible(domain)}"), *_scores(scores))
    return table


def explain(measured: Sequence[Measured], budget_usd: float) -> None:
    """Print on standard error the cost, the candidates with too few probes, and open points."""
    paid = sum(one.paid_usd for one in measured)
    uncertain = sum(one.uncertain_usd for one in measured)
    print(f"paid: {usd(paid)}{unconfirmed(uncertain)}", file=sys.stderr)
    short = [
        f"{one.candidate.name} {len(one.scored) + one.failures} of {len(one.probes)}"
        for one in measured
        if one.ended == "budget"
    ]
    if short:
        print(
            f"--budget-usd {plain(budget_usd)} allows no more calls; asked: {', '.join(short)}",
            file=sys.stderr,
        )
    for why in dict.fromkeys(one.untimed for one in measured if one.untimed):
        names = ", ".join(one.candidate.name for one in measured if one.untimed == why)
        print(f"latency not measured: {names}: {why}", file=sys.stderr)
    if unpriced := [one.candidate.name for one in measured if one.scored and one.unpriced]:
        print(
            f"no price of {', '.join(unpriced)} is listed, and the provider reports none: add "
            "input_usd_per_mtok and output_usd_per_mtok (USD per million tokens) to the file",
            file=sys.stderr,
        )


def _scores(scores: Sequence[float]) -> tuple[str, str, str]:
    if not scores:
        return "0", "-", "-"
    low, high = wilson(sum(scores), len(scores))
    return str(len(scores)), f"{statistics.fmean(scores):.2f}", f"[{low:.2f}, {high:.2f}]"


def _failure(one: Measured) -> str:
    if one.error is None:
        return ""
    given_up = ", given up" if one.ended == "failing" else ""
    why = shortened(" ".join(visible(one.error.message).split()), 100)
    return f"{one.failures}{given_up}: {one.error.kind}: {why}"
