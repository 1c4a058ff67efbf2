"""How fast GRPO trains on one GPU: steps of a 0.5B model, with and without vLLM, and of ours.

    benchmarks/gpu.sh                    on a GPU machine; see there what is carried to it
    python -m benchmarks.gpu --reduced   every path of it on a CPU, in seconds

Its parts, each in a process and with a time limit of its own, so that none can spoil another:

    random   a Qwen2.5-0.5B with random weights, made on the spot, samples its own turns; 10 steps
    vllm     the same, where vLLM is installed: it samples, on the same GPU
    policy   the shipped policy, as many steps as fit

A random model writes words without sense. Its turns run to their limit, so sampling and training
are those of a real run; but it asks no candidate, so the graph's share is not. `policy` shows that.

Sampled tokens are what the policy wrote, per second of generation. Trained tokens are prompts and
turns, per second of scoring, forward, backward and optimizer; with vLLM, the copy of the weights is
among these. Memory is the peak of PyTorch's allocator, on a CPU that of the process. The first step
warms up, and counts for memory only. With OUT set, every step is in $OUT/gpu.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from .gpu_figures import Figures, Outcome, Part, table
from .gpu_wheels import COMMIT_FILE, ROOT, WHEELS

SHARES: dict[Part, float] = {"random": 3.0, "vllm": 3.0, "policy": 1.0}
"""The weight of each part's time limit among the parts to come."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each part, print the table, and return 1 where a part failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*SHARES, []], default=[])
    parser.add_argument("--reduced", action="store_true", help="tiny models, two small steps")
    parser.add_argument("--seconds", type=float, default=460.0, help="for all parts (460)")
    given = parser.parse_args(arguments)
    end = time.monotonic() + given.seconds
    parts: list[Part] = given.parts or list(SHARES)
    outcomes = []
    if "vllm" in parts and find_spec("vllm") is None:
        parts.remove("vllm")
        outcomes.append(Outcome("vllm", note="not installed here, not run"))
    for place, part in enumerate(parts):
        share = SHARES[part] / sum(SHARES[one] for one in parts[place:])
        limit = max(0.0, end - time.monotonic()) * share
        print(f"{part} ({limit:.0f} s at most) ...", flush=True)
        outcomes.append(measure(part, limit, reduced=given.reduced))
    print(f"\ncommit {commit()}, {' '.join(['benchmarks/gpu.sh', *(arguments or sys.argv[1:])])}")
    print(table(outcomes), flush=True)
    if out := os.environ.get("OUT"):
        record = {"commit": commit(), "parts": [asdict(one) for one in outcomes]}
        (Path(out) / "gpu.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return int(any(one.failed for one in outcomes))


def measure(part: Part, limit: float, *, reduced: bool) -> Outcome:
    """Run a part in a process of its own, and kill it if it outlasts its limit.

    Args:
        part: the part.
        limit: the seconds that it has, its start included.
        reduced: whether models and steps are as small as can be.
    """
    # No fork: TRL's imports may ask CUDA for devices, which a forked process can then use no more.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        end = time.monotonic() + limit
        process = context.Process(target=_train, args=(part, reduced, end, Path(name)))
        process.start()
        process.join(limit)
        late = process.is_alive()
        if late:
            process.kill()
            process.join()
        figures = Figures.read(Path(name))
    note = ""
    if late:
        note = f"stopped at its limit of {limit:.0f} s"
    elif process.exitcode:
        note = f"failed with exit status {process.exitcode}, see above"
    return Outcome(part, figures, note, failed=bool(process.exitcode) and not (late and figures))


def _train(part: Part, reduced: bool, end: float, folder: Path) -> None:
    from .gpu_training import train_part  # PyTorch and TRL

    warnings.filterwarnings("ignore", category=FutureWarning)  # transformers about TRL, each step
    train_part(part, reduced, end, folder)


def commit() -> str:
    """Return the commit of this checkout; a carried one has it beside its wheels."""
    file = WHEELS / COMMIT_FILE
    if (ROOT / ".git").exists():
        command = ["git", "describe", "--always", "--dirty"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        return done.stdout.strip() or "unknown"
    return file.read_text(encoding="utf-8").strip() if file.exists() else "unknown"


if __name__ == "__main__":
    sys.exit(main())
