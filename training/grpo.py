"""GRPO by TRL, whose rollouts are ordinary runs of the compiled graph.

TRL calls `rollout_func` with the prompts of a generation batch, each repeated for its group. They
are run through the graph with the trainer's own model as the controller; the ids, mask and traces
that come back are what the policy sampled and what the environment wrote.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from langchain_core.messages import AIMessage, ToolMessage
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import TrainerCallback

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental

from trl import GRPOConfig as TRLGRPOConfig
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from router_r1_graph import ConfigError, Trace
from router_r1_graph.budget import Left
from router_r1_graph.controllers.controller import View
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import TEMPLATE_FILE
from router_r1_graph.rewards import RewardBreakdown

from .config import GRPOConfig, RewardConfig
from .export import rollout_row
from .fit import StoppedError, Watch, device_options, lora_config, taken_from, train
from .items import Item
from .judge import Judge
from .models import Learner, processes
from .rollouts import roll_out
from .vllm_rollouts import VLLMGenerator, vllm_options


class Rollouts:
    """TRL's `rollout_func`: prompts in, episodes of the graph out."""

    __name__ = "graph_rollouts"  # TRL logs it

    def __init__(self, learner: Learner, items: dict[str, Item]) -> None:
        self.learner = learner
        self.items = items

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        """Run the graph once for each prompt."""
        with _whole_model(trainer) as model:
            was_training, process = model.training, trainer.accelerator.process_index
            model.eval()
            controller = PolicyController(
                model,
                self.learner.tokenizer,
                self.learner.settings,
                template=self.learner.template,
                temperature=trainer.args.temperature,
                max_batch=len(prompts),
                seed=trainer.args.seed + 1000 * trainer.state.global_step + process,
            )
            if trainer.use_vllm:  # TRL has just given it the model's weights
                controller.generator = VLLMGenerator(
                    trainer.vllm_generation,
                    self.learner.settings.max_new_tokens,
                    controller.generator.stop_ids,
                )
            start = time.perf_counter()
            traces = roll_out([self.items[prompt] for prompt in prompts], controller)
            outside = time.perf_counter() - start - controller.generator.seconds
            model.train(was_training)
        rows = [rollout_row(trace, controller.codec) for trace in traces]
        return {
            "prompt_ids": [row["prompt_ids"] for row in rows],
            "completion_ids": [row["completion_ids"] for row in rows],
            "env_mask": [row["env_mask"] for row in rows],
            "logprobs": [row["logprobs"] for row in rows],
            "trace": traces,
            "graph_seconds": [outside] * len(traces),
            "generate_seconds": [controller.generator.seconds] * len(traces),
        }


@contextmanager
def _whole_model(trainer: Any) -> Iterator[Any]:
    """Yield the model with all of its weights in this process.

    Runs of the graph differ in length, so the processes cannot take their forward passes in step,
    as sharded weights would need: FSDP and ZeRO-3 gather them for the whole rollout.
    """
    sharded = (
        FullyShardedDataParallel.summon_full_params(trainer.model_wrapped, writeback=False)
        if trainer.is_fsdp_enabled
        else nullcontext()
    )
    with (
        unwrap_model_for_generation(
            trainer.model_wrapped, trainer.accelerator, gather_deepspeed3_params=True
        ) as model,
        sharded,
    ):
        yield model


class Reward:
    """TRL's reward function over traces."""

    __name__ = "router_r1"

    def __init__(self, judge: Judge, advantage: Literal["sum", "apart", "per_call"]) -> None:
        self.judge = judge
        self.advantage = advantage
        self.credit: list[list[float]] = []  # of each turn of the last traces, for per_call

    def __call__(
        self, prompts: Sequence[str], trace: Sequence[Trace], **kwargs: Any
    ) -> list[float]:
        """Return one number for each trace, and log what it is made of."""
        parts = [self.judge(one) for one in trace]
        # Of all processes, so that each judges by the same scale.
        self.judge.observe(gather_object(self.judge.costs(trace)))
        if log := kwargs.get("log_metric"):
            log("format", fmean(p.format for p in parts))
            log("exact_match", fmean(p.outcome for p in parts))
            log("cheapness", fmean(p.cost for p in parts))
            log("total", fmean(p.total for p in parts))
            log("calls", fmean(len(one.calls) for one in trace))
            log("failed_calls", fmean(sum(not c.ok for c in one.calls) for one in trace))
            for name in ("graph_seconds", "generate_seconds"):
                log(name, kwargs[name][0])
        if self.advantage == "sum":
            return [p.total for p in parts]
        self.credit = credit_of_turns(prompts, trace, parts)
        return [turns[0] for turns in self.credit]


class TurnGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer; each turn can have an advantage of its own."""

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        [reward] = self.reward_funcs
        if reward.advantage == "per_call":
            output["advantages"] = of_tokens(
                reward.credit, output["completion_mask"] * output["tool_mask"]
            ).to(output["advantages"])
        return output


class KeepScale(TrainerCallback):
    """Writes the cost scale beside the checkpoints, so that a resumed run goes on with it."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the scale."""
        if state.is_world_process_zero:
            self.judge.save()


def credit_of_turns(
    prompts: Sequence[str], traces: Sequence[Trace], parts: Sequence[RewardBreakdown]
) -> list[list[float]]:
    """Normalise outcome over each group and cost over its right traces, then weigh them.

    In a sum of both, the costs of two right answers differ by less than the noise of right and
    wrong, and normalising the sum drowns the difference (facts of this project,
    docs/experiments.md).

    Args:
        prompts: equal ones make a group.
        traces: one for each prompt.
        parts: the parts of each trace's reward.

    Returns:
        For each trace, the credit of each of its turns: what is spent from that turn on, compared
        with the same turn of the other traces. The first is the credit of the whole trace.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        groups[prompt].append(place)
    spent = [_spent_from(trace) for trace in traces]
    credit = [[0.0] * len(costs) for costs in spent]
    for places in groups.values():
        alpha = traces[places[0]].context.cost_weight
        outcome = {i: -1.0 if parts[i].errors else parts[i].outcome for i in places}
        z_outcome = _z(outcome)
        right = [i for i in places if outcome[i] > 0]
        for turn in range(max(len(spent[i]) for i in places)):
            z_cost = _z({i: -spent[i][turn] for i in right if turn < len(spent[i])})
            for i in places:
                if turn < len(spent[i]):
                    # At alpha 1, nothing else would keep it from being wrong.
                    worth = z_outcome[i] * ((1 - alpha) or 1)
                    credit[i][turn] = worth + alpha * z_cost.get(i, 0.0)
    return credit


def _spent_from(trace: Trace) -> list[float]:
    """Return for each turn the USD of its calls and all later ones, in micro-USD."""
    costs: list[float] = []
    for message in trace.scratchpad:
        if isinstance(message, AIMessage):
            costs.append(0.0)
        elif isinstance(message, ToolMessage) and message.artifact:
            costs[-1] += 0.0 if message.artifact["cached"] else 1e6 * message.artifact["cost_usd"]
    return list(accumulate(reversed(costs)))[::-1] or [0.0]


def of_tokens(credit: Sequence[Sequence[float]], mask: torch.Tensor) -> torch.Tensor:
    """Spread what each turn earned over its tokens.

    Args:
        credit: for each row, the credit of its turns.
        mask: (rows, tokens): 1 on what the policy wrote; each run of ones is a turn.

    Returns:
        (rows, tokens), 0 outside of turns.
    """
    begins = mask.diff(dim=1, prepend=torch.zeros_like(mask[:, :1])) > 0
    turn = (begins.cumsum(dim=1) - 1).clamp(min=0)
    table = torch.nn.utils.rnn.pad_sequence([torch.tensor(turns) for turns in credit], True)
    return table.to(mask.device).gather(1, turn) * mask


def _z(values: dict[int, float]) -> dict[int, float]:
    if len(values) < 2:
        return dict.fromkeys(values, 0.0)
    mean, spread = fmean(values.values()), pstdev(values.values())
    return {i: (v - mean) / (spread + 1e-4) for i, v in values.items()}


def run_grpo(
    learner: Learner, items: Sequence[Item], config: GRPOConfig, *, folder: Path, **options: Any
) -> None:
    """Train by reward, from the last checkpoint in the folder where there is one.

    Takes what `grpo_trainer` takes.

    Raises:
        TrainingError: the loss is not a number.
        StoppedError: Ctrl-C; the checkpoint is written.
    """
    trainer, watch = grpo_trainer(learner, items, config, folder=folder, **options)
    train(trainer, folder, "grpo")
    if watch.interrupted:
        raise StoppedError(f"grpo: stopped at step {trainer.state.global_step}; run again to go on")
    learner.model = taken_from(trainer)


def grpo_trainer(
    learner: Learner,
    items: Sequence[Item],
    config: GRPOConfig,
    *,
    reward: RewardConfig,
    folder: Path,
    metrics: Path,
    seed: int,
    bf16: bool = False,
    gradient_checkpointing: bool = False,
    lora_rank: int = 0,
    report_to: Sequence[str] = (),
) -> tuple[GRPOTrainer, Watch]:
    """Return TRL's trainer over runs of the graph, and its `Watch`.

    Args:
        learner: what is trained.
        items: the questions, each used once.
        config: steps, group size and rates.
        reward: the rules by which traces are judged.
        folder: the folder of checkpoints and completions.
        metrics: the file of metrics.
        seed: the seed of sampling and order.
        bf16: on a GPU, compute in bfloat16.
        gradient_checkpointing: trade time for memory.
        lora_rank: 0 = all weights.
        report_to: trackers besides the metrics file.

    Raises:
        ConfigError: the batch cannot be split over the processes.
    """
    each = config.micro_batch * processes().num_processes
    if (config.questions * config.group) % each:
        raise ConfigError(
            f"grpo.questions * grpo.group = {config.questions * config.group} must be a multiple "
            f"of grpo.micro_batch * {processes().num_processes} processes = {each}"
        )
    codec = learner.codec
    by_prompt: dict[str, Item] = {}
    for item in items:
        start = Left(item.context.max_rounds)
        view = View(item.question, item.pool, item.context, start)
        by_prompt[learner.tokenizer.decode(codec.prompt_ids(view))] = item
    start_from = folder / "start"  # the reference model is loaded from a path
    with processes().main_process_first():
        if not (start_from / TEMPLATE_FILE).exists():  # written last
            learner.save(start_from)
    judge = Judge(reward, folder / "scale.json")
    vllm: dict[str, Any] = {}
    if config.vllm != "off":
        if config.vllm == "server" and processes().num_processes > 1:
            raise ConfigError(
                "grpo.vllm: a server serves one training process, as runs of the graph differ in "
                "length; with several processes use colocate"
            )
        vllm = vllm_options(
            config.vllm,
            url=config.vllm_url,
            memory=config.vllm_memory,
            stop=learner.settings.stop,
        )
    watch = Watch(metrics, "grpo")
    trainer = TurnGRPOTrainer(
        # An adapter goes on as it is, on its model in bfloat16; TRL copies it as the reference.
        model=learner.model if lora_rank else str(start_from),
        processing_class=learner.tokenizer,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in by_prompt]),
        reward_funcs=[Reward(judge, config.advantage)],
        rollout_func=Rollouts(learner, by_prompt),
        callbacks=[watch, KeepScale(judge)],
        peft_config=lora_config(lora_rank, learner.model),
        args=TRLGRPOConfig(
            output_dir=str(folder),
            max_steps=config.steps,
            per_device_train_batch_size=config.micro_batch,
            gradient_accumulation_steps=config.questions * config.group // each,
            num_generations=config.group,
            max_completion_length=learner.settings.max_context_tokens,
            learning_rate=config.learning_rate,
            lr_scheduler_type="constant",
            beta=config.beta,
            temperature=config.temperature,
            scale_rewards="group" if config.advantage == "sum" else "none",
            save_strategy="steps",
            save_steps=config.save_steps,
            save_total_limit=2,
            logging_steps=1,
            log_completions=True,
            num_completions_to_print=0,
            report_to=list(report_to) or "none",
            seed=seed,
            gradient_checkpointing=gradient_checkpointing,
            **device_options(bf16),
            **vllm,
        ),
    )
    return trainer, watch
