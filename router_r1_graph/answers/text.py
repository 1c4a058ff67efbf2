"""Answers as text: extracted from a candidate's reply, and made comparable."""

from __future__ import annotations

import contextlib
import html
import json
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ..protocol import tagged_answer
from .statements import declines, statement

_PUNCTUATION = str.maketrans("", "", string.punctuation)

UNSPACED = (
    r"\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u109d"
    r"\u1780-\u17d3\u3005-\u3007\u3041-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
    r"\uf900-\ufaff\U00020000-\U0003ffff"
)
"""The characters, for a regular expression's brackets, of scripts in which an answer has no space
at both ends: Thai, Lao, Burmese, Khmer, kana, Chinese characters, Korean (particles follow)."""

# Marks that are part of a word, although `\w` leaves them out: accents, points, Indic vowels.
_MARKS = r"\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_LETTER = rf"(?:[^\W\d_{UNSPACED}]|[{_MARKS}])"
# A sign belongs to its number unless a word or a bracket stands before it ("1914-1918", "x-1").
# Numbers that punctuation joins stay together: 12 is in neither 12.5, 1,200, 12:30 nor 12/5.
_WORD = re.compile(
    rf"[{UNSPACED}]"
    rf"|(?:(?<![^\W_{UNSPACED}])(?<![)\]}}])[-\u2212])?\d+(?:[,.:/^\u2013-]\d+)*(?:{_LETTER}|\d)*"
    rf"|{_LETTER}(?:{_LETTER}|\d)*(?:\+\+|\#)?"
)
_SUBSCRIPT = str.maketrans(
    "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789"
)
# A unit is a word of its own: "12km". Neither an ordinal nor a decade is cut: "12th", "1970s".
_UNIT = re.compile(
    r"(?<=\d)(?=(?:[kcm]m|k[gw]|mg|lbs?|oz|ft|mi|mph|km/?h|kwh|ml|[kmgt]b|[kmg]?hz|min|hrs?|[ap]m"
    r"|usd|eur)\b)"
)
_FIGURE = re.compile(r"-?\d[\d,.:/^-]*|\+\+|#")
_MARKUP = re.compile(
    r"</?[a-z][a-z0-9]*\s*/?>|<[a-z][a-z0-9]*\s[^<>]*=[^<>]*>"
    r"|\\(?:boxed|fbox|text[a-z]*|math[a-z]+|emph|underline|operatorname)(?=\s*\{)"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}")
_GROUP = re.compile(r"(?<=\d)(?:\{,\}|,?\\[,!]|[\u00a0\u2009\u202f])(?=\d{3})")
_POINT = re.compile(r"(?<![\w.])\.(?=\d)")
_GROUPED = re.compile(r"-?\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?")
_DECIMAL = re.compile(r"-?\d+\.\d+")
_ARTICLES = frozenset(("a", "an", "the"))


def normalize_answer(text: str) -> str:
    """Return a text in lower case, without punctuation and articles, with single spaces.

    The order matters and is SQuAD's: punctuation goes before articles, so "the-" is an article.

    Example:
        >>> normalize_answer("  The pound  sterling (£). ")
        'pound sterling £'
    """
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def words(text: str) -> list[str]:
    r"""Return the words of a text in lower case, without markup, punctuation and articles.

    A number is one word, written in one way; so is each character of an unspaced script.

    Example:
        >>> words(r"So the total is \boxed{1,200.0}, not -12.5."), words("答案是北京。")
        (['so', 'total', 'is', '1200', 'not', '-12.5'], ['答', '案', '是', '北', '京'])
    """
    text = _UNIT.sub(" ", _MARKUP.sub(" ", with_plain_digits(text).lower()))
    found = (_number(word) for word in _WORD.findall(text))
    return [word for word in found if word not in _ARTICLES]


def with_plain_digits(text: str) -> str:
    r"""Return a text with its digits, fractions and groups of digits written in one way.

    Example:
        >>> with_plain_digits(r"\frac{1}{2}"), with_plain_digits("1{,}200 and .5")
        (' 1/2 ', '1,200 and 0.5')
    """
    text = unicodedata.normalize("NFC", html.unescape(text)).translate(_SUBSCRIPT)
    text = re.sub(r"(?![0-9])\d", lambda digit: str(unicodedata.decimal(digit[0])), text)
    return _FRACTION.sub(r" \1/\2 ", _POINT.sub("0.", _GROUP.sub(",", text)))


def figures(text: str) -> list[str]:
    """Return what punctuation tells apart in a text: its numbers, whole, and `++` and `#`.

    Example:
        >>> figures("C-3PO"), figures("C3PO"), figures("-12.5%"), figures("C++")
        (['3'], ['3'], ['-12.5'], ['++'])
    """
    return [figure for word in words(text) for figure in _FIGURE.findall(word)]


def _number(word: str) -> str:
    """Return a number as others write it: 1,200 and 1200.0 are 1200; any other word as it is."""
    word = word.replace("\u2212", "-").replace("\u2013", "-")
    if _GROUPED.fullmatch(word):
        word = word.replace(",", "")
    return word.rstrip("0").rstrip(".") if _DECIMAL.fullmatch(word) else word


def bare_answer(reply: str) -> str:
    """Return the answer in a reply to a whole question; "" where the reply declines to give one.

    It is the text in the reply's own answer tags (many LLMs write them, asked or unasked), else
    what `short_answer` finds in the prose. A reply that states an answer gives one, although it
    says as well what it does not know.

    Example:
        >>> bare_answer("I am not sure, but: <answer>Paris</answer>")
        'Paris'
        >>> bare_answer("The answer is Paris. I cannot tell you more.")
        'Paris'
        >>> bare_answer("I do not know.")
        ''
    """
    tagged = tagged_answer(reply)
    if tagged is None:
        return "" if is_abstention(reply) else short_answer(reply)
    return "" if is_abstention(tagged) else tagged


