"""Questions as structure: what is asked, apart from how it is worded.

Everything is built of single hops: an `Ask` is one relation of one subject, and the subject may be
the answer of another `Ask`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

YES = "yes"
NO = "no"


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for the object of one relation, such as the author of Hamlet."""

    relation: str
    subject: str | Ask


@dataclass(frozen=True, slots=True)
class Compare:
    """Ask which of two has the smaller (`least`) or the larger number, such as the birth year."""

    relation: str
    first: str | Ask
    second: str | Ask
    least: bool


@dataclass(frozen=True, slots=True)
class Same:
    """Ask whether two have the same object, such as the same country of birth."""

    relation: str
    first: str | Ask
    second: str | Ask


@dataclass(frozen=True, slots=True)
class YesNo:
    """Ask whether the answer of an `Ask` is this value."""

    ask: Ask
    value: str


Term = str | Ask
Structure = Ask | Compare | Same | YesNo


def asks(question: Structure) -> tuple[Ask, ...]:
    """Return every hop of a question, innermost first and the first side before the second."""
    match question:
        case Ask(subject=subject):
            return (*(() if isinstance(subject, str) else asks(subject)), question)
        case YesNo(ask=ask):
            return asks(ask)
        case Compare(relation, first, second) | Same(relation, first, second):
            return asks(Ask(relation, first)) + asks(Ask(relation, second))


def hops(question: Structure) -> int:
    """Return how many facts the answer takes: 1 for a plain question, at least 2 to compare.

    >>> hops(Ask("capital", Ask("birth_country", "Franz Liszt")))
    2
    """
    return len(asks(question))


def folded(text: str) -> str:
    """Return a name as it is compared: no case, no article or quotes around it, single spaces."""
    words = text.casefold().strip(" \t\n\"'.").split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("the", "a", "an") else words)


def next_steps(question: Structure, known: Mapping[Ask, str]) -> list[Ask] | str:
    """Return what to ask next, or the final answer once everything needed is known.

    Each step is a single hop with a plain subject; the steps of one list do not need each other, so
    they can be asked at once. The final answer is "" where the known replies decide nothing (a
    comparison of what are no numbers).

    Args:
        question: What is to be answered.
        known: Answers so far, by the steps that were returned before.

    >>> next_steps(Ask("capital", Ask("birth_country", "Franz Liszt")), {})
    [Ask(relation='birth_country', subject='Franz Liszt')]
    """
    missing: list[Ask] = []

    def resolve(term: Term) -> str | None:
        if isinstance(term, str):
            return term
        subject = resolve(term.subject)
        if subject is None:
            return None
        step = Ask(term.relation, subject)
        answer = known.get(step)
        if answer is None and step not in missing:
            missing.append(step)
        return answer

    match question:
        case Ask():
            answer = resolve(question)
            return missing if answer is None else answer
        case YesNo(ask, value):
            answer = resolve(ask)
            return missing if answer is None else _yes_if(folded(answer) == folded(value))
        case Same(relation, first, second) | Compare(relation, first, second):
            ours, theirs = resolve(Ask(relation, first)), resolve(Ask(relation, second))
            if ours is None or theirs is None:
                return missing
            if isinstance(question, Same):
                return _yes_if(folded(ours) == folded(theirs))
            return _chosen(question, resolve(first), ours, resolve(second), theirs)


def _chosen(question: Compare, a: str | None, ours: str, b: str | None, theirs: str) -> str:
    left, right = _number(ours), _number(theirs)
    if left is None or right is None or left == right:
        return ""
    return (a if (left < right) is question.least else b) or ""


def _number(text: str) -> int | None:
    found = re.search(r"-?\d{1,18}", text)
    return int(found.group()) if found else None


def _yes_if(condition: bool) -> str:
    return YES if condition else NO
