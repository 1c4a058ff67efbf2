"""The domain of a sub-question, if its file does not name it: a guess by its words."""

from __future__ import annotations

from collections.abc import Iterable

from .relations import OTHER_DOMAIN
from .synonyms import terms, words

#: Questions about letters, digits and dates, which nobody has to look up.
LETTERS = "letters"


def topic_of(question: str, categories: Iterable[str] = ()) -> str:
    """Return the domain of a sub-question.

    A question about letters, arithmetic or the calendar always belongs to that domain. For others,
    the first known category decides, then the words of the question.

    Args:
        question: the sub-question.
        categories: the file's categories of the whole question.

    >>> topic_of("What is the last letter of the last name of Emma Stone?", ["Film Studies"])
    'letters'
    >>> topic_of("Where was Emma Stone born?", ["Film Studies"]), topic_of("Who directed Emma?")
    ('film', 'film')
    """
    guess = _topic(question)
    if guess == LETTERS:
        return guess
    said = (_topic(category) for category in categories)
    return next((topic for topic in said if topic != OTHER_DOMAIN), guess)


def _topic(text: str) -> str:
    known = words()
    read = [term.text for term in terms(text)]
    numbers = sum(term[0].isdigit() for term in read)
    if numbers > 1 and ("before" in read or "after" in read):  # "the date 5 days after 16 May 1747"
        return LETTERS
    found = {known.topics[term] for term in read if term in known.topics}
    return min(found, key=known.topic_order.index, default=OTHER_DOMAIN)
