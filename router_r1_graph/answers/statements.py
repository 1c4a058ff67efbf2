r"""What a reply in prose states as its answer: in a box, or after "the answer is"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

_MOST = 8
"""So many statements of a reply are looked at: the time stays linear in its length."""

# Capitals mark a title: "I Don't Know How She Does It".
_HEDGE = (
    r"\b(?:I (?:really |honestly |simply |just )?(?:do not|don['\u2019]t|cannot|can['\u2019]t"
    r"|could not|couldn['\u2019]t) (?-i:(?![A-Z][a-z]))(?:know|say|tell|answer|determine|find)\b"
    r"|I am not sure|I['\u2019]m not sure|I have no idea)"
)
HEDGE = re.compile(_HEDGE, re.IGNORECASE)
"""Words that decline to answer, unless the reply states an answer all the same."""

_NOTHING = r"(?:unknown|not known|not sure|no idea|n/a)(?: to (?:me|us))?\W*$"
_ABSTAINS = re.compile(rf"{_HEDGE}|^{_NOTHING}", re.IGNORECASE)
_STATES_NOTHING = re.compile(
    rf"(?:(?:that|something|one) ){{0,2}}{_HEDGE}|{_NOTHING}|unknown\b.*, but\b|not known\b",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_WRAPPED = re.compile(r"\\(?:text|math)[a-z]*\s*\{([^{}]*)\}")
_LEAD = re.compile(
    r"(?:\bthe (?:final |correct )?answer is:?|\bthat would be|^(?:final )?answer:)[*_]{0,3}\s+"
    r"(?=\S)",
    re.IGNORECASE,
)
# "I do not know what the answer is to that" states nothing; "..., but the answer is" does.
_CLAUSE = re.compile(r"[.,;:!?\n\u2013\u2014]|\b(?:but|however|still|though|yet|so)\b", re.I)
_ASKS = re.compile(r"\b(?:what|whether|if)\s*$", re.IGNORECASE)
_CLOSING = r"[\"'*_`)\]\u2019\u201d]{0,4}"
_END = re.compile(
    rf"[.!](?={_CLOSING}(?:\s|$))|;(?=\s|$)|,? (?:but|although|though) (?={_HEDGE})", re.IGNORECASE
)
_LAST_WORD = re.compile(r"[^\W\d_][^\W\d_'\u2019]*(?:\.[^\W\d_]+)*$")
_NEXT_WORD = re.compile(rf"[.!]{_CLOSING}\s{{1,9}}[\"'(*_\u201c\u2018]{{0,4}}(\w+)(.?)")
_NO_VOWEL = re.compile(r"[A-Z][b-df-hj-np-tv-xz]{1,4}")


def _set(*words: str) -> frozenset[str]:
    return frozenset(" ".join(words).split())


# Words with a stop, by what follows them. A capitalised word without a vowel needs no entry.
_BEFORE_NAMES = _set(
    "adm amb approx atty brig ca capt cf cmdr col comm cpl dr e.g fr gen gov hon i.e insp lt maj",
    "messrs mlle mme mr mrs ms msgr mt pres prof pvt rep rev sen sgt ste supt v viz vs",
)
_BEFORE_NUMBERS = _set(
    "abs apr art aug bk c ch circa dec eq est feb fig jan jul jun mar no nos nov nr oct op p pp pt",
    "sec sep sept vol vols",
)
_OTHERS = _set(
    "al ave bros co corp dept est etc inc intl natl univ apr aug dec feb jan nov oct sept",
)
_PRONOUNS = _set("he it its she that there these they this those we you")
_STARTERS = _PRONOUNS | _set(
    "a after also although an and as at because before but by during for from her here his how",
    "however i if in let many more most my no note of on one our please since so some thank thanks",
    "the their then though to when where which while who with would yes your",
)
"""First words of a sentence, which are hardly ever the second word of a name."""


@dataclass(frozen=True)
class Statement:
    """The answer that a reply states."""

    answer: str
    """As far as its sentence goes; "" = the reply states that there is none."""

    line: str
    """The answer with all that follows it on its line, in case that a title holds a stop."""


def statement(reply: str) -> Statement | None:
    r"""Return what a reply states as its answer: in its last box, else after "the answer is".

    None if it states nothing in so many words. A hedge elsewhere in the reply does not matter.
    Never raises; the time is linear in the length.

    Example:
        >>> statement("I can't say for sure, but the answer is Mt. Everest. It is high.").answer
        'Mt. Everest'
        >>> statement(r"So it is \boxed{\text{Paris}}. I could not find a source.").answer
        'Paris'
        >>> statement("I do not know what the answer is to that.") is None
        True
    """
    if boxed := _boxed(reply):
        return Statement("" if _STATES_NOTHING.match(boxed) else boxed, boxed)
    reply, nothing = reply.strip(), None
    for lead in islice(_LEAD.finditer(reply), _MOST):
        clause = _CLAUSE.split(reply[max(0, lead.start() - 200) : lead.start()])[-1]
        if HEDGE.search(clause) or _ASKS.search(clause):
            continue
        found = _sentence(reply, lead.end())
        if found.answer:
            return found
        nothing = nothing or found
    return nothing


def declines(reply: str) -> bool:
    """Say whether a reply that states no answer says that it has none."""
    return not reply.strip() or _ABSTAINS.search(reply) is not None


def _boxed(reply: str) -> str:
    """Return the text in the last box; "" where there is none, or it is not closed."""
    start = max((box.end() for box in _BOX.finditer(reply)), default=-1)
    depth = 1
    for brace in re.compile(r"(?<!\\)[{}]").finditer(reply, start) if start >= 0 else ():
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            inside = reply[start : brace.start()].strip()
            wrapped = _WRAPPED.fullmatch(inside)
            return (wrapped[1] if wrapped else inside).strip()
    return ""


def _sentence(text: str, start: int) -> Statement:
    """Return the answer that begins at a place."""
    line = text.find("\n", start)
    line = len(text) if line < 0 else line
    ends = (e.start() for e in _END.finditer(text, start, line) if not _goes_on(text, start, e))
    answer = text[start : next(ends, line)].strip()
    nothing = _STATES_NOTHING.match(answer)
    return Statement("" if nothing else _unmarked(answer), text[start:line].strip())


def _unmarked(answer: str) -> str:
    return answer.strip("*\"'`").strip()


def _goes_on(text: str, start: int, end: re.Match[str]) -> bool:
    """Say whether a stop ends an abbreviation rather than the answer."""
    if end[0] not in ".!":
        return False
    stop = end.start()
    follows = _NEXT_WORD.match(text, stop, min(stop + 60, end.endpos))
    if follows is None:
        return False
    following, after = follows[1], follows[2]
    before = _LAST_WORD.search(text[max(start, stop - 20) : stop]) if end[0] == "." else None
    word = before[0] if before else ""
    short = word.casefold()
    if short in _BEFORE_NAMES:
        return True
    if following[0].isdigit() and short in _BEFORE_NUMBERS:
        # "The answer is no. 5 is odd." is a no.
        return word != "no" or stop - len(word) > start
    if following[0].islower():
        return following not in _PRONOUNS
    if following.casefold() in _STARTERS and after != ".":
        return False
    initial = len(word.rpartition(".")[2]) == 1  # "J. Verne", "the U.S. Open", "Ph.D. Smith"
    return initial or short in _OTHERS or _NO_VOWEL.fullmatch(word) is not None
