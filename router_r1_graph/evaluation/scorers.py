"""Comparisons of an answer with the gold answers: one number from 0 to 1."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..answers import (
    UNSPACED,
    bare_answer,
    contains,
    exact_match,
    f1_score,
    figures,
    normalize_answer,
    with_plain_digits,
    words,
)
from ..answers.statements import statement
from ..candidates.providers import import_name
from ..errors import ConfigError, did_you_mean

Scorer = Callable[[str, Sequence[str]], float]
"""Takes the answer and the gold answers; returns a number from 0 to 1."""

# The pronoun I and the article A are no letters of a choice unless something marks them.
_LETTER = r"(?:(?P<bare>[B-HJ])(?![\w'\u2019])|(?P<marked>[A-Ja-j])(?=[).:]|\s*$| is\b)(?!\.\w))"
_STARTS = re.compile(rf"^\W{{0,9}}(?:(?i:option|choice|answer)[\s:]{{1,9}})?\(?{_LETTER}", re.M)
_NAMES = re.compile(
    r"\b(?i:(?:answer|choice|option|letter)(?:\s+(?:is|would be|must be|should be|has to be)"
    r"(?: option| choice| answer)?:?|:)|(?:choose|chose|pick|select|go with)(?: option| answer)?)"
    rf"\s{{1,9}}\(?{_LETTER}"
)
_MARKED = re.compile(r"\((?P<marked>[A-J])\)|(?<!\w)(?P<bare>[A-J])\)")
_ANYWHERE = re.compile(rf"(?<![\w'\u2019]){_LETTER}")
_WRONG = re.compile(
    r"[\s).:]{0,9}(?:is|are|was|seems|looks)?\s?(?:not|wrong|incorrect|false)\b", re.IGNORECASE
)
_EMPHASIS = re.compile(r"[*_`$\\{}]+(?:text|boxed|mathrm|mathbf)?\{?")
# A hyphen after a word or a bracket joins, as in 1914-1918; digits in a word or after ^ do not
# count, as in H2O and km^2.
_NUMBER = re.compile(
    rf"(?<![^\W{UNSPACED}])(?<!\^)(?<!\^[-{{])(?:(?<![)\]}}])[-+])?"
    r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?"
)


def choice(answer: str, gold: Sequence[str]) -> float:
    """Return 1.0 if the letter (A to J) that the answer chooses is the gold one, else 0.0.

    This is the letter that it states, else the one at its start, else the last in brackets, else
    the last one. I and A count only in brackets, before a point or a colon, or at the end. A gold
    answer is its letter, whatever follows it: "B) Paris".

    Example:
        >>> choice("B) A dog is a mammal", ["B"]), choice("I am sure that it is C.", ["(c) Rome"])
        (1.0, 1.0)
    """
    ours = _chosen(answer)
    return float(ours != "" and any(ours == _gold_letter(right) for right in gold))


def _gold_letter(right: str) -> str:
    found = re.match(r"\s*\(?([A-Ja-j])(?=[).:\s]*$|[).:])", right)
    return found[1].upper() if found else ""


def _chosen(answer: str) -> str:
    """Return the letter that an answer chooses; "" = none."""
    text = _EMPHASIS.sub("", bare_answer(answer) or answer).strip()
    if named := list(_NAMES.finditer(text)):
        return _letter(named[-1])
    starts = [one for one in _STARTS.finditer(text) if not _WRONG.match(text, one.end())]
    if len({_letter(one) for one in starts}) == 1 and not text[: starts[0].start()].strip():
        return _letter(starts[0])
    for pattern in (_MARKED, _ANYWHERE):
        if found := list(pattern.finditer(text)):
            return _letter(found[-1])
    return ""


def _letter(found: re.Match[str]) -> str:
    return str(found["bare"] or found["marked"]).upper()


def number(answer: str, gold: Sequence[str]) -> float:
    """Return 1.0 if the last number of the answer equals a gold one, to 6 digits.

    A number that is too large for a float (from about 1e308) equals none.

    Example:
        >>> number("It was 1914-1918.", ["1918"]), number("x = \u22125", ["-5"])
        (1.0, 1.0)
    """
    ours = _number(answer)
    if ours is None:
        return 0.0
    theirs = (_number(right) for right in gold)
    return float(any(t is not None and math.isclose(ours, t, rel_tol=1e-6) for t in theirs))


def _number(text: str) -> float | None:
    found = _NUMBER.findall(with_plain_digits(text).replace("\u2212", "-"))
    value = float(found[-1].replace(",", "")) if found else math.inf
    return value if math.isfinite(value) else None


def stated(answer: str, gold: Sequence[str]) -> float:
    r"""Return 1.0 if the answer states a gold one, in a word or in a sentence, else 0.0.

    The same rules extract every answer: the text in its tags, in its box or after "the answer is",
    else all of it. This text has to hold a gold answer, word for word, whatever punctuation or
    markup joins the words. Numbers are compared whole: 12 is in `\boxed{12}`, and neither in 12.5
    nor in 112, and 125 is not 12.5. A gold answer of a script without spaces may stand anywhere. A
    gold yes, no, true or false has to be the first word, or a clause by itself. A long reply is
    right by chance more often.

    Example:
        >>> stated("The capital of France is Paris.", ["Paris"]), stated("I do not know.", ["I"])
        (1.0, 0.0)
    """
    text = bare_answer(answer)
    found = statement(answer)
    # A title may hold a stop: then the line begins with it ("Yahoo! Inc.").
    line = f"{' '.join(words(found.line))} " if found and text == found.answer else ""
    said = _Said(text, line)
    return float(any(_states(said, right) for right in gold))


@dataclass(frozen=True)
class _Said:
    """A text, what it comes to for every gold answer, and the words of its line with a space."""

    text: str
    line: str

    @cached_property
    def words(self) -> str:
        return f" {' '.join(words(self.text))} "

    @cached_property
    def normal(self) -> str:
        return f" {normalize_answer(_kept(self.text))} "


def _states(said: _Said, right: str) -> bool:
    """Say whether a text, or the beginning of its line, states one gold answer."""
    # Exact match takes 12.5 for 125, and C++ for C.
    if exact_match(said.text, [right]) and figures(said.text) == figures(right):
        return True
    wanted = normalize_answer(right)
    if wanted in _CLOSED:
        return _decision(said.text) == wanted
    if not wanted or not said.text:
        return False
    held = f"{' '.join(words(right))} "
    if held.strip() and (f" {held}" in said.words or said.line.startswith(held)):
        return True
    # A name may well be written without its punctuation: McDonalds.
    return not figures(right) and f" {wanted} " in said.normal


def _kept(text: str) -> str:
    """Return a text in which C++ and C# are no longer C, once punctuation is gone."""
    return re.sub(r"(?<=\w)(?:\+\+|#)", "x", text)


