"""Router-R1 as a LangGraph agent: asks the right LLMs the right questions for the least money.

Start with `create_router_r1(pool, controller)`; see README.md.
"""

from .candidates import Candidate, CandidatePool, ControllerSettings
from .chat_router import ChatRouterR1
from .context import RouterContext
from .controllers import (
    CascadeController,
    ChatModelController,
    CheapestController,
    ConstantController,
    Controller,
    KeywordController,
    OracleController,
    RandomController,
    RuleController,
    ScriptedController,
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
from .failures import ReplyError
from .graph import create_router_r1, create_router_r1_agent
from .ledger import Ledger
from .records import Recorder
from .reply import Reply
from .state import RouterInput, RouterOutput, StopReason, View
from .tools import CandidateTool, candidate_tool, pool_tools
from .trace import Trace, read_traces, write_traces

__all__ = [
    "Candidate",
    "CandidatePool",
    "CandidateTool",
    "CascadeController",
    "ChatModelController",
    "ChatRouterR1",
    "CheapestController",
    "ConfigError",
    "ConstantController",
    "Controller",
    "ControllerError",
    "ControllerSettings",
    "KeywordController",
    "Ledger",
    "MatrixError",
    "MissingExtraError",
    "OracleController",
    "PoolError",
    "QuestionError",
    "RandomController",
    "Recorder",
    "Reply",
    "ReplyError",
    "RouterContext",
    "RouterInput",
    "RouterOutput",
    "RouterR1Error",
    "RuleController",
    "ScriptedController",
    "StopReason",
    "Trace",
    "TraceError",
    "View",
    "VoteController",
    "candidate_tool",
    "create_router_r1",
    "create_router_r1_agent",
    "parse_controller",
    "pool_tools",
    "read_traces",
    "write_traces",
]
