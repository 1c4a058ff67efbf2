"""The content of a run's folder so far: its config, numbers and bill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from router_r1_graph import ConfigError
from router_r1_graph.files import whole_objects

from .config import RunConfig
from .files import read_whole
from .measurement import Numbers, best_step
from .spending import Paid, Spending

REWARDS_FILE = "validation.json"
"""In the folder of checkpoints: the mean reward of each step that was validated."""


@dataclass(frozen=True)
class History:
    """A run so far; it may be running, stopped or finished.

    Attributes:
        config: the config of the run.
        made: when (`date`), at which `commit` and by which `command`.
        steps: a line of metrics for each step of GRPO, in order.
        validations: at each validated step, the numbers of each cost weight.
        best_step: the step whose weights are the best on held-out questions; None = none was
            validated.
        measured: the results of each finished stage on held-out questions, a row for each cost
            weight.
        bills: the bill of each stage.
        learned: how many traces the warm start learned, and how many it left out; None = no warm
            start.
    """

    config: RunConfig
    made: Mapping[str, str]
    steps: Sequence[Numbers]
    validations: Mapping[int, Mapping[float, Numbers]]
    best_step: int | None
    measured: Mapping[str, Sequence[Numbers]]
    bills: Mapping[str, Paid]
    learned: tuple[int, int] | None


def read_history(folder: Path) -> History:
    """Read the folder of a run.

    If a run was killed and went on, a step that was made twice counts once.

    Raises:
        ConfigError: no run has begun there.
    """
    try:
        made = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        config = RunConfig.model_validate(made.pop("config"))
    except (OSError, yaml.YAMLError, AttributeError, KeyError, ValidationError) as error:
        raise ConfigError(
            f"{folder}: no run of router-r1 train has begun there (config.yaml: "
            f"{str(error).splitlines()[0]})"
        ) from None
    steps: dict[int, Numbers] = {}
    validations: dict[int, dict[float, Numbers]] = {}
    learned = None
    for line in read_lines(folder / "metrics.jsonl"):
        stage, step = line.pop("stage"), line["step"]
        if stage == "grpo" and "reward" in line:
            steps[step] = line
        elif stage == "grpo_validation":
            validations.setdefault(step, {})[line["cost_weight"]] = line
        elif stage == "warm_start_rows":
            learned = (line["learned"], line["left_out"])
    done = {stage: read_whole(folder / stage / "done.json") for stage in config.stages}
    validated = read_whole(folder / "grpo" / "checkpoints" / REWARDS_FILE) or {}
    return History(
        config,
        made,
        [steps[step] for step in sorted(steps)],
        dict(sorted(validations.items())),
        best_step({int(step): reward for step, reward in validated.items()}),
        {stage: rows for stage, rows in done.items() if rows},
        Spending(folder / "spending").by_stage(),
        learned,
    )


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Return the whole lines of a run's metrics, one at a time."""
    return (read for read in whole_objects(file) if {"stage", "step"} <= read.keys())
