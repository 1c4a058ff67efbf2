"""GRPO by TRL, whose rollouts are ordinary runs of the compiled graph.

TRL calls `rollout_func` with the prompts of a generation batch, each repeated for its group. They
are run through the graph with the trainer's own model as the controller. The ids, mask and traces
that come back are the tokens of the policy and of the environment.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from datasets import Dataset

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental

from trl import GRPOConfig as TRLGRPOConfig
from trl import GRPOTrainer

from router_r1_graph import ConfigError, ReplyStore
from router_r1_graph.controllers.policy.folder import TEMPLATE_FILE

from ._compat import require_scoring
from .callbacks import KeepBudget, KeepScale
from .checkpoints import train
from .config import GRPOConfig, RewardConfig
from .errors import BudgetSpentError, StoppedError
from .graph_trainer import GraphGRPOTrainer
from .items import Item
from .judge import Judge
from .machine import adapter_as_computed, device_options, keep_freed_memory
from .models import Learner, is_adapted, lora_config, processes, refuse_sharding, taken_from
from .outcomes import Outcomes
from .own_graph import OwnGraph
from .progress import show
from .prompts import askable
from .reward_func import Reward
from .rollout_func import Rollouts
from .shares import Shares
from .spending import Spending
from .validation import Validation
from .vllm_rollouts import vllm_options
from .watch import Watch

# It prints a whole trace each time that one is left out, which is no mistake here.
logging.getLogger("trl.trainer.grpo_trainer").addFilter(
    lambda record: "All reward functions returned None" not in record.getMessage()
)


def run_grpo(
    learner: Learner, items: Sequence[Item], config: GRPOConfig, *, folder: Path, **options: Any
) -> None:
    """Train by reward, from the last checkpoint in the folder, if there is one.

    Takes what `grpo_trainer` takes.

    Raises:
        TrainingError: the loss is not a number.
        OutsideError: half of a step's rollouts failed from outside; a checkpoint is written.
        StoppedError: Ctrl-C, or the budget is spent; the checkpoint is written.
    """
    trainer, watch = grpo_trainer(learner, items, config, folder=folder, **options)
    validation = _callback(trainer, Validation)
    if not (validation and validation.is_over):  # it stopped early, and was killed after that
        with adapter_as_computed(
            trainer.model, options.get("bf16", False) and is_adapted(trainer.model)
        ):
            train(trainer, folder, "grpo")
    at = f"grpo: stopped at step {trainer.state.global_step}"
    budget = _callback(trainer, KeepBudget)
    if budget.refused:
        raise BudgetSpentError(f"{at}: {budget.refused}; raise budget_usd, run again to go on")
    if watch.interrupted:
        raise StoppedError(f"{at}; run again to go on")
    learner.model = taken_from(trainer)
    if validation:
        validation.take_best(learner.model)


def _callback(trainer: Any, kind: type) -> Any:
    return next((c for c in trainer.callback_handler.callbacks if isinstance(c, kind)), None)


def grpo_trainer(
    learner: Learner,
    items: Sequence[Item],
    config: GRPOConfig,
    *,
    reward: RewardConfig,
    folder: Path,
    metrics: Path,
    seed: int,
    spending: Spending,
    replies: ReplyStore | None = None,
    graph: OwnGraph | None = None,
    outcomes: Outcomes | None = None,
    held_out: Sequence[Item] = (),
    measured: int = 0,
    bf16: bool = False,
    gradient_checkpointing: bool = False,
    lora_rank: int = 0,
    report_to: Sequence[str] = (),
) -> tuple[GRPOTrainer, Watch]:
    """Return TRL's trainer over runs of the graph, and its `Watch`.

    Args:
        learner: the model to train; it is given up, as TRL loads one of its own.
        items: the questions, in the order in which they are asked, again and again where the steps
            need more; two may have the same prompt.
        config: steps, group size and rates.
        reward: the rules by which traces are judged.
        folder: the folder of checkpoints and completions.
        metrics: the file of metrics.
        seed: the seed of sampling and order.
        spending: the bill of the run.
        replies: the store of replies.
        graph: the user's own graph around the router; None = the router alone.
        outcomes: judges the traces, besides the metric; None = the functions of `reward`.
        held_out: questions to validate on.
        measured: how many questions are asked after the stage, for the estimate of its cost.
        bf16: on a GPU, compute in bfloat16.
        gradient_checkpointing: trade time for memory.
        lora_rank: 0 = all weights.
        report_to: trackers besides the metrics file.

    Raises:
        ConfigError: the batch cannot be split over the processes, or the weights would be; or the
            prompts of all questions are too long.
    """
    each = config.micro_batch * processes().num_processes
    if (config.questions * config.group) % each:
        raise ConfigError(
            f"grpo.questions * grpo.group = {config.questions * config.group} must be a multiple "
            f"of grpo.micro_batch * {processes().num_processes} processes = {each}"
        )
    refuse_sharding()
    if learner.model.device.type == "cpu":
        keep_freed_memory()
    by_prompt, prompts = _prompts(items, learner)
    if config.validate_every:
        weights = config.validate_cost_weights
        held_out = [item for item, _ in askable(held_out, learner, "grpo_validation", weights)]
    # The whole run is one epoch in the items' order: TRL's shuffle of an epoch depends on those
    # before it, which a run that goes on from a checkpoint has not seen.
    asked = islice(cycle(prompts), config.steps * config.questions)
    start_from = folder / "start"  # the reference model is loaded from a path
    with processes().main_process_first():
        if not (start_from / TEMPLATE_FILE).exists():  # written last
            learner.save(start_from)
    model: Any = learner.model
    if not lora_rank:  # TRL loads both the model and its reference from here
        model = str(start_from)
        learner.model = None  # else its memory is held beside theirs
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
    outcomes = Outcomes(reward, spending) if outcomes is None else outcomes
    rollouts = Rollouts(
        learner, by_prompt, config, spending, folder.parent / "traces", replies, graph, outcomes
    )
    validation = None
    if config.validate_every and held_out:
        validation = Validation(
            *(learner, held_out, config, reward, metrics, folder, spending),
            *(replies, graph, outcomes),
        )
    callbacks = [watch, KeepScale(judge), KeepBudget(spending, rollouts, validation, measured)]
    callbacks += [validation] if validation else []
    trainer = GraphGRPOTrainer(
        # An adapter goes on as it is, on its model in bfloat16; TRL copies it as the reference.
        model=model,
        processing_class=learner.tokenizer,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in asked]),
        reward_funcs=[Reward(judge, Shares(items))],
        rollout_func=rollouts,
        callbacks=callbacks,
        peft_config=lora_config(lora_rank, learner.model),
        args=TRLGRPOConfig(
            output_dir=str(folder),
            max_steps=config.steps,
            shuffle_dataset=False,
            per_device_train_batch_size=config.micro_batch,
            gradient_accumulation_steps=config.questions * config.group // each,
            num_generations=config.group,
            max_completion_length=learner.settings.max_context_tokens,
            learning_rate=config.learning_rate,
            lr_scheduler_type="constant",
            beta=config.beta,
            temperature=config.temperature,
            scale_rewards="group",
            save_strategy="steps",
            save_steps=config.save_steps,
            save_total_limit=2,
            logging_steps=1,
            log_completions=True,
            num_completions_to_print=0,
            report_to=list(report_to) or "none",
            run_name=metrics.parent.name,
            seed=seed,
            gradient_checkpointing=gradient_checkpointing,
            **device_options(bf16),
            **vllm,
        ),
    )
    require_scoring(GRPOTrainer, config.advantage)
    trainer.advantage = config.advantage
    show(trainer, spending)
    if validation:
        validation.trainer = trainer
    return trainer, watch


def _prompts(items: Sequence[Item], learner: Learner) -> tuple[dict[str, Item], list[str]]:
    """Return the item of each prompt, and the prompts in order, without those that are too long.

    Raises:
        ConfigError: all are too long.
    """
    by_prompt: dict[str, Item] = {}
    prompts: list[str] = []
    for item, ids in askable(items, learner, "grpo"):
        prompt = learner.tokenizer.decode(ids)
        by_prompt[prompt] = item
        prompts.append(prompt)
    return by_prompt, prompts
