"""The topic and meaning of a question as texts, to compare, hash and split questions by.

The split is by meaning: a stable hash of the structure, never of the wording. A yes/no question is
in the same split as the question about its fact, and all comparisons of the same things are in one
split. So no test question occurs in training in other words.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from .draw import fraction
from .structure import Ask, Between, Both, Compare, Same, Structure, Term, YesNo, folded, parts

Split = Literal["train", "test", "all"]
"""About a fifth of all questions are `test`; `all` is both splits."""

_TEST_SHARE = 0.2


@lru_cache(maxsize=1 << 16)
def _spelled(term: Term) -> str:
    if isinstance(term, str):
        return folded(term)
    inner = term.subject
    if (
        term.relation == "city_country"
        and isinstance(inner, Ask)
        and inner.relation == "birth_city"
    ):
        return f"birth_country({_spelled(inner.subject)})"  # the same question by a detour
    return f"{term.relation}({_spelled(inner)})"


def topic(question: Structure) -> str:
    """Return the topic of a question, without the direction of a comparison or a proposed value.

    The split goes by it, so that "Is Paris the capital of France?" stays with "Name the capital of
    France."
    """
    match question:
        case Ask():
            return _spelled(question)
        case YesNo(ask):
            return _spelled(ask)
        case Same(relation, first, second):
            return f"{relation}[{_unordered((first, second))}]"
        case Compare(relation, sides):
            return f"{relation}[{_unordered(sides)}]"
        case Between() | Both():
            return f"[{_unordered(parts(question))}]"


def _unordered(terms: Iterable[Term]) -> str:
    return "|".join(sorted(map(_spelled, terms)))


def meaning(question: Structure) -> str:
    """Return the meaning of a question: the same text for every wording and order of its sides."""
    match question:
        case Ask():
            return topic(question)
        case YesNo(_, value):
            return f"{topic(question)}={folded(value)}"
        case Same():
            return f"same {topic(question)}"
        case Compare(least=least):
            return f"{'least' if least else 'most'} {topic(question)}"
        case Between():
            return f"between {topic(question)}"
        case Both(first, second):  # the order matters: the answers come in it
            return f"{_spelled(first)} and {_spelled(second)}"


def split_by(key: str) -> Split:
    """Return the split for a key."""
    return "test" if fraction(key) < _TEST_SHARE else "train"


def split_of(question: Structure) -> Split:
    """Return the split a question belongs to; two at once are for tests when one of them is."""
    asked = parts(question) if isinstance(question, Both) else (question,)
    return "test" if any(split_by(topic(one)) == "test" for one in asked) else "train"


def is_in(split: Split, question: Structure) -> bool:
    """Say whether a question may be drawn for a split: two at once only if both may."""
    asked = parts(question) if isinstance(question, Both) else (question,)
    return split == "all" or all(split_of(one) == split for one in asked)
