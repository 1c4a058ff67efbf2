"""A question's outline: its sub-questions in order, and the use of the replies.

`#2` is the reply to the second line. A small policy that writes its outline down once has
nothing to find out in later turns: it fills in and counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from router_r1_graph.answers import exact_match
from router_r1_graph.protocol import Turn
from router_r1_graph.simulation import (
    Ask,
    Between,
    Both,
    Compare,
    Decomposed,
    Question,
    Same,
    YesNo,
    next_steps,
    phrase,
    relation_domain,
)
from router_r1_graph.simulation.structure import Structure, asks, folded, parts

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Line:
    """One sub-question."""

    number: int
    text: str
    """With `#1`, `#2` in place of replies."""
    domain: str | None
    """The domain of the candidates that may know it; None = any."""

    def filled(self, replies: Mapping[int, str]) -> str | None:
        """Return the query; None = a reply that it needs is not there yet."""
        if not self.needs <= replies.keys():
            return None
        return re.sub(r"#(\d+)", lambda found: replies[int(found[1])], self.text)

    @property
    def needs(self) -> set[int]:
        """The lines whose replies it needs."""
        return {int(number) for number in re.findall(r"#(\d+)", self.text)}


class Outline:
    """The lines of a question.

    Attributes:
        lines: in the order in which they are asked.
        as_asked: whether the question is its only line. It is asked in its own words then: each
            word that a small policy copies and does not make up is a mistake less.
        end: the use of the replies; "" = the last one is the answer.
    """

    def __init__(self, lesson: Question) -> None:
        self._lesson = lesson
        self._known: dict[Ask, int] = {}
        self.lines: tuple[Line, ...] = tuple(self._lines())
        self.end = "" if lesson.structure is None else self._end()
        self.as_asked = len(self.lines) == 1 and not self.end
        if self.as_asked:
            self.lines = (replace(self.lines[0], text=lesson.text.strip()),)

    @property
    def domains(self) -> set[str]:
        """The domains of its lines."""
        return {line.domain for line in self.lines if line.domain}

    def __str__(self) -> str:
        if self.as_asked:
            return "#1 as asked."
        return " ".join(filter(None, [*(f"#{x.number} {x.text}" for x in self.lines), self.end]))

    def _lines(self) -> Iterator[Line]:
        structure = self._lesson.structure
        if structure is None:
            yield Line(1, self._lesson.text, None)
        elif isinstance(structure, Decomposed):
            yield from _of_parts(structure)
        else:
            for ask in asks(structure):
                if ask not in self._known:
                    known = Ask(ask.relation, self._name(ask.subject))
                    self._known[ask] = len(self._known) + 1
                    domain = relation_domain(ask.relation)
                    yield Line(len(self._known), phrase(known), domain)

    def _name(self, term: str | Ask) -> str:
        return term if isinstance(term, str) else f"#{self._known[term]}"

    def _end(self) -> str:
        structure = self._lesson.structure
        if isinstance(structure, Decomposed):
            last = list(structure.leaves())[-1]
            return "" if exact_match(last.answer, structure.gold) else "Then all together."
        assert structure is not None
        if isinstance(structure, Ask):
            return ""
        names = [self._name(part) for part in parts(structure)]
        match structure:
            case YesNo(value=value):
                return f"Is {names[0]} {value}?"
            case Compare(least=least):
                return f"The {'smallest' if least else 'largest'} of {', '.join(names)}."
            case Same():
                return f"Are {names[0]} and {names[1]} the same?"
            case Between():
                return f"How far apart are {names[0]} and {names[1]}?"
            case Both():
                return "Both."

    def answered(self, replies: Mapping[int, str]) -> Turn:
        """Return the last turn, which gives the reason for the answer.

        Args:
            replies: those to all lines, by number.
        """
        structure = self._lesson.structure
        last = replies[len(self.lines)]
        if structure is None or isinstance(structure, Ask):
            return Turn(("Done.",), answer=last)
        if isinstance(structure, Decomposed):
            return self._answered_parts(structure, replies)
        values = {ask: replies[number] for ask, number in self._known.items()}
        by_name = {
            Ask(ask.relation, _value(ask.subject, values)): value for ask, value in values.items()
        }
        found = next_steps(structure, by_name)
        assert isinstance(found, str)  # all lines are answered
        if not found:
            return Turn(("That decides nothing.",), answer=UNKNOWN)
        return Turn((_reason(structure, values, found),), answer=found)

    def _answered_parts(self, whole: Decomposed, replies: Mapping[int, str]) -> Turn:
        leaves = list(whole.leaves())
        said = [replies[number] for number in range(1, len(leaves) + 1)]
        right = all(exact_match(*pair) for pair in zip(said, (x.gold for x in leaves), strict=True))
        if not self.end:
            return Turn(("Done.",), answer=whole.answer if right else said[-1])
        if not right:
            return Turn(("That does not fit together.",), answer=UNKNOWN)
        return Turn((", ".join(said) + ".",), answer=whole.answer)


def _of_parts(whole: Decomposed) -> Iterator[Line]:
    """Yield the sub-questions of a file, with earlier answers as references to their lines."""
    leaves = list(whole.leaves())
    for number, leaf in enumerate(leaves, 1):
        text = leaf.question
        for place, earlier in enumerate(leaves[: number - 1], 1):
            text = _referring(text, earlier.answer, place, whole.question)
        yield Line(number, text, leaf.domain)


def _referring(text: str, answer: str, number: int, whole: str) -> str:
    """Put a reference in place of an earlier answer, if the question did not name it."""
    meant = len(answer) > 1 or answer.isdecimal()
    if not meant or _stands(answer).search(whole):
        return text
    return _stands(answer).sub(f"#{number}", text)


def _stands(answer: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w#]){re.escape(answer)}(?!\w)")


def _value(term: str | Ask, replies: Mapping[Ask, str]) -> str:
    return term if isinstance(term, str) else replies[term]


def _reason(structure: Structure, replies: Mapping[Ask, str], answer: str) -> str:
    """Return the reason for the answer, so that the answer can be read off."""
    values = [replies[part] for part in parts(structure)]
    match structure:
        case YesNo(value=asked):
            same = folded(values[0]) == folded(asked)
            return f"{values[0]} is {'' if same else 'not '}{asked}."
        case Compare(sides=sides, least=least):
            named = [(_value(s, replies), v) for s, v in zip(sides, values, strict=True)]
            numbers = ", ".join(f"{name} {v}" for name, v in named)
            # The number first: its name can be looked up then.
            found = next(v for name, v in named if folded(name) == folded(answer))
            return f"{numbers}. {'Smallest' if least else 'Largest'} {found}: {answer}."
        case Between():
            low, high = sorted(values, key=lambda v: (len(v), v))
            return f"{high} - {low} = {answer}."
        case Both():
            return "Both are known."
    return f"{values[0]} and {values[1]} are {'the same' if answer == 'yes' else 'different'}."
