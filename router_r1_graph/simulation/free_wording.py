"""Questions in free wording: any structure, worded as people put it, from one split's wordings."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .noise import NO_NOISE, Noise, framed, with_typo
from .relations import relation_of
from .sentences import capitalized, inserted, running
from .structure import Ask, Between, Both, Compare, Same, Structure, Term, YesNo, parts
from .wordings import WordingSplit, common_wordings, wordings_of


class Phrase(NamedTuple):
    """A noun phrase in words."""

    text: str
    closed: bool = True
    """Whether it ends in a name, so that another verb can follow."""
    bare: bool = True
    """Whether it is a name, perhaps with possessives, so that it can have a possessive itself."""
    name: bool = True
    """Whether it is a name and nothing else."""


#: What stands for a thing that the sentence before has mentioned.
_IT = Phrase("it", name=False)


@dataclass(frozen=True)
class FreeWording:
    """Words structures; its draws follow from `rng`.

    Args:
        split: The split of the wordings.
        rng: Draws wordings and noise.
        noise: How often there is noise on top, by kind.
        epithets: Adjectives before the nouns of some asks, such as "French".
    """

    split: WordingSplit
    rng: random.Random
    noise: Noise = NO_NOISE
    epithets: Mapping[Ask, str] = field(default_factory=dict)
    _spelled: Mapping[str, Phrase] = field(default_factory=dict)

    def question(self, question: Structure) -> str:
        """Return a question in words, with noise."""
        typed = self.typed(question)
        text = typed._after_introduction(question) if isinstance(question, Ask) else None
        return self.framed(text or typed.plain(question))

    def framed(self, text: str) -> str:
        """Return a question with noise around it."""
        return framed(text, self.split, self.rng, self.noise)

    def typed(self, question: Structure) -> FreeWording:
        """Return the same with one name of the question misspelled, or itself."""
        if self.rng.random() >= self.noise.typo or isinstance(question, Compare):
            return self  # the sides of a comparison are its possible answers: they stay as they are
        names = [_innermost(part)[0] for part in parts(question)]
        name = self.rng.choice(names)
        typed = with_typo(name, self.rng)
        return replace(self, _spelled={**self._spelled, name: Phrase(typed)}) if typed else self

    def plain(self, question: Structure, *, terse: bool = True) -> str:
        """Return a question in words, without noise around it or a capital at its start.

        Args:
            question: The structure.
            terse: Whether keywords will do, too; within a sentence they do not.
        """
        common = common_wordings(self.split)
        match question:
            case Ask(relation, subject):
                forms = wordings_of(relation, self.split).questions
                if not terse:
                    forms = tuple(form for form in forms if not _TERSE.match(form))
                return self.sentence(forms, {"x": self.noun(subject)})
            case YesNo(ask, value):
                form = self.rng.choice(common.yes_no)
                if "{s}" in form:
                    return inserted(form, s=self.statement(ask, value))
                named = Phrase(_with_article(ask.relation, value))
                return self.sentence([form], {"value": named, "noun": self.noun(ask)})
            case Same(relation, first, second):
                sides = {"a": self.noun(first), "b": self.noun(second)}
                return self.sentence(wordings_of(relation, self.split).same, sides)
            case Compare(relation, sides):
                return self._comparison(question, [self.noun(side) for side in sides])
            case Between(first, second):
                own = wordings_of(first.relation, self.split).between
                if own and first.relation == second.relation:
                    a, b = self.noun(first.subject), self.noun(second.subject)
                    return self.sentence(own, {"a": a, "b": b})
                events = {"a": self._event(first), "b": self._event(second)}
                return self.sentence(common.between_years, events)
            case Both(first, second):
                form = self.rng.choice(common.both)
                if "{q1}" in form:
                    return inserted(form, q1=self.plain(first), q2=self.plain(second))
                return self.sentence([form], {"a": self.noun(first), "b": self.noun(second)})

    def noun(self, term: Term) -> Phrase:
        """Return a term as a noun phrase."""
        if isinstance(term, str):
            return self._spelled.get(term, Phrase(term))
        forms = wordings_of(term.relation, self.split).nouns
        epithet = self.epithets.get(term)
        if epithet is not None:
            forms = tuple(form for form in forms if _TAKES_EPITHET.match(form)) or forms
        inner = self.noun(term.subject)
        form = self._form(forms, {"x": inner})
        text = _filled(form, {"x": inner})
        if epithet is not None:
            text = re.sub(r"^the ", f"the {epithet} ", text)
        return Phrase(text, inner.closed and form.endswith("{x}"), form.startswith("{x}'s"), False)

    def statement(self, ask: Ask, value: str) -> str:
        """Return the statement that the answer of an ask is this value, without a full stop."""
        forms = wordings_of(ask.relation, self.split).statements
        return self.sentence(forms, {"x": self.noun(ask.subject), "o": Phrase(value)})

    def inserted(self, forms: Sequence[str], **sentences: str) -> str:
        """Return one of the forms, with whole sentences in its slots."""
        return inserted(self.rng.choice(forms), **sentences)

    def _comparison(self, question: Compare, sides: Sequence[Phrase]) -> str:
        forms = wordings_of(question.relation, self.split)
        if len(sides) > 2:
            fitting = forms.least_of_three if question.least else forms.most_of_three
        else:
            fitting = forms.least if question.least else forms.most
        *others, last = [side.text for side in sides]
        closed = all(side.closed for side in sides)
        joined = {
            word: Phrase(f"{', '.join(others)} {word} {last}", closed, False, False)
            for word in ("or", "and")
        }
        return self.sentence(fitting, joined)

    def _event(self, ask: Ask) -> Phrase:
        forms = wordings_of(ask.relation, self.split).events
        if not forms:
            return self.noun(ask)
        inner = self.noun(ask.subject)
        form = self._form(forms, {"x": inner})
        return Phrase(
            _filled(form, {"x": inner}), inner.closed and form.endswith("{x}"), False, False
        )

    def _after_introduction(self, ask: Ask) -> str | None:
        """Return the question as two sentences ("I was reading Emma. Who wrote it?"), or None."""
        name, relation = _innermost(ask)
        introductions = common_wordings(self.split).introductions.get(relation_of(relation).subject)
        if not introductions or self.rng.random() >= self.noise.introduction:
            return None
        first = self.sentence([self.rng.choice(introductions)], {"x": self.noun(name)})
        spelling = replace(self, _spelled={name: _IT})
        second = spelling.plain(ask)
        # Where nothing better fits, the phrase is no English: "the capital of it".
        if re.search(r"\b(?:of|for) it\b|\bit -|^It\b|\bit(?:'s)?\W*$", second) and (
            isinstance(ask.subject, Ask) or " of it" in second
        ):
            return None
        return f"{first} {capitalized(second)}"

    def sentence(self, forms: Sequence[str], phrases: Mapping[str, Phrase]) -> str:
        """Return one of the forms that fit best, with the phrases in its slots."""
        return _filled(self._form(forms, phrases), phrases)

    def _form(self, forms: Sequence[str], phrases: Mapping[str, Phrase]) -> str:
        drawn = self.rng.sample(forms, len(forms))
        return min(drawn, key=lambda form: _misfits(form, phrases))


#: Keywords instead of a sentence: "author of {x}?", "{x} - capital?".
_TERSE = re.compile(r"[a-z]|\{\w+\}(?: -|:)")
#: Before these an adjective reads well: "the French author", but not "the French one who".
_TAKES_EPITHET = re.compile(r"the (?!one |first |man |clever )")
_SLOT = re.compile(r"\{(\w+)\}")


def _innermost(term: Ask) -> tuple[str, str]:
    """Return the name that a chain starts from, and the relation that is asked of it."""
    while isinstance(term.subject, Ask):
        term = term.subject
    return term.subject, term.relation


def _misfits(form: str, phrases: Mapping[str, Phrase]) -> int:
    """Return how badly a form fits: 0 = well; a verb left over is better than a bad possessive."""
    found = 0
    for slot in _SLOT.finditer(form):
        name = "x" if slot[1] == "name" else slot[1]
        phrase = phrases[name]
        before, after = form[: slot.start()], form[slot.end() :]
        if slot[1] == "name" and (not phrase.name or phrase.text.startswith("the ")):
            found += 4
        if phrase is _IT and (before.endswith((" of ", " for ")) or not before):
            found += 2
        if after.startswith("'s"):
            found += 0 if phrase.bare else 4
        elif not phrase.closed:
            # "The country where the author of the story in which Ahab appears was born": one verb
            # too many. At the start of a form, or before a pause, there is none.
            found += bool(before) and not re.match(r"$|[.,:;?]| - | (?:and|or|to|from) \{", after)
    return found


def _filled(form: str, phrases: Mapping[str, Phrase]) -> str:
    subject = phrases.get("x")
    if subject is not None and subject.name and _is_plural(subject.text):
        form = re.sub(r"\b(was|is|has|does|goes)(?= \{x\})", _plural, form)
        form = re.sub(r"(?<=\{x\} )(was|is|has|does|goes)\b", _plural, form)

    def text(slot: re.Match[str]) -> str:
        found = phrases["x" if slot[1] == "name" else slot[1]].text
        if form[slot.end() :].startswith("'s") and found.endswith("s"):
            return f"{found}\0"
        return found

    form = running(form)
    filled = _SLOT.sub(text, form).replace("\0's", "'")
    return re.sub(r"\bit's\b", "its", filled) if subject is _IT else filled


def _plural(verb: re.Match[str]) -> str:
    return {"was": "were", "is": "are", "has": "have", "does": "do", "goes": "go"}[verb[1]]


def _is_plural(name: str) -> bool:
    """Say whether a name is a plural: "instant noodles" is, "the siemens" and "Rhea" are not."""
    last = re.split(r"[ -]", name)[-1]
    alone = len(name.split()) - name.startswith("the ") == 1
    singular = last.endswith(("us", "is", "ss")) or (alone and name.startswith("the "))
    return last.islower() and last.endswith("s") and not singular


def _with_article(relation: str, value: str) -> str:
    return f"the {value}" if relation == "currency" else value
