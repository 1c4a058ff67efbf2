"""Supervised steps on exported rows by TRL's SFTTrainer, and what every trainer here shares."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from router_r1_graph import RouterR1Error

from .config import FitConfig
from .export import SupervisedRow
from .models import Learner


class TrainingError(RouterR1Error):
    """Training cannot go on; the last checkpoint is intact."""


class StoppedError(RouterR1Error):
    """Ctrl-C: the step was finished and a checkpoint written."""


class Watch(TrainerCallback):
    """Writes metrics as JSON lines, stops on NaN, and saves on Ctrl-C.

    Args:
        metrics: the file; appended to.
        stage: the stage's name, in every line.
    """

    def __init__(self, metrics: Path, stage: str) -> None:
        self.metrics = metrics
        self.stage = stage
        self.interrupted = False
        self._before: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take Ctrl-C over."""

        def note(*_: object) -> None:
            if self.interrupted:  # a second one does not wait
                raise KeyboardInterrupt
            self.interrupted = True
            print("\nfinishing this step, then saving; Ctrl-C again stops at once")

        self._before = signal.signal(signal.SIGINT, note)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop after Ctrl-C."""
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write one line of metrics.

        Raises:
            TrainingError: the loss is not a number.
        """
        if not state.is_world_process_zero or not logs:
            return
        with self.metrics.open("a", encoding="utf-8") as file:
            line = {"stage": self.stage, "step": state.global_step, **logs}
            file.write(json.dumps(line, default=float) + "\n")
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            raise TrainingError(
                f"{self.stage}: the loss is {loss} at step {state.global_step}; the last "
                f"checkpoint in {args.output_dir} is intact: lower the learning rate, run again"
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Give Ctrl-C back."""
        signal.signal(signal.SIGINT, self._before)


def device_options(bf16: bool) -> dict[str, Any]:
    """Return what TRL's configs need to know of this machine."""
    gpu = torch.cuda.is_available()
    return {
        "use_cpu": not gpu,
        "bf16": bf16 and gpu,
        "dataloader_pin_memory": gpu,
        "logging_nan_inf_filter": False,
    }


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that was written to its end; None when there is none.

    A trainer writes its state last, so a checkpoint without it was cut off.
    """
    states = folder.glob("checkpoint-*/trainer_state.json")
    folders = sorted((s.parent for s in states), key=lambda f: int(f.name.split("-")[1]))
    return str(folders[-1]) if folders else None


def lora_config(rank: int) -> Any:
    """Return PEFT's config, or None when all weights are trained."""
    if not rank:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")


def fit(
    learner: Learner,
    rows: Sequence[SupervisedRow],
    config: FitConfig,
    *,
    folder: Path,
    stage: str,
    metrics: Path,
    seed: int,
    bf16: bool = False,
    lora_rank: int = 0,
    report_to: Sequence[str] = (),
) -> None:
    """Train on rows, from the last checkpoint in the folder where there is one.

    Raises:
        TrainingError: the loss is not a number.
        StoppedError: Ctrl-C; the checkpoint is written.
    """
    learner.model.train()
    watch = Watch(metrics, stage)
    trainer = SFTTrainer(
        model=learner.model,
        processing_class=learner.tokenizer,
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        callbacks=[watch],
        peft_config=lora_config(lora_rank),
        args=SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=config.batch_size,
            gradient_accumulation_steps=config.gradient_accumulation,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            num_train_epochs=config.epochs,
            max_length=config.max_length,
            train_sampling_strategy="group_by_length",
            save_strategy="steps",
            save_steps=config.save_steps,
            save_total_limit=2,
            logging_steps=20,
            report_to=list(report_to) or "none",
            seed=seed,
            gradient_checkpointing=False,
            **device_options(bf16),
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    if watch.interrupted:
        raise StoppedError(
            f"{stage}: stopped at step {trainer.state.global_step}; run again to go on"
        )
    learner.model = trainer.accelerator.unwrap_model(trainer.model)
    if lora_rank:
        learner.model = learner.model.merge_and_unload()
