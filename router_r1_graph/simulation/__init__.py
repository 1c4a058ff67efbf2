"""The embedded default: true facts, questions over them, and simulated candidates to ask."""

from .chat_model import SimulatedOutageError, simulated_chat_model
from .grammar import phrase
from .mind import SimulatedReply, reply_text_and_tokens
from .oracle import Plan, best_plan
from .questions import Question, generate, true_answer
from .reading import read_question
from .relations import relation_domain
from .structure import Ask, Between, Both, Compare, Same, Structure, YesNo, hops, next_steps
from .world import Fact, World, known_world

__all__ = [
    "Ask",
    "Between",
    "Both",
    "Compare",
    "Fact",
    "Plan",
    "Question",
    "Same",
    "SimulatedOutageError",
    "SimulatedReply",
    "Structure",
    "World",
    "YesNo",
    "best_plan",
    "generate",
    "hops",
    "known_world",
    "next_steps",
    "phrase",
    "read_question",
    "relation_domain",
    "reply_text_and_tokens",
    "simulated_chat_model",
    "true_answer",
]
