"""Questions in words and back: `read_exact(phrase(question)) == question`.

Every form of a relation is a prefix and a suffix around its subject ("In which country was" and
"born"), so a text is read by looking up its first words in a dictionary, not by trying patterns in
turn. Of several forms that fit, the one with the longest prefix wins, then the longest suffix.
Names are free text: any unknown phrase is taken as a name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from .relations import Relation, relation_of, relations
from .structure import Ask, Between, Both, Compare, Same, Structure, Term, YesNo

#: Longer texts are not read at all. It also bounds how deep the reader recurses.
MAX_CHARACTERS = 600
#: No form has a longer prefix.
MAX_PREFIX = 60

_YES_NO = ("Is {value} {noun}?", "Is it true that {noun} is {value}?")
#: Of relations without forms for it.
_SAME = "Is {a} the same as {b}?"
_BETWEEN = "What is the difference between {a} and {b}?"
_BOTH = "Name both {a} and {b}."
_YES_NO_PREFIXES = ("is ", "was ")
_IT_IS_TRUE = "is it true that "
_IS = " is "
#: An opening before a noun phrase also makes a question.
_OPENINGS = ("what is ", "what was ", "who is ", "who was ", "which is ", "name ", "tell me ")
_GENERIC_QUESTION = re.compile(r"what is the ([a-z][a-z0-9 ]{0,40}?) of (.+)", re.IGNORECASE)
# Lower case, before a name with a capital: "The Lord of the Rings" is no relation of the Rings, nor
# is "the lord of the rings".
_GENERIC_NOUN = re.compile(r"the ([a-z][a-z0-9 ]{0,40}?) of ((?:the )?[A-Z0-9].*|the [a-z].*)")
_OR = " or "
_SLOT = re.compile(r"\{[abx]\}")

FormKind = Literal["one", "least", "most", "same"]


@dataclass(frozen=True, slots=True)
class _Form:
    """A form cut at its slots, in lower case; `middle` is None for a form with one slot."""

    relation: str
    kind: FormKind
    prefix: str
    middle: str | None
    suffix: str


_Index = Mapping[str, Sequence[_Form]]


def phrase(question: Structure, rng: random.Random | None = None) -> str:
    """Return the question in words: the canonical shortest form, or one drawn by `rng`.

    >>> phrase(Ask("currency", Ask("birth_country", Ask("author", "Hamlet"))))
    'Name the currency of the birth country of the author of Hamlet.'
    """
    match question:
        case Ask(relation, subject):
            inner, closed = _noun(subject, rng)
            return _choose(relation_of(relation).questions, closed, rng).replace("{x}", inner)
        case YesNo(ask, value):
            noun = _noun(ask, rng)[0]
            forms = [
                form.replace("{noun}", noun).replace("{value}", value)
                for form in _draw(_YES_NO, rng)
            ]
        case Compare(relation, sides, least):
            found = relation_of(relation)
            spoken = relation.replace("_", " ")
            own = f"Which has the {'smaller' if least else 'larger'} {spoken}, {{a}} or {{b}}?"
            forms = _with_sides((found.least if least else found.most) or [own], sides, rng)
        case Same(relation, first, second):
            if same := relation_of(relation).same:
                forms = _with_sides(same, (first, second), rng)
            else:
                forms = _with_sides([_SAME], (Ask(relation, first), Ask(relation, second)), rng)
        case Between(first, second):
            forms = _with_sides([_BETWEEN], (first, second), rng)
        case Both(first, second):
            forms = _with_sides([_BOTH], (first, second), rng)
    # "War and Peace and Emma" can be cut in two ways: take the first form that is read as meant.
    return next((text for text in forms if read_exact(text) == question), forms[-1])


def _with_sides(
    forms: Sequence[str], sides: Sequence[Term], rng: random.Random | None
) -> list[str]:
    *others, last = [_noun(side, rng)[0] for side in sides]
    if len(others) > 1:  # "A or B or C": a form with "and" around it could be cut in more ways
        forms = [form for form in forms if _OR.join(("{a}", "{b}")) in form]
    first = _OR.join(others)
    return [form.replace("{a}", first).replace("{b}", last) for form in _draw(forms, rng)]


def _noun(term: Term, rng: random.Random | None) -> tuple[str, bool]:
    """Return a term in words, and whether it is closed: no verb is left over at its end."""
    if isinstance(term, str):
        return term, True
    inner, closed = _noun(term.subject, rng)
    form = _choose(relation_of(term.relation).nouns, closed, rng)
    return form.replace("{x}", inner), closed and form.endswith("{x}")


def _choose(forms: Sequence[str], closed: bool, rng: random.Random | None) -> str:
    """Draw a form for a subject; around one that is not closed, another verb would be one too many.

    "The country where the author of the story in which Ahab appears was born" is no English.
    """
    drawn = _draw(forms, rng)
    fine = (form for form in drawn if closed or form.rstrip("?.").endswith("{x}"))
    return next(fine, drawn[0])


def _draw(forms: Sequence[str], rng: random.Random | None) -> list[str]:
    """Return the forms in the order in which to try them."""
    if rng is None:
        return sorted(forms, key=len)
    return rng.sample(forms, len(forms))


def read_exact(text: str) -> Structure | None:
    """Return the question in a sentence of this grammar, or None for other texts. Never raises.

    Case, doubled spaces and a missing question mark do not matter.

    >>> read_exact("who is the author of  Hamlet")
    Ask(relation='author', subject='Hamlet')
    """
    if len(text) > MAX_CHARACTERS:
        return None
    text = " ".join(text.split()).rstrip(" ?.!")
    low = _lower(text)
    for form in _fitting(low, _question_forms()):
        inside = text[len(form.prefix) : len(text) - len(form.suffix)]
        if form.middle is None:
            return Ask(form.relation, _term(inside))
        sides = _cut(inside, form.middle)
        if sides is None:
            continue
        if form.kind == "same":
            return Same(form.relation, *sides)
        return Compare(form.relation, _alternatives(inside) or sides, least=form.kind == "least")
    return _pair(text, low) or _yes_no(text, low) or _plain(text, low)


def _alternatives(inside: str) -> tuple[Term, ...] | None:
    """Return the sides of "A or B or C"; None where there are only two."""
    sides = re.split(_OR, inside, flags=re.IGNORECASE)
    return tuple(map(_term, sides)) if len(sides) > 2 and all(sides) else None


def _pair(text: str, low: str) -> Between | Both | None:
    """Read a question that holds two noun phrases of its own."""
    for made, form in ((Between, _BETWEEN), (Both, _BOTH)):
        prefix, middle, _ = _SLOT.split(form.lower())
        if low.startswith(prefix):
            sides = _cut(text[len(prefix) :], middle)
            if sides and isinstance(sides[0], Ask) and isinstance(sides[1], Ask):
                return made(sides[0], sides[1])
    return None


def _fitting(low: str, index: _Index) -> Iterator[_Form]:
    """Yield the forms that fit a text in lower case and leave something inside, best first."""
    cut = low.rfind(" ", 0, MAX_PREFIX) + 1
    while cut > 0:
        for form in index.get(low[:cut], ()):
            if low.endswith(form.suffix) and len(low) - len(form.suffix) > cut:
                yield form
        cut = low.rfind(" ", 0, cut - 1) + 1


def _term(text: str) -> Term:
    low = _lower(text)
    for form in _fitting(low, _noun_forms()):
        return Ask(form.relation, _term(text[len(form.prefix) : len(text) - len(form.suffix)]))
    if found := _GENERIC_NOUN.fullmatch(text):
        inner = _term(found[2])
        if isinstance(inner, Ask) or not found[2].islower():
            return Ask(found[1].replace(" ", "_"), inner)
    quoted = len(text) > 2 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


def _cut(inside: str, middle: str) -> tuple[Term, Term] | None:
    """Cut "A and B" in two. Of several places, take the one that leaves the most noun phrases."""
    low = _lower(inside)
    best: tuple[Term, Term] | None = None
    best_score = (-1, 0)
    at = low.find(middle)
    while at >= 0:
        first, second = inside[:at], inside[at + len(middle) :]
        if first and second:
            sides = (_term(first), _term(second))
            names = [side for side in sides if isinstance(side, str)]
            score = (2 - len(names), -sum(_lower(name).count(middle) for name in names))
            if score > best_score:
                best, best_score = sides, score
        at = low.find(middle, at + 1)
    return best


def _yes_no(text: str, low: str) -> YesNo | None:
    if low.startswith(_IT_IS_TRUE):
        at = low.rfind(_IS)
        ask = _term(text[len(_IT_IS_TRUE) : at]) if at > len(_IT_IS_TRUE) else ""
        return YesNo(ask, text[at + len(_IS) :]) if isinstance(ask, Ask) else None
    for prefix in _YES_NO_PREFIXES:
        if low.startswith(prefix):
            at = low.find(" the ", len(prefix))
            while at >= 0:
                ask = _term(text[at + 1 :])
                if isinstance(ask, Ask):
                    return YesNo(ask, text[len(prefix) : at])
                at = low.find(" the ", at + 1)
    return None


def _plain(text: str, low: str) -> Ask | None:
    """Read a noun phrase with or without an opening, or a generic question."""
    for opening in _OPENINGS:
        if low.startswith(opening):
            term = _term(text[len(opening) :])
            if isinstance(term, Ask):
                return term
    if found := _GENERIC_QUESTION.fullmatch(text):
        return Ask(found[1].lower().replace(" ", "_"), _term(found[2]))
    term = _term(text)
    return term if isinstance(term, Ask) and term.relation in relations() else None


def _lower(text: str) -> str:
    """Return the text in lower case and of the same length, so that positions agree."""
    low = text.lower()
    if len(low) == len(text):
        return low
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)


@cache
def _question_forms() -> _Index:
    return _index(
        _form(relation.name, kind, text)
        for relation in relations().values()
        for kind, texts in _texts(relation)
        for text in texts
    )


@cache
def _noun_forms() -> _Index:
    return _index(
        _form(relation.name, "one", text)
        for relation in relations().values()
        for text in relation.nouns
    )


def _texts(relation: Relation) -> tuple[tuple[FormKind, tuple[str, ...]], ...]:
    return (
        ("one", relation.questions),
        ("least", relation.least),
        ("most", relation.most),
        ("same", relation.same),
    )


def _form(relation: str, kind: FormKind, text: str) -> _Form:
    pieces = _SLOT.split(text.lower().rstrip("?."))
    middle = pieces[1] if len(pieces) == 3 else None
    return _Form(relation, kind, pieces[0], middle, pieces[-1])


def _index(forms: Iterator[_Form]) -> _Index:
    index: dict[str, list[_Form]] = {}
    for form in forms:
        index.setdefault(form.prefix, []).append(form)
    for same_prefix in index.values():
        same_prefix.sort(key=lambda form: -len(form.suffix))
    return index
