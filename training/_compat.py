"""Private parts of TRL and of transformers' trainer: what breaks without each, and a fallback.

Those that the library needs, too, are in `router_r1_graph/_compat`. docs/contributing.md says what
is lost if TRL calls the methods that `graph_trainer` overrides no longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import TrainingError

MicroBatch = dict[str, Any]
"""A micro-batch as TRL makes it."""


def micro_batches(trainer: Any) -> Sequence[MicroBatch] | None:
    """Return the micro-batches that a GRPO trainer has generated last; None = none are known.

    Without it, samples of one prompt are spread over micro-batches, and each of these computes the
    prompt: the loss is the same, and a step takes longer.
    """
    found = getattr(trainer, "_buffered_inputs", None)
    return found if isinstance(found, list) and hasattr(trainer, "_step") else None


def put_micro_batches(trainer: Any, batches: Sequence[MicroBatch]) -> MicroBatch:
    """Have a trainer take other micro-batches than those of `micro_batches`; return the next."""
    trainer._buffered_inputs = batches
    return batches[trainer._step % len(batches)]


def save_checkpoint(trainer: Any) -> bool:
    """Save a checkpoint as a trainer does at the end of a step; False where that cannot be done.

    Without it, a run that was stopped by something outside goes on from the last checkpoint that
    the trainer itself has saved, and makes the steps after it again.
    """
    save = getattr(trainer, "_save_checkpoint", None)
    if save is not None:
        save(trainer.model, trial=None)
    return save is not None


def require_scoring(trainer: type, advantage: str) -> None:
    """Check that TRL's trainer still asks what its samples are worth where we say it.

    Without it, each turn would get the reward of the whole trace, whatever `advantage` says.

    Args:
        trainer: TRL's class.
        advantage: `grpo.advantage`.

    Raises:
        TrainingError: it does not, and the advantage is not TRL's own.
    """
    if advantage != "sum" and not hasattr(trainer, "_generate_and_score_completions"):
        raise TrainingError(
            f"grpo.advantage: {advantage} cannot be had with this version of TRL: take 'sum', or "
            "pip install 'router-r1-graph[train]'"
        )
