"""Callbacks of GRPO's trainer: they keep the cost scale and the budget of a run."""

from __future__ import annotations

from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from router_r1_graph.words import counted, usd

from .errors import BudgetSpentError
from .judge import Judge
from .progress import say
from .rollout_func import Rollouts
from .spending import Spending
from .validation import Validation


class KeepScale(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Keeps the cost scale inside the checkpoints, so that a resumed run goes on with it."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def state(self) -> dict[str, Any]:
        """Return the state that transformers writes into a checkpoint."""
        return {"args": {}, "attributes": {"scale": self.judge.state()}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the scale of the checkpoint that the run goes on from."""
        kept = state.stateful_callbacks.get(type(self).__name__)
        if state.global_step and isinstance(kept, dict):
            self.judge.restore(kept["attributes"]["scale"])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the scale beside the checkpoints, too, for people."""
        if state.is_world_process_zero:
            self.judge.save()


class KeepBudget(TrainerCallback):
    """Prints the expected cost of the run, and stops it before it costs too much.

    Args:
        spending: the bill of the run.
        rollouts: those of the steps.
        validation: the validations between steps; None = there are none.
        measured: how many questions are asked after the last step.
    """

    def __init__(
        self,
        spending: Spending,
        rollouts: Rollouts,
        validation: Validation | None = None,
        measured: int = 0,
    ) -> None:
        self.spending = spending
        self.rollouts = rollouts
        self.validation = validation
        self.measured = measured
        self.refused = ""
        self._told = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop before the first step, if the run may not pay anything more.

        Raises:
            BudgetSpentError: the budget is spent.
        """
        if refused := self._refused(0.0):
            raise BudgetSpentError(f"grpo: {refused}; raise budget_usd to go on")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop if the next step would cost more than the budget has left."""
        each = self.rollouts.step_usd
        if each and not self._told and state.is_world_process_zero:
            left = state.max_steps - state.global_step
            limit = self.spending.budget_usd
            budget = "" if limit is None else f"; budget_usd is {usd(limit)}"
            more = self._questions_usd(state)
            held_out = f", questions that are held out {usd(more)} more" if more else ""
            say(
                f"step {state.global_step} cost {usd(each)}: the {counted(left, 'step')} to come "
                f"will cost about {usd(each * left)}{held_out}{budget}"
            )
        self._told = True
        if state.global_step < state.max_steps and (refused := self._refused(each)):
            self.refused = refused
            control.should_save = control.should_training_stop = True

    def _questions_usd(self, state: Any) -> float:
        """Return what the validations and the measurement to come will cost."""
        rollouts = self.rollouts.config
        each, count = self.rollouts.step_usd / (rollouts.questions * rollouts.group), self.measured
        if validation := self.validation:
            each = validation.last_usd / len(validation.items) or each
            count += validation.left(state) * len(validation.items)
        return each * count

    def _refused(self, next_usd: float) -> str:
        # One process decides for all: each reads the files at another moment.
        return str(gather_object([self.spending.refuses(next_usd)])[0])
