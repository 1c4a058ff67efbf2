"""Supervised steps on exported rows, by TRL's SFTTrainer."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from trl import SFTConfig

from .batches import in_batches
from .checkpoints import train
from .config import FitConfig
from .errors import StoppedError
from .export import SupervisedRow
from .machine import adapter_as_computed, attention_for_training, device_options, keep_freed_memory
from .models import Learner, lora_config, refuse_sharding, taken_from
from .progress import show
from .turn_trainer import TurnTrainer
from .watch import Watch


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
    gradient_checkpointing: bool = False,
    lora_rank: int = 0,
    report_to: Sequence[str] = (),
) -> None:
    """Train on rows, from the last checkpoint in the folder, if there is one.

    No row has more tokens than the config's `max_length`: the callers leave longer ones out.

    Raises:
        ConfigError: the weights would be split over the processes.
        TrainingError: the loss is not a number.
        StoppedError: Ctrl-C; the checkpoint is written.
    """
    refuse_sharding()
    learner.model.train()
    if learner.model.device.type == "cpu":
        keep_freed_memory()
    watch = Watch(metrics, stage)
    rows = in_batches(rows, config.batch_size, random.Random(f"batches/{seed}"))
    trainer = TurnTrainer(
        config=config,
        model=learner.model,
        processing_class=learner.tokenizer,
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        callbacks=[watch],
        peft_config=lora_config(lora_rank, learner.model),
        args=SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=config.batch_size,
            gradient_accumulation_steps=config.gradient_accumulation,
            learning_rate=config.learning_rate,
            adam_beta2=0.98,
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            warmup_steps=0.02,
            num_train_epochs=config.epochs,
            max_length=config.max_length,
            # TRL would copy each row twice to cut and drop some: 40 s for 120,000 rows.
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="sequential",  # the rows are in their batches
            save_strategy="steps",
            save_steps=config.save_steps,
            save_total_limit=2,
            logging_steps=math.gcd(20, config.save_steps),  # a loss is seen before it is saved
            report_to=list(report_to) or "none",
            run_name=metrics.parent.name,
            seed=seed,
            gradient_checkpointing=gradient_checkpointing,
            **device_options(bf16),
        ),
    )
    show(trainer)
    adapted = bf16 and lora_rank > 0
    with attention_for_training(trainer.model, bf16), adapter_as_computed(trainer.model, adapted):
        train(trainer, folder, stage)
    if watch.interrupted:
        raise StoppedError(
            f"{stage}: stopped at step {trainer.state.global_step}; run again to go on"
        )
    learner.model = taken_from(trainer)
