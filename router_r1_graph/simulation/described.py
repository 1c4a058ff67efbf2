"""Parts that are only described: "which river crosses the capital of Peru" asks for no capital."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .cues import CUE, TYPE, Cue
from .focused import Focused
from .function_words import ASKING, PLACING, STOPS, TELLING
from .spotted import Name

_ARTICLES = frozenset(("the", "whichever", "whatever", "whoever", "whomever"))
#: How many words may stand between an article and its noun.
_ADJECTIVES = 2


def described(sight: Focused, cues: Iterable[tuple[int, Cue]]) -> frozenset[str]:
    """Return the relations whose nouns in a text are all in descriptions.

    A noun with an article is one after a preposition ("in the homeland of Liszt"), or after a verb
    whose question word asks for something else ("where does the river of Ghent end").

    Args:
        sight: The text.
        cues: Where each cue starts, and what it says.
    """
    objects = sight.vocabulary.object
    found: dict[str, bool] = {}
    types = sight.focus.cue.types if sight.focus and sight.focus.cue else set()
    for at, cue in cues:
        if sight.focus and cue is sight.focus.cue and len(types) > 1:
            continue  # "which water" may be a river or a sea
        nouns = [
            name
            for name, amount in cue.relations.items()
            if amount >= CUE or (amount >= TYPE and objects[name] in cue.types)
        ]
        is_described = _is_described(sight, at) if nouns else None
        if is_described is not None:
            owner = next((name.kind for name in sight.names if name.end == at), None)
            can_own = sight.vocabulary.starts(owner) if owner else nouns
            for name in nouns:  # in "the author of Emma's homeland" Emma has none
                found[name] = found.get(name, True) and is_described and name in can_own
    wanted = types if len(types) == 1 else set()
    return frozenset(name for name, yes in found.items() if yes and objects[name] not in wanted)


def _is_described(sight: Focused, start: int) -> bool | None:
    """Say whether a cue is the noun of a description; None where it is no noun with an article."""
    article = _article(sight, start)
    if article is None:
        article = _owner(sight, start, sight.names)
    if article is None:
        return None
    if article == 0 or sight.texts[article - 1] in STOPS | {","}:
        return _is_subject(sight, article)
    before = sight.texts[article - 1]
    verb = sight.bases[article - 1]
    if before == "of":
        return sight.bases[article - 2 : article - 1] not in (["name"], ["title"])
    if before == "for":
        return sight.focus is not None and article - 1 < sight.focus.at
    if before in PLACING:
        return True
    if verb == "be":
        asking = sight.texts[article - 2] if article > 1 else ""
        return sight.focus is not None and asking not in ("what", "who", "which", "whats", "whos")
    asked = before in ASKING or before in TELLING or verb in ("call", "name", "and", "or", ",")
    return not asked and sight.focus is not None and sight.focus.at < article


def _is_subject(sight: Focused, at: int) -> bool:
    """Say whether something else is asked after a noun: "the homeland of Liszt uses what coins"."""
    focus = sight.focus
    if focus is None or focus.at < at:
        return False
    last = not any(word[0].isalnum() for word in sight.texts[focus.at + 1 :])
    return not (last and sight.bases[focus.at - 1] == "be")


def _article(sight: Focused, at: int) -> int | None:
    """Return the place of a noun's article; no name and no other noun is between them."""
    for before in range(at - 1, max(at - 2 - _ADJECTIVES, -1), -1):
        if sight.texts[before] in _ARTICLES:
            return before
        if sight.is_taken(before):
            return None
    return None


def _owner(sight: Focused, at: int, names: Collection[Name]) -> int | None:
    """Return where the name starts that a noun belongs to: "Liszt's homeland"."""
    for name in names:
        if name.end == at:
            spelled = sight.text[sight.words[name.start].start : sight.words[at - 1].end + 1]
            if spelled.rstrip().endswith(("'s", "s'")):
                first = name.start
                return first - 1 if first and sight.texts[first - 1] == "the" else first
    return None
