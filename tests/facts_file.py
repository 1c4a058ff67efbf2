"""A world's facts, as a file that `World.from_csv` and a pool's option `facts` read."""

from __future__ import annotations

import csv
from pathlib import Path

from router_r1_graph.simulation import World
from router_r1_graph.simulation.world import COLUMNS


def write_facts(world: World, path: Path) -> None:
    """Write the facts of a world, a line for each."""
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        lines.writerows([getattr(fact, column) for column in COLUMNS] for fact in world.facts)
