"""The progress bar of a trainer: the few numbers that matter; metrics.jsonl has the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm
from transformers import ProgressCallback

from router_r1_graph.words import plain, usd

from .spending import Spending

_SHOWN = {
    "reward": "reward",
    "outcome": "outcome",
    "exact_match": "exact match",
    "eval_reward": "validation",
}


class TrainingBar(ProgressCallback):  # type: ignore[misc]
    """Shows reward, exact match, the last validation and USD, instead of all numbers.

    Args:
        spending: the bill of the run; None = a supervised stage, whose loss is shown.
    """

    def __init__(self, spending: Spending | None = None) -> None:
        super().__init__()
        self.spending = spending
        self._seen: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin, with the numbers so far: a run is validated before its first step."""
        super().on_train_begin(args, state, control)
        self._show()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Show the numbers behind the bar."""
        self._seen |= {name: value for name, value in logs.items() if value is not None}
        self._show()

    def _show(self) -> None:
        if self.training_bar is not None:
            self.training_bar.set_postfix_str(", ".join(self._parts()))

    def _parts(self) -> Iterator[str]:
        seen = self._seen
        if self.spending is None:
            if "loss" in seen:
                yield f"loss {plain(float(seen['loss']), 3)}"
            return
        for name, shown in _SHOWN.items():
            if name in seen:
                yield f"{shown} {plain(float(seen[name]), 3)}"
        if "cost_usd" in seen:
            yield f"{usd(seen['cost_usd'])} a question"
        if paid := self.spending.total_usd():
            yield f"{usd(paid)} paid"


def show(trainer: Any, spending: Spending | None = None) -> None:
    """Give a trainer this bar instead of its own, which prints every number of a step."""
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(TrainingBar(spending))


def say(text: str) -> None:
    """Print a line above the bar."""
    tqdm.write(text)
