"""The topic and meaning of a question as texts, to compare, hash and split questions by."""

from __future__ import annotations

from functools import lru_cache

from .structure import Ask, Compare, Same, Structure, Term, YesNo, folded


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
        case Compare(relation, first, second) | Same(relation, first, second):
            return f"{relation}[{'|'.join(sorted((_spelled(first), _spelled(second))))}]"


def meaning(question: Structure) -> str:
    """Return what a question means: the same text for every wording and order of its sides."""
    match question:
        case Ask():
            return topic(question)
        case YesNo(_, value):
            return f"{topic(question)}={folded(value)}"
        case Same():
            return f"same {topic(question)}"
        case Compare(least=least):
            return f"{'least' if least else 'most'} {topic(question)}"
