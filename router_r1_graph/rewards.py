"""Answers compared with gold answers: SQuAD normalisation, exact match and token F1.

Source: arXiv 2506.09033, section 3 (PAPER.md, section Reward), and the evaluation scripts of SQuAD
(normalisation) and HotpotQA (yes/no in F1), which the paper's metrics go back to.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED_ANSWERS = ("yes", "no", "noanswer")


def normalize_answer(text: str) -> str:
    """Return a text in lower case, without punctuation and articles, with single spaces.

    The order matters and is SQuAD's: punctuation goes before articles, so "the-" is an article.

    Example:
        >>> normalize_answer("  The pound  sterling (£). ")
        'pound sterling £'
    """
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, gold: Iterable[str]) -> float:
    """Return 1.0 if the answer is one of the gold answers after normalisation, else 0.0.

    No answer (an empty text) is never right, though it would equal a gold answer "The".

    Example:
        >>> exact_match("The Pound Sterling.", ["euro", "pound sterling"])
        1.0
    """
    if not answer.strip():
        return 0.0
    wanted = normalize_answer(answer)
    return float(any(normalize_answer(right) == wanted for right in gold))


def f1_score(answer: str, gold: Iterable[str]) -> float:
    """Return the token F1 of the nearest gold answer, in [0, 1].

    It is 0 where one side is yes, no or noanswer and the other is something else: a word that
    decides the question earns nothing for its neighbours.

    Example:
        >>> round(f1_score("pound sterling of the United Kingdom", ["pound sterling"]), 3)
        0.571
    """
    return max(
        (_f1(normalize_answer(answer), normalize_answer(right)) for right in gold), default=0.0
    )


def _f1(answer: str, right: str) -> float:
    if answer != right and (answer in _CLOSED_ANSWERS or right in _CLOSED_ANSWERS):
        return 0.0
    ours, theirs = answer.split(), right.split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)
