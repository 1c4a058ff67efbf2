"""The figures of `benchmarks.gpu`: what each part measured, and the table of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

Part = Literal["random", "vllm", "policy"]


@dataclass(frozen=True)
class Step:
    """Where the seconds of one GRPO step went, and its tokens.

    Attributes:
        seconds: from the end of the step before to its own.
        generate: the sampler's seconds.
        graph: seconds of the rollouts besides these.
        train: scoring, forward, backward, optimizer, and the copy of the weights to vLLM.
        sampled_tokens: what the policy wrote.
        trained_tokens: prompts and turns.
    """

    seconds: float
    generate: float
    graph: float
    train: float
    sampled_tokens: float
    trained_tokens: float

    @property
    def rest(self) -> float:
        """Seconds for the batch, the logs and the like."""
        return self.seconds - self.generate - self.graph - self.train


@dataclass(frozen=True)
class Figures:
    """What a part measured, as far as it got.

    Attributes:
        machine: the processor's name, and versions of packages.
        parameters: the number of the model's weights.
        peak_bytes: most memory; of PyTorch's allocator on a GPU, else of the process.
        steps: every step, the first of which warms up.
    """

    machine: str
    parameters: int
    peak_bytes: int
    steps: tuple[Step, ...]

    def write(self, folder: Path) -> None:
        """Write them as JSON; what was there is replaced at once, as a part may be killed."""
        new = folder / "figures.new"
        new.write_text(json.dumps(asdict(self)), encoding="utf-8")
        new.replace(folder / "figures.json")

    @classmethod
    def read(cls, folder: Path) -> Figures | None:
        """Return what a part wrote; None where it did not get to the end of a step."""
        file = folder / "figures.json"
        if not file.exists():
            return None
        read = json.loads(file.read_text(encoding="utf-8"))
        return cls(**{**read, "steps": tuple(Step(**step) for step in read["steps"])})


@dataclass(frozen=True)
class Outcome:
    """What came of a part; `note` says why there are no figures, or fewer than wanted."""

    part: Part
    figures: Figures | None = None
    note: str = ""
    failed: bool = False


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the figures as Markdown, and below them the notes."""
    measured = [(one.part, one.figures) for one in outcomes if one.figures]
    lines = sorted({figures.machine for _, figures in measured})
    if measured:
        head = "part | parameters | steps | s a step | sampled tokens/s | trained tokens/s"
        lines.append(f"\n| {head} | peak GiB | generate | graph | train | rest |")
        lines.append("|---" * 11 + "|")
        lines += [f"| {' | '.join(_cells(part, figures))} |" for part, figures in measured]
    return "\n".join([*lines, "", *(f"{one.part}: {one.note}" for one in outcomes if one.note)])


def _cells(part: Part, figures: Figures) -> list[str]:
    steps = figures.steps[1:] or figures.steps
    seconds = sum(step.seconds for step in steps)
    generate, graph, train, rest = (
        sum(getattr(step, name) for step in steps)
        for name in ("generate", "graph", "train", "rest")
    )
    return [
        part,
        f"{figures.parameters / 1e6:,.1f}M",
        str(len(figures.steps)),
        f"{fmean(step.seconds for step in steps):.2f}",
        f"{sum(step.sampled_tokens for step in steps) / generate:,.0f}",
        f"{sum(step.trained_tokens for step in steps) / train:,.0f}",
        f"{figures.peak_bytes / 2**30:.2f}",
        *(f"{part / seconds:.0%}" for part in (generate, graph, train, rest)),
    ]
