"""The embedded default: true facts, questions over them, and simulated candidates to ask."""

from .chat_model import SimulatedOutageError, simulated_chat_model
from .decomposed import Decomposed
from .file_questions import decomposed_questions
from .file_reading import read
from .free_wording import FreeWording
from .grammar import phrase
from .mind import SimulatedReply, reply_text_and_tokens
from .noise import NO_NOISE, USUAL_NOISE, Noise
from .oracle import Plan, best_plan
from .question import Question
from .questions import EVERY_KIND, by_domain, generate
from .reading import read_question
from .relations import relation_domain
from .structure import Ask, Between, Both, Compare, Same, Structure, YesNo, hops, next_steps
from .world import Fact, World, known_world, true_answer

__all__ = [
    "EVERY_KIND",
    "NO_NOISE",
    "USUAL_NOISE",
    "Ask",
    "Between",
    "Both",
    "Compare",
    "Decomposed",
    "Fact",
    "FreeWording",
    "Noise",
    "Plan",
    "Question",
    "Same",
    "SimulatedOutageError",
    "SimulatedReply",
    "Structure",
    "World",
    "YesNo",
    "best_plan",
    "by_domain",
    "decomposed_questions",
    "generate",
    "hops",
    "known_world",
    "next_steps",
    "phrase",
    "read",
    "read_question",
    "relation_domain",
    "reply_text_and_tokens",
    "simulated_chat_model",
    "true_answer",
]
