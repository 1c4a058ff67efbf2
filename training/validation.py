"""Validation: held-out questions during training, the best weights kept, an early stop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from router_r1_graph import ReplyStore, Trace
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.files import write_whole

from .config import GRPOConfig
from .files import append_line, read_whole, replace_whole
from .history import REWARDS_FILE
from .items import Item
from .judge import Judge
from .measurement import Numbers, at_weights, best_step, by_weight, share_out, summary
from .models import Learner
from .outcomes import Outcomes
from .own_graph import OwnGraph
from .progress import say
from .reward_config import RewardConfig
from .rollouts import judged_of, require_budget, roll_out
from .shares import Shares
from .spending import Spending, StageBill
from .trackers import report_validation

_BILLED = "validation"


class Validation(TrainerCallback):
    """Asks held-out questions every n steps, greedily, at several cost weights.

    The questions are shared out over the processes. The best weights are those with the highest
    reward, as a mean over questions and cost weights; the trained weights are kept beside the
    checkpoints.

    Args:
        learner: the model, with the settings of its turns.
        items: held-out questions; their own cost weights are replaced.
        config: how often, at which cost weights, and the patience.
        reward: the rules of the reward. A scale of costs is the same for all validations, so that
            the same answers are worth the same at each step: from no cost to the highest costs of
            the first one that cost anything.
        metrics: the file of metrics.
        folder: the folder of checkpoints.
        spending: the bill of the run.
        replies: the store of replies.
        graph: the user's own graph around the router.
        outcomes: judges the traces, besides the metric.
    """

    def __init__(
        self,
        learner: Learner,
        items: Sequence[Item],
        config: GRPOConfig,
        reward: RewardConfig,
        metrics: Path,
        folder: Path,
        spending: Spending,
        replies: ReplyStore | None = None,
        graph: OwnGraph | None = None,
        outcomes: Outcomes | None = None,
    ) -> None:
        self.learner = learner
        self.graph = graph
        self.outcomes = outcomes
        self.items = at_weights(items, config.validate_cost_weights)
        self.shares = Shares(items)
        self.config = config
        scale = folder / "validation_scale.json"
        self.judge = Judge(reward, scale)
        self.metrics = metrics
        self.spending = spending
        self.replies = replies
        self.best_file = folder / "best.safetensors"
        self.file = folder / REWARDS_FILE
        self.trainer: Any = None
        self.rewards = {int(k): v for k, v in (read_whole(self.file) or {}).items()}
        """The mean reward of each step that was validated."""
        self.last_usd = 0.0
        """The USD that the last validation has cost, on all processes."""
        if self.rewards:
            self.judge.restore(read_whole(scale) or {})

    @property
    def is_over(self) -> bool:
        """Whether the stage stops early, since no validation was better for a while."""
        return 0 < self.config.patience <= self._since(self._first_best) if self.rewards else False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validate the start of a new run, and a step that a stop kept from being validated."""
        step = state.global_step
        self.rewards = {at: reward for at, reward in self.rewards.items() if at <= step}
        if not self.rewards or (self._is_due(state) and step not in self.rewards):
            self._validate(step, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validate after every n steps, and stop if no validation was better for a while."""
        if not self._is_due(state):
            return
        self._validate(state.global_step, state)
        if self.is_over:
            if state.is_world_process_zero:
                first = self._first_best
                say(
                    f"grpo: no better validation since step {first} ({self._since(first)} times); "
                    f"stopping, with the weights of step {best_step(self.rewards)}"
                )
            control.should_save = control.should_training_stop = True

    def left(self, state: Any) -> int:
        """Return how many validations there will be, if the stage goes to its end."""
        every, last = self.config.validate_every, state.max_steps
        due = (n for n in range(state.global_step, last + 1) if n % every == 0 or n == last)
        return sum(step not in self.rewards for step in due)

    def _is_due(self, state: Any) -> bool:
        step = state.global_step
        return step % self.config.validate_every == 0 or step == state.max_steps

    @property
    def _first_best(self) -> int:
        best = max(self.rewards.values())
        return min(step for step, reward in self.rewards.items() if reward == best)

    def _since(self, step: int) -> int:
        return sum(later > step for later in self.rewards)

    def take_best(self, model: Any) -> None:
        """Load the best weights into a model, if they are not the last ones."""
        if not self.rewards or not self.best_file.exists():
            return
        best = load_file(self.best_file)
        with torch.no_grad():
            for name, weights in _trained(model).items():
                weights.copy_(best[name])

    def _validate(self, step: int, state: Any) -> None:
        require_budget(self.spending, _BILLED)
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        was_training = model.training
        before = self.spending.here_usd
        model.eval()
        controller = PolicyController(
            model,
            self.learner.tokenizer,
            self.learner.settings,
            template=self.learner.template,
            max_batch=256,
        )
        asked = share_out(
            self.items,
            lambda ours: roll_out(
                ours,
                controller,
                replies=self.replies,
                graph=self.graph,
                outcomes=self.outcomes,
                bill=StageBill(self.spending, _BILLED),
            ),
        )
        model.train(was_training)
        self.last_usd = sum(gather_object([self.spending.here_usd - before]))
        traces = judged_of(asked, "grpo: validation")
        self.judge.fix(self.judge.costs(traces))
        self.rewards[step] = fmean(self.judge(trace).total for trace in traces)
        if not state.is_world_process_zero:
            return
        self._log(step, traces)
        self.judge.save()
        if best_step(self.rewards) == step:
            best = {name: weights.detach().cpu() for name, weights in _trained(model).items()}
            replace_whole(self.best_file, lambda file: save_file(best, file))
        write_whole(self.file, json.dumps(self.rewards))

    def _log(self, step: int, traces: Sequence[Trace]) -> None:
        rows = {weight: self._numbers(some) for weight, some in by_weight(traces).items()}
        for weight, row in rows.items():
            line = {"stage": "grpo_validation", "step": step, "cost_weight": weight, **row}
            append_line(self.metrics, line)
        report_validation(self.trainer, rows, self.rewards[step])

    def _numbers(self, traces: Sequence[Trace]) -> Numbers:
        shares = {f"share/{name}": share for name, share in self.shares(traces).items()}
        return {"reward": fmean(self.judge(t).total for t in traces), **summary(traces), **shares}


def _trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.data for name, p in model.named_parameters() if p.requires_grad}
