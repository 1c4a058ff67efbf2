"""TRL's `rollout_func`: a step's rollouts are ordinary runs of the compiled graph."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from trl.models.utils import unwrap_model_for_generation

from router_r1_graph import ReplyStore, write_traces
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.words import counted

from .config import GRPOConfig
from .errors import OutsideError
from .export import RolloutRow, rollout_row
from .items import Item
from .models import Learner
from .outcomes import Outcomes
from .own_graph import OwnGraph
from .rollouts import (
    Patience,
    failure_from_outside,
    got_reply,
    require_budget,
    roll_out,
    unheard,
    why_left_out,
)
from .spending import Spending, StageBill
from .vllm_rollouts import VLLMGenerator


class Rollouts:
    """TRL's `rollout_func`: prompts in, episodes of the graph out.

    A rollout that failed from outside is tried again. If it fails to the end, it is excluded from
    loss and group. If half a step's rollouts fail, in one step or in a row, the run stops.

    Args:
        learner: the model, with the settings of its turns.
        items: the item of each prompt.
        config: the size of a group and the patience.
        spending: the bill of the run.
        traces: the folder of the traces, a compressed file for each step.
        replies: the store of replies.
        graph: the user's own graph around the router.
        outcomes: judges the traces, besides the metric.
    """

    __name__ = "graph_rollouts"  # TRL logs it

    def __init__(
        self,
        learner: Learner,
        items: dict[str, Item],
        config: GRPOConfig,
        spending: Spending,
        traces: Path,
        replies: ReplyStore | None = None,
        graph: OwnGraph | None = None,
        outcomes: Outcomes | None = None,
    ) -> None:
        self.learner = learner
        self.items = items
        self.graph = graph
        self.outcomes = outcomes
        self.config = config
        self.spending = spending
        self.traces = traces
        self.replies = replies
        self.step_usd = 0.0
        """The USD paid for the last step's rollouts, by all processes."""
        self._unheard = 0  # rollouts that got no reply, since one got one

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        """Run the graph once for each prompt.

        Raises:
            BudgetSpentError: the budget is spent.
            OutsideError: rollouts fail through no fault of the policy, or there is nothing to learn
                from any of them.
        """
        step = trainer.state.global_step
        require_budget(self.spending, "grpo")
        before = self.spending.here_usd
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
            was_training = model.training
            model.eval()
            controller = self._controller(model, trainer, len(prompts))
            start = time.perf_counter()
            traces = roll_out(
                self._samples(prompts, trainer.accelerator.process_index),
                controller,
                patience=Patience(self.config.tries, self.config.wait_seconds),
                replies=self.replies,
                graph=self.graph,
                outcomes=self.outcomes,
                bill=StageBill(self.spending, "grpo"),
            )
            outside = time.perf_counter() - start - controller.generator.seconds
            model.train(was_training)
        self.traces.mkdir(parents=True, exist_ok=True)
        process = trainer.accelerator.process_index
        write_traces(self.traces / f"{step + 1:06}-{process}.jsonl.gz", traces)
        left_out = [why_left_out(trace) for trace in traces]
        if any(gather_object([got_reply(trace) for trace in traces])):
            self._unheard = 0
        failures = gather_object([failure_from_outside(trace) for trace in traces])
        silent = gather_object([unheard(trace) for trace in traces])
        self._stop_if_most_failed(failures, silent, gather_object(left_out), step)
        self.step_usd = sum(gather_object([self.spending.here_usd - before]))
        rows = [
            _left_out(controller.codec.tokenizer.eos_token_id)
            if reason
            else rollout_row(trace, controller.codec)
            for trace, reason in zip(traces, left_out, strict=True)
        ]
        return {
            "prompt_ids": [row["prompt_ids"] for row in rows],
            "completion_ids": [row["completion_ids"] for row in rows],
            "env_mask": [row["env_mask"] for row in rows],
            "logprobs": [row["logprobs"] for row in rows],
            "trace": traces,
            "left_out": left_out,
            "usd": [self.step_usd] * len(traces),
            "graph_seconds": [outside] * len(traces),
            "generate_seconds": [controller.generator.seconds] * len(traces),
        }

    def _controller(self, model: Any, trainer: Any, max_batch: int) -> PolicyController:
        controller = PolicyController(
            model,
            self.learner.tokenizer,
            self.learner.settings,
            template=self.learner.template,
            temperature=trainer.args.temperature,
            max_batch=max_batch,
            # Turns draw from streams of their own, made of this, the item's seed and the question.
            seed=trainer.args.seed * 1_000_003 + trainer.state.global_step,
        )
        if trainer.use_vllm:  # TRL has just given it the model's weights
            controller.generator = VLLMGenerator(
                trainer.vllm_generation,
                self.learner.settings.max_new_tokens,
                controller.generator.stop_ids,
            )
        return controller

    def _samples(self, prompts: Sequence[str], process: int) -> list[Item]:
        """Return the items, each with the seed of its place in the step, in any process."""
        first = process * len(prompts)
        samples = []
        for place, prompt in enumerate(prompts, first):
            item = self.items[prompt]
            seed = item.context.seed + place
            samples.append(replace(item, context=replace(item.context, seed=seed)))
        return samples

    def _stop_if_most_failed(
        self, failures: Sequence[str], silent: Sequence[str], left_out: Sequence[str], step: int
    ) -> None:
        failed, silent = list(filter(None, failures)), list(filter(None, silent))
        self._unheard += len(silent)
        tries = counted(self.config.tries, "attempt")
        if silent and 2 * self._unheard >= len(failures) > 2 * len(failed):
            raise OutsideError(
                f"grpo: none of the last {self._unheard} rollouts that asked candidates, up to "
                f"step {step + 1}, got a reply, after {tries}; the last: {silent[-1]}"
            )
        if 2 * len(failed) >= len(failures):
            raise OutsideError(
                f"grpo: {len(failed)} of {counted(len(failures), 'rollout')} of step {step + 1} "
                f"failed through no fault of the policy, after {tries}; the last: {failed[-1]}"
            )
        if all(left_out):
            raise OutsideError(
                f"grpo: there is nothing to learn from any of {counted(len(left_out), 'rollout')} "
                f"of step {step + 1}; the last: {left_out[-1]}"
            )


def _left_out(end: int) -> RolloutRow:
    """Return a row without a loss; TRL wants a row for each prompt, and no empty one."""
    return {"prompt_ids": [end], "completion_ids": [end], "env_mask": [0], "logprobs": [0.0]}
