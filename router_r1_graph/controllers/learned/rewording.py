"""The same question in other words, made by rules: does a router choose the same for it?

Two sets of rules: fits see the questions that `varied` makes, and are judged by those of
`reworded`, so that the measured rewordings are not the learned ones.
"""

from __future__ import annotations

import random
import re

_SWAPS = {
    "what is": "what's",
    "what's": "what is",
    "which": "what",
    "who wrote": "who is the author of",
    "who was": "what person was",
    "who is": "what person is",
    "when did": "in what year did",
    "when was": "in what year was",
    "where is": "in which place is",
    "how many": "what number of",
    "movie": "film",
    "film": "movie",
    "show": "series",
    "biggest": "largest",
    "largest": "biggest",
    "start": "begin",
    "begin": "start",
    "find": "determine",
    "calculate": "compute",
    "compute": "work out",
    "explain": "describe",
    "describe": "explain",
    "write": "compose",
    "picture": "image",
    "country": "nation",
    "following": "ones below",
}
_PHRASE = re.compile(rf"\b({'|'.join(_SWAPS)})\b", re.IGNORECASE)
_FRAMES = (
    "{}",
    "Please answer this: {}",
    "I would like to know: {}",
    "Could you tell me the following? {}",
    "{} Thank you!",
)

_VARIED_SWAPS = {
    "who": "which person",
    "what": "which",
    "when": "at what time",
    "where": "in what location",
    "why": "for what reason",
    "was": "has been",
    "did": "has",
    "name": "title",
    "first": "earliest",
    "author": "writer",
    "city": "town",
    "company": "firm",
    "give": "provide",
    "make": "create",
    "choose": "pick",
    "correct": "right",
    "solve": "work through",
    "many": "numerous",
    "known": "famous",
    "located": "situated",
    "between": "out of",
}
_VARIED_PHRASE = re.compile(rf"\b({'|'.join(_VARIED_SWAPS)})\b", re.IGNORECASE)
_VARIED_FRAMES = (
    "{}",
    "Tell me, {}",
    "Hello, {}",
    "Question: {}",
    "I have a question. {}",
    "Can you say {}",
    "Help me with this. {}",
    "Let me ask you this: {}",
    "Give me an answer to this: {}",
    "{} Please be brief.",
    "{} Explain your answer.",
    "{} Give a short answer.",
    "{} I need to know.",
    "{} Thanks in advance.",
)


def reworded(question: str) -> str:
    """Return the question in other words: synonyms and another frame, the same ones each time.

    >>> reworded("who wrote the film alien?")
    'I would like to know: who is the author of the movie alien?'
    """
    other = _PHRASE.sub(lambda found: _SWAPS[found[0].casefold()], question)
    return random.Random(question).choice(_FRAMES).format(other)


def varied(question: str) -> str:
    """Return the question in other words for a fit: about half of the synonyms, another frame.

    >>> varied("who wrote the film alien?")
    'which person wrote the film alien? Give a short answer.'
    """
    drawn = random.Random(question)
    other = _VARIED_PHRASE.sub(
        lambda found: drawn.choice((found[0], _VARIED_SWAPS[found[0].casefold()])), question
    )
    return drawn.choice(_VARIED_FRAMES).format(other)
