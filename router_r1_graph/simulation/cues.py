"""The words by which free English is read: `data/cues.yaml`, ready to be looked up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from .function_words import DETERMINERS
from .names import Spelling, words_of
from .relations import read_data, relation_of
from .synonyms import irregular_forms

#: How much a word says for a relation: a cue, the type of its object, a hint.
CUE, TYPE, HINT = 3.0, 1.5, 0.6
#: How much a word says that asks for something no relation is about.
FOREIGN = 4.0

MARKS = ("least", "most", "same", "between", "polar", "order", "foreign")
#: Marks of phrases in which each word still means what it does.
_OVER = frozenset(("same", "order", "polar"))


@dataclass(slots=True)
class Cue:
    """The meaning of one word or phrase."""

    relations: dict[str, float] = field(default_factory=dict)
    """How much for which relation; the types of objects are counted in."""
    types: set[str] = field(default_factory=set)
    marks: set[str] = field(default_factory=set)
    """Which of `MARKS` it is."""


class Lexicon:
    """Cues by their words in base form.

    Args:
        relations: the relations to read; those without an entry are read by their names.
    """

    def __init__(self, relations: Iterable[str]) -> None:
        data = _data()
        self.relations = tuple(dict.fromkeys((*data["relations"], *relations)))
        self.implied = frozenset(data["implied"])
        self.detours = frozenset(map(tuple, data["detours"]))
        self.explicit = frozenset(data["explicit"])
        self.aliases: Mapping[str, str] = data["aliases"]
        self._base = _bases(data, self.relations)
        self.plain = {self.base(word) for word in data["plain"].split()} | set(
            data["plain"].split()
        )
        self._cues: dict[tuple[str, ...], Cue] = {}
        self._fill(data)
        self._root: dict[str, Any] = {}
        for phrase, cue in self._cues.items():
            node = self._root
            for word in phrase:
                node = node.setdefault(word, {})
            node[""] = cue
        self.words = self.plain.union(self._base, (w for phrase in self._cues for w in phrase))

        self._spelling = Spelling(word for word in self.words if len(word) > 4)

    def base(self, word: str) -> str:
        """Return the base form of a word."""
        return self._base.get(word, word)

    def nearest(self, word: str) -> str | None:
        """Return the base form of the known word that a word may be a typo of."""
        if len(word) == 4:  # "waht", "yaer"
            swapped = (word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(3))
            return next((self.base(other) for other in swapped if other in self.words), None)
        found = self._spelling.nearest(word, 1) if len(word) > 4 and word.isalpha() else None
        return self.base(found[0]) if found and found[1] == 1 else None

    def at(self, bases: list[str], start: int) -> tuple[Cue, int] | None:
        """Return the longest cue that starts at a word, and the index after it."""
        node = self._root.get(bases[start])
        found = None
        at = start + 1
        while node is not None:
            if (cue := node.get("")) is not None:
                found = cue, at
            # "breathe his last", "breathe her last", "breathe the last"
            while at < len(bases) and bases[at] in DETERMINERS and bases[at] not in node:
                at += 1
            if at == len(bases):
                break
            node = node.get(bases[at])
            at += 1
        return found

    def _fill(self, data: Mapping[str, Any]) -> None:
        for relation in self.relations:
            entry = data["relations"].get(relation)
            if entry is None:
                spoken = relation.replace("_", " ")
                entry = {"cues": [spoken], "hints": [w for w in spoken.split() if len(w) > 3]}
            for kind, weight in (("hints", HINT), ("cues", CUE)):
                for text in entry[kind]:
                    self._cue(text).relations[relation] = weight
        for type_, texts in data["types"].items():
            for text in texts:
                self._cue(text).types.add(type_)
        for mark in MARKS:
            for text in data[mark]:
                self._cue(text).marks.add(mark)
        for text in data["empty"]:
            self._cue(text)
        for phrase, cue in self._cues.items():
            # "on one continent": what is the same is still a continent.
            if len(phrase) > 1 and cue.marks and cue.marks <= _OVER and not cue.relations:
                for inner in filter(None, (self._cues.get((word,)) for word in phrase)):
                    cue.types |= inner.types
                    for relation, weight in inner.relations.items():
                        cue.relations[relation] = max(weight, cue.relations.get(relation, 0.0))
        for cue in self._cues.values():
            for relation in self.relations:
                if relation_of(relation).object in cue.types:
                    weight = HINT if relation in data["explicit"] else TYPE
                    cue.relations[relation] = max(weight, cue.relations.get(relation, 0.0))
        for phrase, cue in self._cues.items():
            # "The highest mountain" is a mountain.
            named = {relation_of(name).object for name, w in cue.relations.items() if w >= CUE}
            for inner in filter(None, (self._cues.get((word,)) for word in phrase)):
                cue.types |= inner.types & named

    def _cue(self, text: str) -> Cue:
        first, *others = (self.base(word.text) for word in words_of(text))
        phrase = (first, *(word for word in others if word not in DETERMINERS))
        return self._cues.setdefault(phrase, Cue())


@cache
def _data() -> Mapping[str, Any]:
    found: Mapping[str, Any] = read_data("cues.yaml")
    return found


def _bases(data: Mapping[str, Any], relations: Iterable[str]) -> dict[str, str]:
    """Return the base form of every inflected form; a base form is none of another word."""
    texts = [
        text for entry in data["relations"].values() for kind in entry.values() for text in kind
    ]
    texts += [text for kind in data["types"].values() for text in kind]
    texts += [text for mark in (*MARKS, "empty") for text in data[mark]]
    texts += [name.replace("_", " ") for name in relations]
    phrases = [[word.text for word in words_of(text)] for text in texts]
    words = {word for phrase in phrases for word in phrase}
    # "painting" is a word of its own beside "paint", "released" is none beside "release".
    alone = {phrase[0] for phrase in phrases if len(phrase) == 1}
    plain = set(data["plain"].split())
    bases: dict[str, str] = {}
    for word in [*sorted(words), *sorted(plain - words)]:
        if len(word) > 2:
            stem = word[:-1] if word[-1] in "ey" else word
            endings = {"e": ("es", "ed", "ing"), "y": ("ies", "ied", "ys", "yed", "ying")}
            plural = ("es",) if word[-1] in "shoxz" else ()
            for ending in endings.get(word[-1], ("s", *plural, "ed", "ing")):
                bases.setdefault(stem + ending, word)
            for ending in ("ed", "ing"):
                bases.setdefault(word + word[-1] + ending, word)
    return {
        form: word
        for form, word in bases.items()
        if form not in data["empty"] and (form not in alone or not form.endswith("ing"))
    } | dict(irregular_forms())
