"""The end that a comparison asks for: the smallest number or the largest.

Each word of the lexicon says one end ("older", "outlive"); the words beside it can turn it around:
"less recent", "was outlived by", "more candles on the cake".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

End = Literal["least", "most"]

_MORE = frozenset(["more", "most", "great", "greater", "greatest", "higher", "highest", "many"])
_LESS = frozenset(["less", "least", "fewer", "fewest", "lower", "lowest", "smaller", "smallest"])
#: The more of these, the older: the smaller is the year.
_AGE = frozenset(
    [
        "candle",
        "birthday",
        "wrinkle",
        "winter",
        "summer",
        "spring",
        "generation",
        "experience",
        "past",
        "history",
        "decade",
        "age",
        "mileage",
        "cake",
    ]
)
_OTHERS = frozenset(["other", "others", "both", "rest", "all", "two", "either"])
#: How many words further something still belongs together.
_NEAR = 3


class Said(NamedTuple):
    """A word or phrase that says an end."""

    start: int
    end: int
    least: bool


def end_of(said: Sequence[Said], bases: Sequence[str]) -> End | None:
    """Return the end that words express together; None if none expresses one.

    Args:
        said: They, in order.
        bases: All words of the text, in base form.

    >>> end_of([Said(1, 2, False), Said(2, 3, True)], ["the", "more", "ancient", "book"])
    'least'
    >>> end_of([Said(2, 3, False)], ["who", "be", "outlive", "by", "the", "other"])
    'least'
    """
    total, last, turned = 0, 0, False
    for at, (start, end, least) in enumerate(said):
        word = bases[start] if end == start + 1 else ""
        following = said[at + 1].start if at + 1 < len(said) else len(bases)
        if word in _MORE | _LESS and following < end + _NEAR - 1:
            turned = turned != (word in _LESS)
            continue
        sign = -1 if least else 1
        older = word in _MORE | _LESS and not _AGE.isdisjoint(bases[end : end + _NEAR])
        passive = (
            bases[end : end + 1] == ["by"]
            and "be" in bases[max(start - _NEAR, 0) : start]
            and not _OTHERS.isdisjoint(bases[end + 1 : end + _NEAR])
        )
        called = "other" in bases[max(start - _NEAR, 0) : start] and "call" in bases[:start]
        if (turned + older + passive + called) % 2:
            sign = -sign
        total, last, turned = total + sign, sign, False
    total = total or last
    return None if total == 0 else "least" if total < 0 else "most"


def is_turned(said: Sequence[Said]) -> bool:
    """Say whether an order is given from its other end: "the newest first"."""
    return any(
        not one.least and two.least and two.start - one.end < _NEAR for one, two in pairwise(said)
    )
