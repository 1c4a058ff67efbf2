"""The callback of every trainer here: metrics, NaN, and signals."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback

from .errors import TrainingError
from .files import append_line
from .signals import Handlers, give_back, take_signals
from .trackers import VALIDATION


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
        self._began = -1
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
        self._began = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop after a signal; it may have reached only one of the processes."""
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
        if "train_runtime" in logs and state.global_step == self._began:
            return  # the summary of no step: that of the last one is written
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
