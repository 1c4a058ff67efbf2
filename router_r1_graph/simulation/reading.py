"""Free English as structure: the known names in a text, and the path over types that fits best.

A chain of relations from a name ("Hamlet", author, birth_country, currency) explains the cues of a
text: words of its relations, words for the types that it passes, names that are proposed as its
end. The chain that explains most with the fewest relations is what the text asks. Types say which
relations can follow one another, so the order of words matters little: a nested description may
come first or last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations, islice, pairwise
from typing import TypeVar

from .cues import CUE, TYPE
from .grammar import MAX_CHARACTERS, read_exact
from .paths import COST, Amounts, Path, paths
from .sight import Sight
from .spotted import DOUBTFUL, Name
from .structure import Ask, Between, Both, Compare, Same, Structure, YesNo, asks
from .vocabulary import Vocabulary, vocabulary_of
from .world import World

#: What a cue at the other side of a comparison counts.
_OTHER_SIDE = 0.3
#: How much the words that are not understood may weigh.
_MISSED = 0.8
#: What is read must explain at least so much, and an answer of the wrong type weighs so much.
_LEAST, _ASTRAY = 1.2, 3.0
#: Words between the sides of a comparison, the best place to cut first.
_CUTS = ("or", "than", "and", "versus", "vs", "as", "with", "from", "to", ",")
_SECOND_QUESTION = re.compile(
    r"(?:,? and(?: also)?|\?) (?=(?:(?:in|on|by|to|from|at) )?"
    r"(?:who|whom|whose|what|which|when|where|how)\b)",
    re.IGNORECASE,
)

_S = TypeVar("_S", bound=Structure)


@lru_cache(maxsize=1 << 16)
def read_question(text: str, world: World | None = None) -> Structure | None:
    """Return what a text asks, or None when it is not understood. Never raises.

    The sentences of the grammar are read exactly, whoever they are about. Everything else is read
    by the names and relations of the world.

    Args:
        text: A question or a noun phrase, in any words.
        world: Whose names and relations are known; None = the embedded one.

    >>> read_question("hey, the bloke that penned Hamlet, where's he from?")
    Ask(relation='birth_country', subject=Ask(relation='author', subject='Hamlet'))
    """
    if len(text) > MAX_CHARACTERS:
        return None
    vocabulary = vocabulary_of(world or World.embedded())
    exact = read_exact(text)
    if exact is not None and _needs_no_other(exact, vocabulary):
        return exact
    return _two_questions(text, vocabulary) or _read(text, vocabulary) or exact


def _needs_no_other(question: Structure, vocabulary: Vocabulary) -> bool:
    """Say whether a question read exactly needs no other reading.

    Its names are known and can have its relations, or no word of them means anything here.
    """
    if isinstance(question, YesNo):
        value = question.value
        if vocabulary.kind(value) is None and vocabulary.means(value):
            return False
    for ask in asks(question):
        known = ask.relation in vocabulary.object
        # "the mayor of Paris" is nothing that other words could mean.
        if not known and vocabulary.means(ask.relation.replace("_", " ")):
            return False
        if isinstance(ask.subject, str):
            kind = vocabulary.kind(ask.subject)
            if kind is None and vocabulary.means(ask.subject):
                return False
            if kind is not None and known and ask.relation not in vocabulary.starts(kind):
                return False
    return True


def _two_questions(text: str, vocabulary: Vocabulary) -> Both | None:
    """Read "Who wrote Emma, and where was she born?"."""
    for cut in islice(_SECOND_QUESTION.finditer(text), 3):
        if not Sight(text[: cut.start()], vocabulary).focuses:
            continue
        first = _read(text[: cut.start()], vocabulary)
        if isinstance(first, Ask):
            rest = text[cut.end() :]
            if not any(name.penalty < DOUBTFUL for name in Sight(rest, vocabulary).names):
                rest = f"{rest.rstrip(' ?.!')} {asks(first)[0].subject}"  # "she", "it"
            second = _read(rest, vocabulary)
            if isinstance(second, Ask) and second != first:
                return Both(first, second)
    return None


def _read(text: str, vocabulary: Vocabulary) -> Structure | None:
    sight = Sight(text, vocabulary)
    if not sight.names and (unknown := sight.unknown_name()):
        sight.names.append(unknown)
        sight.strange = 0.0
    if not sight.names or not (sight.cues or sight.polar or sight.marks):
        return None
    compared = not sight.marks.isdisjoint(("least", "most"))
    return (
        ("between" in sight.marks and _between(sight))
        or ("same" in sight.marks and _same(sight))
        or (compared and _compare(sight))
        or (sight.polar and (_yes_no(sight) or (not compared and _same(sight))))
        or _ask(sight)
        or None
    )


def _ask(sight: Sight) -> Ask | Both | None:
    """Read a question for one object, or for two."""
    every = [path for name in sight.names for path in paths(sight, name, focus=sight.focus)]
    best = max(every, key=_by_score, default=None)
    if best is None:
        return None
    if "and" in sight.texts and (both := _both(sight, best)):
        return both
    only = len(sight.vocabulary.starts(best.name.kind)) == 1  # what else could be asked of it?
    if not _understood(sight, best.explained, 0.8 * only, aim=best.aim):
        return None
    term = best.term
    return term if isinstance(term, Ask) else None


def _understood(sight: Sight, explained: Amounts, more: float = 0.0, *, aim: float = 0.0) -> bool:
    """Say whether what is explained outweighs what is not."""
    total = sum(explained) + more
    vague = max(explained, default=0.0) < CUE and aim <= 0
    against = sight.strange * (1 + vague) + _MISSED * sight.missed(explained) + _ASTRAY * (aim < 0)
    return total >= max(_LEAST, against)


def _yes_no(sight: Sight) -> YesNo | None:
    """Read a question that proposes a name as its answer."""
    found: list[tuple[float, YesNo, Path]] = []
    for value in sight.names:
        fits = {
            r: TYPE for r, object_ in sight.vocabulary.object.items() if object_ in value.kind.types
        }
        for name in sight.names if fits else ():
            if name.start < value.end and value.start < name.end:
                continue
            for path in paths(sight, name, extra=fits):
                if path.chain[-1] in fits and isinstance(ask := path.term, Ask):
                    found.append((path.score - value.penalty, YesNo(ask, value.name), path))
    if not found:
        return None
    _, question, path = max(found, key=lambda each: each[0])
    return question if _understood(sight, path.explained, TYPE) else None


def _compare(sight: Sight) -> Compare | None:
    """Read a comparison of the numbers of two sides or more."""
    if sight.polar and "or" not in sight.texts:
        return None  # "Is A older than B?" asks for yes or no
    found: list[tuple[float, Compare, Amounts]] = []
    for names in _sides(sight, sight.names):
        for relation in sight.vocabulary.numeric:
            if sided := _beside(sight, relation, names):
                sides, explained, score = sided
                least = "least" in sight.marks and "most" not in sight.marks
                question = Compare(relation, tuple(side.term for side in sides), least)
                found.append((score + len(names), question, explained))
    return _best(sight, found)


def _same(sight: Sight) -> Same | None:
    """Read a question whether two sides share something."""
    found: list[tuple[float, Same, Amounts]] = []
    for names in _sides(sight, sight.names, most=2):
        for relation, amounts in sight.amounts.items():
            if max(amounts) >= TYPE and (sided := _beside(sight, relation, names)):
                (first, second), explained, score = sided
                found.append((score, Same(relation, first.term, second.term), explained))
    return _best(sight, found)


def _best(sight: Sight, found: Sequence[tuple[float, _S, Amounts]]) -> _S | None:
    if not found:
        return None
    _, question, explained = max(found, key=lambda each: each[0])
    return question if _understood(sight, explained, TYPE) else None


def _sides(sight: Sight, names: Sequence[Name], most: int = 4) -> Iterator[tuple[Name, ...]]:
    """Yield the names that may be sides, with a word to cut at between each two of them."""
    for count in range(2, most + 1):
        for chosen in combinations(names, count):
            apart = all(one.end <= two.start for one, two in pairwise(chosen))
            if not apart or len({name.name for name in chosen}) < count:
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


def _beside(
    sight: Sight, relation: str, names: Sequence[Name]
) -> tuple[list[Path], Amounts, float] | None:
    """Return the best chain from each name to a subject of a relation, and what they explain."""
    nothing: Amounts = (0.0,) * len(sight.cues)
    explained = sight.amounts.get(relation, nothing)
    sides, score = [], 0.0
    for name, weights in zip(names, _weights(sight, names), strict=True):
        found = [
            path
            for path in paths(sight, name, weights=weights)
            if relation in sight.vocabulary.follows[path.chain[-1]] and relation not in path.chain
        ]
        if relation in sight.vocabulary.starts(name.kind):
            found.append(Path(name, (), nothing, -name.penalty - sight.aside(name)))
        if not found:
            return None
        best = max(found, key=_by_score)
        sides.append(best)
        explained = tuple(map(max, explained, best.explained))
        score -= name.penalty + sight.aside(name) + COST * len(best.chain)
    return sides, explained, score + sum(explained)


def _both(sight: Sight, alone: Path) -> Both | None:
    """Read "the capital and the currency of Peru", if it explains a cue more than one question."""
    found: list[tuple[float, Both, Amounts]] = []
    for at, word in enumerate(sight.texts):
        if word != "and" or any(name.start <= at < name.end for name in sight.names):
            continue
        before = [float(seen.start < at) for seen in sight.cues]
        after = [1.0 - weight for weight in before]
        for one in sight.names:
            for two in sight.names:
                if one is not two and not one.end <= at < two.start:
                    continue
                first = max(paths(sight, one, weights=before), key=_by_score, default=None)
                second = max(paths(sight, two, weights=after), key=_by_score, default=None)
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
    return _best(sight, found)


def _by_score(path: Path) -> float:
    return path.score


def _between(sight: Sight) -> Between | None:
    """Read a question for the difference of two numbers."""
    found: list[tuple[float, Between, Amounts]] = []
    pairs = [(name, name) for name in sight.names] + list(_sides(sight, sight.names, most=2))
    for names in pairs:
        weights: Sequence[Sequence[float] | None] = (None, None)
        if names[0] is not names[1]:
            weights = [[max(w, 0.7) for w in side] for side in _weights(sight, names)]
        one, two = (
            [
                path
                for path in paths(sight, name, weights=side)
                if path.chain[-1] in sight.vocabulary.numeric
            ]
            for name, side in zip(names, weights, strict=True)
        )
        for first in one:
            for second in two:
                a, b = first.term, second.term
                ends = sight.vocabulary.object
                if ends[first.chain[-1]] != ends[second.chain[-1]] or a == b:
                    continue
                explained = tuple(map(max, first.explained, second.explained))
                score = sum(explained) - COST * len({*first.chain, *second.chain})
                score += 1.5 * (names[0] is not names[1])
                if isinstance(a, Ask) and isinstance(b, Ask):
                    found.append((score, Between(a, b), explained))
    return _best(sight, found)
