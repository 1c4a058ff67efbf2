"""Any fitted controller out of its folder."""

from __future__ import annotations

from pathlib import Path

from ...candidates import CandidatePool
from .controller import LearnedController
from .reader import ReaderController
from .steps import StepController


def load(
    kind: str, folder: str | Path, pool: CandidatePool
) -> LearnedController | ReaderController | StepController:
    """Return the fitted controller of a folder, checked against a pool.

    Args:
        kind: a method of `METHODS`, `auto`, `reader` or `steps`.
        folder: the folder that the controller's `save` made.
        pool: the pool it will choose from.

    Raises:
        ControllerError: the folder holds none, a broken one, one of another kind or version, or one
            that was fitted to other candidates.
        ImportError: a package that it needs is not installed.
    """
    name = f"{kind}:{folder}"
    loaded: LearnedController | ReaderController | StepController
    if kind == "reader":
        loaded = ReaderController.load(folder, name=name)
    elif kind == "steps":
        loaded = StepController.load(folder, name=name)
    else:
        loaded = LearnedController.load(folder, method=kind, name=name)
    loaded.check(pool)
    return loaded
