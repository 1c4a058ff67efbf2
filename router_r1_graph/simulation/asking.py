"""The part of a text that asks: its place, form and subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cues import Cue
from .function_words import (
    ASKING,
    BEFORE,
    CLAIMS,
    COUNTED,
    DETERMINERS,
    MODALS,
    OBJECT,
    PREPOSITIONS,
    PRONOUNS,
    REQUESTS,
    STOPS,
    TAGS,
    TELLING,
    WANTING,
    YOU,
)
from .spotted import AUXILIARIES, DOUBTFUL, Name, Spotted
from .vocabulary import Vocabulary

#: So many words stand alone at the end: "Year of death?".
FEW = 4
_NO_NOUNS = AUXILIARIES | PREPOSITIONS | PRONOUNS | DETERMINERS | {"kind", "sort"}
#: After "which" they start a clause: "to which we owe".
_NO_ADJECTIVES = YOU | DETERMINERS | AUXILIARIES | {"whoever", "they", "he", "she", "it"}


@dataclass(frozen=True, slots=True)
class Focus:
    """The thing that is asked for."""

    at: int
    cue: Cue | None
    strict: bool
    """Whether nothing else can be the answer ("who" asks for persons)."""


class Asking(Spotted):
    """A text, cut at its stops, with the part that asks."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        super().__init__(text, vocabulary)
        self._taken = [False] * len(self.words)
        for name in self.names:
            if name.penalty < DOUBTFUL:
                self._taken[name.start : name.end] = [True] * (name.end - name.start)
        self.focuses: list[Focus] = []
        self.denied: set[str] = set()
        """Types that are not asked for: "where is the city" asks for no city."""
        self.counted = False
        """Whether it asks how many there are of something that no relation counts."""
        self.elsewhere = False
        """Whether it asks for something that means nothing here: "which horse did"."""
        self.polar = False
        """Whether it asks for yes or no."""
        self._asking: int | None = None
        self._part = self._parts()
        self._last = self._asking = self._requesting() if self._asking is None else self._asking
        if not any(self._part[name.start] == self._asking for name in self._sure()):
            self._asking = None

    def aside(self, name: Name) -> bool:
        """Say whether a name is in a part that asks nothing, while another part asks something."""
        return self._asking is not None and self._part[name.start] != self._asking

    def together(self, names: Sequence[Name]) -> bool:
        """Say whether names are in the same part."""
        return len({self._part[name.start] for name in names}) < 2

    def _is_nameless(self, at: int) -> bool:
        """Say whether the part of a word has no name, but another part has one."""
        return bool(self.names) and self._part[at] not in {self._part[n.start] for n in self.names}

    def _sure(self) -> list[Name]:
        return [name for name in self.names if name.penalty < DOUBTFUL]

    def _parts(self) -> list[int]:
        """Cut the text at its stops; note the part that asks, how, and for what."""
        starts, parts, part = {0}, [], 0
        opener = any(word in CLAIMS for word in self.texts[:FEW])
        for at, word in enumerate(self.texts):
            if not self._taken[at] and (
                word in STOPS or word == "but" or (word == "," and (self._asks(at + 1) or opener))
            ):
                part, opener = part + 1, False
                starts.add(at + 1)
            elif word == "," and not self._taken[at]:
                starts.add(at + 1)
            parts.append(part)
        for at, word in enumerate(self.texts):
            following = self.texts[at + 1] if at + 1 < len(self.texts) else ""
            if self._taken[at] and word not in ASKING:
                continue
            if at in starts and self._opens(at, word, following):
                if not self.focuses or following == "it":
                    self.polar, self._asking = True, parts[at]
            elif word in ("whether", "if") or (
                word in ("true", "correct", "right") and following in ("that", "or")
            ):
                self.polar, self._asking = True, parts[at]
            elif word in TAGS and at in starts and at > 1 and not self.focuses:
                self.polar = True
                if self._asking is None:
                    self._asking = parts[at - 1]
            elif word in ASKING and not self._relative(at):
                self._focus(at, word)
                other = word != "what" and self.texts[at - 1] == "or"  # "in Asia, Africa or where"
                if not self.polar or at in starts or other:
                    self.polar, self._asking = False, parts[at]
        return parts

    def _requesting(self) -> int | None:
        """Return the one part that asks for something without a question word, if one does."""
        parts = {self._part[at] for at, word in enumerate(self.texts) if self._is_request(at, word)}
        if not parts:
            parts = {self._part[at - 1] for at, word in enumerate(self.texts) if word == "?"}
        return parts.pop() if len(parts) == 1 else None

    def _is_request(self, at: int, word: str) -> bool:
        """Say whether a sentence starts at a word that asks for something: "State the"."""
        if word not in REQUESTS or at + 1 >= len(self.texts) or self._taken[at]:
            return False
        start = at == 0 or self.texts[at - 1] in STOPS or self.texts[at - 1] in BEFORE
        polar = any(cue and "polar" in cue[0].marks for cue in self.cue_at[at + 1 : at + 3])
        return start and not polar and (self.texts[at + 1] in OBJECT or self._taken[at + 1])

    def _opens(self, at: int, word: str, following: str) -> bool:
        """Say whether an auxiliary verb opens a question for yes or no: "does it", "can I pay"."""
        if not following or (word not in AUXILIARIES and word not in MODALS):
            return False
        asked = self.texts[at + 2 :]
        wanted = {*asked[:1]} - {"find"}
        return following not in YOU or (
            word in MODALS
            and following in ("i", "we")
            and not wanted & (ASKING | REQUESTS | WANTING)
        )

    def _asks(self, at: int) -> bool:
        """Say whether a question starts at a word: "what", "in which"."""
        ahead = self.texts[at : at + 2]
        if not ahead or self._relative(at):
            return False
        return ahead[0] in ASKING or (
            len(ahead) == 2 and ahead[0] in PREPOSITIONS and ahead[1] in ASKING
        )

    def _focus(self, at: int, word: str) -> None:
        """Note what a question word asks for."""
        found = self._meaning(at)
        strict = True
        end = at + 1
        if word in ("what", "which", "how") and not (found and found[1] > at + 1):
            found = None
            for ahead in range(at + 1, min(at + 5, len(self.texts))):
                if self._taken[ahead] or self.texts[ahead] in STOPS:
                    break
                strict = ahead == at + 1
                if self.bases[ahead] in ("be", "do", "have") and not strict:
                    break
                found = self._meaning(ahead)
                if found and (found[0].types or max(found[0].relations.values(), default=0) > 2):
                    end = found[1]
                    noun = self.cue_at[end] if end < len(self.texts) else None
                    if not found[0].types and noun and noun[0].types and not self._taken[end]:
                        found, end = noun, noun[1]  # "which written work"
                    break
                found = None
        cue = found[0] if found else None
        if word == "whose":
            strict, cue = self._owner(at)
        elif cue and not cue.types:
            objects = self.vocabulary.object
            named = {objects[name] for name, w in cue.relations.items() if w > 2}
            strict = strict and word == "which"
            cue = Cue(cue.relations, named)  # "into which plot"
        following = self.bases[at + 1 : at + 4]
        if word == "what" and following[:1] == ["do"] and not {"call", "name"} & {*self.bases}:
            self.denied = {"person", "year"}  # what somebody did
        if word == "how" and following[:1] in (["many"], ["much"]):
            self.counted = not any(
                (seen := self.cue_at[ahead])
                and ("between" in seen[0].marks or COUNTED & seen[0].relations.keys())
                for ahead in range(at, min(at + 5, len(self.texts)))
            )
        if word in ("which", "what") and self._is_unknown(at + 1):
            self.elsewhere = True
        if cue and {"country", "city"} <= cue.types:
            cue = self._elsewhere(end, cue)
        self.focuses.append(Focus(at, cue, strict))

    def _is_unknown(self, at: int) -> bool:
        """Say whether a noun that means nothing here is asked for: "which horse did"."""
        noun, verb = ("", "", *self.texts, "", "")[at + 2 : at + 4]
        if not noun.isalpha() or self._taken[at] or noun in _NO_NOUNS:
            return False
        found = self._meaning(at)
        if found is None:
            return verb in AUXILIARIES or verb in MODALS or verb == "of"
        return "foreign" in found[0].marks

    def _meaning(self, at: int) -> tuple[Cue, int] | None:
        """Return the longest cue at a word that says something of a type or relation."""
        found = self.cue_at[at]
        if found and not found[0].types and not found[0].relations:
            return self.lexicon.at(self.bases[: at + 1], at)  # "which year be there"
        return found

    def _owner(self, at: int) -> tuple[bool, Cue]:
        """Return what "whose" asks for: as a rule a person, "whose capital" a country."""
        noun = self.cue_at[at + 1] if at + 1 < len(self.texts) else None
        whole = self.cue_at[at]
        strong = [n for cue in (noun, whole) if cue for n, w in cue[0].relations.items() if w > 2]
        objects = self.vocabulary.object
        other = any(objects[name] != "person" for name in strong) or (noun and noun[0].types)
        relations = whole[0].relations if whole else {}
        return not other, Cue(relations, set() if other else {"person"})

    def _elsewhere(self, at: int, where: Cue) -> Cue:
        """Return what "where" asks for in "where is the city": not for a city."""
        start = at
        while at < len(self.texts) and self.bases[at] in ("be", "the", "that", "this"):
            at += 1
        if start < at < len(self.texts) and not self._taken[at]:
            found = self.cue_at[at]
            if found and where.types & found[0].types:
                self.denied = found[0].types
                return Cue({}, where.types - found[0].types)
        return where

    def is_taken(self, at: int) -> bool:
        """Say whether a word is one of a name."""
        return self._taken[at]

    def is_noun(self, at: int) -> bool:
        """Say whether a word is for a type of things, and no name."""
        found = self.cue_at[at] if at < len(self.texts) and not self._taken[at] else None
        return found is not None and bool(found[0].types)

    def _relative(self, at: int) -> bool:
        """Say whether a word such as "who" starts a relative clause ("the man who")."""
        if at >= len(self.texts) or self._taken[at]:
            return True
        word = self.texts[at]
        if word == "which" and at + 1 < len(self.texts):
            following = self.texts[at + 1]
            if following not in _NO_ADJECTIVES and (self.is_noun(at + 1) or self.is_noun(at + 2)):
                return False  # "from the pen of which author", "in which written work"
        last = len(self.texts) - 1
        while last > at and not self.texts[last][0].isalnum():
            last -= 1
        before = at - 1
        while before >= 0 and self.texts[before] in PREPOSITIONS:
            before -= 1
        if before < 0 or at >= last or self.texts[at + 1] in STOPS:
            return False
        if self.texts[before] == ",":  # "Tolstoy, who wrote this, died when?"
            return before > 0 and self._taken[before - 1] and "," in self.texts[at:]
        if self._taken[before]:
            return word not in ("what", "which")
        if word == "what" or self.texts[before] in ASKING or self.texts[before] in STOPS:
            return False
        if word == "which":
            found = self.cue_at[before]
            return found is not None and bool(found[0].types)
        return self.texts[before] not in TELLING
