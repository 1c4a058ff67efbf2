"""The caches of questions' contexts, kept between their turns."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class KeptCaches:
    """Caches by the ids that were read; the oldest are dropped when they hold too many tokens.

    One thread samples; others take what belongs to questions that have ended.

    Args:
        max_tokens: the most tokens; 0 = nothing is kept.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.tokens = 0
        self._lock = threading.RLock()  # a turn that the garbage collector ends takes it, too
        self._kept: OrderedDict[tuple[int, ...], tuple[Any, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._kept.clear()
            self.tokens = 0

    def take(self, ids: tuple[int, ...]) -> tuple[Any, int]:
        """Return the cache for these ids, and its size in tokens; it is no longer kept then.

        Returns:
            `(None, 0)` if nothing is kept for them.
        """
        with self._lock:
            return self._take(ids)

    def _take(self, ids: tuple[int, ...]) -> tuple[Any, int]:
        cache, size = self._kept.pop(ids, (None, 0))
        self.tokens -= size
        return cache, size

    def put(self, ids: tuple[int, ...], size: int, cache: Callable[[], Any]) -> None:
        """Keep a cache; one that is too large is not even made.

        Args:
            ids: the key.
            size: the number of tokens in the cache.
            cache: returns the cache.
        """
        if not 0 < size <= self.max_tokens:
            return
        made = cache()
        with self._lock:
            self._take(ids)  # the same turn of another sample: one is enough
            self._kept[ids] = made, size
            self.tokens += size
            while self.tokens > self.max_tokens:
                self._take(next(iter(self._kept)))
