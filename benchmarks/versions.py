"""What a question costs in several versions of this project, in one run.

    python -m benchmarks.versions bb6a32c HEAD
    python -m benchmarks.versions bb6a32c 22d8b015+benchmarks/rooms_mended.patch HEAD

A version is a commit, or `COMMIT+FILE`: that commit with a patch. Each is checked out into a folder
of its own and measured with its own benchmarks by this Python, in turn: a round takes four minutes
for three versions. The table has the means of the rounds, in ms of CPU, and how much more that is
than in the first version. Machines are noisy: let nothing else run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parent.parent

EVALUATION = """
import sys, tempfile, time
from pathlib import Path
from benchmarks import evaluate

most, count = int(sys.argv[1]), 300
with tempfile.TemporaryDirectory() as name:
    pool = evaluate.recorded_pool(Path(name), count * most, 0.0)
    seconds = []
    for _ in range(6):  # the first one warms up
        begin = time.process_time()
        evaluate.evaluate(pool, count, Path(name), most=most)
        seconds.append(time.process_time() - begin)
print(f"{min(seconds[1:]) / count * 1e3:.3f} ms")
"""

#: What is run, and where its output has a figure, by the figure's name.
FIGURES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "overhead cpu, 4 rounds": (("-m", "benchmarks.overhead", "cpu"), r"graph ([\d.]+) ms"),
    "evaluate, 1 round": (("-c", EVALUATION, "1"), r"([\d.]+) ms"),
    "evaluate, 1 to 4 rounds": (("-c", EVALUATION, "4"), r"([\d.]+) ms"),
    "tracing, traced": (("-m", "benchmarks.tracing"), r": traced ([\d.]+) ms"),
    "serving, a request": (("-m", "benchmarks.serving"), r"requests/s .*\n.* ([\d.]+)\n"),
    "serving, alone": (("-m", "benchmarks.serving"), r"alone .*\n +([\d.]+)"),
}


def measure(folder: Path) -> dict[str, float]:
    """Return the figures of the version in a folder.

    Raises:
        SystemExit: a benchmark fails, or says nothing that is known.
    """
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    said: dict[tuple[str, ...], str] = {}
    figures: dict[str, float] = {}
    for name, (command, where) in FIGURES.items():
        if command not in said:
            run = subprocess.run(
                [sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True
            )
            if run.returncode:
                sys.exit(f"{folder.name}: {name} failed:\n{run.stderr[-2000:]}")
            said[command] = run.stdout
        if not (found := re.search(where, said[command])):
            sys.exit(f"{folder.name}: {name}: no figure in {said[command]!r}")
        figures[name] = float(found[1])
    return figures


def check_out(version: str, folder: Path) -> None:
    """Make the folder of a version.

    Raises:
        SystemExit: there is no such commit, or the patch does not fit.
    """
    commit, _, patch = version.partition("+")
    steps = [["git", "worktree", "add", "--detach", "--quiet", str(folder), commit]]
    if patch:
        steps.append(["git", "-C", str(folder), "apply", str(Path(patch).resolve())])
    for step in steps:
        done = subprocess.run(step, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{version}: {done.stderr.strip()}")


def table(versions: Sequence[str], rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Return the means in Markdown.

    Args:
        versions: the first one is what the others are compared with.
        rounds: the figures of each version, by round.
    """
    lines = [f"| ms of CPU | {' | '.join(versions)} |", f"|---|{'---|' * len(versions)}"]
    for name in FIGURES:
        means = [fmean(done[version][name] for done in rounds) for version in versions]
        first, *others = means
        more = [f"{mean:.2f} ({mean / first - 1:+.0%})" for mean in others]
        lines.append(f"| {name} | {' | '.join([f'{first:.2f}', *more])} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the versions in turn, and print the table after each round."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="+", help="a commit, or COMMIT+PATCH")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    given = parser.parse_args()
    versions: list[str] = [*dict.fromkeys(given.versions)]
    with tempfile.TemporaryDirectory() as name:
        folders = {version: Path(name, str(i)) for i, version in enumerate(versions)}
        try:
            for version, folder in folders.items():
                check_out(version, folder)
            rounds: list[dict[str, dict[str, float]]] = []
            for _ in range(given.rounds):
                rounds.append({version: measure(folder) for version, folder in folders.items()})
                print(f"{len(rounds)} of {given.rounds} rounds\n{table(versions, rounds)}\n")
        finally:
            for folder in folders.values():
                remove = ["git", "worktree", "remove", "--force", str(folder)]
                subprocess.run(remove, cwd=ROOT, capture_output=True)


if __name__ == "__main__":
    main()
