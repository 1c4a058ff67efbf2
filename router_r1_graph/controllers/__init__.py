"""Controllers: what the think node asks. Swapping the policy in is passing another one."""

from .baselines import (
    CheapestController,
    ConstantController,
    KeywordController,
    OracleController,
    RandomController,
)
from .chat_model import ChatModelController
from .protocol import Controller
from .rules import CascadeController, VoteController
from .scripted import RuleController, ScriptedController
from .spec import SPECS, default_spec, parse_controller

__all__ = [
    "SPECS",
    "CascadeController",
    "ChatModelController",
    "CheapestController",
    "ConstantController",
    "Controller",
    "KeywordController",
    "OracleController",
    "RandomController",
    "RuleController",
    "ScriptedController",
    "VoteController",
    "default_spec",
    "parse_controller",
]
