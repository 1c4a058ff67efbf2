"""Rows that are read together: their cache, its real tokens, and their prefixes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Cache

from .batch_cache import RoomyLayer
from .forward import Forward
from .prefixes import BatchRow, Shared


class Batch:
    """Rows of different lengths, padded on the left so that their last tokens are in one column.

    Positions count real tokens only. The tokens that a row has in common with others are not in
    the batch's cache but in its prefix.

    Args:
        forward: of the model.
        rows: the keys and values of each.
        pad_id: the padding token.
    """

    def __init__(self, forward: Forward, rows: Sequence[BatchRow], pad_id: int) -> None:
        self._forward = forward
        self._pad_id = pad_id
        self._device = forward.device
        self._prefixes = [row.prefix for row in rows]
        self._shared = Shared.by(self._prefixes, self._device)
        sizes = [row.own_size for row in rows]
        width = max(sizes)
        mask = [[0] * (width - size) + [1] * size for size in sizes]
        self._mask = torch.tensor(mask, device=self._device, dtype=torch.long)
        self._read = 0  # columns of the last pass
        self._cache = (
            Cache(layers=RoomyLayer.holding([row.own for row in rows], width))
            if width
            else Cache(layer_class_to_replicate=RoomyLayer)
        )

    def read(self, fresh: Sequence[Sequence[int]], keep: int = 0) -> torch.Tensor:
        """Read on, and return the logits after the new tokens: [rows, kept, vocabulary].

        Args:
            fresh: each row's next tokens; padding comes after them if another row has more.
            keep: for how many last columns logits are wanted; 0 = for all of them.
        """
        self._read = max(map(len, fresh))
        added = [[*new, *[self._pad_id] * (self._read - len(new))] for new in fresh]
        real = [[1] * len(new) + [0] * (self._read - len(new)) for new in fresh]
        self._mask = torch.cat([self._mask, torch.tensor(real, device=self._device)], dim=1)
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -self._read :]
        if self._shared:
            positions = positions + self._shared.sizes
        ids = torch.tensor(added, device=self._device)
        logits, _ = self._forward(ids, positions, self._cache, self._mask, keep, self._shared)
        return logits

    def accept(self, counts: Sequence[int]) -> None:
        """Keep so many of each row's last new tokens, the first ones; the others were guesses."""
        if self._read == 1:
            return
        places = torch.arange(self._read, device=self._device)
        self._mask[:, -self._read :] *= places < torch.tensor(counts, device=self._device)[:, None]
        if unused := self._read - max(counts):
            self._mask = self._mask[:, :-unused]
            for layer in self._cache.layers:
                layer.cut(self._mask.shape[1])

    def take(self, order: Sequence[int]) -> None:
        """Keep the rows at these places, in this order."""
        self._mask = self._mask[torch.tensor(order, device=self._device)]
        self._prefixes = [self._prefixes[place] for place in order]
        self._shared = Shared.by(self._prefixes, self._device)
        padding = int(self._mask.any(0).nonzero()[0])
        self._mask = self._mask[:, padding:]
        for layer in self._cache.layers:
            layer.take(order, padding)

    def row(self, place: int) -> BatchRow:
        """Return a copy of a row."""
        columns = self._mask[place].nonzero()[:, 0]
        if not len(columns):
            return BatchRow(self._prefixes[place])
        layers = self._cache.layers
        own = [(one.keys[place][:, columns], one.values[place][:, columns]) for one in layers]
        return BatchRow(self._prefixes[place], own)
