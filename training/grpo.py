"""GRPO by TRL, whose rollouts are ordinary runs of the compiled graph.

TRL calls `rollout_func` with the prompts of a generation batch, each repeated for its group. They
are run through the graph with the trainer's own model as the controller; the ids, mask and traces
that come back are what the policy sampled and what the environment wrote.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental

from trl import GRPOConfig as TRLGRPOConfig
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from router_r1_graph import ConfigError, ReplyStore, Trace, write_traces
from router_r1_graph.budget import Left
from router_r1_graph.controllers.controller import View
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import TEMPLATE_FILE
from router_r1_graph.ledger import price_usd, total
from router_r1_graph.words import counted, usd

from .config import GRPOConfig, RewardConfig
from .credit import Judged, credit_of_groups, of_tokens
from .export import RolloutRow, rollout_row
from .fit import (
    BudgetSpentError,
    OutsideError,
    StoppedError,
    Watch,
    device_options,
    lora_config,
    taken_from,
    train,
)
from .items import Item
from .judge import Judge
from .models import Learner, processes
from .outcomes import Outcomes, verdict_of
from .own_graph import OwnGraph
from .progress import say, show
from .rollouts import Patience, failure_from_outside, roll_out, why_left_out
from .shares import Shares
from .spending import Spending
from .validation import Validation
from .vllm_rollouts import VLLMGenerator, vllm_options


class Rollouts:
    """TRL's `rollout_func`: prompts in, episodes of the graph out.

    A rollout that failed from outside is tried again; one that fails to the end is no part of loss
    and group. If half of a step's rollouts fail, the run stops.

    Args:
        learner: how the model is asked.
        items: the item of each prompt.
        config: the size of a group and the patience.
        spending: the bill of the run.
        traces: the folder where the traces are kept, a compressed file for each step.
        replies: the store of replies.
        graph: the user's own graph, of which the router is a part.
        outcomes: what judges the traces, besides the metric.
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
        """What was paid for the last step's rollouts, by all processes."""

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        """Run the graph once for each prompt.

        Raises:
            OutsideError: half of the rollouts failed through no fault of the policy, or there is
                nothing to learn from any of them.
        """
        step = trainer.state.global_step
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
                done=lambda trace: self.spending.add("grpo", trace),
            )
            outside = time.perf_counter() - start - controller.generator.seconds
            model.train(was_training)
        self.traces.mkdir(parents=True, exist_ok=True)
        process = trainer.accelerator.process_index
        write_traces(self.traces / f"{step + 1:06}-{process}.jsonl.gz", traces)
        failures = [failure_from_outside(trace) for trace in traces]
        left_out = [why_left_out(trace) for trace in traces]
        self._stop_if_most_failed(gather_object(failures), gather_object(left_out), step)
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
        """Return the items, each with the seed of its place in the step, in whatever process."""
        first = process * len(prompts)
        samples = []
        for place, prompt in enumerate(prompts, first):
            item = self.items[prompt]
            seed = item.context.seed + place
            samples.append(replace(item, context=replace(item.context, seed=seed)))
        return samples

    def _stop_if_most_failed(
        self, failures: Sequence[str], left_out: Sequence[str], step: int
    ) -> None:
        failed = [failure for failure in failures if failure]
        if 2 * len(failed) >= len(failures):
            tries = counted(self.config.tries, "attempt")
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
    """Return a row that no loss sees; TRL wants a row for each prompt, and no empty one."""
    return {"prompt_ids": [end], "completion_ids": [end], "env_mask": [0], "logprobs": [0.0]}


# It prints a whole trace each time that one is left out, which is no mistake here.
logging.getLogger("trl.trainer.grpo_trainer").addFilter(
    lambda record: "All reward functions returned None" not in record.getMessage()
)


