"""What `router-r1 fit auto` prints: every method, and what is kept at each cost weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..console import clean, make_console
from ..words import usd

if TYPE_CHECKING:
    from ..controllers.learned import LearnedController
    from ..controllers.learned.auto import Gain, Verdict


def print_compared(controller: LearnedController) -> None:
    """Print the tables and, in words, whether routing pays."""
    from ..controllers.learned.auto import as_good_for_less

    verdicts = controller.verdicts
    console = make_console()
    console.print("Utility gained over the best constant, cross-validated; * = clear of zero")
    console.print(_methods(verdicts))
    console.print()
    console.print(_kept(verdicts, measured=controller.cost_source == "measured"))
    console.print()
    routed = [verdict for verdict in verdicts if verdict.part is not None]
    weights = ", ".join(f"{verdict.cost_weight:g}" for verdict in routed) or "none"
    told = [f"Cost weights at which routing pays: {weights}."]
    if why := controller.caution(0.0):
        told.append(f"At cost weight 0 {why}.")
    if found := as_good_for_less(verdicts):
        best = verdicts[0]
        told.append(
            f"As right as {best.constant} ({found.score:.3f} to {best.constant_score:.3f}) at "
            f"{found.cost / best.constant_cost:.2f} of its cost: --cost-weight "
            f"{found.cost_weight:g}."
        )
    for line in told:
        console.print(Text(clean(line), style="bold"))


def _methods(verdicts: tuple[Verdict, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cost weight", justify="right")
    names = list(verdicts[0].methods)
    for name in (*names, "auto", "auto, 95%"):
        table.add_column(name, justify="right", no_wrap=True)
    for verdict in verdicts:
        table.add_row(
            f"{verdict.cost_weight:g}",
            *(_marked(verdict.methods[name]) for name in names),
            _marked(verdict.gain),
            f"[{verdict.gain.low:+.3f}, {verdict.gain.high:+.3f}]",
        )
    return table


def _kept(verdicts: tuple[Verdict, ...], *, measured: bool) -> Table:
    """Return what is kept; costs are USD for 1,000 questions, or prices per million tokens."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    cost = "$ / 1,000" if measured else "$ / Mtok"
    table.add_column("cost weight", justify="right")
    table.add_column("keeps")
    for name in ("score", cost, "same mix", "oracle", "reworded"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best constant")
    for name in ("score", cost):
        table.add_column(name, justify="right", no_wrap=True)
    scale = 1000 if measured else 1
    for v in verdicts:
        routes = v.part is not None
        # What the controller does where it does not route is what the constant does.
        table.add_row(
            f"{v.cost_weight:g}",
            Text(f"{v.setting}, margin {v.margin:g}" if routes else "the constant"),
            f"{v.score if routes else v.constant_score:.3f}",
            usd(scale * (v.cost if routes else v.constant_cost)).removeprefix("$"),
            f"{v.mix_score:.3f}" if routes else "",
            f"{v.oracle_score:.3f}",
            f"{v.same if routes else 1:.2f}",
            Text(clean(v.constant)),
            f"{v.constant_score:.3f}",
            usd(scale * v.constant_cost).removeprefix("$"),
        )
    return table


def _marked(gain: Gain) -> str:
    return f"{gain.mean:+.3f}{'*' if gain.low > 0 or gain.high < 0 else ' '}"
