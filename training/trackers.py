"""The trackers of a run: TensorBoard, Weights & Biases or trackio, by transformers' own callbacks.

The trainers log their steps to them. Numbers that no trainer knows go the same way: validations
while it trains, and the results of a stage once it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from router_r1_graph import ConfigError

from .measurement import Numbers

VALIDATION = "eval_"
"""How the names of validations begin; transformers' callbacks make `eval/` of it."""


def require_trackers(names: Sequence[str]) -> None:
    """Check that the trackers are installed, before anything is paid.

    Raises:
        ConfigError: one is not installed, or not known.
    """
    for name in names:
        try:
            [kind] = get_reporting_integration_callbacks([name])
            kind()
        except ValueError as error:
            raise ConfigError(f"report_to: {error}") from None
        except (RuntimeError, ImportError) as error:
            raise ConfigError(
                f"report_to: {name} is not installed: pip install {name} "
                f"({str(error).splitlines()[0]})"
            ) from None


def report_validation(trainer: Any, rows: Mapping[float, Numbers], reward: float) -> None:
    """Give all callbacks of a trainer the numbers of a validation, the trackers among them.

    Args:
        trainer: the trainer; its step is the one that was validated.
        rows: the numbers at each cost weight.
        reward: the mean over all of them.
    """
    numbers = {f"{VALIDATION}reward": reward} | _flat(VALIDATION, rows)
    # A copy, because to log takes the flag back that this step's own numbers are due.
    trainer.callback_handler.on_log(trainer.args, trainer.state, copy(trainer.control), numbers)


def report_stage(
    names: Sequence[str], stage: str, rows: Mapping[float, Numbers], folder: Path, run_name: str
) -> None:
    """Give trackers the results of a stage, once its trainer has ended.

    Args:
        names: the trackers.
        stage: the stage's name.
        rows: the numbers on held-out questions at each cost weight.
        folder: where a tracker that writes files may write.
        run_name: the name of the run.
    """
    if not names:
        return
    cpu = not torch.cuda.is_available()
    arguments = TrainingArguments(str(folder), run_name=run_name, use_cpu=cpu, report_to="none")
    state, control = TrainerState(is_world_process_zero=True), TrainerControl()
    for kind in get_reporting_integration_callbacks(list(names)):
        callback = kind()
        callback.on_train_begin(arguments, state, control)
        callback.on_log(arguments, state, control, logs=_flat(f"test_{stage}_", rows))
        callback.on_train_end(arguments, state, control)


def _flat(start: str, rows: Mapping[float, Numbers]) -> Numbers:
    return {
        f"{start}{name}_at_{weight:g}": value
        for weight, numbers in rows.items()
        for name, value in numbers.items()
        if not name.endswith(("_low", "_high"))  # three charts of one number
    }
