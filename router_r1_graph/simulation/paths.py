"""The chains of relations from a name that explain the cues of a text."""

from __future__ import annotations

import operator as op
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .asking import Focus
from .cues import CUE, HINT, TYPE
from .sight import Sight
from .spotted import Name
from .structure import Ask, Structure, Term

MAX_HOPS = 5
#: What a relation of a chain costs, and one that no word speaks of.
COST, UNSAID = 1.0, 1.8
#: What it is worth that a chain ends in what is asked for; as much is lost where it must.
FOCUS = 1.5
#: What is lost where "which museum" does not end in a museum.
NOT_WHICH = 3.0
#: What it costs to end in what a text only describes.
DESCRIBED = 2.5
#: What it costs to end in a year where no word speaks of time.
TIMELESS = 2.0
#: A relation that explains less than this more is one that no word speaks of.
_LITTLE = 0.3
_MAX_UNSAID = 2
#: How much the words that are not understood may weigh.
_MISSED = 0.8
#: What is read must explain at least so much, and an answer of the wrong type weighs so much.
_LEAST, _ASTRAY = 1.2, 3.0

_S = TypeVar("_S", bound=Structure)
Amounts = tuple[float, ...]
"""How much of each cue is explained."""


@dataclass(frozen=True, slots=True)
class Path:
    """A chain of relations from a name."""

    name: Name
    chain: tuple[str, ...]
    explained: Amounts
    score: float
    aim: float = 0.0
    """Above 0 where it ends in what is asked for, below where it should and does not."""

    @property
    def term(self) -> Term:
        """The chain as a term: a name where it is empty."""
        term: Term = self.name.name
        for relation in self.chain:
            term = Ask(relation, term)
        return term


def paths(
    sight: Sight,
    name: Name,
    *,
    weights: Sequence[float] | None = None,
    focus: Focus | None = None,
    extra: Mapping[str, float] | None = None,
) -> list[Path]:
    """Return the chains from a name in which each relation explains something.

    Args:
        sight: The text.
        name: Where they start.
        weights: For each cue how much of it counts; None = all of each.
        focus: The end that they should have.
        extra: The weight that relations explain beside the cues, as the last of a chain.
    """
    return _Walk(sight, name, weights, focus, extra or {}).found


def own_type(sight: Sight, name: Name, weights: Sequence[float]) -> Amounts:
    """Return the cues that the type of a name itself explains: "the film Psycho"."""
    return tuple(
        0.5 * weight * seen.weight if not name.kind.types.isdisjoint(seen.cue.types) else 0.0
        for seen, weight in zip(sight.cues, weights, strict=True)
    )


