"""Router-R1 as a LangGraph agent: asks the right LLMs the right questions for the least money.

Start with `create_router_r1(pool, controller)`; see README.md. Every public name is here, and
nothing else is public: modules may move.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .answers import exact_match, f1_score
from .budget import Left, StopReason
from .candidates import Candidate, CandidatePool, ControllerSettings
from .candidates.failures import ReplyError
from .candidates.measure import Source, pool_from_records
from .candidates.records import Recorder
from .candidates.reply import Bill, Reply
from .candidates.tool import CandidateTool, candidate_tool, pool_tools
from .chat_router import ChatRouterR1
from .context import RouterContext
from .controllers import (
    CascadeController,
    ChatModelController,
    CheapestController,
    ConstantController,
    Controller,
    RandomController,
    RuleController,
    ScriptedController,
    View,
    VoteController,
    parse_controller,
)
from .errors import (
    ConfigError,
    ControllerError,
    MatrixError,
    MissingExtraError,
    PoolError,
    QuestionError,
    RouterR1Error,
    TraceError,
)
from .graph import create_router_r1, create_router_r1_agent
from .langsmith.traces import (
    TextlessClient,
    log_feedback,
    question_config,
    read_langsmith,
    write_experiment,
)
from .ledger import Ledger, total
from .observations import CallRecord
from .protocol import Call, Turn
from .rewards import AbsoluteCost, PercentileCost, reward
from .state import RouterInput, RouterOutput
from .trace import Trace, read_traces, write_traces

if TYPE_CHECKING:
    from .controllers.embedded import KeywordController, OracleController
    from .controllers.learned import LearnedController
    from .controllers.policy.completions import CompletionsController
    from .controllers.policy.controller import PolicyController
    from .evaluation.program import Evaluation, evaluate
    from .evaluation.questions import Reader
    from .serving.app import create_app

__all__ = [
    "AbsoluteCost",
    "Bill",
    "Call",
    "CallRecord",
    "Candidate",
    "CandidatePool",
    "CandidateTool",
    "CascadeController",
    "ChatModelController",
    "ChatRouterR1",
    "CheapestController",
    "CompletionsController",
    "ConfigError",
    "ConstantController",
    "Controller",
    "ControllerError",
    "ControllerSettings",
    "Evaluation",
    "KeywordController",
    "LearnedController",
    "Ledger",
    "Left",
    "MatrixError",
    "MissingExtraError",
    "OracleController",
    "PercentileCost",
    "PolicyController",
    "PoolError",
    "QuestionError",
    "RandomController",
    "Reader",
    "Recorder",
    "Reply",
    "ReplyError",
    "RouterContext",
    "RouterInput",
    "RouterOutput",
    "RouterR1Error",
    "RuleController",
    "ScriptedController",
    "Source",
    "StopReason",
    "TextlessClient",
    "Trace",
    "TraceError",
    "Turn",
    "View",
    "VoteController",
    "candidate_tool",
    "create_app",
    "create_router_r1",
    "create_router_r1_agent",
    "evaluate",
    "exact_match",
    "f1_score",
    "log_feedback",
    "parse_controller",
    "pool_from_records",
    "pool_tools",
    "question_config",
    "read_langsmith",
    "read_traces",
    "reward",
    "total",
    "write_experiment",
    "write_traces",
]

#: Names that are imported on first use, because they need an extra (torch, numpy, FastAPI) or
#: import the simulation. Name -> module.
_LATER = {
    "CompletionsController": "controllers.policy.completions",
    "Evaluation": "evaluation.program",
    "KeywordController": "controllers.embedded",
    "LearnedController": "controllers.learned",
    "OracleController": "controllers.embedded",
    "PolicyController": "controllers.policy.controller",
    "Reader": "evaluation.questions",
    "create_app": "serving.app",
    "evaluate": "evaluation.program",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("router-r1-graph")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