def _decision(text: str) -> str:
    """Return the yes or no of a text: its first word, else the first clause that is one alone."""
    if found := _DECIDES_ZH.match(_LABEL_ZH.sub("", text)):
        return found[1]
    clauses = _CLAUSE.split(text)
    first = next(filter(None, map(_unlabelled, clauses)), [])[:1]
    others = (
        _unlabelled(clause) for clause in clauses if _MAY_DECIDE.search(html.unescape(clause))
    )
    alone = (clause for clause in (first, *others) if len(clause) == 1)
    return next((clause[0] for clause in alone if clause[0] in _CLOSED[:4]), "")


def _unlabelled(clause: str) -> list[str]:
    """Return the words of a clause without those before an answer."""
    return [word for word in words(clause) if word not in _LABEL]


_CLAUSE = re.compile(r"[.,;:!?\n\u2014\uff0c\u3002\uff1a]")
_CLOSED = ("yes", "no", "true", "false", "是", "否")
_MAY_DECIDE = re.compile("|".join(_CLOSED[:4]), re.IGNORECASE)
"""What a clause holds that may be one of these words; to look for the words takes longer."""
_LABEL = ("final", "correct", "answer", "is", "it", "this", "that", "statement", "claim", "so")
"""Words before an answer."""
_LABEL_ZH = re.compile(r"^\W*(?:最终|正确)?答案(?:是(?=\W*[是否]))?\W*")
_DECIDES_ZH = re.compile(r"\W*(?!是不是|是否)([是否])")


SCORERS: Mapping[str, Scorer] = {
    "exact_match": exact_match,
    "f1": f1_score,
    "contains": contains,
    "choice": choice,
    "number": number,
}


def parse_scorer(name: str) -> Scorer:
    """Return a scorer by name, or the user's own as `module:function`.

    Raises:
        ConfigError: there is no such scorer, or it cannot be imported.
    """
    if name in SCORERS:
        return SCORERS[name]
    if ":" not in name:
        raise ConfigError(
            f"unknown metric {name!r}{did_you_mean(name, SCORERS)}; allowed: "
            f"{', '.join(SCORERS)}, or module:function"
        )
    try:
        found = import_name(name)
    except ConfigError as error:
        raise ConfigError(f"metric {name!r}: {error}") from error
    if not callable(found):
        raise ConfigError(f"metric {name!r}: it cannot be called")

    def score(answer: str, gold: Sequence[str]) -> float:
        value = float(found(answer, gold))
        if not 0 <= value <= 1:
            raise ConfigError(f"metric {name!r} gave {value!r}; a score is from 0 to 1")
        return value

    return score
