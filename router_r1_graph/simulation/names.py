"""The known names in a text, typos and all.

A name is found by its words. A word that is not known is compared with the known words that become
the same when a letter or two are left out of both (the symmetric-delete index of SymSpell), so the
time for it does not grow with the number of names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

_WORD = re.compile(r"[^\W_]+(?:['\u2019`][^\W_]+)*\+*|[.,;:!?()\u2013\u2014]|(?<=\s)-(?=\s)")
_ENDING = re.compile(r"['\u2019`](?:s|re|ll|d|ve|m)$")
_APOSTROPHES = str.maketrans("", "", "'\u2019`")
_ARTICLES = ("the", "a", "an")
#: Words from which a typo may take two letters; from shorter ones it takes one.
_LONG = 8
#: A name with a larger share of wrong letters is no match.
_MAX_WRONG = 0.26
_LAST: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class Word:
    """A word or a punctuation mark of a text."""

    text: str
    """In lower case, without accents, apostrophes and a possessive ending."""
    start: int
    """Where it starts and ends in the text."""
    end: int


@dataclass(frozen=True, slots=True)
class Found:
    """A name that was found in a text."""

    start: int
    """The index of its first word, and of the word after its last one."""
    end: int
    name: str
    """As it is spelled among the known names."""
    wrong: int
    """How many letters are typos."""


def words_of(text: str) -> list[Word]:
    """Return the words and punctuation marks of a text; initials count as one word.

    >>> [word.text for word in words_of("J. R. R. Tolkien's caf\u00e9?")]
    ['jrr', 'tolkien', 'cafe', '?']
    """
    words: list[Word] = []
    initials = False
    for match in _WORD.finditer(text):
        raw = match.group()
        word = _plain(raw)
        start = match.start()
        initial = len(word) == 1 and word.isalpha() and raw.isupper()
        if initial and initials:
            while words[-1].text == ".":
                words.pop()
            word, start = words[-1].text + word, words.pop().start
        if word == "." and initials and words[-1].text != ".":
            words.append(Word(word, start, match.end()))
            continue
        initials = initial
        words.append(Word(word, start, match.end()))
    return words


def _plain(word: str) -> str:
    word = word.lower()
    if not word.isascii():
        letters = unicodedata.normalize("NFKD", word.replace("\u2019", "'"))
        word = "".join(c for c in letters if not unicodedata.combining(c))
    return _ENDING.sub("", word).translate(_APOSTROPHES)


class Gazetteer:
    """Known names, and the words that are known beside them.

    Args:
        names: each spelling, and the name that it stands for.
        other_words: words that are no typos of a name, and that typos are found of as well.
    """

    def __init__(self, names: Mapping[str, str], other_words: Collection[str]) -> None:
        self._root: dict[str, object] = {}
        self._vocabulary: set[str] = set()
        for spelling, name in names.items():
            words = [word.text for word in words_of(spelling.replace("&", " and "))]
            words = [word for word in words if word[0].isalnum()]
            if len(words) > 1 and words[0] in _ARTICLES:
                words = words[1:]
            for kept in (words, [word for word in words if word not in _ARTICLES]):
                node = self._root
                for word in kept:
                    node = node.setdefault(word, {})  # type: ignore[assignment]
                if kept:
                    node.setdefault("", name)
            self._vocabulary.update(words)
        self._known = self._vocabulary.union(other_words)
        self._near: dict[str, list[str]] = {}
        for word in self._known:
            if len(word) > 3 and word.isalpha():
                for shorter in _shortened(word):
                    self._near.setdefault(shorter, []).append(word)

    def spelled(self, word: str) -> list[tuple[str, int]]:
        """Return the known words that a word may stand for, and by how many letters it differs."""
        if word in self._known or len(word) < 3 or not word.isalpha():
            return [(word, 0)]
        near = {other for shorter in _shortened(word) for other in self._near.get(shorter, ())}
        found = []
        for other in near:
            distance = _distance(word, other)
            if distance <= (2 if min(len(word), len(other)) >= _LONG else 1):
                found.append((other, distance))
        return sorted(found, key=lambda pair: (pair[1], pair[0])) or [(word, 0)]

    def find(self, spelled: list[list[tuple[str, int]]]) -> list[Found]:
        """Return the names in a text, the best first; they may overlap.

        Args:
            spelled: for each word what `spelled` says.
        """
        found = [match for start in range(len(spelled)) for match in self._from(start, spelled)]
        return sorted(found, key=lambda m: (m.start - m.end + m.wrong, m.wrong, m.start, m.name))

    def _from(self, start: int, spelled: list[list[tuple[str, int]]]) -> Iterator[Found]:
        open_: list[tuple[dict[str, object], int, int]] = [(self._root, 0, 0)]
        at = start
        while open_ and at < len(spelled):
            after = []
            for node, wrong, letters in open_:
                for word, distance in spelled[at]:
                    if word in node:
                        child = node[word]
                        total = (wrong + distance, letters + len(word))
                        after.append((child, *total))
                        name = child.get("")  # type: ignore[attr-defined]
                        if name is not None and total[0] <= _MAX_WRONG * total[1]:
                            yield Found(start, at + 1, name, total[0])
                # "the" and full stops inside a name may be there or not.
                if at > start and spelled[at][0][0] in (".", ",", "-", "the"):
                    after.append((node, wrong, letters))
            open_ = after  # type: ignore[assignment]
            at += 1


def _shortened(word: str) -> set[str]:
    """Return a word, and what is left of it without one letter (without two if it is long)."""
    found = {word}
    for count in range(1, 3 if len(word) >= _LONG else 2):
        found.update(map("".join, combinations(word, len(word) - count)))
    return found


def _distance(a: str, b: str) -> int:
    """Return how many letters are left out, added, replaced or swapped with the next one."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
