"""The same question in other words, made by rules: does a router choose the same for it?"""

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


def reworded(question: str) -> str:
    """Return the question in other words: synonyms and another frame, the same ones each time.

    >>> reworded("who wrote the film alien?")
    'I would like to know: who is the author of the movie alien?'
    """
    other = _PHRASE.sub(lambda found: _SWAPS[found[0].casefold()], question)
    return random.Random(question).choice(_FRAMES).format(other)
