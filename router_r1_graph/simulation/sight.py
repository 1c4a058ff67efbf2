"""The content of a text: known names, cues, and their combined meaning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from .cues import CUE, FOREIGN, HINT, Cue
from .described import described
from .ends import End, Said, end_of, is_turned
from .focused import Focused
from .function_words import ENDS, PRONOUNS, REQUESTS
from .spotted import Name
from .vocabulary import Kind, Vocabulary

#: What a cue counts in a part of the text that asks nothing, and in one that is about a name.
_ASIDE = (0.2, 0.1)
#: What a cue counts before the part that asks about "it" or "her".
_BEFORE = 0.6
#: How much a word without meaning here weighs against what is understood.
_STRANGE = 0.4


class Seen(NamedTuple):
    """A cue in a text."""

    start: int
    end: int
    cue: Cue
    weight: float
    """1, or less in a part of the text that asks nothing."""

    def says(self, relations: Collection[str]) -> bool:
        """Say whether it is a cue of one of some relations."""
        return any(w >= CUE and name in relations for name, w in self.cue.relations.items())


_OTHER_END: Mapping[End, End] = {"least": "most", "most": "least"}


class Sight(Focused):
    """A text as it is seen with a vocabulary."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        super().__init__(text, vocabulary)
        self.cues: list[Seen] = []
        self.marks: set[str] = set()
        self.strange = 0.0
        """The weight of words that fit nothing here."""
        self.foreign = FOREIGN if self.elsewhere else 0.0
        """The weight of words that ask for something without a relation."""
        self._cues()
        asks_what = bool(self.focuses) or any(
            self._is_request(at, word) for at, word in enumerate(self.texts) if word in REQUESTS
        )
        if "polar" in self.marks and not asks_what:
            self.polar = True
        self.states = not asks_what and not (self.focus and self._is_nameless(self.focus.at))
        """Whether it may state what it asks for: "Peru's capital is Lima, or isn't it?"."""
        if self.polar and any(
            word == "one" and (cue := self.cue_at[at]) and cue[0].types
            for at, word in enumerate(self.texts[:-1], 1)
        ):
            self.marks.add("same")  # "are Peru and Chile on one continent"
        self.amounts = self._amounts()
        """The weight of each cue for each relation."""

    @cached_property
    def described(self) -> frozenset[str]:
        """The relations whose objects are only described."""
        return described(self, ((seen.start, seen.cue) for seen in self.cues))

    @cached_property
    def timed(self) -> bool:
        """Whether a word speaks of time: "year", "when", "old"."""
        words = (self.lexicon.at([base], 0) for base in self.bases)
        return any(found and "year" in found[0].types for found in words)

    def loosen(self) -> None:
        """Let each cue hint at all relations that have the type of answer that it speaks of."""
        objects = self.vocabulary.object
        rows = {name: list(row) for name, row in self.amounts.items()}
        for at, seen in enumerate(self.cues):
            types = {objects[name] for name, w in seen.cue.relations.items() if w >= CUE}
            for name in objects:
                if objects[name] in types:
                    row = rows.setdefault(name, [0.0] * len(self.cues))
                    row[at] = max(row[at], HINT * seen.weight)
        self.amounts = {name: tuple(rows[name]) for name in objects if name in rows}

    def _amounts(self) -> Mapping[str, tuple[float, ...]]:
        rows: dict[str, list[float]] = {}
        for at, seen in enumerate(self.cues):
            for relation, amount in seen.cue.relations.items():
                row = rows.setdefault(relation, [0.0] * len(self.cues))
                row[at] = seen.weight * amount
        order = self.vocabulary.object
        return {name: tuple(rows[name]) for name in order if name in rows}

    def unknown_name(self) -> Name | None:
        """Return adjacent words that may be an unknown name."""
        strange = [at for at in range(len(self.texts)) if self._is_strange(at)]
        if not strange or strange[-1] - strange[0] >= len(strange):
            return None
        start, end = strange[0], strange[-1] + 1
        spelled = self.text[self.words[start].start : self.words[end - 1].end].removesuffix("'s")
        return Name(start, end, spelled, Kind(frozenset(self.vocabulary.subject.values())))

    def _is_strange(self, at: int) -> bool:
        word = self.texts[at]
        return (
            word[0].isalnum()
            and self.bases[at] not in self.lexicon.plain
            and word not in self.lexicon.plain
            and self.cue_at[at] is None
            and not any(name.start <= at < name.end for name in self.names)
        )

    def _cues(self) -> None:
        marks: dict[int, set[str]] = {}
        ends: dict[int, list[Said]] = {}
        inside: set[str] = set()
        named = {self._part[name.start] for name in self._sure()}
        refers = any(
            word in PRONOUNS and self._part[at] == self._last for at, word in enumerate(self.texts)
        )
        at = 0
        while at < len(self.words):
            aside = self._asking is not None and self._part[at] != self._asking
            found = self.cue_at[at]
            if self._taken[at] or found is None or any(self._taken[at : found[1]]):
                if not aside and self._is_strange(at):
                    self.strange += _STRANGE * (4 if at in self.strangers else 1)
                at += 1
                continue
            cue, end = found
            relative = self.texts[at] == "whose" and self._relative(at)  # asks for nobody
            denied = self.texts[at - 1 : at] == ["not"] or self.texts[at - 2 : at] == ["not", "the"]
            if relative or denied or self._is_request(at, self.texts[at]):
                at += 1
                continue
            if not aside:
                marks.setdefault(self._part[at], set()).update(cue.marks)
            if cue.marks and cue.marks <= ENDS and not cue.relations and end > at + 1:
                end = at + 1  # "died before" still speaks of a death
                if (single := self.lexicon.at(self.bases[:end], at)) is not None:
                    cue = single[0]
            # "The first to see Triton", "whoever saw Triton first": a description, no end.
            about = self.texts[at] == "first" and (
                self.texts[at + 1 : at + 2] == ["to"] or self._taken[at - 1]
            )
            if not aside and cue.marks & ENDS and not (about and "or" in self.texts):
                said = Said(at, found[1], "least" in cue.marks)
                before = ends.setdefault(self._part[at], [])
                if not before or before[-1].end <= at:  # "less recent" is not "recent" again
                    before.append(said)
            if "foreign" in cue.marks and not aside:
                self.foreign += FOREIGN
                focus = self.focus.at if self.focus else at
                if not cue.relations and focus < at and self._part[focus] == self._part[at]:
                    self.elsewhere = True  # "which town will win", not "the film with the actor"
            for inner in range(at, end if end > at + 1 else at):
                word = self.lexicon.at(self.bases[: inner + 1], inner)
                inside |= word[0].marks & ENDS if word else set()
            if cue.relations or cue.types:
                weight = _ASIDE[self._part[at] in named] if aside else 1.0
                if refers and self._part[at] != self._last and weight != _ASIDE[1]:
                    weight = _BEFORE
                self.cues.append(Seen(at, end, cue, weight))
            at = end
        self.marks.update(*marks.values())
        if "or" in self.texts and self.marks.isdisjoint(ENDS):
            self.marks |= inside  # "first heard"
        asked = ends.pop(-1 if self._last is None else self._last, [])
        others = [said for part in ends.values() for said in part]
        if wanted := end_of(asked, self.bases) or end_of(others, self.bases):
            turned = asked and is_turned(others)
            self.marks = (self.marks - ENDS) | {_OTHER_END[wanted] if turned else wanted}

    def missed(self, explained: Sequence[float], possible: Collection[str] | None = None) -> float:
        """Return the weight of the cues that are not explained.

        Cues for none of the possible relations count half; None = all are possible.
        """
        return sum(
            (max(seen.cue.relations.values()) - HINT)
            * seen.weight
            * (1.0 if possible is None or seen.says(possible) else 0.5)
            for seen, amount in zip(self.cues, explained, strict=False)
            if amount == 0 and seen.cue.relations
        )
