"""The words of a text and the known names among them, each as certain as it looks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from .cues import Cue
from .function_words import ASKING
from .names import Found, rank, words_of
from .structure import folded
from .vocabulary import NUMBER, Kind, Vocabulary
from .wordings import demonyms

MAX_NAMES = 8
#: A name that is more doubtful than this keeps its words for cues.
DOUBTFUL = 1.0
#: How "the" is misspelled.
_ARTICLES = dict.fromkeys(
    ["teh", "hte", "tje", "thr", "th", "tha", "tthe", "thhe", "thee", "tjee", "tge", "tne", "rhe"],
    "the",
)
AUXILIARIES = frozenset(
    [
        "is",
        "was",
        "are",
        "were",
        "did",
        "does",
        "do",
        "has",
        "have",
        "had",
        "isnt",
        "wasnt",
        "arent",
        "werent",
        "didnt",
        "doesnt",
        "dont",
        "would",
        "could",
    ]
)


class Name(NamedTuple):
    """A name in a text; `start` and `end` count words."""

    start: int
    end: int
    name: str
    kind: Kind
    penalty: float = 0.0
    """How doubtful it is."""


class Spotted:
    """A text with the known names in it."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self.text = text
        self.vocabulary = vocabulary
        self.lexicon = vocabulary.lexicon
        self.words = words_of(text)
        self.texts = [_ARTICLES.get(word.text, word.text) for word in self.words]
        self.bases = [vocabulary.base(word) for word in self.texts]
        for at, base in enumerate(self.bases):
            if base in ASKING:
                self.texts[at] = base  # "waht"
        self.cue_at = [self.lexicon.at(self.bases, at) for at in range(len(self.bases))]
        """The longest cue that starts at each word, and the index after it."""
        self.odd: frozenset[int] = frozenset()
        """The words that mean nothing."""
        self.strangers: set[int] = set()
        """The words of names that seem to be unknown."""
        self.names = self._names()

    def _names(self) -> list[Name]:
        phrases = [(at, *cue) for at, cue in enumerate(self.cue_at) if cue and cue[1] - at > 1]
        kept: list[Name] = []
        every = self.vocabulary.gazetteer.find(self.texts)
        sure = {at for f in every if f.letters > 2 for at in range(f.start, f.end)}
        self.strangers = {
            at
            for at, word in enumerate(self.texts)
            if at not in sure
            and len(word) > 2
            and word not in self.lexicon.words
            and self._capital(at)
        }
        odd = [
            at
            for at, word in enumerate(self.texts)
            if word[0].isalpha()
            and at not in sure
            and word not in self.lexicon.words
            and self.lexicon.base(word) == word
        ]
        self.odd = frozenset(odd)
        if odd:
            misspelled = self.vocabulary.gazetteer.find_misspelled(self.texts, odd)
            every = sorted({*every, *misspelled}, key=rank)
        for found in every:
            # Only names of the very same words may stand side by side.
            overlap = any(
                other.start < found.end
                and found.start < other.end
                and (other.start, other.end) != (found.start, found.end)
                for other in kept
            )
            if overlap:
                continue
            kind = self.vocabulary.kinds[found.name]
            penalty = self._doubt(found, kind)
            if penalty is not None:
                kept.append(Name(found.start, found.end, found.name, kind, penalty))
        # "in the periodic table" speaks of no discovery, unless that is all there is to speak of.
        apart = [
            name
            for name in kept
            if not any(
                start <= name.start
                and name.end <= end
                and end - start > name.end - name.start
                and self._starts(kept, cue)
                for start, cue, end in phrases
            )
        ]
        if any(name.penalty < DOUBTFUL for name in apart):
            kept = apart
            kept = [name for name in kept if name.penalty <= 3 * DOUBTFUL]
        for name in filter(None, map(self._country, range(len(self.texts) - 1))):
            kept = [name, *(other for other in kept if other.start != name.start)]
        del kept[MAX_NAMES:]
        for at, word in enumerate(self.texts):
            if word.isdigit() and not any(name.start <= at < name.end for name in kept):
                kept.append(Name(at, at + 1, word, NUMBER, 0.5))
        return sorted(kept[: 2 * MAX_NAMES], key=lambda name: (name.start, name.penalty))

    def _starts(self, names: Sequence[Name], cue: Cue) -> bool:
        """Say whether a relation that a cue speaks of can be asked of one of some names."""
        return not cue.relations or any(
            not cue.relations.keys().isdisjoint(self.vocabulary.starts(name.kind)) for name in names
        )

    def _doubt(self, found: Found, kind: Kind) -> float | None:
        """Return how doubtful a name is; None for one that is none."""
        first = self.texts[found.start]
        written = self.text[self.words[found.start].start : self.words[found.end - 1].end]
        if "'s " in written and "'" not in found.name:
            return None  # "Ottawa's river" is no Ottawa River
        symbol = kind.types == {"symbol"}
        if symbol and (written != found.name or len(self.words) < 3):
            return None
        if found.wrong and found.letters < 5 and written.islower():
            return None
        adjective = first in demonyms() and found.end == found.start + 1
        if adjective and (found.wrong or self._is_somebody(found.end)):
            return None  # "the Finnish musical genius" asks for no Finnish
        penalty = 0.4 * found.wrong + symbol
        short = found.letters < _letters(found.name) - 1
        beside = not self.strangers.isdisjoint((found.start - 1, found.end))
        if found.wrong and found.end - found.start == 1:
            beside = beside or not self.odd.isdisjoint((found.start - 1, found.end))
        if found.wrong or short:
            beside = beside or self._goes_on(found.end)
        apart = found.end - found.start > 1
        if found.wrong and apart and (short or " " not in found.name.removeprefix("the ")):
            return None  # "dust on" is no Huston
        if beside and (short or found.wrong or found.end - found.start == 1):
            return None  # "Emma Smith" is no book
        if short:
            if found.wrong > 1 or (found.wrong and found.letters < 6):
                return None
            if written.islower() and self.text != self.text.lower():
                return None
            penalty += 0.5  # a last name
        if found.end - found.start == 1:
            if found.wrong:
                penalty += 0.5
            if first in self.lexicon.words or first in AUXILIARIES:
                name = folded(found.name)
                capital = found.name.removeprefix("the ")[:1].isupper()
                if capital and written.islower() and self.text != self.text.lower():
                    return None
                penalty += 1.5 if capital else 0.2
                if first in self.lexicon.plain or (capital and written.islower()):
                    penalty += 1.0
                if name != first:
                    penalty += 1.0
        return penalty

    def _country(self, at: int) -> Name | None:
        """Return the country of "Polish" in "the Polish capital"; not of "the Polish language"."""
        name, found = demonyms().get(self.texts[at], ""), self.cue_at[at + 1]
        kind = self.vocabulary.kinds.get(name)
        if kind is None or found is None:
            return None
        asked = {r for r, w in found[0].relations.items() if w > 2} & {
            *self.vocabulary.starts(kind)
        }
        return Name(at, at + 1, name, kind) if asked - {"language"} else None

    def _is_somebody(self, start: int) -> bool:
        """Say whether a noun for a person starts at a word, or at the one after it."""
        objects = self.vocabulary.object
        for found in filter(None, self.cue_at[start : start + 2]):
            named = {objects[name] for name, w in found[0].relations.items() if w > 2}
            if "person" in found[0].types or named == {"person"}:
                return True
        return False

    def _goes_on(self, at: int) -> bool:
        """Say whether a name goes on at a word: "The Lighthouse" in "The Lighthouse Eats Alone"."""
        return at < len(self.texts) and len(self.texts[at]) > 2 and self._capital(at)

    def _capital(self, at: int) -> bool:
        """Say whether a word is written like a name, in a text where that means something."""
        word = self.words[at]
        return at > 0 and self.text[word.start].isupper() and not self.text.isupper()


@cache
def _letters(name: str) -> int:
    """Return about how many letters are in a name without its article."""
    words = [word.text for word in words_of(name) if word.text[0].isalnum()]
    return sum(map(len, words[words[0] in ("the", "a", "an") and len(words) > 1 :]))
