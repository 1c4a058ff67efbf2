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
from .scripted import RuleController, ScriptedController
from .spec import SPECS, parse_controller

__all__ = [
    "SPECS",
    "ChatModelController",
    "CheapestController",
    "ConstantController",
    "Controller",
    "KeywordController",
    "OracleController",
    "RandomController",
    "RuleController",
    "ScriptedController",
    "parse_controller",
]
