"""Prints how the house looks: modules at the root, the longest ones, import cycles (none may be).

Imports inside functions count as well. `make check` runs it.
"""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PACKAGES = ("router_r1_graph", "training", "graphs")
LONG = 300
"""Lines from which a module is listed: there may be a second noun in it (STYLE: 90 to 250)."""


def cycle() -> list[str]:
    """Return the modules of an import cycle, the first of them at the end again; [] for none."""
    code = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: code.find_modules_directly_imported_by(module) for module in code.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]  # graphlib goes from the imported to who imports it
    return []


def main() -> int:
    """Print it, and return 1 where there is a cycle."""
    sys.path.insert(0, str(ROOT))
    files = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    length = sorted(files.items(), key=lambda item: -item[1])
    root = sum(path.parent == Path(PACKAGES[0]) for path in files)
    print(f"Modules at the root of {PACKAGES[0]}: {root} of {len(files)} in {', '.join(PACKAGES)}")
    print(f"Longest module: {length[0][0]}, {length[0][1]} lines")
    long = [f"  {lines} {path}" for path, lines in length if lines > LONG]
    print(f"Modules over {LONG} lines: {len(long)}", *long, sep="\n")
    found = cycle()
    print("Import cycles: " + (" -> ".join(found) if found else "0"))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
