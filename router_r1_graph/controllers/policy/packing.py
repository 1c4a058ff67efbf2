"""Groups rows that are computed together, and closes the gaps of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_PREFILL_ROWS = 32
"""The most rows whose new tokens are computed together. They are rows with about equally many,
since padding is computed too."""
_PREFILL_TOKENS = 2048
"""The most new tokens of such rows together, unless one row has more: their attention is held for
all of them at once."""
_ALIKE = 1.25
"""The new tokens of the longest row computed together, at most, as a multiple of the shortest's."""

_ON_A_GPU = 8
"""The factor of rows, tokens and padding on a GPU, which would idle with few rows."""

Unread = tuple[tuple[int, ...], int]
"""A row to compute: its ids, and how many of them are known."""


def alike(todo: Sequence[Unread], *, gpu: bool = False) -> Iterator[list[Unread]]:
    """Divide rows to compute into groups with about equally many new tokens."""
    times = _ON_A_GPU if gpu else 1
    rows, tokens, longest = times * _PREFILL_ROWS, times * _PREFILL_TOKENS, times * _ALIKE
    part: list[Unread] = []
    least = 0
    for row in sorted(todo, key=lambda row: (len(row[0]) - row[1], row[1])):
        new = len(row[0]) - row[1]
        full = len(part) == rows or new * (len(part) + 1) > tokens
        if part and (full or new > longest * least):
            yield part
            part = []
        least = least if part else new
        part.append(row)
    if part:
        yield part


def closed_up(going: Sequence[int]) -> list[int]:
    """Return the new order of the rows, with the fewest moves: the last ones fill the gaps.

    >>> closed_up([0, 2, 3, 5])
    [0, 5, 2, 3]
    """
    stay = set(going)
    moved = iter(sorted((place for place in going if place >= len(going)), reverse=True))
    return [place if place in stay else next(moved) for place in range(len(going))]
