"""Supervised steps on exported rows by TRL's SFTTrainer, and what every trainer here shares."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import math
import random
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback
from trl import SFTConfig

from router_r1_graph import RouterR1Error

from .batches import in_batches
from .config import FitConfig
from .export import SupervisedRow
from .files import append_line
from .models import Learner, is_adapted, refuse_sharding
from .progress import show
from .signals import Handlers, give_back, take_signals
from .trackers import VALIDATION
from .turn_trainer import TurnTrainer

logger = logging.getLogger(__name__)

_SMALL = 10_000_000
"""Below this many weights, PyTorch's fused attention takes twice the time of a plain one in a
backward pass on a CPU; a model of 135M weights gains by it, but not where it computes in bfloat16,
which only matrix products do fast (docs/experiments.md)."""


class TrainingError(RouterR1Error):
    """Training cannot go on; the last checkpoint is intact."""


class StoppedError(RouterR1Error):
    """Ctrl-C: the step was finished and a checkpoint written."""

    exit_code = 130


class BudgetSpentError(StoppedError):
    """The run may not pay more; a checkpoint is written."""

    exit_code = 3


class OutsideError(TrainingError):
    """Rollouts failed through no fault of the policy: its sampler or the endpoints did."""


class Watch(TrainerCallback):
    """Writes metrics as JSON lines, stops on NaN, and saves on Ctrl-C, SIGTERM and SIGHUP.

    Args:
        metrics: the file; appended to.
        stage: the stage's name, in every line.
    """

    def __init__(self, metrics: Path, stage: str) -> None:
        self.metrics = metrics
        self.stage = stage
        self.interrupted = False
        self._before: Handlers = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the signals over."""

        def note(*_: object) -> None:
            if self.interrupted:  # a second one does not wait
                raise KeyboardInterrupt
            self.interrupted = True
            with suppress(OSError, RuntimeError):  # nobody reads it, or a print was interrupted
                print("\nfinishing this step, then saving; Ctrl-C again stops at once")

        self._before = take_signals(note)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop after a signal, which may have reached one of the processes only."""
        self.interrupted = any(gather_object([self.interrupted]))
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write one line of metrics.

        Raises:
            TrainingError: the loss, or the gradient, is not a number.
        """
        if not logs or any(name.startswith(VALIDATION) for name in logs):
            return  # validation writes lines of its own
        if state.is_world_process_zero:
            append_line(self.metrics, {"stage": self.stage, "step": state.global_step, **logs})
        for name in ("loss", "grad_norm"):  # either ruins the weights
            value = float(logs.get(name, 0.0))
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.stage}: {name} is {value} at step {state.global_step}; the last "
                    f"checkpoint in {args.output_dir} is intact: lower the learning rate, run again"
                )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Give the signals back."""
        give_back(self._before)


def device_options(bf16: bool) -> dict[str, Any]:
    """Return what TRL's configs need to know of this machine."""
    gpu = torch.cuda.is_available()
    return {
        "use_cpu": not gpu,
        "bf16": bf16,
        "dataloader_pin_memory": gpu,
        "logging_nan_inf_filter": False,
    }


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensors, instead of returning it to the kernel.

    A step on a CPU frees and takes hundreds of megabytes, whose pages the kernel would clear again
    each time: a quarter of a step's time (docs/experiments.md). Does nothing without glibc.
    """
    if sys.platform != "linux" or (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is None:
        return
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**30)


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that was written to its end; None when there is none.

    A trainer writes its state last, so a checkpoint without it was cut off. One with a file that
    cannot be read, as after a power cut, is named and passed over.
    """
    states = folder.glob("checkpoint-*/trainer_state.json")
    folders = (s.parent for s in states)
    for checkpoint in sorted(folders, key=lambda f: int(f.name.split("-")[1]), reverse=True):
        if not (broken := _broken(checkpoint)):
            return str(checkpoint)
        logger.warning("%s is broken, the checkpoint is passed over", broken)
    return None


def _broken(checkpoint: Path) -> Path | None:
    """Return a file of a checkpoint that is not whole; None = all are."""
    for file in sorted(checkpoint.iterdir()):
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass  # it compares its length with its header
            elif file.suffix in (".pt", ".pth") and not is_zipfile(file):
                return file
            elif file.name == "trainer_state.json":
                json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, SafetensorError):
            return file
    return None


def lora_config(rank: int, model: Any = None) -> Any:
    """Return PEFT's config; None when all weights are trained, or the model has its adapter."""
    if not rank or is_adapted(model):
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")


def train(trainer: Any, folder: Path, stage: str) -> None:
    """Train from the last checkpoint in the folder where there is one.

    Raises:
        TrainingError: the loss is not a number, or a checkpoint cannot be written.
        OutsideError, BudgetSpentError: what the trainer raised, once a checkpoint is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    except (OutsideError, BudgetSpentError) as error:
        step = trainer.state.global_step
        if step and not (folder / f"checkpoint-{step}" / "trainer_state.json").exists():
            trainer._save_checkpoint(trainer.model, trial=None)  # as at the end of that step
        kept = f"the checkpoint of step {step} is written: " if step else ""
        if isinstance(error, BudgetSpentError):
            raise
        raise OutsideError(f"{error}; {kept}see to it, run again to go on") from None
    except BrokenPipeError:
        raise  # of standard output
    except (OSError, SafetensorError, RuntimeError) as error:
        # A full disk raises an OSError, Rust's error or PyTorch's own, depending on the file.
        of_a_file = ("PytorchStreamWriter", "iostream error")
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in of_a_file):
            raise
        raise TrainingError(
            f"{stage}: a file cannot be written at step {trainer.state.global_step} "
            f"({str(error).splitlines()[0]:.120}): is the disk of {folder} full? The last whole "
            f"one is intact ({last_checkpoint(folder) or 'none yet'}): make room, run again"
        ) from error


def taken_from(trainer: Any) -> Any:
    """Return the model that a trainer trained, and free what it held beside (the optimizer)."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.zero_grad(set_to_none=True)
    trainer.accelerator.free_memory()
    trainer.optimizer = trainer.lr_scheduler = None
    if "ref" in getattr(model, "peft_config", {}):  # the reference, as TRL names it
        model.delete_adapter("ref")
    gc.collect()  # trainers are full of cycles
    return model


def _as_computed(model: Any, cast: bool) -> AbstractContextManager[None]:
    """Leave what an adapter reads in the type that autocast computes in, while it lasts.

    PEFT casts each input to the type of the adapter's weights, float32, and autocast casts it back.
    """
    if not cast:
        return nullcontext()
    from peft.helpers import disable_input_dtype_casting

    return disable_input_dtype_casting(model)


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
    """Train on rows, from the last checkpoint in the folder where there is one.

    Raises:
        ConfigError: the weights would be split over the processes.
        TrainingError: the loss is not a number.
        StoppedError: Ctrl-C; the checkpoint is written.
    """
    refuse_sharding()
    learner.model.train()
    on_cpu = learner.model.device.type == "cpu"
    attention = learner.model.config._attn_implementation
    if on_cpu:
        keep_freed_memory()
        if bf16 or learner.model.num_parameters() < _SMALL:
            learner.model.set_attn_implementation("eager")
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
    with _as_computed(trainer.model, bf16 and lora_rank > 0):
        train(trainer, folder, stage)
    if watch.interrupted:
        raise StoppedError(
            f"{stage}: stopped at step {trainer.state.global_step}; run again to go on"
        )
    learner.model = taken_from(trainer)
    learner.model.set_attn_implementation(attention)
