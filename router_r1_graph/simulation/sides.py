"""Questions with two sides or more: comparisons, common features, differences, two at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

from .cues import CUE, TYPE
from .paths import COST, Amounts, Path, best_of, by_score, own_type, paths
from .sight import Sight
from .spotted import DOUBTFUL, Name
from .structure import Ask, Between, Both, Compare, Same

#: What a cue at the other side of a comparison counts.
_OTHER_SIDE = 0.3
#: Words between the sides of a comparison, the best place to cut first.
_CUTS = ("or", "than", "and", "versus", "vs", "as", "with", "from", "to", ",")


def are_offered(sight: Sight) -> bool:
    """Say whether a text offers names to choose from: three of them, or one or another."""
    sure = [name for name in sight.names if name.penalty < DOUBTFUL]
    count = len({name.name for name in sure})
    offered = count > 2 or (count == 2 and "or" in sight.texts)
    return offered and not sight.polar and sight.together(sure)


def read_compare(sight: Sight) -> Compare | None:
    """Read a comparison of the numbers of two sides or more."""
    if sight.polar and "or" not in sight.texts:
        return None  # "Is A older than B?" asks for yes or no
    cue = sight.focus.cue if sight.focus else None
    whose = sight.focus is not None and sight.texts[sight.focus.at] == "whose"
    person = cue is not None and "person" in cue.types and not whose
    found: list[tuple[float, Compare, Amounts]] = []
    for names in _sides(sight, sight.names):
        walked = _walked(sight, names)
        for relation in sight.vocabulary.numeric:
            if sided := _beside(sight, relation, walked):
                sides, explained, score = sided
                least = "most" not in sight.marks
                question = Compare(relation, tuple(side.term for side in sides), least)
                score += 4 * len(names)  # each name is a side, as a rule
                if not person and not any(side.chain for side in sides):
                    score += 1.5  # "the older piece of music": of the pieces, not of the composers
                found.append((score, question, explained))
    return best_of(sight, found)


def read_same(sight: Sight) -> Same | None:
    """Read a question whether two sides share something."""
    found: list[tuple[float, Same, Amounts]] = []
    for names in _sides(sight, sight.names, most=2):
        walked = _walked(sight, names)
        for relation, amounts in sight.amounts.items():
            if max(amounts) >= TYPE and (sided := _beside(sight, relation, walked)):
                (first, second), explained, score = sided
                found.append((score, Same(relation, first.term, second.term), explained))
    return best_of(sight, found)


def _sides(sight: Sight, names: Sequence[Name], most: int = 4) -> Iterator[tuple[Name, ...]]:
    """Yield the names that may be sides, with a word to cut at between each two of them."""
    for count in range(2, most + 1):
        for chosen in combinations(names, count):
            apart = all(one.end <= two.start for one, two in pairwise(chosen))
            if not apart or len({name.name for name in chosen}) < count:
                continue
            if len({sight.aside(name) for name in chosen}) > 1:
                continue
            if all(_cut(sight, *two) is not None for two in pairwise(chosen)):
                yield chosen


def _cut(sight: Sight, first: Name, second: Name) -> int | None:
    """Return where the side of one name ends and that of the next one starts."""
    between = sight.texts[first.end : second.start]
    at = next((between.index(word) for word in _CUTS if word in between), None)
    if at is None:
        return first.end if sight.polar or "between" in sight.marks else None
    return first.end + at


def _weights(sight: Sight, names: Sequence[Name]) -> list[list[float]]:
    """Return for each side how much of each cue counts for it."""
    cuts = [_cut(sight, *two) or 0 for two in pairwise(names)]
    bounds = list(zip([0, *cuts], [*cuts, len(sight.texts)], strict=True))
    return [
        [1.0 if start <= seen.start < end else _OTHER_SIDE for seen in sight.cues]
        for start, end in bounds
    ]


def _walked(sight: Sight, names: Sequence[Name]) -> list[tuple[Path, list[Path]]]:
    """Return each name alone, and the chains from it."""
    return [
        (
            Path(name, (), own_type(sight, name, weights), -name.penalty - sight.aside(name)),
            paths(sight, name, weights=weights),
        )
        for name, weights in zip(names, _weights(sight, names), strict=True)
    ]


def _beside(
    sight: Sight, relation: str, walked: Sequence[tuple[Path, list[Path]]]
) -> tuple[list[Path], Amounts, float] | None:
    """Return the best chain from each name to a subject of a relation, and what they explain."""
    nothing: Amounts = (0.0,) * len(sight.cues)
    explained = sight.amounts.get(relation, nothing)
    sides, score = [], 0.0
    for alone, chains in walked:
        name = alone.name
        found = [
            path
            for path in chains
            if relation in sight.vocabulary.follows[path.chain[-1]] and relation not in path.chain
        ]
        if relation in sight.vocabulary.starts(name.kind):
            found.append(alone)
        if not found:
            return None
        best = max(found, key=by_score)
        sides.append(best)
        explained = tuple(map(max, explained, best.explained))
        score -= name.penalty + sight.aside(name) + COST * len(best.chain)
    return sides, explained, score + sum(explained)


def read_both(sight: Sight, alone: Path) -> Both | None:
    """Read "the capital and the currency of Peru", if it explains a cue more than one question."""
    found: list[tuple[float, Both, Amounts]] = []
    for at, word in enumerate(sight.texts):
        if word not in ("and", "plus") or any(name.start <= at < name.end for name in sight.names):
            continue
        before = [float(seen.start < at) for seen in sight.cues]
        after = [1.0 - weight for weight in before]
        for one in sight.names:
            for two in sight.names:
                if one is not two and not one.end <= at < two.start:
                    continue
                first = max(paths(sight, one, weights=before), key=by_score, default=None)
                second = max(paths(sight, two, weights=after), key=by_score, default=None)
                if not first or not second:
                    continue
                a, b = first.term, second.term
                if isinstance(a, Ask) and isinstance(b, Ask) and a != b:
                    explained = tuple(map(max, first.explained, second.explained))
                    score = first.score + second.score
                    strong = min(max(first.explained), max(second.explained)) >= CUE
                    more = sum(explained) - sum(alone.explained) >= (2.0 if one is two else -1.0)
                    if strong and more and score > alone.score + 0.5:
                        found.append((score, Both(a, b), explained))
    return best_of(sight, found)


def _of_age(sight: Sight) -> list[tuple[float, Between, Amounts]]:
    """Return the difference of the first numbers that two names have: "how much older is"."""
    return [
        (
            -name.penalty - other.penalty,
            Between(Ask(number, name.name), Ask(number, other.name)),
            (),
        )
        for name, other in _sides(sight, sight.names, most=2)
        for number in [*_numbers(sight, name)][:1]
        if number in _numbers(sight, other)
    ]


def _numbers(sight: Sight, name: Name) -> list[str]:
    """Return the relations by which a name has a number."""
    return [r for r in sight.vocabulary.numeric if r in sight.vocabulary.starts(name.kind)]


def read_between(sight: Sight) -> Between | None:
    """Read a question for the difference of two numbers."""
    found: list[tuple[float, Between, Amounts]] = []
    ends = sight.vocabulary.object
    pairs = [(name, name) for name in sight.names] + list(_sides(sight, sight.names, most=2))
    for names in pairs:
        alone = names[0] is names[1]
        weights = [None] if alone else [[max(w, 0.7) for w in w_] for w_ in _weights(sight, names)]
        walked = [
            [
                path
                for path in paths(sight, name, weights=side)
                if path.chain[-1] in sight.vocabulary.numeric
            ]
            for name, side in zip(names, weights, strict=False)
        ]
        for first in walked[0]:
            for second in walked[-1]:
                if ends[first.chain[-1]] != ends[second.chain[-1]]:
                    continue
                a, b = first.term, second.term
                if a == b:
                    continue
                explained = tuple(map(max, first.explained, second.explained))
                score = sum(explained) - COST * len({*first.chain, *second.chain})
                score += 3.0 * (not alone)
                if isinstance(a, Ask) and isinstance(b, Ask):
                    found.append((score, Between(a, b), explained))
    return best_of(sight, found or _of_age(sight))
