"""The contexts of turns: new parts of them are read a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .batch import Batch
from .forward import Forward
from .kept_caches import KeptCaches
from .packing import Unread, alike
from .prefixes import BatchRow, Prefixes, TokenPrefix
from .sampling import Sample


class Contexts:
    """Reads the contexts of turns, and keeps them between the turns of a question.

    Args:
        forward: of the model.
        pad_id: the padding token.
        max_tokens: how many tokens' keys and values are kept between turns, and an eighth of it in
            prefixes; 0 = none.
    """

    def __init__(self, forward: Forward, pad_id: int, max_tokens: int) -> None:
        self.kept = KeptCaches(max_tokens)
        self.prefixes = Prefixes(max_tokens // 8)
        self.prefilled_tokens = 0
        self.reused_tokens = 0
        self._forward = forward
        self._pad_id = pad_id

    def forget(self) -> None:
        """Drop all kept contexts: the weights have changed."""
        self.kept.clear()
        self.prefixes.clear()

    def read(self, turns: Sequence[Sample]) -> list[BatchRow]:
        """Return each turn's keys and values, except for its last token."""
        # Samples of one question begin with the same prompt: it is computed once.
        keys = [turn.so_far for turn in turns]
        first = {
            key: turn
            for key, turn in sorted(zip(keys, turns, strict=True), key=lambda pair: pair[1].known)
        }
        rows: dict[tuple[int, ...], BatchRow] = {}
        todo: list[Unread] = []
        new: list[tuple[int, ...]] = []
        for ids, turn in first.items():
            kept, size = self.take(turn)
            rows[ids] = kept or BatchRow()
            if kept is None and self._forward.shares:
                new.append(ids)
            elif size < len(ids) - 1:
                todo.append((ids, size))
        for ids, prefix in zip(new, self.prefixes.of(new), strict=True):
            rows[ids] = BatchRow(prefix)
            if prefix:
                self._begin(first[ids], prefix)
            size = len(prefix) if prefix else 0
            if size < len(ids) - 1:
                todo.append((ids, size))
        for part in alike(todo, gpu=self._forward.device.type == "cuda"):
            # The new tokens are in the middle, next to the old ones.
            batch = Batch(self._forward, [rows[ids] for ids, _ in part], self._pad_id)
            batch.read([ids[size:-1] for ids, size in part], keep=1)
            for place, (ids, _) in enumerate(part):
                rows[ids] = batch.row(place)
        for key, turn in zip(keys, turns, strict=True):
            turn.prefilled = turn.prefilled or first[key].prefilled
        return [rows[key] for key in keys]

    def take(self, turn: Sample) -> tuple[Any, int]:
        """Return the kept cache of a turn's context (None if there is none), and its tokens."""
        ids = turn.so_far
        kept, size = self.kept.take(ids[: len(ids) if turn.ids else turn.known])
        if not turn.ids:
            turn.prefilled = len(ids)
            self.prefilled_tokens += len(ids)
            self._reuse(turn, size)
        return kept, size

    def _begin(self, turn: Sample, prefix: TokenPrefix) -> None:
        """Read a prefix at its first use."""
        if prefix.rows:
            self._reuse(turn, len(prefix))
            return
        batch = Batch(self._forward, [BatchRow()], self._pad_id)
        batch.read([prefix.ids], keep=1)
        prefix.rows = batch.row(0).own or []

    def _reuse(self, turn: Sample, size: int) -> None:
        """Count tokens of a turn's context as read before."""
        if not turn.ids:
            turn.prefilled -= size
            self.prefilled_tokens -= size
            self.reused_tokens += size
