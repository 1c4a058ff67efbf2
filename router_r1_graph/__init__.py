"""Router-R1 as a LangGraph agent: asks the right LLMs the right questions for the least money.

Start with `create_router_r1(pool, controller)`; see README.md. Every public name is here, and
nothing else is public: modules may move.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agents.agent_bill import AgentBill, DecidedStep
    from .agents.decision_model import RouterDecisionModel
    from .agents.middleware import RouterMiddleware
    from .answers import exact_match, f1_score
    from .budget import Left, StopReason
    from .call_records import CallRecord
    from .candidates import Candidate, CandidatePool, ControllerSettings
    from .candidates.bill import Bill, BilledError
    from .candidates.candidate import Measurement
    from .candidates.error_kinds import ErrorKind
    from .candidates.failures import ReplyError
    from .candidates.measure import Source, pool_from_records
    from .candidates.records import Recorder
    from .candidates.reply import ChatModel, Reply
    from .candidates.resilience.settings import PoolResilience
    from .candidates.settings import AnswerStyle, ModelSettings
    from .candidates.store import ReplyStore
    from .candidates.store_file import StoreLine
    from .candidates.stored import StoredReply
    from .candidates.tool import CandidateTool, candidate_tool, pool_tools
    from .chat.router import ChatRouterR1
    from .context import RouterContext
    from .context.given import Knobs
    from .context.run_context import CandidateContext
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
    from .controllers.choice import Choice, Effect, Reason
    from .controllers.controller import Decides
    from .controllers.embedded import KeywordController, OracleController
    from .controllers.learned import LearnedController
    from .controllers.learned.cells import Cell
    from .controllers.learned.matrix import ScoreMatrix
    from .controllers.learned.steps import StepController
    from .controllers.learned.verdict import Gain, Verdict
    from .controllers.policy.completions import CompletionsController
    from .controllers.policy.controller import PolicyController
    from .controllers.policy.folder import PolicySettings
    from .controllers.step import AgentStep, step_text
    from .cost_scales import AbsoluteCost, CostScale, PercentileCost
    from .decisions import Decision, replayed
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
    from .evaluation.questions import EvaluationQuestion, Reader
    from .evaluation.statistics import Interval
    from .evaluation.summary import Summary, SummaryRow
    from .events import BudgetLeft, RouteEnd, RouteStart
    from .graph import create_router_r1, create_router_r1_agent
    from .langsmith.experiments import log_feedback, write_experiment
    from .langsmith.spans import GenAISpans
    from .langsmith.textless import TextlessClient
    from .langsmith.traces import question_config, read_langsmith
    from .ledger import Ledger, LedgerLine, LedgerTotals, total
    from .outside import visible
    from .protocol import Call, Mistake, Turn
    from .rewards import RewardBreakdown, reward
    from .routing.first_turn import aroute_only, route_only
    from .routing.planned_calls import PlannedCall, Routing
    from .serving.app import create_app
    from .state import RouterInput, RouterOutput, RouterState, Setup
    from .trace import Trace, TraceWriter, read_traces, write_traces

__all__ = [
    "AbsoluteCost",
    "AgentBill",
    "AgentStep",
    "AnswerStyle",
    "Bill",
    "BilledError",
    "BudgetLeft",
    "Call",
    "CallRecord",
    "Candidate",
    "CandidateContext",
    "CandidatePool",
    "CandidateTool",
    "CascadeController",
    "Cell",
    "ChatModel",
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
    "CostScale",
    "DecidedStep",
    "Decides",
    "Decision",
    "Effect",
    "ErrorKind",
    "Evaluation",
    "EvaluationQuestion",
    "Gain",
    "GenAISpans",
    "Interval",
    "KeywordController",
    "Knobs",
    "LearnedController",
    "Ledger",
    "LedgerLine",
    "LedgerTotals",
    "Left",
    "MatrixError",
    "Measurement",
    "MissingExtraError",
    "Mistake",
    "ModelSettings",
    "OracleController",
    "PercentileCost",
    "PlannedCall",
    "PolicyController",
    "PolicySettings",
    "PoolError",
    "PoolResilience",
    "QuestionError",
    "RandomController",
    "Reader",
    "Reason",
    "Recorder",
    "Reply",
    "ReplyError",
    "ReplyStore",
    "RewardBreakdown",
    "RouteEnd",
    "RouteStart",
    "RouterContext",
    "RouterDecisionModel",
    "RouterInput",
    "RouterMiddleware",
    "RouterOutput",
    "RouterR1Error",
    "RouterState",
    "Routing",
    "RuleController",
    "ScoreMatrix",
    "ScriptedController",
    "Setup",
    "Source",
    "StepController",
    "StickyController",
    "StopReason",
    "StoreLine",
    "StoredReply",
    "Summary",
    "SummaryRow",
    "TextlessClient",
    "Trace",
    "TraceError",
    "TraceWriter",
    "Turn",
    "Verdict",
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
    "replayed",
    "reward",
    "route_only",
    "step_text",
    "total",
    "visible",
    "write_experiment",
    "write_traces",
]

#: Names that are imported on first use: `router-r1 --help` then loads no LangGraph, and an extra
#: (torch, numpy, FastAPI) is needed only where its names are used. Module -> names.
_HOMES = {
    "agents.agent_bill": "AgentBill DecidedStep",
    "agents.decision_model": "RouterDecisionModel",
    "agents.middleware": "RouterMiddleware",
    "answers": "exact_match f1_score",
    "budget": "Left StopReason",
    "call_records": "CallRecord",
    "candidates": "Candidate CandidatePool ControllerSettings",
    "candidates.bill": "Bill BilledError",
    "candidates.candidate": "Measurement",
    "candidates.error_kinds": "ErrorKind",
    "candidates.failures": "ReplyError",
    "candidates.measure": "Source pool_from_records",
    "candidates.records": "Recorder",
    "candidates.reply": "ChatModel Reply",
    "candidates.resilience.settings": "PoolResilience",
    "candidates.settings": "AnswerStyle ModelSettings",
    "candidates.store": "ReplyStore",
    "candidates.store_file": "StoreLine",
    "candidates.stored": "StoredReply",
    "candidates.tool": "CandidateTool candidate_tool pool_tools",
    "chat.router": "ChatRouterR1",
    "context": "RouterContext",
    "context.given": "Knobs",
    "context.run_context": "CandidateContext",
    "controllers": (
        "CascadeController ChatModelController CheapestController ConstantController "
        "Controller RandomController RuleController ScriptedController StickyController View "
        "VoteController parse_controller"
    ),
    "controllers.choice": "Choice Effect Reason",
    "controllers.controller": "Decides",
    "controllers.embedded": "KeywordController OracleController",
    "controllers.learned": "LearnedController",
    "controllers.learned.cells": "Cell",
    "controllers.learned.matrix": "ScoreMatrix",
    "controllers.learned.steps": "StepController",
    "controllers.learned.verdict": "Gain Verdict",
    "controllers.policy.completions": "CompletionsController",
    "controllers.policy.controller": "PolicyController",
    "controllers.policy.folder": "PolicySettings",
    "controllers.step": "AgentStep step_text",
    "cost_scales": "AbsoluteCost CostScale PercentileCost",
    "decisions": "Decision replayed",
    "errors": (
        "ConfigError ControllerError MatrixError MissingExtraError PoolError QuestionError "
        "RouterR1Error TraceError"
    ),
    "evaluation.plan": "Evaluation",
    "evaluation.program": "evaluate",
    "evaluation.questions": "EvaluationQuestion Reader",
    "evaluation.statistics": "Interval",
    "evaluation.summary": "Summary SummaryRow",
    "events": "BudgetLeft RouteEnd RouteStart",
    "graph": "create_router_r1 create_router_r1_agent",
    "langsmith.experiments": "log_feedback write_experiment",
    "langsmith.spans": "GenAISpans",
    "langsmith.textless": "TextlessClient",
    "langsmith.traces": "question_config read_langsmith",
    "ledger": "Ledger LedgerLine LedgerTotals total",
    "outside": "visible",
    "protocol": "Call Mistake Turn",
    "rewards": "RewardBreakdown reward",
    "routing.first_turn": "aroute_only route_only",
    "routing.planned_calls": "PlannedCall Routing",
    "serving.app": "create_app",
    "state": "RouterInput RouterOutput RouterState Setup",
    "trace": "Trace TraceWriter read_traces write_traces",
}
_LATER = {name: module for module, names in _HOMES.items() for name in names.split()}


#: Name -> the extra that it needs.
_EXTRAS = {
    "AgentBill": "agents",
    "Cell": "eval",
    "CompletionsController": "remote",
    "DecidedStep": "agents",
    "Evaluation": "eval",
    "Gain": "eval",
    "Interval": "eval",
    "LearnedController": "eval",
    "PolicyController": "local",
    "RouterDecisionModel": "agents",
    "RouterMiddleware": "agents",
    "ScoreMatrix": "eval",
    "StepController": "eval",
    "Summary": "eval",
    "SummaryRow": "eval",
    "Verdict": "eval",
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
