"""Spans: the words in replies that may be the answer, and the features of each.

A reply to a question is prose, a bare answer, or an answer in tags. All runs of up to `LONGEST`
words are taken from it, and the answer that it states itself; each has features, and a fitted
`reader` weighs them. Needs numpy (extra `eval`).

Shapes: S spans x R replies (of the candidates in the order in which they are asked) x F features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ...answers import UNSPACED, bare_answer, normalize_answer
from ...protocol import untagged
from ..rules import is_doubtful

LONGEST = 6
"""The most words of a span; an answer that a reply states itself may be longer."""
_READ = 600
"""The characters of a reply that are read for spans, besides the answer that it states."""
_MOST_TOKENS = 250
"""The most words and signs of these; each character of an unspaced script is a word."""
_LONGEST_STATED = 12
"""The most words of a stated answer; a longer statement counts as prose."""

_TOKEN = re.compile(
    rf"[{UNSPACED}]"
    r"|\w[\w'\u2019.\-\u2013&%$€£/]*|[$€£]\d[\w.,]*|\d[\d.,]*\d|[^\w\s]|\n"
)
_WORD = re.compile(r"\w")
_BREAKS = frozenset(';:!?()[]\n"“”|*')
_OPENING, _CLOSING = frozenset('*"“'), frozenset('*"”')
_YEAR = re.compile(r"\b(?:1[0-9]|20)\d\d\b")
_MONTH = re.compile(
    r"january|february|march|april|may|june|july|august|september|october|november|december"
)
_NUMBER = re.compile(r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|\d[\d,.]*)\b")
_NEVER_AT_EDGES = (
    "a an the of in on at to for and or but is was were are be been it its this that these those "
    "with by from as who what when where which how did does do has have had not i my he she they "
    "his her their there also however than then so if"
)
_EDGES = frozenset(_NEVER_AT_EDGES.split())
"""Words at which no answer begins or ends."""
_KINDS = ("who", "when", "where", "how many", "how", "which", "what")
"""Words for the kind of answer; the first of them in a question counts."""
_BEFORE = {
    "is": {"is", "was", "are", "were", "be", "是", "为", "為", "は"},
    "by": {"by"},
    "in": {"in", "on", "at", "of", "from"},
}
"""Classes of the word before a span."""

_IN_REPLY = (
    *("held", "stated", "repeated", "within", "around"),
    *("early", "late", "capital", "edges", "quoted", "brief", "sure"),
    *(f"after {name}" for name in _BEFORE),
)
"""The features of a span in one reply.

Whether it is one of the reply's spans, is its stated answer, occurs in it word for word, is a part
of the stated answer, or contains that; how early and how late it occurs, the share of capital
letters, whether it ends where capitals do, is in quotes or bold; how brief and how sure the reply
is; and the word before it.
"""
_HELD, _STATED, _REPEATED, _WITHIN, _AROUND, _BEST = range(6)
"""From `_BEST` on, the highest value and the mean of the replies that hold the span count."""
_ALONE = (
    *("one word", "two words", "three words", "four words", "more words"),
    *("digit", "year", "month", "number", "words of the question", "length"),
)
"""The features of a span without the replies."""
_SHAPES = ("digit", "capital", "length")
"""The features with a separate weight for each kind of question."""


@dataclass(frozen=True)
class ReadSpans:
    """The spans in the replies to one question.

    Attributes:
        texts: S spans as they were written.
        in_reply: S x R x the features in `_IN_REPLY`, each in [0, 1].
        alone: S x the features in `_ALONE`.
        kind: the kind of answer, as a place in `_KINDS`; their number = another kind.
    """

    texts: tuple[str, ...]
    in_reply: np.ndarray
    alone: np.ndarray
    kind: int

    def ordered(self, columns: Sequence[int]) -> ReadSpans:
        """Return the reading with its replies in another order."""
        return replace(self, in_reply=self.in_reply[:, list(columns)])

    def features(self, replies: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of each span when only the first replies are known.

        Args:
            replies: how many, 1 to R.

        Returns:
            The spans that they hold, as numbers of rows (length N), and their features, N x F.
        """
        known = self.in_reply[:, :replies]
        rows = np.flatnonzero(known[:, :, _HELD].any(axis=1))
        known, alone = known[rows].astype(float), self.alone[rows].astype(float)
        by_candidate = np.zeros((len(rows), self.in_reply.shape[1], 2))
        by_candidate[:, :replies] = known[:, :, [_HELD, _STATED]]
        best = known[:, :, _BEST:].max(axis=1)
        mean = known[:, :, _BEST:].sum(axis=1) / known[:, :, _HELD].sum(axis=1, keepdims=True)
        early, capital = (best[:, _IN_REPLY.index(n) - _BEST] for n in ("early", "capital"))
        support = known[:, :, _REPEATED].mean(axis=1)
        stated = known[:, :, _STATED].mean(axis=1)
        agreed = [support, stated, support * capital, support * early]
        agreed += [known[:, :, _WITHIN].mean(axis=1), known[:, :, _AROUND].mean(axis=1)]
        agreed += [support >= support.max(initial=0), stated >= stated.max(initial=1e-9)]
        digit, length = (alone[:, _ALONE.index(name)] for name in ("digit", "length"))
        by_kind = np.zeros((len(rows), len(_KINDS) + 1, len(_SHAPES)))
        by_kind[:, self.kind] = np.stack([digit, capital, length], axis=1)
        parts = [by_candidate, best, mean, np.stack(agreed, axis=1), alone, by_kind]
        return rows, np.concatenate(
            [part.reshape(len(rows), math.prod(part.shape[1:])) for part in parts], axis=1
        )


