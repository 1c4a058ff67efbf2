"""The known names in a text, typos and all.

A name is found by its words. Where words are left that mean nothing, they are compared letter by
letter, together with their neighbours and without the spaces, with all names of about that length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Union

from rapidfuzz import process
from rapidfuzz.distance import OSA

_WORD = re.compile(r"[^\W_]+(?:['\u2019`][^\W_]+)*\+*|[.,;:!?()\u2013\u2014]|(?<=\s)[-/&](?=\s)")
_SPOKEN = {"/": ",", "&": "and"}
_ENDING = re.compile(r"['\u2019`](?:s|re|ll|d|ve|m)$")
_APOSTROPHES = str.maketrans("", "", "'\u2019`")
_ARTICLES = ("the", "a", "an")
#: Names and words with fewer letters have to be spelled right.
_SHORT = 4
#: A misspelled name may have so many words.
_MAX_WORDS = 7

#: A trie over the words of names; "" leads to the name that ends here.
_Node = dict[str, Union["_Node", str]]


class Word(NamedTuple):
    """A word or a punctuation mark of a text."""

    text: str
    """In lower case, without accents, apostrophes and a possessive ending."""
    start: int
    """Where it starts and ends in the text."""
    end: int


class Found(NamedTuple):
    """A name that was found in a text."""

    start: int
    """The index of its first word, and of the word after its last one."""
    end: int
    name: str
    """As it is spelled among the known names."""
    wrong: int
    """How many letters are typos."""
    letters: int


def words_of(text: str) -> list[Word]:
    """Return the words and punctuation marks of a text; initials count as one word.

    >>> [word.text for word in words_of("J.R.R. Tolkien's caf\u00e9?")]
    ['jrr', '.', 'tolkien', 'cafe', '?']
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


@lru_cache(maxsize=1 << 15)
def _plain(word: str) -> str:
    word = word.lower()
    if not word.isascii():
        letters = unicodedata.normalize("NFKD", word.replace("\u2019", "'"))
        word = "".join(c for c in letters if not unicodedata.combining(c))
    return _SPOKEN.get(word) or _ENDING.sub("", word).translate(_APOSTROPHES)


class Gazetteer:
    """Known names.

    Args:
        names: each spelling, and the name that it stands for.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._root: _Node = {}
        self._letters: dict[str, str] = {}
        self.words: set[str] = set()
        """The words of all names."""
        for spelling, name in names.items():
            words = [word.text for word in words_of(spelling.replace("&", " and "))]
            words = [word for word in words if word[0].isalnum()]
            if len(words) > 1 and words[0] in _ARTICLES:
                words = words[1:]
            if not words:
                continue
            for kept in (words, [word for word in words if word not in _ARTICLES] or words):
                node = self._root
                for word in kept:
                    child = node.setdefault(word, {})
                    assert isinstance(child, dict)
                    node = child
                node.setdefault("", name)
            self._letters.setdefault("".join(words), name)
            self.words.update(words)
        self._misspelled = Spelling(self._letters)

    def find(self, words: Sequence[str]) -> list[Found]:
        """Return the names in a text by their words, the best first; they may overlap."""
        starts = (at for at, word in enumerate(words) if word in self._root)
        return sorted((found for at in starts for found in self._from(at, words)), key=rank)

    def find_misspelled(self, words: Sequence[str], odd: Collection[int]) -> list[Found]:
        """Return the names in a text by their letters, the best first; they may overlap.

        Args:
            words: The text.
            odd: Which words mean nothing else; a name holds at least one of them.
        """
        found = []
        for start in range(len(words)):
            letters, oddities = "", 0
            for end in range(start + 1, min(start + _MAX_WORDS, len(words)) + 1):
                word = words[end - 1]
                if not word[0].isalnum():
                    continue
                letters += word
                oddities += end - 1 in odd
                # A name starts and ends with a word of a name, or with a misspelled one.
                edges = (start in odd or words[start] in self.words) and (
                    end - 1 in odd or word in self.words
                )
                if oddities and edges and (near := self._misspelled.nearest(letters)):
                    name = self._letters[near[0]]
                    found.append(Found(start, end, name, near[1], len(near[0])))
        return sorted(found, key=rank)

    def _from(self, start: int, words: Sequence[str]) -> Iterator[Found]:
        node, letters = self._root, 0
        for at in range(start, len(words)):
            child = node.get(words[at])
            if isinstance(child, dict):
                node, letters = child, letters + len(words[at])
                name = node.get("")
                if isinstance(name, str):
                    yield Found(start, at + 1, name, 0, letters)
            elif at == start or words[at] not in (".", ",", "-", "the"):
                return  # "the" and full stops inside a name may be there or not


class Spelling:
    """Known words (or names without their spaces), to find one of them by a misspelled one."""

    def __init__(self, words: Iterable[str]) -> None:
        self._alike: dict[tuple[int, int, str], list[str]] = {}
        for word in sorted(words):
            if len(word) >= _SHORT:
                for end in (0, -1):
                    for length in range(len(word) - 2, len(word) + 3):
                        self._alike.setdefault((length, end, word[end]), []).append(word)
        #: The same few words are asked for over and over.
        self.nearest = lru_cache(maxsize=1 << 15)(self._nearest)

    def _nearest(self, word: str, wrong: int = 3) -> tuple[str, int] | None:
        """Return the known word that differs least, and by how many letters; None if by too many.

        No more than `wrong` are looked for.

        Letters are left out, added, replaced, or swapped with the next one. The first or the last
        letter has to be right; in short words both, or just one letter may be wrong.
        """
        length = len(word)
        most = min(wrong, 1 if length < 6 else 2 if length < 14 else 3)
        ends = word[0], word[-1]
        best: tuple[str, int] | None = None
        for end in (0, -1):
            words = self._alike.get((length, end, word[end]), ())
            found = words and process.extractOne(
                word, words, scorer=OSA.distance, score_cutoff=most
            )
            if found and found[1] > 1 and length < 9 and (found[0][0], found[0][-1]) != ends:
                continue
            if found and (best is None or found[1] < best[1]):
                best = str(found[0]), int(found[1])
        return best


def rank(found: Found) -> tuple[int, int, str]:
    """Order names: those of more right letters come first."""
    return (2 * found.wrong - found.letters, found.start, found.name)
