"""The compared form of words: without endings, accents and case, and the same for synonyms.

The synonyms are in `data/words.yaml`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

from .relations import read_data


@dataclass(frozen=True)
class Words:
    """The content of `words.yaml`; all words are terms (see `term`)."""

    phrases: re.Pattern[str]
    written: tuple[str, ...]
    """The replacement, by the number of the phrase's group."""
    same: Mapping[str, str]
    """The term of each word and stem that has synonyms."""
    decisive: frozenset[str]
    opposite: Mapping[str, int]
    """The group of each term that has opposites."""
    kinds: Mapping[str, str]
    """The kind of thing that a term asks for."""
    empty: frozenset[str]
    topics: Mapping[str, str]
    """The topic of each term; of a term in two lists, the first one's."""
    topic_order: tuple[str, ...]


@cache
def _data() -> Mapping[str, Any]:
    found: Mapping[str, Any] = read_data("words.yaml")
    return found


@cache
def irregular_forms() -> Mapping[str, str]:
    """Return the base form of each irregular one ("wrote": "write")."""
    return {form: word for word, forms in _data()["forms"].items() for form in forms}


@cache
def words() -> Words:
    """Return the words of `words.yaml`, read once."""
    read = _data()
    same: dict[str, str] = {}
    for group in read["same"]:
        same |= dict.fromkeys(group, group[0])
    for word, first in list(same.items()):
        same.setdefault(stem(word), first)

    def compared(word: str) -> str:
        return same.get(word) or same.get(stem(word)) or stem(word)

    topics: dict[str, str] = {}
    for topic, cues in read["topics"].items():
        for cue in cues:
            topics.setdefault(compared(cue), topic)
    alternatives = "|".join(f"({phrase})" for phrase in read["phrases"])
    return Words(
        phrases=re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE),
        written=tuple(read["phrases"].values()),
        same=same,
        decisive=frozenset(map(compared, read["decisive"])),
        opposite={
            compared(word): number
            for number, group in enumerate(read["opposites"])
            for word in group
        },
        kinds={compared(word): kind for kind, group in read["kinds"].items() for word in group},
        empty=frozenset(read["empty"]),
        topics=topics,
        topic_order=tuple(read["topics"]),
    )


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """Return a word without the commonest English endings: the same for "batting" and "bats".

    >>> stem("batting"), stem("bats"), stem("cities"), stem("directed")
    ('bat', 'bat', 'city', 'direct')
    """
    if len(word) < 4 or not word.isalpha():
        return word
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: len(word) - len(ending)] + instead
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


_ENDINGS = (
    ("sses", "ss"),
    ("ies", "y"),
    ("ied", "y"),
    ("ings", ""),
    ("ing", ""),
    ("ed", ""),
    ("ss", "ss"),
    ("us", "us"),
    ("is", "is"),
    ("s", ""),
    ("ly", ""),
)
_DIGITS = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
_NUMBERS = {word: str(number) for number, word in enumerate(_DIGITS.split(), 2)}


@lru_cache(maxsize=1 << 16)
def term(word: str) -> str:
    """Return the compared form of a word in lower case: "" for one without a meaning of its own."""
    known = words()
    if word in known.empty:
        return ""
    if word in known.same:
        return known.same[word]
    if word in _NUMBERS:
        return _NUMBERS[word]
    if word[0].isdigit():
        return word.replace(",", "").rstrip(".")
    word = irregular_forms().get(word, word)
    short = stem(word)
    return known.same.get(word) or known.same.get(short, short)


class TextTerm(NamedTuple):
    """A word of a text, ready to be compared."""

    text: str
    named: bool
    """Whether it looks like (a part of) a name: it has a capital letter or is in quotes. A capital
    at the beginning means nothing unless the next word has one, too."""
    asks: bool = False
    """Whether it names the kind of answer: "which band"."""
    explains: bool = False
    """Whether it names the kind of a name: "the band Queen"."""


def terms(text: str) -> list[TextTerm]:
    """Return the terms of a text in order.

    >>> [term.text for term in terms("Who's the director of The Cup?")]
    ['who', 'direct', 'cup']
    """
    known = words()
    text = unicodedata.normalize("NFKD", text.translate(_MARKS))
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = _POSSESSIVE.sub("", text)
    text = known.phrases.sub(lambda found: f" {known.written[(found.lastindex or 1) - 1]} ", text)
    quoted = [found.span() for found in _QUOTED.finditer(text)]
    found = [(word[0], word.start()) for word in _WORD.finditer(text)]
    result = []
    for number, (word, at) in enumerate(found):
        compared = term(word.lower())
        if not compared:
            continue
        before = found[number - 1][0].lower() if number else ""
        capital = word[0].isupper()
        after_capital = number + 1 < len(found) and found[number + 1][0][0].isupper()
        if number == 0 and capital:
            capital = after_capital and compared not in known.topics
        named = capital or any(start < at < end for start, end in quoted)
        result.append(
            TextTerm(
                compared,
                named,
                asks=not named and before in ("which", "what"),
                explains=not named and before == "the" and after_capital,
            )
        )
    return result


_MARKS = str.maketrans(
    {"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "ł": "l", "ø": "o"}
)
_WORD = re.compile(r"\d+(?:[.,]\d+)+(?![^\W\d_])|[^\W_]+(?:_[^\W_]+)*")
_POSSESSIVE = re.compile(r"(?<=\w)'s\b|(?<=s)'(?!\w)")
_QUOTED = re.compile(r'"[^"]*"')
