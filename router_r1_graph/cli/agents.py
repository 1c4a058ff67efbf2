"""`router-r1 evaluate agents`: controllers compared in the embedded world of agents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..console import make_console, print_line
from ..errors import MissingExtraError

AGENT_TASKS = 600
"""Tasks without `--limit`: with 200, one seed in 13 does not tell the controls apart."""


def evaluate_agents(
    controllers: Sequence[str],
    *,
    cost_weight: float | None,
    count: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare controllers, print the table and the verdict, and write both to a folder.

    Raises:
        ControllerError: a spec is unknown.
        MissingExtraError: numpy or scikit-learn is not installed.
    """
    from rich.table import Table

    from ..controllers import parse_controller

    try:
        from ..agents.comparison import compare, world_pool
    except ImportError as error:
        raise MissingExtraError("evaluate agents", "eval", error) from error
    pool = world_pool()
    others = [parse_controller(spec, pool) for spec in controllers]
    result = compare(others, count=count, seed=seed, cost_weight=cost_weight)
    summary = json.dumps(result.summary(), indent=1)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "summary.json").write_text(summary + "\n", encoding="utf-8")
        result.fitted.save(out / "steps")
    if as_json:
        print(summary)
        return
    table = Table(title=f"{count} tasks of the embedded world of agents")
    for name in (
        "controller",
        "solved",
        "USD",
        "lost caches",
        "calls",
        "changes",
        "steps is ahead by",
    ):
        table.add_column(name, justify="left" if name == "controller" else "right")
    for row in result.rows:
        table.add_row(
            row.controller,
            f"{row.solved.mean:.3f}",
            str(row.cost_usd),
            f"{row.cache_loss_usd:.3f}",
            f"{row.calls:.1f}",
            f"{row.changes:.1f}",
            str(row.ahead or "-"),
        )
    console = make_console()
    console.print(table)
    print_line(console, ("", ""), (result.verdict(), ""))
    if out:
        console.print(f"controller: steps:{out / 'steps'}", soft_wrap=True)
