"""Two questions in one text: the place where the second one starts, and both questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from .function_words import REQUESTS
from .sight import Sight
from .spotted import DOUBTFUL
from .structure import Ask, Both, Structure, asks

#: A text is cut at so many places at most.
_MOST_CUTS = 6
_STOPS = frozenset(".?!;")
_JOINS = frozenset(("and", "plus", "also", "then", "alongside"))
_LONG_JOINS = (("as", "well", "as"), ("along", "with"), ("together", "with"))
#: What counts the two questions, and says nothing about either.
_COUNT = r"(?:(?:part|question|number|no|item)\W{0,2})?(?:\d|one|two|a|b|i|ii)[.:,)] "
_ORDER = r"(?:first(?:ly)?(?: of all)?|second(?:ly)?|next|finally|lastly)\b[,:] "
_MORE = (
    r"(?:and|also|plus|then|too|besides|furthermore|moreover|additionally|in addition(?: to that)?|"
    r"as well(?: as)?|along with|together with|alongside|on top of (?:that|it)|likewise|"
    r"while \w+ (?:are )?at it|while \w+'re at it|by the way|after(?:wards| that)|oh|meanwhile|"
    r"that (?:settled|done|said|answered|out of the way)|"
    r"(?:once|when|as soon as) (?:you|that)[^,.?]*,|"
    r"having [^,.?]*,|with that [^,.?]*,|on the (?:one|other)(?: hand)?|what(?:'s| is) more|"
    r"separately|similarly|equally|secondly|thirdly|finally|lastly|still|"
    r"(?:a|one|my|the|another) (?:more|other|second|next|further|last|follow-up) "
    r"(?:thing|question|one|point|item|request)?|another(?: one| thing| question)?|"
    r"(?:then )?there(?:'s| is) (?:also )?(?:this|another|one more|the other)(?: one)?|"
    r"for good measure|in the same breath|at the same time|(?:as a )?follow-up|"
    r"bonus(?: question)?)\b"
)
_LEAD = re.compile(rf"[\s,:;.?!-]*(?:\(?{_COUNT}|{_ORDER}|{_MORE}[\s,:]*|both )", re.IGNORECASE)
_INNER = re.compile(rf"(?<=[:.!-] )\(?(?:{_COUNT}|{_ORDER})|\bboth (?!of\b|in\b)", re.IGNORECASE)
_LEFT_OVER = re.compile(rf"[\s,;:-]+(?:(?:and|then|{_COUNT[:-1]})[\s,;:-]*)*$", re.IGNORECASE)
#: Two names that are one choice.
_CHOICE = re.compile(
    r"\b(?:which(?:ever)?|who(?:se|ever)?|what|older|younger|one)(?: one)? "
    r"(?:of|among|amongst|out of|between)\b|"
    r"\bwhether\b|^(?:of|among|amongst|between|out of|order|sort|rank|compare|take)\b",
    re.IGNORECASE,
)
_NO_VERBS = frozenset(["know", "idea", "like", "need", "want", "wonder", "wondering"])
_ASKS = re.compile(
    r"(?:\W*\b(?:(?:in|on|by|to|from|at|of|after|into|through|for|with|under) )?"
    r"(?:who|whom|whose|what|which|when|where|how|who's|what's|where's|when's)\b)",
    re.IGNORECASE,
)

_REQUEST = re.compile(
    r"\W*(?:(?:please|so|now|and|also|just|kindly|ok|okay|hi|hey|hello|then|there)\b\W*)*(?:"
    rf"(?:{'|'.join(sorted(REQUESTS - _NO_VERBS))})\b|"
    r"(?:i|we)(?:'d| would)? (?:also )?(?:like|need|want|wonder|wish|must|have to|should)\b|"
    r"i'm (?:wondering|looking|curious)|(?:can|could|would|will|do|does) (?:you|any|some|i)|"
    r"any (?:idea|clue)|(?:two|both|a double|a couple|which|what|who|when|where|how|whose)\b)|"
    r".*\bplease\W*$",
    re.IGNORECASE,
)

Read = Callable[[str], Structure | None]


def read_pair(sight: Sight, read: Read) -> Both | None:
    """Read two questions in one text, or two things that one question asks for.

    "Who wrote Emma? And when did Liszt die?", "the capital of Peru and the author of Emma",
    "Who wrote Emma, and where was she born?".

    Args:
        sight: Any text.
        read: Reads one question.
    """
    sure = [name for name in sight.names if name.penalty < DOUBTFUL]
    if not sure:
        return None
    joins = sight.marks.isdisjoint(("between", "order")) and not sight.polar
    for end, start, stop in islice(_cuts(sight), _MOST_CUTS):
        if (stop == "and" and not joins) or not any(name.end <= end for name in sure):
            continue
        after = any(name.start >= start for name in sight.names if name.penalty < 2 * DOUBTFUL)
        first = sight.text[: sight.words[end - 1].end]
        last = sight.text[sight.words[start].start :]
        if stop == "?":
            first += "?"
        both = _both(first, last, stop, after, read)
        if both is not None:
            return both
    return None


def _cuts(sight: Sight) -> Iterator[tuple[int, int, str]]:
    """Yield where a first question may end, where a second may start, and what is between."""
    inside = {at for n in sight.names for at in range(n.start + 1, n.end)}
    joins: list[tuple[int, int, str]] = []
    texts = sight.texts
    for at in range(1, len(texts) - 1):
        word = texts[at]
        if at in inside:
            continue
        if word in _STOPS and texts[at + 1] not in _STOPS:
            yield at, at + 1, word
        elif word in _JOINS and texts[at - 1] not in _STOPS:
            joins.append((at, at + 1, "and"))
        else:
            for phrase in _LONG_JOINS:
                if tuple(texts[at : at + len(phrase)]) == phrase and at + len(phrase) < len(texts):
                    joins.append((at, at + len(phrase), "and"))
    yield from joins


def _both(first: str, last: str, stop: str, named: bool, read: Read) -> Both | None:
    lead = last
    while found := _LEAD.match(last):
        last = last[found.end() :]
    more = lead != last
    while found := _LEAD.match(first):
        first = first[found.end() :]
    first = _LEFT_OVER.sub("", _INNER.sub("", first))
    asked = _ASKS.match(last) is not None
    if stop == "and":
        if _CHOICE.search(first):
            return None
    else:
        opens = stop == ";" or more or _is_asked(first, stop)
        goes_on = stop == ";" or asked or more or "?" in last or _is_request(last)
        if not (opens and goes_on):
            return None
        if stop == ";" and not (named or more):
            return None  # "for the town of X; which river is it?"
    if not (named or asked):
        return None
    if stop == "and" and not (_is_request(first) or _ASKS.search(first)):
        return None
    one = read(first)
    if not isinstance(one, Ask):
        return None
    if not named:
        last = f"{last.rstrip(' ?.!')} {asks(one)[0].subject}"  # "she", "it"
    two = read(last)
    return Both(one, two) if isinstance(two, Ask) and two != one else None


def _is_asked(text: str, stop: str) -> bool:
    """Say whether the last sentence of a text asks for something."""
    return stop == "?" or text.endswith("?") or _is_request(re.split(r"[.!?] ", text)[-1])


def _is_request(text: str) -> bool:
    return bool(_REQUEST.match(text.rpartition(": ")[2]) or _REQUEST.match(text))
