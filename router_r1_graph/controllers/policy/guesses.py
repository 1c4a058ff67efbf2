"""Guesses of a turn's next tokens, from its own text and from earlier turns."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_GUESSED = 12
"""A pass that checks a wrong guess takes a quarter longer than without (docs/experiments.md)."""
_ALIKE = 3
"""How many last tokens have to occur in an earlier turn."""
_MOST_KNOWN = 50_000
"""Places of earlier turns that are remembered, in some 15 MB."""

_Tokens = tuple[int, ...]


class Guesses:
    """What followed the same tokens earlier: turns repeat their context, and the words of others.

    Source: A. Saxena, Prompt lookup decoding (2023), for a turn's own text.

    >>> guesses = Guesses()
    >>> guesses.of((5, 1, 2, 3, 7, 8, 1, 2, 3))
    (7, 8, 1, 2, 3)
    >>> guesses.of((5, 3, 7, 8, 1, 2, 3))
    (7, 8, 1, 2, 3)
    >>> guesses.of((1, 2, 3))
    ()
    >>> guesses.remember([1, 2, 3, 4])
    >>> guesses.of((1, 2, 3))
    (4,)
    """

    def __init__(self) -> None:
        self._after: dict[_Tokens, _Tokens] = {}

    def of(self, ids: _Tokens) -> _Tokens:
        """Return the tokens that may follow; () = there is no guess."""
        for size in (5, _ALIKE):
            if found := _repeated(ids, size):
                return found
        if found := self._after.get(ids[-_ALIKE:], ()):
            return found
        return _repeated(ids, 2) or _repeated(ids, 1)

    def remember(self, turn: Sequence[int]) -> None:
        """Remember a turn that has ended."""
        ids = tuple(turn)
        for end in range(_ALIKE, len(ids)):
            before = ids[end - _ALIKE : end]
            self._after.pop(before, None)  # the latest are kept longest
            self._after[before] = ids[end : end + _MOST_GUESSED]
        while len(self._after) > _MOST_KNOWN:
            del self._after[next(iter(self._after))]

    def forget(self) -> None:
        """Forget earlier turns."""
        self._after.clear()


def _repeated(ids: _Tokens, size: int) -> _Tokens:
    """Return what followed the last `size` tokens at the latest place before."""
    tail = ids[-size:]
    for start in range(len(ids) - size - 1, -1, -1):
        if ids[start] == tail[0] and ids[start : start + size] == tail:
            return ids[start + size : start + size + _MOST_GUESSED]
    return ()
