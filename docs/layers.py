"""Draws who imports whom in the library, as the page Concepts shows it.

    python -m docs.layers            prints the picture
    python -m docs.layers --write    writes it into docs/concepts.md

The arrows are the imports of the code, those inside functions too. An arrow that follows from
others is left out: where A imports B and C, and B imports C, there is none from A to C. That the
rooms keep to their layers is import-linter's to check (pyproject.toml); that the picture is the
code's, a test's.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = "router_r1_graph"
PAGE = Path(__file__).with_name("concepts.md")
BEGIN, END = "<!-- layers -->\n", "<!-- end of layers -->\n"

#: What stands in a box, and the modules that it is, from high to low.
ROOMS: Mapping[str, tuple[str, ...]] = {
    "cli": ("cli",),
    "serving": ("serving",),
    "evaluation": ("evaluation",),
    "langsmith": ("langsmith",),
    "rewards": ("rewards", "cost_scales"),
    "chat": ("chat",),
    "agents": ("agents",),
    "trace, transcript, routing": ("trace", "transcript", "routing"),
    "graph": ("graph",),
    "nodes": ("nodes",),
    "state, events": ("state", "events", "decisions"),
    "controllers": ("controllers",),
    "bill and budget": (*("observations", "call_records", "budget", "ledger", "context"),),
    "simulation": ("simulation",),
    "candidates": ("candidates",),
    "langsmith.runs": (
        *("langsmith.runs", "langsmith.spans", "langsmith.once", "langsmith._compat"),
    ),
    "protocol, answers": ("protocol", "answers"),
    "foundation": (
        *("errors", "_compat", "_node", "_streams"),
        *("files", "invalid", "tags", "outside", "words", "console"),
    ),
}


def room_of(module: str) -> str:
    """Return the room that a module is in; "" for the front door, which imports them all.

    Raises:
        LookupError: it is in none.
    """
    name = module.removeprefix(PACKAGE).strip(".")
    if name in ("", "langsmith"):
        return ""
    owners = {part: room for room, parts in ROOMS.items() for part in parts}
    inside = [part for part in owners if f"{name}.".startswith(f"{part}.")]
    if not inside:
        raise LookupError(f"{module} is in no room of docs/layers.py: add it")
    return owners[max(inside, key=len)]


def imports() -> dict[str, set[str]]:
    """Return each room with those that it imports from."""
    import grimp

    code = grimp.build_graph(PACKAGE, cache_dir=None)
    rooms: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in code.modules:
        if room := room_of(module):
            for imported in code.find_modules_directly_imported_by(module):
                rooms[room].add(room_of(imported))
    return {room: below - {room, ""} for room, below in rooms.items()}


def arrows(rooms: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows that follow from no others.

    Raises:
        graphlib.CycleError: rooms import each other.
    """
    reached: dict[str, set[str]] = {}  # from a room, by any way
    for room in TopologicalSorter(rooms).static_order():
        reached[room] = rooms[room].union(*(reached[below] for below in rooms[room]))
    return [
        (room, below)
        for room in rooms
        for below in ROOMS
        if below in rooms[room] and not any(below in reached[other] for other in rooms[room])
    ]


def picture() -> str:
    """Return the picture, in Mermaid."""
    lines = ["```mermaid", "graph TD"]
    for number, (room, parts) in enumerate(ROOMS.items()):
        names = ", ".join(parts)
        lines.append(f"  r{number}[{room if names == room else f'{room}: {names}'}]")
    numbers = {room: number for number, room in enumerate(ROOMS)}
    lines += [f"  r{numbers[room]} --> r{numbers[below]}" for room, below in arrows(imports())]
    return "\n".join([*lines, "```"]) + "\n"


def with_picture(page: str) -> str:
    """Return a page with the picture of today."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{picture()}{END}{after}"


def main() -> None:
    """Print the picture, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into docs/concepts.md")
    if parser.parse_args().write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(with_picture(page), encoding="utf-8")
    else:
        print(picture(), end="")


if __name__ == "__main__":
    main()
