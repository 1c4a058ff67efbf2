"""The errors that end a training run early."""

from __future__ import annotations

from router_r1_graph import RouterR1Error


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