class Reward:
    """TRL's reward function over traces."""

    __name__ = "router_r1"

    def __init__(self, judge: Judge, shares: Shares) -> None:
        self.judge = judge
        self.shares = shares
        self.judged: list[Judged | None] = []
        """What the credit of the last traces is made of; None = left out."""

    def __call__(
        self, prompts: Sequence[str], trace: Sequence[Trace], left_out: Sequence[str], **kwargs: Any
    ) -> list[float | None]:
        """Return one number for each trace, None for one to leave out, and log the parts."""
        rewarded = [None if why else one for one, why in zip(trace, left_out, strict=True)]
        parts = [one and self.judge(one) for one in rewarded]
        self.judged = [
            self.judge.by_turn(one, part) if one and part else None
            for one, part in zip(rewarded, parts, strict=True)
        ]
        # Of all processes, so that each judges by the same scale.
        kept = [one for one in rewarded if one]
        self.judge.observe(gather_object(self.judge.costs(kept)))
        if log := kwargs.get("log_metric"):
            there = [part for part in parts if part]
            functions = self.judge.config.functions
            logged_as = {"cost": "cheapness"} | ({} if functions else {"outcome": "exact_match"})
            for name in ("format", "outcome", "cost", "total"):
                for part in there:
                    log(logged_as.get(name, name), getattr(part, name))
            for one in kept:
                for name, value in verdict_of(one).get("parts", {}).items():
                    log(f"outcome/{name}", value)
                log("calls", len(one.calls))
                log("failed_calls", sum(not call.ok for call in one.calls))
                bill = total(one.ledger)
                log("stored_calls", bill.get("stored_calls", 0))
                log("saved_usd", bill.get("saved_usd", 0.0))
                log("cost_usd", price_usd(bill))
                for asked in self.shares.of_calls(one):
                    for label in self.shares.labels:
                        log(f"share/{label}", float(label == asked))
            log("left_out", fmean(map(bool, left_out)))
            for name in ("usd", "graph_seconds", "generate_seconds"):
                log(name, kwargs[name][0])
        return [part.total if part else None for part in parts]


class GraphGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, with our credit of each turn in the place of the normalised reward."""

    advantage: Literal["sum", "apart", "per_call"] = "sum"

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.advantage == "sum":
            return output
        [reward] = self.reward_funcs
        ours = len(reward.judged)
        # A group may be spread over processes: its credit is computed from all of them.
        everything: list[Judged | None] = gather_object(reward.judged)
        first = self.accelerator.process_index * ours
        credit = credit_of_groups(everything, self.num_generations)[first : first + ours]
        if self.advantage == "per_call":
            advantages = of_tokens(credit, output["completion_mask"] * output["tool_mask"])
        else:
            advantages = torch.tensor([turns[0] for turns in credit])
        output["advantages"] = advantages.to(output["advantages"])
        return output


class KeepScale(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Keeps the cost scale inside the checkpoints, so that a resumed run goes on with it."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def state(self) -> dict[str, Any]:
        """Return what transformers writes into a checkpoint."""
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
    """Says what the run will cost, and stops it with a checkpoint before it costs too much."""

    def __init__(self, spending: Spending, rollouts: Rollouts) -> None:
        self.spending = spending
        self.rollouts = rollouts
        self.refused = ""
        self._told = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop before the first step of a run that may pay nothing any more.

        Raises:
            BudgetSpentError: the budget is spent.
        """
        if refused := self._refused(0.0):
            raise BudgetSpentError(f"grpo: {refused}; raise budget_usd to go on")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop where the next step would cost more than is left."""
        each = self.rollouts.step_usd
        if each and not self._told and state.is_world_process_zero:
            left = state.max_steps - state.global_step
            limit = self.spending.budget_usd
            budget = "" if limit is None else f"; budget_usd is {usd(limit)}"
            say(
                f"step {state.global_step} cost {usd(each)}: the {counted(left, 'step')} to come "
                f"will cost about {usd(each * left)}{budget}"
            )
        self._told = True
        if state.global_step < state.max_steps and (refused := self._refused(each)):
            self.refused = refused
            control.should_save = control.should_training_stop = True

    def _refused(self, next_usd: float) -> str:
        # One process decides for all: each reads the files at another moment.
        return str(gather_object([self.spending.refuses(next_usd)])[0])


def run_grpo(
    learner: Learner, items: Sequence[Item], config: GRPOConfig, *, folder: Path, **options: Any
) -> None:
    """Train by reward, from the last checkpoint in the folder where there is one.

    Takes what `grpo_trainer` takes.

    Raises:
        TrainingError: the loss is not a number.
        OutsideError: half of a step's rollouts failed from outside; a checkpoint is written.
        StoppedError: Ctrl-C, or the budget is spent; the checkpoint is written.
    """
    trainer, watch = grpo_trainer(learner, items, config, folder=folder, **options)
    train(trainer, folder, "grpo")
    at = f"grpo: stopped at step {trainer.state.global_step}"
    budget = _callback(trainer, KeepBudget)
    if budget.refused:
        raise BudgetSpentError(f"{at}: {budget.refused}; raise budget_usd, run again to go on")
    if watch.interrupted:
        raise StoppedError(f"{at}; run again to go on")
    learner.model = taken_from(trainer)
    if validation := _callback(trainer, Validation):
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
    bf16: bool = False,
    gradient_checkpointing: bool = False,
    lora_rank: int = 0,
    report_to: Sequence[str] = (),
) -> tuple[GRPOTrainer, Watch]:
    """Return TRL's trainer over runs of the graph, and its `Watch`.

    Args:
        learner: what is trained; its model is given up, as TRL loads one of its own.
        items: the questions, each used once; two may have the same prompt.
        config: steps, group size and rates.
        reward: the rules by which traces are judged.
        folder: the folder of checkpoints and completions.
        metrics: the file of metrics.
        seed: the seed of sampling and order.
        spending: the bill of the run.
        replies: the store of replies.
        graph: the user's own graph, of which the router is a part; None = the router alone.
        outcomes: what judges the traces, besides the metric; None = the functions of `reward`.
        held_out: questions to validate on.
        bf16: on a GPU, compute in bfloat16.
        gradient_checkpointing: trade time for memory.
        lora_rank: 0 = all weights.
        report_to: trackers besides the metrics file.

    Raises:
        ConfigError: the batch cannot be split over the processes, or the weights would be.
    """
    each = config.micro_batch * processes().num_processes
    if (config.questions * config.group) % each:
        raise ConfigError(
            f"grpo.questions * grpo.group = {config.questions * config.group} must be a multiple "
            f"of grpo.micro_batch * {processes().num_processes} processes = {each}"
        )
    refuse_sharding()
    if len(items) < config.questions:  # TRL would leave out the only batch, which is not whole
        items = list(islice(cycle(items), config.questions))
    by_prompt, prompts = _prompts(items, learner)
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
    callbacks = [watch, KeepScale(judge), KeepBudget(spending, rollouts)]
    if config.validate_every and held_out:
        callbacks.append(
            Validation(
                *(learner, held_out, config, judge, metrics, folder, spending),
                *(replies, graph, outcomes),
            )
        )
    trainer = GraphGRPOTrainer(
        # An adapter goes on as it is, on its model in bfloat16; TRL copies it as the reference.
        model=model,
        processing_class=learner.tokenizer,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        reward_funcs=[Reward(judge, Shares(items))],
        rollout_func=rollouts,
        callbacks=callbacks,
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
    trainer.advantage = config.advantage
    show(trainer, spending)
    for callback in callbacks:
        if isinstance(callback, Validation):
            callback.trainer = trainer
    return trainer, watch


def refuse_sharding() -> None:
    """Refuse to split the weights over processes.

    Runs of the graph differ in length, so the processes cannot take their forward passes in step,
    as sharded weights need (docs/experiments.md).

    Raises:
        ConfigError: accelerate was told to shard.
    """
    for variable, name in (
        ("ACCELERATE_USE_FSDP", "FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
    ):
        if os.environ.get(variable, "").lower() in ("1", "true"):
            raise ConfigError(
                f"{name} splits a model over GPUs, and runs of the graph differ in length, so its "
                "processes would wait for each other for ever; start plain processes "
                "(torchrun --nproc_per_node N, or accelerate launch --multi_gpu), with "
                "model.lora_rank where the model is too large for one GPU"
            )


def _prompts(items: Sequence[Item], learner: Learner) -> tuple[dict[str, Item], list[str]]:
    """Return the item of each prompt, and the prompts in order, without those that are too long.

    Others take their places, so that there are as many prompts as items.

    Raises:
        ConfigError: all are too long.
    """
    codec, most = learner.codec, learner.settings.max_context_tokens
    by_prompt: dict[str, Item] = {}
    prompts: list[str] = []
    too_long: list[str] = []
    for item in items:
        start = Left(item.context.max_rounds)
        ids = codec.prompt_ids(View(item.question, item.pool, item.context, start))
        if len(ids) >= most:
            too_long.append(f"{item.id or item.question[:40]!r} ({len(ids)} tokens)")
            continue
        prompt = learner.tokenizer.decode(ids)
        by_prompt[prompt] = item
        prompts.append(prompt)
    if too_long and processes().is_main_process:
        print(
            f"grpo: {counted(len(too_long), 'question')} left out, whose prompt has "
            f"{most} tokens (model.max_context_tokens) or more: {', '.join(too_long[:3])}"
            + (", ..." if len(too_long) > 3 else "")
        )
    if not prompts:
        raise ConfigError(
            f"grpo: the prompt of every question has more than model.max_context_tokens = {most} "
            "tokens; raise it, or describe the candidates in fewer words"
        )
    return by_prompt, list(islice(cycle(prompts), len(items)))
