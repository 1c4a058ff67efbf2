"""Answers as text: got out of a candidate's reply, and made comparable."""

from __future__ import annotations

import re
import string

from .protocol import tagged_answer
from .simulation import is_abstention, short_answer

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Return a text in lower case, without punctuation and articles, with single spaces.

    The order matters and is SQuAD's: punctuation goes before articles, so "the-" is an article.

    Example:
        >>> normalize_answer("  The pound  sterling (£). ")
        'pound sterling £'
    """
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def bare_answer(reply: str) -> str:
    """Return the answer in a reply to a whole question; "" where the reply declines to give one.

    It is what stands in the reply's own answer tags (many LLMs write them unasked, or were asked
    to), else what `short_answer` finds in the prose.

    Example:
        >>> bare_answer("I am not sure, but: <answer>Paris</answer>")
        'Paris'
        >>> bare_answer("I do not know.")
        ''
    """
    tagged = tagged_answer(reply)
    if tagged is None:
        return "" if is_abstention(reply) else short_answer(reply)
    return "" if is_abstention(tagged) else tagged