def feature_names(candidates: Sequence[str]) -> list[str]:
    """Return the names of the F features, in their order.

    Args:
        candidates: in the order in which they are asked.
    """
    return [
        *(f"{what} by {name}" for name in candidates for what in ("held", "stated")),
        *_IN_REPLY[_BEST:],
        *(f"mean {name}" for name in _IN_REPLY[_BEST:]),
        *("support", "share that states it", "support x capital", "support x early"),
        *("within what is stated", "around what is stated"),
        *("most support", "stated most often"),
        *_ALONE,
        *(f"{kind}: {shape}" for kind in (*_KINDS, "other") for shape in _SHAPES),
    ]


def read(question: str, replies: Sequence[str]) -> ReadSpans:
    """Find the spans in replies, "" for one that failed or is not known yet."""
    asked = frozenset(normalize_answer(question).split())
    held: dict[str, tuple[str, dict[int, list[float]]]] = {}
    for number, reply in enumerate(replies):
        for key, (text, found) in _spans(reply, asked).items():
            held.setdefault(key, (text, {}))[1][number] = found
    plain = [f" {normalize_answer(untagged(reply))} " for reply in replies]
    stated = [_stated(reply) for reply in replies]
    in_reply = np.zeros((len(held), len(replies), len(_IN_REPLY)), np.float16)
    for row, (key, (_, places)) in enumerate(held.items()):
        for number, found in places.items():
            in_reply[row, number] = found
        in_reply[row, :, _REPEATED] = [f" {key} " in words for words in plain]
        in_reply[row, :, _WITHIN] = [f" {key} " in f" {words} " for words in stated]
        in_reply[row, :, _AROUND] = [words != "" and f" {words} " in f" {key} " for words in stated]
    alone = np.array([_alone(key, asked) for key in held], np.float16)
    alone = alone.reshape(len(held), len(_ALONE))
    return ReadSpans(tuple(text for text, _ in held.values()), in_reply, alone, _kind(question))


def _stated(reply: str) -> str:
    """Return the answer that a reply states, normalised; "" where it is prose."""
    words = normalize_answer(bare_answer(reply))
    return words if len(words.split()) <= _LONGEST_STATED else ""


def _alone(key: str, asked: frozenset[str]) -> list[float]:
    words = key.split()
    return [
        *(float(min(len(words), 5) == count) for count in range(1, 6)),
        float(any(c.isdigit() for c in key)),
        *(float(shape.search(key) is not None) for shape in (_YEAR, _MONTH, _NUMBER)),
        sum(word in asked for word in words) / len(words),
        min(len(words), 8) / 8,
    ]


def _kind(question: str) -> int:
    said = f" {question.lower()} "
    return next((n for n, word in enumerate(_KINDS) if f" {word} " in said), len(_KINDS))


def _spans(reply: str, asked: frozenset[str]) -> dict[str, tuple[str, list[float]]]:
    """Return the text of each span and its features in the reply, by normalised text."""
    if not reply.strip():
        return {}
    stated = bare_answer(reply)
    wanted = normalize_answer(stated)
    of_reply = [1 / (1 + len(reply) / 100), float(not is_doubtful(reply))]
    body = untagged(reply)[:_READ]
    tokens = [(m.group(), m.start(), m.end()) for m in islice(_TOKEN.finditer(body), _MOST_TOKENS)]
    found: dict[str, tuple[str, list[float]]] = {}
    for first, last, capitals in _runs([token for token, _, _ in tokens]):
        start, end = tokens[first][1], tokens[last][2]
        text = body[start:end].strip(" .,'\u2019-")
        key = normalize_answer(text)
        if not key or key in found or asked.issuperset(key.split()):
            continue
        before = tokens[first - 1][0] if first else ""
        after = tokens[last + 1][0] if last + 1 < len(tokens) else ""
        before = "" if _ends_sentence(before) else before
        after = "" if _ends_sentence(tokens[last][0]) else after
        edges = (not before[:1].isupper()) + (not after[:1].isupper())
        own = [1.0, float(key == wanted), 1.0, 0.0, 0.0, 1 / (1 + start / 60)]
        own += [1 / (1 + (len(body) - end) / 60), capitals, edges / 2]
        own += [float(before in _OPENING and after in _CLOSING), *of_reply]
        own += [float(before.lower() in those) for those in _BEFORE.values()]
        found[key] = text, own
    if wanted and wanted not in found and len(wanted.split()) <= _LONGEST_STATED:
        capital = float(stated[:1].isupper() or stated[:1].isdigit())
        own = [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, capital, 1.0, 0.0, *of_reply]
        found[wanted] = stated, [*own, *(0.0 for _ in _BEFORE)]
    return found


def _runs(tokens: Sequence[str]) -> Iterator[tuple[int, int, float]]:
    """Yield the first and last token of each run of words, and its share of capital letters."""
    is_word = [_WORD.search(token) is not None for token in tokens]
    at_edge = [not word or t.lower() in _EDGES for t, word in zip(tokens, is_word, strict=True)]
    for first in range(len(tokens)):
        if at_edge[first]:
            continue
        words = capitals = 0
        for last in range(first, len(tokens)):
            if not is_word[last]:
                if tokens[last] in _BREAKS:
                    break
                continue
            words += 1
            if words > LONGEST:
                break
            capitals += tokens[last][0].isupper() or tokens[last][0].isdigit()
            if not at_edge[last]:
                yield first, last, capitals / words
            if _ends_sentence(tokens[last]):
                break


def _ends_sentence(token: str) -> bool:
    """Return whether a full stop in a word ends a sentence; in "Dr." or "J.R." it does not."""
    return token.endswith(".") and (token[:-1].isdigit() or len(token.replace(".", "")) > 3)
