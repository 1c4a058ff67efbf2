r"""The words of a text, whatever joins them: `\boxed{12}`, `**Answer:**Paris`, `答案是北京。`."""

from __future__ import annotations

import html
import re
import unicodedata

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
    rf"|{_LETTER}(?:{_LETTER}|\d)*"
)
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


def words(text: str) -> list[str]:
    r"""Return the words of a text in lower case, without markup, punctuation and articles.

    A number is one word, written in one way; so is each character of an unspaced script.

    Example:
        >>> words(r"So the total is \boxed{1,200.0}, not -12.5."), words("答案是北京。")
        (['so', 'total', 'is', '1200', 'not', '-12.5'], ['答', '案', '是', '北', '京'])
    """
    text = unicodedata.normalize("NFC", html.unescape(text)).lower()
    text = re.sub(r"(?![0-9])\d", lambda digit: str(unicodedata.decimal(digit[0])), text)
    text = _FRACTION.sub(r" \1/\2 ", _POINT.sub("0.", _GROUP.sub(",", text)))
    found = (_number(word) for word in _WORD.findall(_MARKUP.sub(" ", text)))
    return [word for word in found if word not in _ARTICLES]


def _number(word: str) -> str:
    """Return a number as others write it: 1,200 and 1200.0 are 1200; any other word as it is."""
    word = word.replace("\u2212", "-").replace("\u2013", "-")
    if _GROUPED.fullmatch(word):
        word = word.replace(",", "")
    return word.rstrip("0").rstrip(".") if _DECIMAL.fullmatch(word) else word
