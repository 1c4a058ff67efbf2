"""Answers as text: found in a reply, and compared."""

from .text import (
    GOLD_FIELDS,
    UNSPACED,
    bare_answer,
    contains,
    exact_match,
    f1_score,
    figures,
    gold_answers,
    is_abstention,
    normalize_answer,
    rendered,
    short_answer,
    with_plain_digits,
    words,
)

__all__ = [
    "GOLD_FIELDS",
    "UNSPACED",
    "bare_answer",
    "contains",
    "exact_match",
    "f1_score",
    "figures",
    "gold_answers",
    "is_abstention",
    "normalize_answer",
    "rendered",
    "short_answer",
    "with_plain_digits",
    "words",
]
