"""Router-R1 as a LangGraph agent: asks the right LLMs the right questions for the least money.

Start with `create_router_r1(pool, controller)`; see README.md.
"""

from .candidates import Candidate, CandidatePool, ControllerSettings
from .chat_router import ChatRouterR1
from .context import RouterContext
from .controllers import (
    ChatModelController,
    CheapestController,
    ConstantController,
    Controller,
    KeywordController,
    OracleController,
    RandomController,
    RuleController,
    ScriptedController,
    parse_controller,
)
from .errors import (
    ConfigError,
    ControllerError,
    MissingExtraError,
    PoolError,
    QuestionError,
    RouterR1Error,
    TraceError,
)
from .failures import ReplyError
from .graph import create_router_r1, create_router_r1_agent
from .ledger import Ledger
from .reply import Reply
from .state import RouterInput, RouterOutput, StopReason, View
from .tools import CandidateTool, candidate_tool, pool_tools
from .trace import Trace, read_traces, write_traces

__all__ = [
    "Candidate",
    "CandidatePool",
    "CandidateTool",
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
    "MissingExtraError",
    "OracleController",
    "PoolError",
    "QuestionError",
    "RandomController",
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
    "candidate_tool",
    "create_router_r1",
    "create_router_r1_agent",
    "parse_controller",
    "pool_tools",
    "read_traces",
    "write_traces",
]
