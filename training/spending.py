"""The USD that a run has paid, on disk at once, so that a killed run knows them; and its limit."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from router_r1_graph import Trace
from router_r1_graph.candidates.tool import CANDIDATE_TAG
from router_r1_graph.evaluation.loop import AskItem, Item
from router_r1_graph.files import objects_in
from router_r1_graph.words import usd

from .files import append_line


@dataclass(frozen=True)
class Paid:
    """The cost of rollouts, without simulated candidates.

    Attributes:
        usd: the USD paid.
        saved_usd: the USD that the store of replies saved.
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

    Every process appends to a file of its own in the folder, a line for each call and judgement.

    Args:
        folder: the folder of the files.
        budget_usd: the most that the run may pay; None = no limit.
        process: the number of this process.
    """

    def __init__(self, folder: Path, budget_usd: float | None = None, process: int = 0) -> None:
        self.folder = folder
        self.budget_usd = budget_usd
        self._file = folder / f"spending-{process}.jsonl"
        self._read: Counter[Path] = Counter()  # bytes of each file that are counted already
        self._total = 0.0
        self._lock = threading.Lock()
        self.here_usd = 0.0
        """The USD that this process has paid since it started."""

    def add_usd(self, stage: str, usd: float) -> None:
        """Record a payment besides rollouts, such as for judging them."""
        self.add(stage, Paid(usd=usd))

    def add(self, stage: str, paid: Paid) -> None:
        """Record a payment; from any thread."""
        if paid == Paid():
            return
        with self._lock:
            self.here_usd += paid.usd
            self.folder.mkdir(parents=True, exist_ok=True)
            append_line(self._file, {"stage": stage, **asdict(paid)})

    def total_usd(self) -> float:
        """Return the USD that all processes have paid, as far as they are on disk."""
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
        """Return the USD that may still be paid; None = no limit."""
        return None if self.budget_usd is None else self.budget_usd - self.total_usd()

    def refusal(self, stage: str) -> str:
        """Return an error's text, if a stage may not pay anything more; "" if it may."""
        refused = self.refuses(0.0)
        return f"{stage}: {refused}; raise budget_usd, run again to go on" if refused else ""

    def refuses(self, next_usd: float) -> str:
        """Return why this much more may not be paid; "" if it may.

        Args:
            next_usd: the next payment, as far as it is known.
        """
        left = self.left_usd()
        if left is None or (next_usd <= left and left > 0):
            return ""
        paid = f"budget_usd = {usd(self.budget_usd or 0.0)}: {usd(self.total_usd())} are paid"
        return f"{paid}, and the next step costs about {usd(next_usd)}" if left > 0 else paid


@dataclass(frozen=True)
class StageBill:
    """The bill of one stage's rollouts; each call is on it as soon as its reply is there.

    So a run that is killed knows also its payments for rollouts that it did not finish. Simulated
    candidates are not paid.

    Attributes:
        spending: the bill of the run.
        stage: the stage's name on it.
    """

    spending: Spending
    stage: str

    def refusal(self) -> str:
        """Return an error's text, if nothing more may be paid; "" if it may."""
        return self.spending.refusal(self.stage)

    def paid(self, make: Callable[[Sequence[BaseCallbackHandler]], AskItem]) -> AskItem:
        """Return a function that asks, and records its payments.

        Args:
            make: takes callbacks of every run, and returns the function that asks.

        Raises:
            OSError: (raised by that function) the bill cannot be written.
        """
        made: dict[frozenset[str], AskItem] = {}
        broken: list[OSError] = []

        def write(paid: Paid) -> None:
            try:
                self.spending.add(self.stage, paid)
            except OSError as error:  # the router would take it for a failure of the candidate
                broken.append(error)

        async def ask(item: Item) -> Sequence[Trace]:
            real = frozenset(c.name for c in item.pool.candidates if c.provider != "simulated")
            if real not in made:
                made[real] = make([_Calls(real, write)] if real else [])
            traces = await made[real](item)
            for trace in traces:
                line = trace.ledger["controller"]
                write(Paid(usd=line["cost_usd"], saved_usd=line.get("saved_usd", 0.0)))
            if broken:
                raise broken[0]
            return traces

        return ask


class _Calls(BaseCallbackHandler):
    """Records the costs of calls to some candidates.

    Calls by a candidate that is a router itself are left out: its bill has them.
    """

    run_inline = True  # before the run goes on, in async runs too
    ignore_chain = ignore_llm = ignore_chat_model = ignore_retriever = True

    def __init__(self, candidates: frozenset[str], write: Callable[[Paid], None]) -> None:
        self._candidates = candidates
        self._write = write
        self._running: set[UUID] = set()

    def on_tool_start(
        self, *_: Any, run_id: UUID, tags: list[str] | None = None, **others: Any
    ) -> None:
        """Tell a candidate's run from that of another tool, which a user's own graph may have."""
        if CANDIDATE_TAG in (tags or []):
            self._running.add(run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """Record the call; a failed one may have cost something, too."""
        if run_id not in self._running:
            return
        self._running.discard(run_id)
        told = output.artifact
        if told["candidate"] in self._candidates:
            self._write(Paid(told["cost_usd"], told["saved_usd"], 1, int(told["stored"])))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Forget a run that was interrupted."""
        self._running.discard(run_id)


def _paid(lines: bytes) -> Iterator[tuple[str, Paid]]:
    for _, read in objects_in(lines.splitlines()):
        if isinstance(read, dict):  # else torn by a kill or a full disk
            with suppress(KeyError, TypeError):
                yield read.pop("stage"), Paid(**read)
