"""Router-R1 as a LangGraph agent: asks the right LLMs the right questions for the least money.

Start with `create_router_r1(pool, controller)`; see README.md. Every public name is here, and
nothing else is public: modules may move.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agents.answered_step import AgentBill
    from .agents.decision_model import RouterDecisionModel
    from .agents.middleware import RouterMiddleware
    from .answers import exact_match, f1_score
    from .budget import Left, StopReason
    from .call_records import CallRecord
    from .candidates import Candidate, CandidatePool, ControllerSettings
    from .candidates.bill import Bill
    from .candidates.failures import ReplyError
    from .candidates.measure import Source, pool_from_records
    from .candidates.records import Recorder
    from .candidates.reply import Reply
    from .candidates.store import ReplyStore
    from .candidates.tool import CandidateTool, candidate_tool, pool_tools
    from .chat.router import ChatRouterR1
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
        StickyController,
        View,
        VoteController,
        parse_controller,
    )
    from .controllers.choice import Choice, Effect
    from .controllers.embedded import KeywordController, OracleController
    from .controllers.learned import LearnedController
    from .controllers.policy.completions import CompletionsController
    from .controllers.policy.controller import PolicyController
    from .controllers.step import AgentStep
    from .cost_scales import AbsoluteCost, PercentileCost
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
    from .evaluation.plan import Evaluation
    from .evaluation.program import evaluate
    from .evaluation.questions import Reader
    from .graph import create_router_r1, create_router_r1_agent
    from .langsmith.experiments import log_feedback, write_experiment
    from .langsmith.spans import GenAISpans
    from .langsmith.textless import TextlessClient
    from .langsmith.traces import question_config, read_langsmith
    from .ledger import Ledger, total
    from .planned_calls import PlannedCall, Routing
    from .protocol import Call, Turn
    from .rewards import reward
    from .routing import aroute_only, route_only
    from .serving.app import create_app
    from .state import RouterInput, RouterOutput
    from .trace import Trace, TraceWriter, read_traces, write_traces

__all__ = [
    "AbsoluteCost",
    "AgentBill",
    "AgentStep",
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
    "Choice",
    "CompletionsController",
    "ConfigError",
    "ConstantController",
    "Controller",
    "ControllerError",
    "ControllerSettings",
    "Effect",
    "Evaluation",
    "GenAISpans",
    "KeywordController",
    "LearnedController",
    "Ledger",
    "Left",
    "MatrixError",
    "MissingExtraError",
    "OracleController",
    "PercentileCost",
    "PlannedCall",
    "PolicyController",
    "PoolError",
    "QuestionError",
    "RandomController",
    "Reader",
    "Recorder",
    "Reply",
    "ReplyError",
    "ReplyStore",
    "RouterContext",
    "RouterDecisionModel",
    "RouterInput",
    "RouterMiddleware",
    "RouterOutput",
    "RouterR1Error",
    "Routing",
    "RuleController",
    "ScriptedController",
    "Source",
    "StickyController",
    "StopReason",
    "TextlessClient",
    "Trace",
    "TraceError",
    "TraceWriter",
    "Turn",
    "View",
    "VoteController",
    "aroute_only",
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
    "route_only",
    "total",
    "write_experiment",
    "write_traces",
]

#: Names that are imported on first use: `router-r1 --help` then loads no LangGraph, and an extra
#: (torch, numpy, FastAPI) is needed only where its names are used. Name -> module.
_LATER = {
    "AbsoluteCost": "cost_scales",
    "AgentBill": "agents.answered_step",
    "AgentStep": "controllers.step",
    "Bill": "candidates.bill",
    "Call": "protocol",
    "CallRecord": "call_records",
    "Candidate": "candidates",
    "CandidatePool": "candidates",
    "CandidateTool": "candidates.tool",
    "CascadeController": "controllers",
    "ChatModelController": "controllers",
    "ChatRouterR1": "chat.router",
    "Choice": "controllers.choice",
    "CheapestController": "controllers",
    "CompletionsController": "controllers.policy.completions",
    "ConfigError": "errors",
    "ConstantController": "controllers",
    "Controller": "controllers",
    "ControllerError": "errors",
    "ControllerSettings": "candidates",
    "Effect": "controllers.choice",
    "Evaluation": "evaluation.plan",
    "GenAISpans": "langsmith.spans",
    "KeywordController": "controllers.embedded",
    "LearnedController": "controllers.learned",
    "Ledger": "ledger",
    "Left": "budget",
    "MatrixError": "errors",
    "MissingExtraError": "errors",
    "OracleController": "controllers.embedded",
    "PercentileCost": "cost_scales",
    "PlannedCall": "planned_calls",
    "PolicyController": "controllers.policy.controller",
    "PoolError": "errors",
    "QuestionError": "errors",
    "RandomController": "controllers",
    "Reader": "evaluation.questions",
    "Recorder": "candidates.records",
    "Reply": "candidates.reply",
    "ReplyError": "candidates.failures",
    "ReplyStore": "candidates.store",
    "RouterContext": "context",
    "RouterDecisionModel": "agents.decision_model",
    "RouterInput": "state",
    "RouterMiddleware": "agents.middleware",
    "RouterOutput": "state",
    "RouterR1Error": "errors",
    "Routing": "planned_calls",
    "RuleController": "controllers",
    "ScriptedController": "controllers",
    "Source": "candidates.measure",
    "StickyController": "controllers",
    "StopReason": "budget",
    "TextlessClient": "langsmith.textless",
    "Trace": "trace",
    "TraceError": "errors",
    "Turn": "protocol",
    "View": "controllers",
    "VoteController": "controllers",
    "aroute_only": "routing",
    "candidate_tool": "candidates.tool",
    "create_app": "serving.app",
    "create_router_r1": "graph",
    "create_router_r1_agent": "graph",
    "evaluate": "evaluation.program",
    "exact_match": "answers",
    "f1_score": "answers",
    "log_feedback": "langsmith.experiments",
    "parse_controller": "controllers",
    "pool_from_records": "candidates.measure",
    "pool_tools": "candidates.tool",
    "question_config": "langsmith.traces",
    "read_langsmith": "langsmith.traces",
    "read_traces": "trace",
    "reward": "rewards",
    "route_only": "routing",
    "total": "ledger",
    "write_experiment": "langsmith.experiments",
    "TraceWriter": "trace",
    "write_traces": "trace",
}


#: Name -> the extra that it needs.
_EXTRAS = {
    "AgentBill": "agents",
    "CompletionsController": "remote",
    "Evaluation": "eval",
    "LearnedController": "eval",
    "PolicyController": "local",
    "RouterDecisionModel": "agents",
    "RouterMiddleware": "agents",
    "create_app": "serve",
    "evaluate": "eval",
}
_PACKAGES = {
    "agents": "langchain",
    "eval": "sklearn",
    "local": "torch",
    "remote": "transformers",
    "serve": "fastapi",
}
"""A package of each extra."""
if not TYPE_CHECKING:  # `import *` takes what can be had
    __all__ = [n for n in __all__ if n not in _EXTRAS or find_spec(_PACKAGES[_EXTRAS[n]])]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("router-r1-graph")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_LATER[name]}")
    except ModuleNotFoundError as error:
        if name not in _EXTRAS:
            raise
        extra = f"pip install 'router-r1-graph[{_EXTRAS[name]}]'"
        raise ModuleNotFoundError(f"{name}: {error}; {extra}", name=error.name) from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
