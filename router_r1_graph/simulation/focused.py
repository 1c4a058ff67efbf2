"""The thing that a text asks for, by its question word or its first noun."""

from __future__ import annotations

from functools import cached_property

from .asking import FEW, Asking, Focus
from .cues import Cue
from .function_words import BEFORE, PREPOSITIONS, REQUESTS, STOPS, TELLING
from .vocabulary import Vocabulary


class Focused(Asking):
    """A text with the thing that it asks for."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        super().__init__(text, vocabulary)
        self._head = (
            None
            if self.focuses or self.polar
            else self._alone() or self._head_noun() or self._requested()
        )

    @cached_property
    def focus(self) -> Focus | None:
        """The thing that is asked for, if a word names it."""
        asking = (focus for focus in self.focuses if self._part[focus.at] == self._last)
        return self._narrowed(next(asking, self._head))

    def _alone(self) -> Focus | None:
        """Return what a last part without a name asks for: "The homeland of Liszt. Capital?"."""
        for part in range(max(self._part, default=0), 0, -1):
            words = [at for at, number in enumerate(self._part) if number == part]
            words = [at for at in words if self.texts[at][0].isalnum()]
            if any(self._taken[at] for at in words):
                return None
            for at in words if len(words) <= FEW else ():
                found = self.cue_at[at]
                if found and (found[0].types or max(found[0].relations.values(), default=0) > 2):
                    return Focus(at, found[0], True)
        return None

    def _head_noun(self) -> Focus | None:
        """Return what a noun phrase is about by its first noun: "the book to which we owe Emma"."""
        at = 0
        while at < len(self.texts) and (
            self.texts[at] in TELLING | REQUESTS | BEFORE or self.texts[at] in STOPS
        ):
            at += 1
        if self.texts[at : at + 1] != ["the"] or any(
            word in STOPS and not taken and self.texts[after : after + 1]
            for after, (word, taken) in enumerate(zip(self.texts, self._taken, strict=True), 1)
            if after > at
        ):
            return None
        for ahead in range(at + 1, min(at + 4, len(self.texts))):
            if self._taken[ahead] or self.texts[ahead] in PREPOSITIONS:
                return None
            found = self.cue_at[ahead]
            if found and found[0].types:
                return Focus(ahead, found[0], False)
        return None

    def _requested(self) -> Focus | None:
        """Return what a request in one of several sentences names first: "State the year ..."."""
        for at, word in enumerate(self.texts):
            if self._is_request(at, word):
                for ahead in range(at + 1, min(at + 5, len(self.texts))):
                    if self._taken[ahead] or self.texts[ahead] in PREPOSITIONS:
                        break
                    found = self.cue_at[ahead]
                    if found and found[0].types:
                        return Focus(ahead, found[0], False)
        return None

    def _narrowed(self, focus: Focus | None) -> Focus | None:
        """Return what is asked for, with the type that a part of few words adds: "City, please"."""
        if focus is None or focus.cue is None or len(focus.cue.types) < 2:
            return focus
        apart = [at for at, part in enumerate(self._part) if part != self._part[focus.at]]
        if len(apart) > 2 * FEW or any(self._taken[at] for at in apart):
            return focus
        for found in filter(None, (self.cue_at[at] for at in apart)):
            types = found[0].types & focus.cue.types
            if types and len(found[0].types) < len(focus.cue.types):
                return Focus(focus.at, Cue(focus.cue.relations, types), True)
        return focus
