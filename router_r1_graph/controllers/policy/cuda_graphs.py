"""Passes of one token for each row of a batch: recorded once as CUDA graphs, then replayed.

A pass of a small model is thousands of short kernels, and starting them one by one takes a GPU's
host ten times as long as the GPU takes to run them. A graph starts all of them at once. It needs
fixed addresses and shapes: `Slots` holds the keys and values of all rows in one tensor with room
for the tokens to come, and there is a graph for each power of two of rows and each 256 columns.

On a CPU the same passes run without being recorded; nothing but tests uses that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from .batch_cache import Rows
from .forward import Forward
from .prefixes import BatchRow

logger = logging.getLogger(__name__)

_ROWS, _COLUMNS = 8, 256
"""The fewest rows of a graph, and the step from one number of columns to the next."""
_WARM_UP = 2
"""Passes before one is recorded: libraries set themselves up in them."""


class Slots:
    """Room for the keys and values of rows at fixed addresses, and the passes over it.

    Args:
        forward: of the model, whose layers all remember tensors of one shape (`Forward.uniform`).
        like: the keys and values of any row.
    """

    def __init__(self, forward: Forward, like: Rows) -> None:
        self._forward = forward
        first = like[0][0]
        self._layers, (self._heads, _, self._size) = len(like), first.shape
        self._options = {"dtype": first.dtype, "device": first.device}
        self._passes: dict[tuple[int, int], _Pass] = {}
        self._records = True
        self._make(0, 0)

    def _make(self, rows: int, columns: int) -> None:
        shape = (self._layers, 2, rows, self._heads, columns, self._size)
        device = self._options["device"]
        self._passes.clear()
        self._pool: Any = None  # it ends with the last graph that has memory of it
        self.whole = torch.zeros(shape, **self._options)
        """[layers, keys and values, rows, heads, columns, head size]."""
        self.real = torch.zeros((rows, columns), dtype=torch.bool, device=device)
        """The columns of each row that hold a token of it: [rows, columns]."""
        self.ids = torch.zeros((rows, 1), dtype=torch.long, device=device)
        self.positions = torch.zeros((rows, 1), dtype=torch.long, device=device)
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        """The column for the tokens of a pass."""

    def make_room(self, rows: int, columns: int) -> None:
        """Make room for so much at least; the content stays, and its passes are recorded anew."""
        had_rows, had_columns = self.real.shape
        if rows <= had_rows and columns <= had_columns:
            return
        whole, real, positions = self.whole, self.real, self.positions
        rows = max(had_rows, _ROWS, 1 << (rows - 1).bit_length())
        self._make(rows, max(had_columns, -(-columns // _COLUMNS) * _COLUMNS))
        self.whole[:, :, :had_rows, :, :had_columns] = whole
        self.real[:had_rows, :had_columns] = real
        self.positions[:had_rows] = positions

    def one_token(self, ids: Sequence[int], column: int) -> torch.Tensor:
        """Read one token for each of the first rows, and return the logits: [rows, vocabulary].

        The logits are overwritten by the next pass.
        """
        count = len(ids)
        rows = max(_ROWS, 1 << (count - 1).bit_length())
        columns = -(-(column + 1) // _COLUMNS) * _COLUMNS
        self.make_room(rows, columns)
        self.ids[:count, 0] = torch.tensor(ids, device=self.ids.device)
        self.column.fill_(column)
        self.real[:, column] = True
        one = self._passes.get((rows, columns))
        if one is None:
            one = self._passes[rows, columns] = self._record(rows, columns)
        if one.graph:
            one.graph.replay()
            logits = one.logits
        else:
            logits = self._compute(rows, columns)
        self.positions += 1
        return logits[:count, -1]

    def _compute(self, rows: int, columns: int) -> torch.Tensor:
        layers = [_Slot(one, rows, columns, self.column) for one in self.whole]
        real = self.real[:rows, None, None, :columns]
        mask = torch.zeros(real.shape, device=real.device).masked_fill(~real, -torch.inf)
        ids, positions = self.ids[:rows], self.positions[:rows]
        logits, _ = self._forward(ids, positions, Cache(layers=layers), mask, keep=0)
        return logits

    def _record(self, rows: int, columns: int) -> _Pass:
        """Return the pass; without a graph if there is no GPU, or the model does not allow one.

        A model may wait for the GPU in the middle, as some with experts do.
        """
        if self.ids.device.type != "cuda" or not self._records:
            return _Pass(None, self.ids)
        # It writes the same tokens to the same places as the pass that is asked for.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._compute(rows, columns)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                logits = self._compute(rows, columns)
        except RuntimeError as error:
            logger.warning("this model's passes cannot be recorded as CUDA graphs: %s", error)
            self._records = False
            return _Pass(None, self.ids)
        return _Pass(graph, logits)


@dataclass(frozen=True)
class _Pass:
    """A recorded pass, and the tensor of its logits."""

    graph: Any
    logits: torch.Tensor


class _Slot(DynamicLayer):  # type: ignore[misc]
    """One layer's part of the room, into which a pass puts its tokens."""

    def __init__(self, whole: torch.Tensor, rows: int, columns: int, column: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = whole[:, :rows, :, :columns]
        self.dtype, self.device = whole.dtype, whole.device
        self.is_initialized = True
        self._column = column

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the tokens in their column; return all columns, real or not."""
        self.keys.index_copy_(2, self._column, key_states.to(self.dtype))
        self.values.index_copy_(2, self._column, value_states.to(self.dtype))
        return self.keys, self.values


class GraphedBatch:
    """Rows in slots; each pass reads one token of each row: a `Batch` for a GPU.

    Args:
        slots: the room for them; one batch at a time.
        rows: the keys and values of each, without prefixes.
    """

    def __init__(self, slots: Slots, rows: Sequence[BatchRow]) -> None:
        self._slots = slots
        sizes = [row.own_size for row in rows]
        self._column = max(sizes)
        # Room for a turn of some length, so that it rarely has to be made while rows are read.
        slots.make_room(len(rows), self._column + _COLUMNS)
        slots.real[:] = False
        for place, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            if row.own:
                columns = slice(self._column - size, self._column)
                slots.whole[:, :, place, :, columns] = _stacked(row.own)
        device = slots.real.device
        where = torch.arange(self._column, device=device)
        known = torch.tensor(sizes, device=device)[:, None]
        slots.real[: len(rows), : self._column] = where >= self._column - known
        slots.positions[:] = 0
        slots.positions[: len(rows)] = known

    def read(self, fresh: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read one token of each row, and return the logits after it: [rows, 1, vocabulary]."""
        logits = self._slots.one_token([token for [token] in fresh], self._column)
        self._column += 1
        return logits[:, None]

    def accept(self, counts: Sequence[int]) -> None:
        """Keep the tokens read: there are no guesses."""

    def take(self, order: Sequence[int]) -> None:
        """Keep the rows at these places, in this order."""
        slots, device = self._slots, self._slots.real.device
        moved = [(place, old) for place, old in enumerate(order) if place != old]
        if moved:
            new, old = (torch.tensor(places, device=device) for places in zip(*moved, strict=True))
            for part in (slots.real, slots.positions):
                part[new] = part[old]
            for layer in slots.whole:
                layer[:, new] = layer[:, old]

    def row(self, place: int) -> BatchRow:
        """Return a copy of a row."""
        columns = self._slots.real[place, : self._column].nonzero()[:, 0]
        if not len(columns):
            return BatchRow()
        first = int(columns[0])  # no column after it is empty
        whole = self._slots.whole[:, :, place, :, first : self._column].clone()
        return BatchRow(own=_Stacked(whole))


class _Stacked(list[tuple[torch.Tensor, torch.Tensor]]):
    """A row's keys and values as views of one tensor: [layers, 2, heads, tokens, head size]."""

    def __init__(self, whole: torch.Tensor) -> None:
        super().__init__((layer[0], layer[1]) for layer in whole)
        self.whole = whole


def _stacked(own: Rows) -> torch.Tensor:
    if isinstance(own, _Stacked):
        return own.whole
    return torch.stack([torch.stack(pair) for pair in own])
