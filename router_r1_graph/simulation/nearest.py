"""The text that a query asks for, out of many: by names first, then by the question about them.

Deterministic and without a model. A query with another name, or with another question about the
same name, has no nearest text: a wrong text is worse than none.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .names import Spelling
from .synonyms import TextTerm, terms, words

# Shares, by weight, that are needed at least: chosen on other wordings of texts, which have to be
# found, and on texts that were taken out of the index, for which no other one may be.
#: Of a text's names that a query has, and of a query's that the text has.
_NAMED = 0.7
#: Of the other terms of a text that a query has; of a long text.
_SAID = 0.4
_SAID_OF_LONG = 0.9
#: Of the other terms of a query that a text has.
_HEARD = 0.5
#: How near the two have to be in all.
_NEAR = 0.6
#: How much an unknown word counts of what an unknown name does: it is mostly chatter.
_UNKNOWN = 0.3
#: Two texts this near to each other, with different answers, are one too many.
_MARGIN = 0.02
#: So many texts are compared in full, out of so many that share a word.
_COMPARED = 12
_SHARED = 400
#: Shorter terms have to be spelled right.
_SPELLED = 5


@dataclass(frozen=True)
class _Text:
    """A text or query, ready to be compared. Weights: the rarer a term, the more it says."""

    names: Mapping[str, float]
    asked: Mapping[str, float]
    numbers: frozenset[str]
    kinds: frozenset[str]
    decisive: frozenset[str]
    opposite: Mapping[int, frozenset[str]]
    """Its terms from each group of opposites."""
    asks: frozenset[str]
    """Terms that name the kind of answer."""
    explains: frozenset[str]
    """Terms that name the kind of a name."""

    @cached_property
    def question(self) -> frozenset[str]:
        """The terms without those that only name the kind of answer."""
        return frozenset(term for term in self.all if term not in words().kinds)

    @cached_property
    def all(self) -> Mapping[str, float]:
        return {**self.asked, **self.names}


class Nearest:
    """An index of texts.

    Args:
        texts: the texts that can be found.
        answers: the answer of each; of two near texts with the same answer, either is right.
        long: the numbers of texts that hold other ones in them: a query has to say nearly all of
            such a text, or it asks for a part of it.
    """

    def __init__(
        self, texts: Sequence[str], answers: Sequence[Hashable], long: Collection[int] = ()
    ) -> None:
        self._answers = answers
        read = [terms(text) for text in texts]
        counts = Counter(text for found in read for text in {term.text for term in found})
        self._rarity = {term: math.log(1 + len(texts) / n) for term, n in counts.items()}
        self._unseen = math.log(1 + 2 * len(texts))
        named = {term.text for found in read for term in found if term.named}
        #: Terms that are names wherever they stand, so that lower case hides none.
        self._names = named - {term.text for found in read for term in found if not term.named}
        self._spelling = Spelling(
            term for term in counts if len(term) >= _SPELLED and term.isalpha()
        )
        self._texts = [self._ready(found) for found in read]
        self._long = frozenset(long)
        self._with: dict[str, list[int]] = {}
        for number, text in enumerate(self._texts):
            for term in text.all:
                self._with.setdefault(term, []).append(number)

    def find(self, query: str, *, without: int | None = None) -> int | None:
        """Return the number of the text that a query asks for; None = none of them, or unclear.

        Args:
            query: any wording.
            without: the number of a text that cannot be found.
        """
        asked = self._ready(
            [term._replace(text=self._corrected(term.text)) for term in terms(query)]
        )
        near = (
            (_nearness(asked, self._texts[number], long=number in self._long), number)
            for number in self._candidates(asked)
            if number != without
        )
        scored = sorted((-score, number) for score, number in near if score >= _NEAR)
        if not scored:
            return None
        best, number = scored[0]
        for other, rival in scored[1:]:
            if (
                other - best < _MARGIN
                and self._answers[rival] != self._answers[number]
                and self._texts[rival].question != self._texts[number].question
            ):
                return None
        return number

    def _ready(self, found: Sequence[TextTerm]) -> _Text:
        known = words()
        names: dict[str, float] = {}
        asked: dict[str, float] = {}
        opposite: dict[int, frozenset[str]] = {}
        for term, named, asks, explains in found:
            is_name = named or (term in self._names and not (asks or explains))
            weight = self._rarity.get(term, self._unseen if is_name else self._unseen * _UNKNOWN)
            (names if is_name else asked)[term] = weight
            if term in known.opposite and not is_name:
                group = known.opposite[term]
                opposite[group] = opposite.get(group, frozenset()) | {term}
        return _Text(
            names=names,
            asked=asked,
            numbers=frozenset(term.text for term in found if term.text[0].isdigit()),
            kinds=frozenset(known.kinds[term] for term in asked if term in known.kinds),
            decisive=known.decisive & asked.keys(),
            opposite=opposite,
            asks=frozenset(term.text for term in found if term.asks),
            explains=frozenset(term.text for term in found if term.explains),
        )

    def _candidates(self, asked: _Text) -> list[int]:
        """Return the texts that share most with a query, those of its rarest terms at least."""
        shared: dict[int, float] = {}
        left = _SHARED
        for count, term in sorted((len(self._with[t]), t) for t in asked.all if t in self._with):
            left -= count
            if shared and left < 0:
                break
            weight = self._rarity[term]
            for number in self._with[term]:
                shared[number] = shared.get(number, 0.0) + weight
        best = heapq.nsmallest(_COMPARED, ((-weight, number) for number, weight in shared.items()))
        return [number for _, number in best]

    def _corrected(self, term: str) -> str:
        if term in self._rarity or len(term) < _SPELLED or not term.isalpha():
            return term
        found = self._spelling.nearest(term)
        return found[0] if found and found[1] == 1 else term


def _nearness(query: _Text, text: _Text, *, long: bool) -> float:
    """Return how near a query is to a text, in [0, 1]; 0 where it asks for something else."""
    if query.numbers != text.numbers or query.decisive != text.decisive:
        return 0.0
    if query.kinds and text.kinds and not query.kinds <= text.kinds:
        return 0.0
    if any(query.opposite.get(group, found) != found for group, found in text.opposite.items()):
        return 0.0
    named = _share(text.names, query.all)
    meant = _share(query.names, text.all)
    if min(named, meant) < _NAMED:
        return 0.0
    wanted, offered = _left(query, text), _left(text, query)
    said, heard = _share(offered, query.all), _share(wanted, text.all)
    agreed = _mean(said, heard)
    if said < (_SAID_OF_LONG if long else _SAID) or heard < (_SAID_OF_LONG if long else _HEARD):
        return 0.0
    return agreed if not text.names else (_mean(named, meant) + agreed) / 2


def _left(ours: _Text, theirs: _Text) -> Mapping[str, float]:
    """Return the terms of a text, other than names, that another text has to have.

    Names of the other text are left out, and words for the kind of a name ("the band Queen"). If
    the other text asks "who", words for the kind of answer ("which band") do not matter.
    """
    free = {*ours.explains}
    if "who" in theirs.kinds and not ours.kinds:
        free |= ours.asks
    return {
        term: weight
        for term, weight in ours.asked.items()
        if term not in theirs.names and (term not in free or term in theirs.all)
    }


def _share(of: Mapping[str, float], found_in: Mapping[str, float]) -> float:
    """Return the share of some terms, by weight, that others have; 1 of none."""
    total = sum(of.values())
    return sum(weight for term, weight in of.items() if term in found_in) / total if total else 1.0


def _mean(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else 0.0
