"""Comparisons of an answer with the gold answers: one number from 0 to 1."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from ..answers import bare_answer, contains, exact_match, f1_score, normalize_answer, words
from ..candidates.providers import import_name
from ..errors import ConfigError, did_you_mean

Scorer = Callable[[str, Sequence[str]], float]
"""Takes the answer and the gold answers; returns a number from 0 to 1."""

_CHOICE = re.compile(r"\(?\b([A-J])\b[).:]?")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")


def choice(answer: str, gold: Sequence[str]) -> float:
    """Return 1.0 if the letter (A to J) that the answer names last is the gold one."""
    found = _CHOICE.findall(answer)
    if not found:
        return 0.0
    return float(any(found[-1] == right.strip(" ().").upper() for right in gold))


def number(answer: str, gold: Sequence[str]) -> float:
    """Return 1.0 if the last number of the answer equals a gold one, to 6 digits."""
    ours = _number(answer)
    if ours is None:
        return 0.0
    theirs = (_number(right) for right in gold)
    return float(any(t is not None and math.isclose(ours, t, rel_tol=1e-6) for t in theirs))


def _number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def stated(answer: str, gold: Sequence[str]) -> float:
    r"""Return 1.0 if the answer states a gold one, in a word or in a sentence, else 0.0.

    The same rules extract every answer: the text in its tags or after "the answer is", else all of
    it. This text has to hold a gold answer, word for word, whatever punctuation or markup joins the
    words. Numbers are compared whole: 12 is in `\boxed{12}`, and neither in 12.5 nor in 112. A
    gold answer of a script without spaces may stand anywhere. A gold yes or no has to be the first
    word. A long reply is right by chance more often.

    Example:
        >>> stated("The capital of France is Paris.", ["Paris"]), stated("I do not know.", ["I"])
        (1.0, 0.0)
    """
    text = bare_answer(answer)
    closed = [right for right in map(normalize_answer, gold) if right in _CLOSED]
    if closed:
        first = next((word for word in words(text) if word not in _LABEL), "")
        return float(first in closed)
    plain, said = f" {normalize_answer(text)} ", f" {' '.join(words(text))} "
    for right in gold:
        wanted = normalize_answer(right)
        if not wanted:
            continue
        # Without its punctuation, 12.5 is 125; a name may well be written without: McDonalds.
        if f" {wanted} " == plain or f" {' '.join(words(right))} " in said:
            return 1.0
        if f" {wanted} " in plain and not any(map(str.isdigit, wanted)):
            return 1.0
    return 0.0


_CLOSED = ("yes", "no", "是", "否")
_LABEL = ("final", "correct", "answer", "is")
"""Words before an answer."""


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
