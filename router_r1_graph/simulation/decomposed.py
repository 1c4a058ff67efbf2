"""Questions that come with their sub-questions and the right answers.

A whole question and each of its sub-questions are the same thing: a text, an answer, and the parts
that lead to the answer. A question without parts is a fact.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .meaning import Split
from .structure import NO, YES, folded


@dataclass(frozen=True, slots=True)
class Decomposed:
    """A question with its answer, and the sub-questions that the answer takes.

    Attributes:
        question: the question; several spaces count as one.
        gold: right answers, the one that candidates give first.
        domain: its subject, such as `film`; for a whole question, that of its last part.
        parts: the sub-questions in their order; () = the answer is one fact.
        id: unique in a file; "" of a sub-question.
        split: `train` or `test` if the file says so; None = by a hash of the text.
        several: whether the answer has several entries, such as a name for each of five films.
            Another order or spelling of them is no exact match.
    """

    question: str
    gold: tuple[str, ...]
    domain: str
    parts: tuple[Decomposed, ...] = ()
    id: str = ""
    several: bool = False
    split: Split | None = None

    @property
    def answer(self) -> str:
        """The answer as candidates give it."""
        return self.gold[0]

    @property
    def kind(self) -> str:
        """The kind of its answer; see `kind_of`."""
        return kind_of(self.answer)

    def leaves(self) -> Iterator[Decomposed]:
        """Yield the facts that the answer takes, in order; of a fact, the fact itself."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()

    def rounds(self) -> list[list[Decomposed]]:
        """Return the parts in rounds: those of one round do not need each other's answers.

        A part needs an earlier one if it names its answer, or an entry of it, and the whole
        question does not.
        """
        placed: list[int] = []
        for number, part in enumerate(self.parts):
            needed = (
                placed[earlier] + 1
                for earlier in range(number)
                if _names(part.question, self.parts[earlier].answer, self.question)
            )
            placed.append(max(needed, default=0))
        rounds: list[list[Decomposed]] = [[] for _ in range(max(placed, default=-1) + 1)]
        for part, place in zip(self.parts, placed, strict=True):
            rounds[place].append(part)
        return [calls for calls in rounds if calls]

    def open_parts(self, known: Collection[str]) -> list[Decomposed]:
        """Return the facts to ask for next, given the questions that have been answered."""
        if not self.parts:
            return [] if self.question in known else [self]
        for calls in self.rounds():
            if found := [leaf for part in calls for leaf in part.open_parts(known)]:
                return found
        return []


def _names(text: str, answer: str, whole: str) -> bool:
    entries = {answer, *re.split(r", | and |: ", answer), *re.findall(r"\b\d{4}\b", answer)}
    return any(
        (len(entry) > 1 or entry.isdecimal())
        and _stands_in(entry, text)
        and not _stands_in(entry, whole)
        for entry in entries
    )


def _stands_in(entry: str, text: str) -> bool:
    return f" {_words(entry)} " in f" {_words(text)} "


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def kind_of(answer: str) -> str:
    """Return the kind of an answer; a wrong guess is of the same kind.

    >>> kind_of("30 June 1968"), kind_of("1,027"), kind_of("Paris")
    ('date', 'number', 'name')
    """
    if folded(answer) in (YES, NO):
        return "decision"
    if re.fullmatch(r"1\d{3}|20\d{2}", answer):
        return "year"
    if (
        re.search(r"\b(1\d{3}|20\d{2})\b", answer)
        and len(answer) < 24
        and re.search(rf"\d[-/]\d|\b(?:{_MONTHS})", answer, re.IGNORECASE)
    ):
        return "date"
    if re.match(r"\W{0,2}\d", answer):
        return "number"
    if len(answer) <= 2:
        return "letter"
    if ", " in answer and len(answer) > 40:
        return "list"
    return "name"


_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
