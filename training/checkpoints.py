"""Training from the last whole checkpoint."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from safetensors import SafetensorError, safe_open

from router_r1_graph import ConfigError

from ._compat import save_checkpoint
from .errors import BudgetSpentError, OutsideError, TrainingError

logger = logging.getLogger(__name__)


def train(trainer: Any, folder: Path, stage: str) -> None:
    """Train from the last checkpoint in the folder, if there is one.

    Raises:
        TrainingError: the loss is not a number, or a checkpoint cannot be written.
        OutsideError, BudgetSpentError, ConfigError: raised by the trainer, such as for what a
            reward function returned, once a checkpoint is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    except (OutsideError, BudgetSpentError, ConfigError) as error:
        step = trainer.state.global_step
        kept = ""
        if step:
            whole = folder / f"checkpoint-{step}" / "trainer_state.json"
            # Of several processes, one alone may have failed, which writes no whole checkpoint.
            if whole.exists() or (save_checkpoint(trainer) and whole.exists()):
                kept = f"the checkpoint of step {step} is written: "
        if isinstance(error, BudgetSpentError):
            raise
        if isinstance(error, ConfigError):
            raise (ConfigError(f"{error}; {kept}run again to go on") if kept else error) from None
        raise OutsideError(f"{error}; {kept}see to it, run again to go on") from None
    except BrokenPipeError:
        raise  # of standard output
    except (OSError, SafetensorError, RuntimeError) as error:
        # A full disk raises an OSError, Rust's error or PyTorch's own, depending on the file.
        of_a_file = ("PytorchStreamWriter", "iostream error", "inline_container.cc")
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in of_a_file):
            raise
        raise TrainingError(
            f"{stage}: a file cannot be written at step {trainer.state.global_step} "
            f"({str(error).splitlines()[0]:.120}): is the disk of {folder} full? The last whole "
            f"one is intact ({last_checkpoint(folder) or 'none yet'}): make room, run again"
        ) from error


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
    """Return a broken file of a checkpoint; None = there is none."""
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
