"""Batched sampling from a causal LM that keeps each question's key-value cache between turns.

Tokens in, tokens out: a `Sample` holds the ids to sample after, and gets the sampled ids with their
log-probabilities. The new context of each turn is computed first, a few rows at a time. Then all
turns share one batch, and each step samples one token for each. Turns that end leave the batch. The
last few may rest: they join the turns that have arrived meanwhile, and continue where they were.

Rows of different lengths are padded on the left, so that their last tokens are in one column;
positions count real tokens only. That is right where a layer remembers keys and values. What
contexts begin with in common is computed once, held once, and read by all of them together. A model
with other layers (linear attention, convolutions, state spaces) samples one turn at a time, without
padding, and remembers what it has read in the cache that transformers makes for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import Cache

from .attention import sharing
from .batch_cache import RoomyLayer, Rows, row_of
from .forward import Forward
from .kept_caches import KeptCaches
from .packing import Unread, alike, closed_up
from .prefixes import Prefix, Prefixes, Row, Shared
from .sampling import Sample, drawn, repeated, sample_tokens

_CROWDED = 0.75
"""When no more than this share of the rows is still sampled, the others leave the batch."""


class Generator:
    """Samples turns from a model.

    Args:
        model: a Hugging Face causal LM.
        pad_id: the padding token.
        stop_ids: tokens that end a turn, and stay in it.
        is_stop: takes the ids of a turn, and returns whether its text ends it; None = only
            `stop_ids` end a turn.
        max_cached_tokens: how many tokens' keys and values are kept between turns, and an eighth
            of it in prefixes; 0 = none.
    """

    def __init__(
        self,
        model: Any,
        *,
        pad_id: int,
        stop_ids: frozenset[int],
        is_stop: Callable[[Sequence[int]], bool] | None = None,
        max_cached_tokens: int = 200_000,
    ) -> None:
        self.model = model
        self.pad_id = pad_id
        self.stop_ids = stop_ids
        self.is_stop = is_stop
        self.kept = KeptCaches(max_cached_tokens)
        self.prefixes = Prefixes(max_cached_tokens // 8)
        self._forward = Forward(model, pad_id)
        self.prefilled_tokens = 0
        self.reused_tokens = 0
        self.seconds = 0.0  # spent in the model

    def forget(self) -> None:
        """Drop every cache: the weights have changed."""
        self.kept.clear()
        self.prefixes.clear()

    def generate(
        self,
        turns: Sequence[Sample],
        *,
        ended: Callable[[Sample], None] = lambda _: None,
        rest: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """Sample turns until they end or rest.

        A turn that rests has not ended; another call continues it.

        Args:
            turns: turns that have not ended; some may have begun.
            ended: receives each turn as soon as it has ended.
            rest: called after each token with the number of unfinished turns; returns whether they
                are to rest.
        """
        start = time.perf_counter()
        if turns:
            with torch.no_grad():
                if self._forward.shares:
                    with sharing(self.model):
                        self._generate(turns, ended, rest)
                elif self._forward.pads:
                    self._generate(turns, ended, rest)
                else:
                    for turn in turns:
                        self._sample_alone(turn)
                        ended(turn)
        self.seconds += time.perf_counter() - start

    def _generate(
        self,
        turns: Sequence[Sample],
        ended: Callable[[Sample], None],
        rest: Callable[[int], bool],
    ) -> None:
        device = self.model.device
        computed = self._prefill(turns)
        if len(turns) == 1 and not turns[0].temperature:
            self._generate_one(turns[0], computed[0], ended, rest)
            return
        # The turn of each row of the batch; None = it has ended.
        rows: list[Sample | None] = list(turns)
        prefixes = [row.prefix for row in computed]
        cache, mask, shared = self._batch(computed)
        del computed
        ids = torch.tensor([[turn.so_far[-1]] for turn in turns], device=device)
        temperatures = torch.tensor([turn.temperature for turn in turns], device=device)
        while True:
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = mask.sum(1, keepdim=True) - 1 + (shared.sizes if shared else 0)
            logits, _ = self._forward(ids, positions, cache, mask, shared=shared)
            chosen, scores = sample_tokens(logits[:, -1], temperatures, drawn(rows, device))
            for place, (turn, token, score) in enumerate(
                zip(rows, chosen.tolist(), scores.tolist(), strict=True)
            ):
                if turn is None:
                    continue
                self._append(turn, token, score)
                if turn.ended:
                    rows[place] = None
                    self._keep_row(turn, prefixes[place], cache, place)
                    ended(turn)
            ids = chosen[:, None]
            going = [place for place, turn in enumerate(rows) if turn is not None]
            if not going:
                return
            if rest(len(going)):
                for place, turn in enumerate(rows):
                    if turn is not None:
                        self._keep_row(turn, prefixes[place], cache, place)
                return
            # Rows that ended leave the batch a quarter of it at a time, because each time other
            # rows are copied into their places.
            if len(going) <= _CROWDED * len(rows):
                order = closed_up(going)
                rows = [rows[place] for place in order]
                prefixes = [prefixes[place] for place in order]
                shared = Shared.by(prefixes, device)
                keep = torch.tensor(order, device=device)
                ids, mask, temperatures = ids[keep], mask[keep], temperatures[keep]
                padding = mask.shape[1] - int(mask.sum(1).max())
                mask = mask[:, padding:]
                for layer in cache.layers:
                    layer.take(order, padding)

    def _generate_one(
        self,
        turn: Sample,
        row: Row,
        ended: Callable[[Sample], None],
        rest: Callable[[int], bool],
    ) -> None:
        """Write a greedy turn that is alone: what may repeat earlier text is guessed and checked.

        One pass reads the last token and the guess, and says which of it the model would have
        written. Turns repeat names, prices and sub-questions of their context.
        """
        device = self.model.device
        cache, _, shared = self._batch([row])
        before = len(row.prefix) if row.prefix else 0
        while True:
            size = cache.get_seq_length()
            guess = repeated(turn.so_far)[: turn.max_new_tokens - len(turn.ids) - 1]
            ids = torch.tensor([[turn.so_far[-1], *guess]], device=device)
            positions = torch.arange(size, size + ids.shape[1], device=device)[None] + before
            logits, _ = self._forward(ids, positions, cache, keep=0, shared=shared)
            greedy = torch.zeros(ids.shape[1], device=device)
            chosen, scores = sample_tokens(logits[0], greedy, greedy[:, None])
            read = 0
            for token, score in zip(chosen.tolist(), scores.tolist(), strict=True):
                self._append(turn, token, score)
                read += 1
                if turn.ended or read > len(guess) or token != guess[read - 1]:
                    break
            for layer in cache.layers:
                layer.cut(size + read)
            if turn.ended or rest(1):
                break
        self._keep_row(turn, row.prefix, cache, 0)
        if turn.ended:
            ended(turn)

    def _prefill(self, turns: Sequence[Sample]) -> list[Row]:
        """Return each turn's keys and values, except for its last token."""
        # Samples of one question begin with the same prompt: it is computed once.
        keys = [turn.so_far for turn in turns]
        first = {
            key: turn
            for key, turn in sorted(zip(keys, turns, strict=True), key=lambda pair: pair[1].known)
        }
        rows: dict[tuple[int, ...], Row] = {}
        todo: list[Unread] = []
        new: list[Sample] = []
        for ids, turn in first.items():
            row, size = self._take(turn)
            rows[ids] = row or Row()
            if row is None and self._forward.shares:
                new.append(turn)
            elif size < len(ids) - 1:
                todo.append((ids, size))
        for turn, prefix in zip(new, self.prefixes.of([t.so_far for t in new]), strict=True):
            ids = turn.so_far
            rows[ids] = Row(prefix)
            if prefix and prefix.rows:
                self._reuse(turn, len(prefix))
            elif prefix:
                prefix.rows = self._read(prefix.ids)
            size = len(prefix) if prefix else 0
            if size < len(ids) - 1:
                todo.append((ids, size))
        for part in alike(todo):
            for (ids, _), done in zip(part, self._compute(part, rows), strict=True):
                rows[ids] = done
        for key, turn in zip(keys, turns, strict=True):
            turn.prefilled = turn.prefilled or first[key].prefilled
        return [rows[key] for key in keys]

    def _read(self, ids: tuple[int, ...]) -> Rows:
        """Return the keys and values of some tokens."""
        read = torch.tensor([ids], device=self.model.device)
        positions = torch.arange(len(ids), device=self.model.device)[None]
        cache = Cache(layer_class_to_replicate=RoomyLayer)
        self._forward(read, positions, cache)
        return row_of(cache, 0, 0, len(ids))

    def _compute(self, part: Sequence[Unread], rows: dict[tuple[int, ...], Row]) -> list[Row]:
        """Complete the known keys and values of some rows, up to their last token, and return them.

        Here padding is on both sides: the new tokens are in the middle, next to the old ones.
        """
        device = self.model.device
        known = [rows[ids] for ids, _ in part]
        cache, old, shared = self._batch(known)
        past = old.shape[1]
        fresh = [ids[size:-1] for ids, size in part]
        width = max(map(len, fresh))
        ids = torch.tensor(
            [[*new, *[self.pad_id] * (width - len(new))] for new in fresh], device=device
        )
        real = [[1] * len(new) + [0] * (width - len(new)) for new in fresh]
        mask = torch.cat([old, torch.tensor(real, device=device)], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, past:]
        positions = positions + (shared.sizes if shared else 0)
        self._forward(ids, positions, cache, mask, shared=shared)
        return [
            Row(row.prefix, row_of(cache, place, past - row.own_size, past + len(new)))
            for place, (row, new) in enumerate(zip(known, fresh, strict=True))
        ]

    def _batch(self, rows: Sequence[Row]) -> tuple[Cache, torch.Tensor, Shared | None]:
        """Return rows as a batch: its cache after the prefixes, padded on the left; its mask."""
        device = self.model.device
        sizes = [row.own_size for row in rows]
        width = max(sizes)
        mask = torch.tensor([[0] * (width - size) + [1] * size for size in sizes], device=device)
        shared = Shared.by([row.prefix for row in rows], device)
        if not width:
            return Cache(layer_class_to_replicate=RoomyLayer), mask.long(), shared
        return Cache(layers=RoomyLayer.holding([row.own for row in rows], width)), mask, shared

    def _sample_alone(self, turn: Sample) -> None:
        """Sample a turn to its end, without a batch, in the cache that the model makes itself."""
        device = self.model.device
        cache, size = self._take(turn)
        temperatures = torch.tensor([turn.temperature], device=device)
        while not turn.ended:
            ids = torch.tensor([turn.so_far[size:]], device=device)
            positions = torch.arange(size, len(turn.so_far), device=device)[None]
            logits, cache = self._forward(ids, positions, cache)
            size = len(turn.so_far) if cache is not None else 0  # else it reads everything again
            token, score = sample_tokens(logits[:, -1], temperatures, drawn([turn], device))
            self._append(turn, token.item(), score.item())
        if cache is not None and self._forward.continues:
            self._keep(turn, lambda _: cache)

    def _append(self, turn: Sample, token: int, score: float) -> None:
        turn.ids.append(token)
        turn.logprobs.append(score)
        turn.finished = token in self.stop_ids or bool(self.is_stop and self.is_stop(turn.ids))
        if turn.listener:
            turn.listener(turn.ids)

    def _take(self, turn: Sample) -> tuple[Any, int]:
        """Return what is kept of a turn's context (None if nothing), and of how many tokens."""
        ids = turn.so_far
        cache, size = self.kept.take(ids[: len(ids) if turn.ids else turn.known])
        if not turn.ids:
            turn.prefilled = len(ids)
            self.prefilled_tokens += len(ids)
            self._reuse(turn, size)
        return cache, size

    def _reuse(self, turn: Sample, size: int) -> None:
        """Count tokens of a turn's context as read before."""
        if not turn.ids:
            turn.prefilled -= size
            self.prefilled_tokens -= size
            self.reused_tokens += size

    def _keep(self, turn: Sample, cache: Callable[[int], Any]) -> None:
        """Keep the cache of a turn that ended or rests; the last sampled token is not in it yet."""
        if not (turn.ended and turn.is_last(turn.ids)):
            self.kept.put(turn.so_far, len(turn.so_far) - 1, cache)

    def _keep_row(self, turn: Sample, prefix: Prefix | None, cache: Cache, place: int) -> None:
        width = cache.get_seq_length()

        def row(size: int) -> Row:
            own = size - (len(prefix) if prefix else 0)
            return Row(prefix, row_of(cache, place, width - own, width))

        self._keep(turn, row)
