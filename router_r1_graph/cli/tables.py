"""Tables that several commands print."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ..candidates import CandidatePool
from ..outside import visible
from ..words import plain


def pool_table(pool: CandidatePool) -> Table:
    """Return a pool as a table; prices are USD per million tokens, and per call if there is one."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate", style="bold", no_wrap=True)
    by_call = any(c.usd_per_call is not None for c in pool.candidates)
    for name in ("$ in", "$ out", *(["$ a call"] if by_call else []), "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("strengths")
    table.add_column("scores")
    keys = any(c.variables for c in pool.candidates)
    if keys:
        table.add_column("key")
    for c in pool.candidates:
        scores = ", ".join(f"{name} {plain(score)}" for name, score in c.benchmarks.items())
        if len(c.benchmarks) > 4:
            low, high = min(c.benchmarks.values()), max(c.benchmarks.values())
            scores = f"{len(c.benchmarks)} subjects, {plain(low)} to {plain(high)}"
        strengths = ", ".join(c.strengths) if len(c.strengths) <= 4 else "everything"
        table.add_row(
            Text(visible(c.name)),
            _number(c.input_usd_per_mtok),
            _number(c.output_usd_per_mtok),
            *([_number(c.usd_per_call)] if by_call else []),
            _number(c.latency_seconds),
            Text(visible(strengths) or "-"),
            Text(visible(scores) or "-"),
            *([Text(c.key_state)] if keys else []),
        )
    return table


def _number(value: float | None) -> str:
    return "?" if value is None else plain(value)


def wilson(right: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference
    (1927).
    """
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = (
        z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    )
    # Rounding may put a share of 0 or 1 outside of its own interval.
    return max(0.0, min(share, middle - spread)), min(1.0, max(share, middle + spread))
