"""Noise on top of a question: openings, closings, case, a missing mark, letters typed wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from .sentences import capitalized
from .structure import folded
from .wordings import WordingSplit, common_wordings
from .world import World

_SHORTEST = 5
"""Characters of a name that may have a typo."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How often each kind of noise is drawn, each independently, as probabilities."""

    opening: float = 0.2
    closing: float = 0.12
    lower: float = 0.12
    """All in lower case."""
    upper: float = 0.02
    """All in upper case."""
    no_mark: float = 0.15
    """Without the question mark or full stop at the end."""
    typo: float = 0.1
    """A letter or two of one name are wrong."""
    introduction: float = 0.1
    """A sentence before that mentions the thing, which is then "it"."""


NO_NOISE = Noise(0, 0, 0, 0, 0, 0, 0)
USUAL_NOISE = Noise()


def framed(text: str, split: WordingSplit, rng: random.Random, noise: Noise) -> str:
    """Return a question with noise around it."""
    common = common_wordings(split)
    if rng.random() < noise.opening:
        opening = rng.choice(common.openings)
        goes_on = opening.endswith((",", "but"))
        text = f"{opening} {text if goes_on else capitalized(text)}"
    if rng.random() < noise.closing:
        text = f"{text} {rng.choice(common.closings)}"
    elif rng.random() < noise.no_mark:
        text = text.rstrip("?.")
    text = capitalized(text)
    draw = rng.random()
    if draw < noise.lower:
        return text.lower()
    return text.upper() if draw < noise.lower + noise.upper else text


def with_typo(name: str, rng: random.Random) -> str | None:
    """Return a name with a letter or two typed wrong; None where that could be another name.

    Names of fewer than 5 characters stay as they are, and so does the first letter of each word.
    """
    if len(name) < _SHORTEST:
        return None
    typed = name
    for _ in range(2 if len(name) >= 2 * _SHORTEST and rng.random() < 0.25 else 1):
        inside = [at for at in range(1, len(typed)) if typed[at - 1 : at + 1].isalpha()]
        if not inside:
            return None
        at = rng.choice(inside)
        left, letter, right = typed[:at], typed[at], typed[at + 1 :]
        match rng.choice(("drop", "double", "swap", "replace")):
            case "drop":
                typed = left + right
            case "double":
                typed = left + letter + letter + right
            case "swap" if right[:1].isalpha() and right[:1] != letter:
                typed = left + right[0] + letter + right[1:]
            case _:
                typed = left + rng.choice(_NEIGHBOURS.get(letter.lower(), "e")) + right
    text = folded(typed)
    alike = (
        other
        for length in (len(text) - 1, len(text), len(text) + 1)
        for other in _known_names().get(length, ())
        if other != folded(name)
    )
    return None if typed == name or any(_one_edit(text, other) for other in alike) else typed


#: Letters that are next to each other on a keyboard.
_NEIGHBOURS = {
    letter: "".join(row[max(at - 1, 0) : at] + row[at + 1 : at + 2])
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for at, letter in enumerate(row)
}


@cache
def _known_names() -> Mapping[int, frozenset[str]]:
    """Return all names of the embedded world by their length."""
    facts = World.embedded().facts
    names = {folded(name) for fact in facts for name in (fact.subject, fact.object)}
    return {
        length: frozenset(name for name in names if len(name) == length)
        for length in set(map(len, names))
    }


def _one_edit(text: str, other: str) -> bool:
    """Say whether two texts of about the same length are equal but for a letter more or other."""
    start = 0
    while start < min(len(text), len(other)) and text[start] == other[start]:
        start += 1
    rest, other_rest = text[start:], other[start:]
    return rest[1:] == other_rest[1:] or rest[1:] == other_rest or rest == other_rest[1:]
