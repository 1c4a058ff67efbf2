"""Evaluation: any controllers over any questions, with intervals, controls and every dollar."""

from .questions import PAPER_SETS, EvaluationQuestion, Reader
from .run import Outcome, Results, outcome_of, run_controller, run_many
from .scorers import SCORERS, parse_scorer
from .statistics import Bootstrap, Interval
from .summary import Summary, summarise

__all__ = [
    "PAPER_SETS",
    "SCORERS",
    "Bootstrap",
    "EvaluationQuestion",
    "Interval",
    "Outcome",
    "Reader",
    "Results",
    "Summary",
    "outcome_of",
    "parse_scorer",
    "run_controller",
    "run_many",
    "summarise",
]
