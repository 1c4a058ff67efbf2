"""A reader's knowledge of a world: its names, their types, and the paths of relations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .cues import Lexicon
from .names import Gazetteer, words_of
from .relations import OTHER_DOMAIN, relation_of
from .structure import folded
from .world import World

_NUMERIC = frozenset(("year", "number"))


@dataclass(frozen=True, slots=True)
class Kind:
    """The properties of a name."""

    types: frozenset[str]
    relations: frozenset[str] = frozenset()
    """The relations with it as a subject."""


#: What is known of a number that is no name.
NUMBER = Kind(_NUMERIC)


class Vocabulary:
    """The names and relations of a world, with the words for them.

    Args:
        kinds: the properties of each name.
        relations: those of the world.
    """

    def __init__(self, kinds: Mapping[str, Kind], relations: Sequence[str]) -> None:
        self.lexicon = Lexicon(relations)
        self.kinds = kinds
        self.subject = {name: relation_of(name).subject for name in self.lexicon.relations}
        self.object = {name: relation_of(name).object for name in self.lexicon.relations}
        self.gazetteer = Gazetteer(_spellings(kinds, self.lexicon))
        self.typed = frozenset(
            name for name in self.object if relation_of(name).domain != OTHER_DOMAIN
        )
        """The relations with known types."""
        self.numeric = tuple(
            name
            for name, object_ in self.object.items()
            if object_ in _NUMERIC or self._are_numbers(object_)
        )
        """The relations with numbers as their objects."""
        #: The base form of each word that a text was seen with, of a misspelled one too.
        self.base = lru_cache(maxsize=1 << 15)(self._base)
        self._folded = {folded(name): kind for name, kind in kinds.items()}
        self._starts: dict[Kind, Sequence[str]] = {}
        known: dict[str, set[str]] = {}
        for kind in kinds.values():
            for type_ in kind.types:
                known.setdefault(type_, set()).update(kind.relations)
        self.follows: Mapping[str, Sequence[str]] = {
            name: tuple(
                other
                for other in self.subject
                if self.subject[other] == object_ or other in known.get(object_, ())
            )
            for name, object_ in self.object.items()
        }
        """The relations that can be asked of the object of one."""

    def _are_numbers(self, type_: str) -> bool:
        names = [name for name, kind in self.kinds.items() if type_ in kind.types]
        return bool(names) and all(name.isdigit() for name in names)

    def _base(self, word: str) -> str:
        lexicon = self.lexicon
        base = lexicon.base(word)
        known = word in lexicon.words or base != word or word in self.gazetteer.words
        return base if known else lexicon.nearest(word) or word

    def kind(self, name: str) -> Kind | None:
        """Return the properties of a name, in any case and with any article."""
        return self._folded.get(folded(name))

    def starts(self, kind: Kind) -> Sequence[str]:
        """Return the relations that can be asked of such a name."""
        known = self._starts.get(kind)
        if known is None:
            known = self._starts[kind] = tuple(
                name
                for name, subject in self.subject.items()
                if name in kind.relations or subject in kind.types
            )
        return known

    def means(self, text: str) -> bool:
        """Say whether a text holds a cue or a known name."""
        words = [word.text for word in words_of(text)]
        bases = [self.lexicon.base(word) for word in words]
        cues = (self.lexicon.at(bases, at) for at in range(len(bases)))
        return any(cue and (cue[0].relations or cue[0].marks) for cue in cues) or bool(
            self.gazetteer.find(words) or self.gazetteer.find_misspelled(words, range(len(words)))
        )


def _spellings(kinds: Mapping[str, Kind], lexicon: Lexicon) -> dict[str, str]:
    """Return each spelling with its name: the names, their aliases, persons by their last names."""
    spellings = {name: name for name in kinds}
    for alias, name in lexicon.aliases.items():
        if name in kinds:
            spellings.setdefault(alias, name)
    known = {folded(name) for name in kinds}
    persons: dict[str, set[str]] = {}
    for name, kind in kinds.items():
        if "person" in kind.types:
            words = name.split()
            for at in range(1, len(words)):
                persons.setdefault(" ".join(words[at:]), set()).add(name)
    for last, of in persons.items():
        low = last.lower()
        if len(of) == 1 and low not in known and low not in lexicon.words and len(low) > 3:
            spellings.setdefault(last, next(iter(of)))
    return spellings


@lru_cache(maxsize=256)
def vocabulary_of(world: World) -> Vocabulary:
    """Return the vocabulary of a world; worlds with the same names and relations share one."""
    types: dict[str, set[str]] = {}
    relations: dict[str, set[str]] = {}
    spelled: dict[str, str] = {}
    for fact in world.facts:
        relation = relation_of(fact.relation)
        for name, type_ in ((fact.subject, relation.subject), (fact.object, relation.object)):
            types.setdefault(spelled.setdefault(folded(name), name), set()).add(type_)
        relations.setdefault(spelled[folded(fact.subject)], set()).add(fact.relation)
    kinds = {
        name: Kind(frozenset(found), frozenset(relations.get(name, ())))
        for name, found in types.items()
    }
    return _shared(tuple(sorted(kinds.items(), key=lambda pair: pair[0])), world.relations)


@lru_cache(maxsize=16)
def _shared(kinds: tuple[tuple[str, Kind], ...], relations: tuple[str, ...]) -> Vocabulary:
    return Vocabulary(dict(kinds), relations)
