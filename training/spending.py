"""What a run has paid, in USD: on disk at once, so that a killed run knows it; and its limit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from router_r1_graph import Trace
from router_r1_graph.words import usd

from .files import append_line


@dataclass(frozen=True)
class Paid:
    """What rollouts came to, without simulated candidates.

    Attributes:
        usd: what was paid.
        saved_usd: what the store of replies saved.
        calls: calls to candidates.
        stored_calls: those of them that the store replied to.
    """

    usd: float = 0.0
    saved_usd: float = 0.0
    calls: int = 0
    stored_calls: int = 0

    def __add__(self, other: Paid) -> Paid:
        return Paid(
            self.usd + other.usd,
            self.saved_usd + other.saved_usd,
            self.calls + other.calls,
            self.stored_calls + other.stored_calls,
        )


class Spending:
    """The bill of one training run, over all of its stages, processes and resumes.

    Every process appends to a file of its own in the folder, a line for each rollout and judgement.

    Args:
        folder: where the files are.
        budget_usd: the most that the run may pay; None = no limit.
        process: the number of this process.
    """

    def __init__(self, folder: Path, budget_usd: float | None = None, process: int = 0) -> None:
        self.folder = folder
        self.budget_usd = budget_usd
        self._file = folder / f"spending-{process}.jsonl"
        self._read: Counter[Path] = Counter()  # bytes of each file that are counted already
        self._total = 0.0
        self.here_usd = 0.0
        """What this process has paid since it started."""

    def add(self, stage: str, trace: Trace) -> None:
        """Write down what a rollout cost; simulated candidates are not paid."""
        self._write(stage, paid_for(trace))

    def add_usd(self, stage: str, usd: float) -> None:
        """Write down what was paid besides rollouts, such as for judging them."""
        self._write(stage, Paid(usd=usd))

    def _write(self, stage: str, paid: Paid) -> None:
        self.here_usd += paid.usd
        if paid != Paid():
            self.folder.mkdir(parents=True, exist_ok=True)
            append_line(self._file, {"stage": stage, **asdict(paid)})

    def total_usd(self) -> float:
        """Return what all processes have paid, as far as it is on disk."""
        for file in sorted(self.folder.glob("spending-*.jsonl")):
            with file.open("rb") as lines:
                lines.seek(self._read[file])
                data = lines.read()
            whole = data[: data.rfind(b"\n") + 1]  # another process may be writing the last line
            self._read[file] += len(whole)
            self._total += sum(paid.usd for _, paid in _paid(whole))
        return self._total

    def by_stage(self) -> dict[str, Paid]:
        """Return the bill of each stage, in the order in which they first paid."""
        stages: dict[str, Paid] = {}
        for file in sorted(self.folder.glob("spending-*.jsonl")):
            for stage, paid in _paid(file.read_bytes()):
                stages[stage] = stages.get(stage, Paid()) + paid
        return stages

    def left_usd(self) -> float | None:
        """Return what may still be paid; None = no limit."""
        return None if self.budget_usd is None else self.budget_usd - self.total_usd()

    def refusal(self, stage: str) -> str:
        """Return an error's text, if a stage may not pay anything more; "" where it may."""
        refused = self.refuses(0.0)
        return f"{stage}: {refused}; raise budget_usd, run again to go on" if refused else ""

    def refuses(self, next_usd: float) -> str:
        """Return why this much more may not be paid; "" where it may.

        Args:
            next_usd: what is paid next, as far as can be known.
        """
        left = self.left_usd()
        if left is None or (next_usd <= left and left > 0):
            return ""
        paid = f"budget_usd = {usd(self.budget_usd or 0.0)}: {usd(self.total_usd())} are paid"
        return f"{paid}, and the next step costs about {usd(next_usd)}" if left > 0 else paid


def paid_for(trace: Trace) -> Paid:
    """Return what a run came to, without what simulated candidates would have cost."""
    simulated = {c.name for c in trace.pool.candidates if c.provider == "simulated"}
    lines = trace.ledger["candidates"].items()
    asked = [line for name, line in lines if name not in simulated]
    billed = [trace.ledger["controller"], *asked]
    return Paid(
        usd=sum(line["cost_usd"] for line in billed),
        saved_usd=sum(line.get("saved_usd", 0.0) for line in billed),
        calls=sum(line["calls"] for line in asked),
        stored_calls=sum(line.get("stored_calls", 0) for line in asked),
    )


def _paid(lines: bytes) -> Iterator[tuple[str, Paid]]:
    for line in lines.splitlines():
        with suppress(ValueError, KeyError, TypeError):  # torn by a kill or a full disk
            read = json.loads(line)
            yield read.pop("stage"), Paid(**read)