class _Walk:
    def __init__(
        self,
        sight: Sight,
        name: Name,
        weights: Sequence[float] | None,
        focus: Focus | None,
        extra: Mapping[str, float],
    ) -> None:
        self.sight = sight
        self.name = name
        self.focus = focus
        self.extra = extra
        self.described = frozenset() if focus is None else sight.described
        self.nothing: Amounts = (0.0,) * len(sight.cues)
        apart = [not (c.start < name.end and name.start < c.end) for c in sight.cues]
        self.amounts = sight.amounts
        counted = list(map(float, apart)) if weights is None else list(map(op.mul, apart, weights))
        if any(weight != 1.0 for weight in counted):
            self.amounts = {
                relation: tuple(map(op.mul, row, counted))
                for relation, row in sight.amounts.items()
            }
        implied = sight.vocabulary.lexicon.implied
        self.alive = implied.union(self.amounts, self.extra)
        """The relations to which any cue refers."""
        self.found: list[Path] = []
        self._go(own_type(sight, name, counted), (), -name.penalty - sight.aside(name), 0)

    def _go(
        self,
        explained: Amounts,
        chain: tuple[str, ...],
        score: float,
        unsaid: int,
        silent: bool = False,
    ) -> None:
        vocabulary = self.sight.vocabulary
        detours = vocabulary.lexicon.detours
        implicit = vocabulary.lexicon.implied
        sum_so_far = sum(explained)
        described = bool(chain) and chain[-1] in self.described
        after = vocabulary.follows[chain[-1]] if chain else vocabulary.starts(self.name.kind)
        for relation in after:
            if relation not in self.alive and not described:
                continue
            if relation in chain or (chain and (chain[-1], relation) in detours):
                continue
            amounts = self.amounts.get(relation)
            implied = relation in implicit and unsaid < _MAX_UNSAID
            ending = self.extra.get(relation, 0.0)
            if amounts is None and not (implied or ending or described):
                continue
            union = explained if amounts is None else tuple(map(max, explained, amounts))
            gain = 0.0 if amounts is None else sum(union) - sum_so_far
            value = self._focused(relation, after)
            said = gain > _LITTLE
            if chain and said and not described:
                # Hints alone lead no further.
                said = max(map(op.sub, union, explained), default=0.0) > HINT
            asked = described and (value > 0 or (value == 0 and len(after) == 1))
            if not (said or implied or ending or asked):
                continue
            if silent and vocabulary.object[relation] == vocabulary.subject[chain[-1]]:
                continue  # "What is Paris the capital of?" asks for no capital of its country
            total = score + gain - (COST if said else UNSAID)
            if not chain:
                total += self._nearness(relation)
                total -= 0.4 * (relation not in self.name.kind.relations)
            longer = (*chain, relation)
            if said or ending or asked or (self.sight.denied and value > 0):
                at_end = total + ending + value
                if relation in self.described:
                    at_end -= DESCRIBED
                if vocabulary.object[relation] == "year" and not self.sight.timed:
                    at_end -= TIMELESS
                self.found.append(Path(self.name, longer, union, at_end, value))
            if len(longer) < MAX_HOPS and (said or implied):
                self._go(union, longer, total, unsaid + (not said), not said)

    def _focused(self, relation: str, others: Sequence[str]) -> float:
        """Return the worth of an end in a relation, out of those that can be asked here."""
        objects = self.sight.vocabulary.object
        object_ = objects[relation]
        explicit = relation in self.sight.vocabulary.lexicon.explicit
        if explicit and max(self.amounts.get(relation, self.nothing), default=0.0) < CUE / 2:
            rivals = sum(objects[other] == object_ for other in others)
            if rivals > 1 or self.focus is None or not self.focus.strict:
                return 0.0
        if object_ in self.sight.denied:
            return -FOCUS
        if self.focus is None or self.focus.cue is None:
            return 0.0
        cue = self.focus.cue
        if object_ in cue.types or cue.relations.get(relation, 0.0) >= CUE:
            return FOCUS
        if object_ == "year" and "number" in self.focus.cue.types:
            return 0.0
        strict = self.focus.strict and relation in self.sight.vocabulary.typed
        if not strict:
            return 0.0
        if self.sight.texts[self.focus.at] != "which":
            return -FOCUS
        if object_ == "number" and len(cue.types) > 2:
            return 0.0  # "which place" may be a rank
        return -NOT_WHICH if cue.types else -FOCUS

    def _nearness(self, relation: str) -> float:
        """Return the worth of a cue of a name's relation near the name."""
        name = self.name
        near = [
            max(seen.start - name.end, name.start - seen.end)
            for seen, amount in zip(
                self.sight.cues, self.amounts.get(relation, self.nothing), strict=True
            )
            if amount > 0
        ]
        return 0.8 / (1 + min(near) / 3) if near else 0.0


def understood(
    sight: Sight,
    explained: Amounts,
    more: float = 0.0,
    *,
    aim: float = 0.0,
    hops: int = 1,
    possible: Collection[str] | None = None,
    loosely: bool = False,
) -> bool:
    """Say whether the explained cues outweigh the others.

    A question for something else weighs as much as all the hops: a long description explains much,
    but not the thing that is asked for. If the path ends in that thing, cues that could not be
    asked here (`possible`) count less: they are figures of speech.
    """
    if loosely:
        return _loosely(sight, explained, more, aim, hops, possible or ())
    possible = possible if aim > 0 else None
    total = sum(explained) + more
    vague = max(explained, default=0.0) < CUE and aim <= 0
    against = sight.strange * (1 + vague) + _MISSED * sight.missed(explained, possible)
    against += hops * (sight.foreign + _ASTRAY * (aim < 0))
    return total >= max(_LEAST, against)


def _loosely(
    sight: Sight,
    explained: Amounts,
    more: float,
    aim: float,
    hops: int,
    possible: Collection[str],
) -> bool:
    """Say whether the question is clear, although words are left over.

    An unexplained cue that could be asked here is no figure of speech: "where did Mozart die".
    """
    asking = "" if sight.focus is None else sight.texts[sight.focus.at]
    if aim < 0 or (aim == 0 and asking in ("which", "how")):
        return False
    # "The famous children of which country": "foreign" or not, a country is asked for.
    clear = aim > 0 and asking in ("which", "what") and not sight.elsewhere and not sight.counted
    against = sight.strange + (0.0 if clear else hops * sight.foreign)
    left = (
        seen.weight
        for seen, amount in zip(sight.cues, explained, strict=True)
        if amount < CUE * seen.weight / 2 and seen.says(possible)
    )
    return sum(explained) + more >= against + CUE * sum(left)


def best_of(sight: Sight, found: Sequence[tuple[float, _S, Amounts]]) -> _S | None:
    """Return the best of (score, question, explained cues), if it is understood."""
    if not found:
        return None
    _, question, explained = max(found, key=lambda each: each[0])
    return question if understood(sight, explained, TYPE) else None


def by_score(path: Path) -> float:
    """Return the score of a path, to sort by."""
    return path.score
