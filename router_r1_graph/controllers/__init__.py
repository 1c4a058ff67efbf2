"""Controllers: the think node asks one. To use a trained policy, pass it as the controller.

`KeywordController` and `OracleController` are in `embedded`, which imports the simulation.
"""

from .chat_model import ChatModelController
from .controller import Controller, View
from .rules import (
    CascadeController,
    CheapestController,
    ConstantController,
    RandomController,
    RuleController,
    VoteController,
)
from .scripted import ScriptedController
from .spec import SPECS, as_controller, default_spec, parse_controller
from .sticky import StickyController

__all__ = [
    "SPECS",
    "CascadeController",
    "ChatModelController",
    "CheapestController",
    "ConstantController",
    "Controller",
    "RandomController",
    "RuleController",
    "ScriptedController",
    "StickyController",
    "View",
    "VoteController",
    "as_controller",
    "default_spec",
    "parse_controller",
]
