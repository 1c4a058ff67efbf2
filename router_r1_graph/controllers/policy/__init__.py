"""A trained policy as the controller: in this process, or on a server that holds its weights."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .completions import CompletionsController
    from .controller import PolicyController

__all__ = ["CompletionsController", "PolicyController"]


# Torch's threads spin while they wait for each other. On a busy machine, a turn then takes ten to a
# hundred times as long; threads that sleep instead cost little. Torch reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    homes = {"CompletionsController": "completions", "PolicyController": "controller"}
    if name not in homes:  # torch and transformers are imported when they are used
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
