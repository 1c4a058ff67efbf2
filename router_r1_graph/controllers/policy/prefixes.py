"""The common beginnings of contexts: computed once, held once, and attended to together.

Questions to one pool have its description in common, and the samples of one question their whole
prompt: most of what a turn reads. Without this, each row of a batch would hold a copy, and each
token would read all of them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from .batch_cache import Rows

_STEP = 16
"""Prefixes end at a multiple of so many tokens: questions that begin with the same word do not each
make one of their own."""
_LEAST = 64
"""A shorter one saves nothing."""
_OTHERS = 4
"""A prefix is as long as this many other contexts allow, if as many begin alike."""
_AS_GOOD = 0.9
"""A known prefix is taken if it has this share of the tokens that a new one would have."""
_RECENT = 64


@dataclass(eq=False)
class TokenPrefix:
    """The first tokens of some contexts."""

    ids: tuple[int, ...]
    rows: Rows = field(default_factory=list)
    """Their keys and values; [] = not computed yet."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class BatchRow:
    """The keys and values of one context."""

    prefix: TokenPrefix | None = None
    own: Rows | None = None
    """Those of the tokens after the prefix; None = there are none."""

    @property
    def own_size(self) -> int:
        """The number of tokens after the prefix."""
        return self.own[0][0].shape[1] if self.own else 0


class Prefixes:
    """The prefixes of late, and which one a new context has.

    Args:
        max_tokens: the most tokens of all but one of them together; 0 = there are none.
            The oldest are dropped.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._known: OrderedDict[tuple[int, ...], TokenPrefix] = OrderedDict()
        self._recent: deque[tuple[int, ...]] = deque(maxlen=_RECENT)

    def clear(self) -> None:
        """Drop everything."""
        self._known.clear()
        self._recent.clear()

    def of(self, contexts: Sequence[tuple[int, ...]]) -> list[TokenPrefix | None]:
        """Return the prefix of each of some new contexts; None = it has too little in common.

        The last token of a context is never in it, since the next one is computed from that.
        """
        if not self.max_tokens:
            return [None] * len(contexts)
        seen = [*self._recent, *contexts]
        self._recent.extend(contexts)
        return [self._of(ids, (other for other in seen if other is not ids)) for ids in contexts]

    def _of(self, ids: tuple[int, ...], others: Iterable[tuple[int, ...]]) -> TokenPrefix | None:
        lengths = (begun_alike(ids, other) for other in others)
        common = sorted((size for size in lengths if size >= _LEAST), reverse=True)
        most = min(common[:_OTHERS][-1], len(ids) - 1) // _STEP * _STEP if common else 0
        fit = [p for p in self._known.values() if ids[: len(p)] == p.ids and len(p) < len(ids)]
        found = max(fit, key=len, default=None)
        if found is None or len(found) < _AS_GOOD * most:
            if most < _LEAST:
                return None
            found = TokenPrefix(ids[:most])
            self._known[found.ids] = found
        self._known.move_to_end(found.ids)
        while sum(map(len, self._known)) > self.max_tokens and len(self._known) > 1:
            self._known.popitem(last=False)
        return found


@dataclass
class Shared:
    """The prefixes of a batch's rows."""

    groups: list[tuple[Rows, torch.Tensor]]
    """Each prefix's keys and values, and the places of its rows."""
    sizes: torch.Tensor
    """The number of tokens of each row's prefix: [rows, 1]."""

    @classmethod
    def by(cls, prefixes: Sequence[TokenPrefix | None], device: torch.device) -> Shared | None:
        """Return the prefixes of rows; None = there are none."""
        places: dict[TokenPrefix, list[int]] = {}
        for place, prefix in enumerate(prefixes):
            if prefix is not None:
                places.setdefault(prefix, []).append(place)
        if not places:
            return None
        return cls(
            [(p.rows, torch.tensor(rows, device=device)) for p, rows in places.items()],
            torch.tensor([[len(p) if p else 0] for p in prefixes], device=device),
        )


def begun_alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two contexts begin with alike.

    >>> begun_alike((1, 2, 3, 4), (1, 2, 5))
    2
    """
    low, high = 0, min(len(one), len(other))
    while low < high:  # by halves: slices are compared at once
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
