"""The progress of an evaluation in a terminal: a line for each controller at each cost weight."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from ..words import usd
from .run import Outcome


def progress_columns() -> tuple[ProgressColumn, ...]:
    """Return the columns of a line of the progress; names of controllers are not read as markup."""
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} score {task.fields[score]:.3f} {task.fields[usd]}"),
        TimeRemainingColumn(),
    )


class Bar:
    """The progress of a controller at a cost weight: number of questions, score, USD paid."""

    def __init__(self, progress: Progress, name: str, total: int, known: Sequence[Outcome]) -> None:
        self.progress = progress
        self.outcomes = len(known)
        self.score = sum(outcome.score for outcome in known)
        self.usd = sum(outcome.cost_usd - outcome.saved_usd for outcome in known)
        mean = self.score / max(1, self.outcomes)
        self.task = progress.add_task(
            name, total=total, completed=self.outcomes, score=mean, usd=usd(self.usd), rate=""
        )

    def advance(self, outcome: Outcome) -> None:
        """Show one more outcome."""
        self.outcomes += 1
        self.score += outcome.score
        self.usd += outcome.cost_usd - outcome.saved_usd
        speed = self.progress.tasks[self.task].speed
        self.progress.update(
            self.task,
            advance=1,
            score=self.score / self.outcomes,
            usd=usd(self.usd),
            rate=f"{speed:.0f}/s" if speed else "",
        )
