"""Keys and values of a batch, and of one row of it between turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

Rows = list[tuple[torch.Tensor, torch.Tensor]]
"""One row's keys and values for each layer: [heads, tokens, head size]."""


def row_of(cache: Cache, place: int, start: int, end: int) -> Rows:
    """Return a copy of the tokens of one row of a batch, from `start` to `end`."""
    return [
        (layer.keys[place][:, start:end].clone(), layer.values[place][:, start:end].clone())
        for layer in cache.layers
    ]


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer with room for the tokens to come.

    The layer that it replaces copies the whole cache for each new token and whenever a row leaves.
    For a batch of hundreds, that takes longer than the model.
    """

    _ROOM = 64
    _room: tuple[torch.Tensor, torch.Tensor] | None = None
    _start = 0  # columns before are padding for every row
    keys: torch.Tensor
    values: torch.Tensor

    @classmethod
    def holding(cls, rows: Sequence[Rows | None], width: int) -> list[RoomyLayer]:
        """Return layers with the rows' keys and values, padded on the left to `width` tokens."""
        like = next(one for one in rows if one)
        return [cls._holding(rows, layer, width) for layer in range(len(like))]

    @classmethod
    def _holding(cls, rows: Sequence[Rows | None], layer: int, width: int) -> RoomyLayer:
        like = next(one for one in rows if one)[layer]
        new = cls()
        new.lazy_initialization(*like)
        room = []
        for which in (0, 1):
            heads, _, size = like[which].shape
            block = like[which].new_empty(len(rows), heads, width + cls._ROOM, size)
            for place, one in enumerate(rows):
                real = one[layer][which].shape[1] if one else 0
                block[place, :, : width - real] = 0
                if one:
                    block[place, :, width - real : width] = one[layer][which]
            room.append(block)
        new._show(room[0], room[1], width)
        return new

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values; return all of them."""
        old = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = old + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < self._start + new:
            # Keys and values may differ in size (multi-head latent attention).
            keys, values = (
                one.new_empty(*one.shape[:2], new + self._ROOM, one.shape[-1])
                for one in (key_states, value_states)
            )
            if old:
                keys[:, :, :old], values[:, :, :old] = self.keys, self.values
            self._start = 0
        else:
            keys, values = self._room
        keys[:, :, self._start + old : self._start + new] = key_states
        values[:, :, self._start + old : self._start + new] = value_states
        self._show(keys, values, new)
        return self.keys, self.values

    def take(self, order: Sequence[int], padding: int) -> None:
        """Keep the rows at these places, in this order, and drop this many columns of padding."""
        assert self._room is not None
        keys, values = self._room
        for place, old in enumerate(order):
            if place != old:
                keys[place], values[place] = keys[old], values[old]
        width = self.get_seq_length() - padding
        self._start += padding
        self._show(keys[: len(order)], values[: len(order)], width)

    def cut(self, width: int) -> None:
        """Drop the tokens after the first ones."""
        assert self._room is not None
        self._show(*self._room, width)

    def _show(self, keys: torch.Tensor, values: torch.Tensor, width: int) -> None:
        self._room = (keys, values)
        columns = slice(self._start, self._start + width)
        self.keys, self.values = keys[:, :, columns], values[:, :, columns]
