"""The output of `router-r1 fit auto`: every method, and the choice at each cost weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..console import make_console
from ..outside import visible
from ..words import rounded

if TYPE_CHECKING:
    from ..controllers.learned import LearnedController
    from ..controllers.learned.verdict import Gain, Verdict


def print_compared(controller: LearnedController) -> None:
    """Print the tables and, in words, whether routing pays."""
    from ..controllers.learned.verdict import as_good_for_less

    verdicts = controller.verdicts
    console = make_console()
    console.print("Utility gained over the best constant, cross-validated (* = clear of zero)")
    console.print(_methods(verdicts))
    console.print()
    console.print("What is kept at each cost weight (mix: at random, at the same cost; same: the")
    console.print("share of reworded questions that go to the same candidate)")
    console.print(_kept(verdicts, measured=controller.cost_source == "measured"))
    if any(verdict.some_missing for verdict in verdicts):
        console.print("?: scores are missing; each mean is over the questions that have a score")
    console.print()
    routed = [verdict for verdict in verdicts if verdict.part is not None]
    weights = ", ".join(f"{verdict.cost_weight:g}" for verdict in routed) or "none"
    told = [f"Cost weights at which routing pays: {weights}."]
    if untold := [f"{v.cost_weight:g}" for v in verdicts if not v.gain.known]:
        told.append(f"Cost weights at which these data cannot tell: {', '.join(untold)}.")
    if why := controller.caution(0.0):
        told.append(f"At cost weight 0 {why}.")
    if found := as_good_for_less(verdicts):
        best = verdicts[0]
        numbers = (
            f"{found.score:.3f} to {best.constant_score:.3f}"
            if found.least is None
            else f"by {found.least:+.3f} or more, whatever the missing scores are"
        )
        told.append(
            f"At least as right as {best.constant} ({numbers}) at "
            f"{found.cost / best.constant_cost:.2f} of its cost: "
            f"--cost-weight {found.cost_weight:g}."
        )
    for line in told:
        console.print(Text(visible(line), style="bold"))


def _methods(verdicts: tuple[Verdict, ...]) -> Table:
    names = list(verdicts[0].methods)
    rows = [["weight", *names, "auto", "95%"]]
    for verdict in verdicts:
        gain = verdict.gain
        rows.append(
            [
                f"{verdict.cost_weight:g}",
                *(_marked(verdict.methods[name]) for name in names),
                _marked(gain),
                f"[{_short(gain.low)}, {_short(gain.high)}]" if gain.known else "unknown",
            ]
        )
    return _table(rows)


def _kept(verdicts: tuple[Verdict, ...], *, measured: bool) -> Table:
    """Return the kept choices; costs are USD for 1,000 questions, or prices per million tokens."""
    cost = "$/1,000" if measured else "$/Mtok"
    rows = [["weight", "score", cost, "constant", cost, "mix", "oracle", "same"]]
    scale = 1000 if measured else 1
    asks = []
    for v in verdicts:
        routes = v.part is not None
        score, paid = v.kept
        doubt = "?" * v.some_missing
        rows.append(
            [
                f"{v.cost_weight:g}",
                f"{score:.3f}{doubt}",
                f"{scale * paid:.4f}",
                f"{v.constant_score:.3f}{doubt}",
                f"{scale * v.constant_cost:.4f}",
                f"{v.mix_score if routes else score:.3f}{doubt}",
                f"{v.oracle_score:.3f}{doubt}",
                f"{v.same if routes else 1:.2f}",
            ]
        )
        asks.append(visible(f"{v.setting}, margin {v.margin:g}" if routes else v.constant))
    return _table(rows, asks)


def _table(rows: list[list[str]], asks: Sequence[str] = ()) -> Table:
    """Return a table with uncut numbers in any terminal; the last column gets the other width."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    head, *body = rows
    for name, column in zip(head, zip(*rows, strict=True), strict=True):
        table.add_column(name, justify="right", no_wrap=True, min_width=max(map(len, column)))
    if asks:
        table.add_column("asks", overflow="fold")
    for number, row in enumerate(body):
        table.add_row(*row, *(Text(name) for name in asks[number : number + 1]))
    return table


def _marked(gain: Gain) -> str:
    if not gain.known:
        return "? "
    return _short(gain.mean) + ("*" if gain.low > 0 or gain.high < 0 else " ")


def _short(number: float) -> str:
    return rounded(number, 3, "+").replace("0.", ".", 1)