def exact_match(answer: str, gold: Iterable[str]) -> float:
    """Return 1.0 if the answer is one of the gold answers after normalisation, else 0.0.

    No answer (an empty text) is never right, although a gold answer "The" is empty too, once
    normalised.

    Example:
        >>> exact_match("The Pound Sterling.", ["euro", "pound sterling"])
        1.0
    """
    if not answer.strip():
        return 0.0
    wanted = normalize_answer(answer)
    return float(any(normalize_answer(right) == wanted for right in gold))


def contains(text: str, gold: Iterable[str]) -> float:
    """Return 1.0 if a text contains one of the gold answers, word for word, else 0.0.

    Unlike exact match, it accepts an answer within prose; a long reply is right by chance more
    often.

    Example:
        >>> contains("It is the pound sterling, of course.", ["Pound Sterling"])
        1.0
    """
    gold = tuple(gold)
    if exact_match(text, gold):  # also where nothing is left of both, as of the letter A
        return 1.0
    words = f" {normalize_answer(text)} "
    wanted = [normalize_answer(right) for right in gold]
    return float(any(f" {right} " in words for right in wanted if right))


def f1_score(answer: str, gold: Iterable[str]) -> float:
    """Return the token F1 of the nearest gold answer, in [0, 1].

    It is 0 if one side is yes, no or noanswer and the other is something else: such a word decides
    the question, and other words in common earn nothing.

    Example:
        >>> round(f1_score("pound sterling of the United Kingdom", ["pound sterling"]), 3)
        0.571
    """
    return max(
        (_f1(normalize_answer(answer), normalize_answer(right)) for right in gold), default=0.0
    )


def _f1(answer: str, right: str) -> float:
    if answer != right and (answer in _CLOSED_ANSWERS or right in _CLOSED_ANSWERS):
        return 0.0
    ours, theirs = answer.split(), right.split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


_CLOSED_ANSWERS = ("yes", "no", "noanswer")


def short_answer(reply: str) -> str:
    """Return the bare answer of a reply in prose; a reply that states none comes back stripped.

    Tags in a reply have no meaning here: they are a candidate's text.

    Example:
        >>> short_answer("As far as I can tell, the answer is J. R. R. Tolkien. Ask me more!")
        'J. R. R. Tolkien'
    """
    stated = statement(reply)
    return stated.answer if stated and stated.answer else reply.strip()


def is_abstention(reply: str) -> bool:
    """Say whether a reply declines to answer. An empty one does.

    Example:
        >>> is_abstention("I do not know."), is_abstention("I can't say why, but the answer is 4.")
        (True, False)
    """
    stated = statement(reply)
    return not stated.answer if stated else declines(reply)


#: The fields of data sets that hold gold answers, in the order in which they are looked for.
GOLD_FIELDS = ("golden_answers", "gold", "answers", "answer", "target", "label")


def gold_answers(gold: Any, parts: Iterable[Any] = ()) -> tuple[str, ...]:
    """Return gold answers of the shapes data sets have; each of them is right on its own.

    A text, a number or a decision is one, a list holds alternatives, and so do Hugging Face's
    mappings. Any other mapping, and a list that takes several sub-questions, is one answer of many
    entries (`rendered`); of a mapping, its values alone are right, too.

    Args:
        gold: the value in the file.
        parts: the answers of the question's sub-questions, where there are any.

    Example:
        >>> gold_answers(["USA", "United States"], parts=["Lincoln", "USA"])
        ('USA', 'United States')
        >>> gold_answers(["Rome", "Oslo"], parts=["Rome", "Oslo"])
        ('Rome, Oslo',)
        >>> gold_answers({"Italy": "Rome", "Norway": "Oslo"})
        ('Italy: Rome, Norway: Oslo', 'Rome, Oslo')
    """
    if isinstance(gold, str) and gold.startswith("["):  # a list in a CSV file
        with contextlib.suppress(ValueError):
            gold = json.loads(gold)
    if isinstance(gold, Mapping):
        # SQuAD: {"text": [...]}, TriviaQA: {"aliases": [...], "value": ...}
        known = [gold[name] for name in ("text", "aliases", "value") if name in gold]
        if not known:
            return _distinct((rendered(gold), rendered(list(gold.values()))))
        gold = next((one for one in known if one), None)
    if isinstance(gold, bool):
        return rendered(gold), str(gold)
    if isinstance(gold, (list, tuple)):
        found = {rendered(one) for part in parts for one in _entries(part)}
        if len(gold) > 1 and sum(rendered(one) in found for one in gold) > 1:
            return _distinct((rendered(gold),))
        return _distinct(map(rendered, gold))
    return _distinct((rendered(gold),))


def rendered(answer: Any) -> str:
    """Return an answer of a file as one text, in the order of the file; "" where there is none.

    Exact match does not look at punctuation, so it does not matter how entries are separated.

    Example:
        >>> rendered({"Mark Mulder": "Left", "JD Drew": True})
        'Mark Mulder: Left, JD Drew: yes'
    """
    match answer:
        case None:
            return ""
        case float() if not math.isfinite(answer):  # as pandas writes an empty cell
            return ""
        case bool():
            return "yes" if answer else "no"
        case Mapping():
            pairs = ((key, rendered(value)) for key, value in answer.items())
            return ", ".join(f"{key}: {value}" if value else str(key) for key, value in pairs)
        case list() | tuple():
            return ", ".join(filter(None, map(rendered, answer)))
        case _:
            return " ".join(str(answer).split())


def _entries(answer: Any) -> Iterable[Any]:
    return answer if isinstance(answer, (list, tuple, Mapping)) else [answer]


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))
