"""Questions as structure, apart from their wording.

Everything is built of single hops: an `Ask` is one relation of one subject, and the subject may be
the answer of another `Ask`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    """Ask which has the smallest (`least`) or the largest number, such as the birth year."""

    relation: str
    sides: tuple[str | Ask, ...]
    """Two or more."""
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


@dataclass(frozen=True, slots=True)
class Between:
    """Ask how far two numbers of one unit are apart, such as a birth year and a release year."""

    first: Ask
    second: Ask


@dataclass(frozen=True, slots=True)
class Both:
    """Ask two questions at once; the answer is "A and B", in the order in which they are asked."""

    first: Ask
    second: Ask


Term = str | Ask
Structure = Ask | Compare | Same | YesNo | Between | Both


def parts(question: Structure) -> tuple[Ask, ...]:
    """Return the asks whose answers decide a question: of an `Ask` itself, of others one or more.

    >>> parts(Same("author", "Emma", "Persuasion"))[1]
    Ask(relation='author', subject='Persuasion')
    """
    match question:
        case Ask():
            return (question,)
        case YesNo(ask=ask):
            return (ask,)
        case Same(relation, first, second):
            return (Ask(relation, first), Ask(relation, second))
        case Compare(relation, sides):
            return tuple(Ask(relation, side) for side in sides)
        case Between(first, second) | Both(first, second):
            return (first, second)


def asks(question: Structure) -> tuple[Ask, ...]:
    """Return every hop of a question, innermost first and the first side before the second."""
    if isinstance(question, Ask):
        subject = question.subject
        return (*(() if isinstance(subject, str) else asks(subject)), question)
    return tuple(hop for part in parts(question) for hop in asks(part))


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
    """Return the next steps, or the final answer once everything needed is known.

    Each step is a single hop with a plain subject; the steps of one list do not need each other, so
    they can be asked at once. The final answer is "" if the known replies decide nothing (a
    comparison or difference of texts without numbers).

    Args:
        question: The question to answer.
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

    answers = [resolve(part) for part in parts(question)]
    if missing:
        return missing
    decided = [answer or "" for answer in answers]
    match question:
        case Ask():
            return decided[0]
        case YesNo(value=value):
            return _yes_if(folded(decided[0]) == folded(value))
        case Same():
            return _yes_if(folded(decided[0]) == folded(decided[1]))
        case Compare(sides=sides, least=least):
            return _chosen([resolve(side) or "" for side in sides], decided, least)
        case Between():
            first, second = map(number_in, decided)
            return "" if first is None or second is None else str(abs(first - second))
        case Both():
            return " and ".join(decided) if all(decided) else ""


def _chosen(names: Sequence[str], answers: Sequence[str], least: bool) -> str:
    """Return the name with the smallest or largest number; "" where two share it or one has none.

    Two sides that turn out to be one and the same decide nothing either.
    """
    numbers = [number for number in map(number_in, answers) if number is not None]
    if len(numbers) < len(names):
        return ""
    wanted = min(numbers) if least else max(numbers)
    return names[numbers.index(wanted)] if numbers.count(wanted) == 1 else ""


def number_in(text: str) -> int | None:
    """Return the first whole number in a text, or None.

    >>> number_in("born in 1828")
    1828
    """
    found = re.search(r"-?\d{1,18}", text)
    return int(found.group()) if found else None


def _yes_if(condition: bool) -> str:
    return YES if condition else NO
