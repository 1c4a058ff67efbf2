"""Batched sampling from a causal LM that keeps each question's key-value cache between turns.

Tokens in, tokens out: a `Sample` holds the ids to sample after, and gets the sampled ids with their
log-probabilities. The new context of each turn is computed first, a few rows at a time. Then all
turns share one batch, and each step samples one token for each. Turns that end leave the batch. The
last few may rest: they join the turns that have arrived meanwhile, and continue where they were.

Rows of different lengths are padded on the left, so that their last tokens are in one column;
positions count real tokens only.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from inspect import signature
from random import Random
from typing import Any

import torch
from transformers import Cache

from .batch_cache import RoomyLayer, Rows, row_of
from .streaming import Listener

_CROWDED = 0.75
"""When no more than this share of the rows is still sampled, the others leave the batch."""
_PREFILL_ROWS = 32
"""The most rows whose new tokens are computed together. They are rows with about equally many,
since padding is computed too."""
_ALIKE = 1.25
"""The new tokens of the longest row computed together, at most, as a multiple of the shortest's."""

_Unread = tuple[tuple[int, ...], int]
"""A row to compute: its ids, and how many of them are known."""


@dataclass(eq=False)
class Sample:
    """One turn: what it is sampled after, and what has been sampled.

    `ids` and `logprobs` have the same length; log-probabilities are of the distribution that was
    sampled from (of the model's own where sampling is greedy).
    """

    context: Sequence[int]
    """The ids before it."""
    known: int = 0
    """How many of these ids there were at the end of the question's previous turn, 0 for a first
    turn: the key to its cache."""
    max_new_tokens: int = 1024
    temperature: float = 0.0
    """0 = greedy."""
    listener: Listener | None = None
    """Receives the turn's ids after each sampled one."""
    random: Random | None = None
    """The turn's own random stream, so that its sample does not depend on what shares the batch.
    None = always the middle of the distribution."""
    is_last: Callable[[Sequence[int]], bool] = lambda _: False
    """Takes the ids of the turn, and returns whether the question ends with it: no cache is kept
    then."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False
    """Whether a stop token or stop string ended it, not the length."""
    prefilled: int = 0
    """Tokens of the context that had to be computed; the rest came from the cache."""

    @property
    def ended(self) -> bool:
        """Whether nothing is left to sample."""
        return self.finished or len(self.ids) >= self.max_new_tokens

    @property
    def so_far(self) -> tuple[int, ...]:
        """The context and what has been sampled."""
        return (*self.context, *self.ids)


class Generator:
    """Samples turns from a model.

    Args:
        model: a Hugging Face causal LM with a standard cache.
        pad_id: the padding token.
        stop_ids: tokens that end a turn, and stay in it.
        is_stop: takes the ids of a turn, and returns whether its text ends it; None = only
            `stop_ids` end a turn.
        max_cached_tokens: how many tokens' keys and values are kept between turns; 0 = none.
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
        self.max_cached_tokens = max_cached_tokens
        self._cache_argument = _cache_argument(model)
        self._kept: OrderedDict[tuple[int, ...], Rows] = OrderedDict()
        self._kept_tokens = 0
        self.prefilled_tokens = 0
        self.reused_tokens = 0
        self.seconds = 0.0  # spent in the model

    def forget(self) -> None:
        """Drop every cache: the weights have changed."""
        self._kept.clear()
        self._kept_tokens = 0

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
                self._generate(turns, ended, rest)
        self.seconds += time.perf_counter() - start

    def _generate(
        self,
        turns: Sequence[Sample],
        ended: Callable[[Sample], None],
        rest: Callable[[int], bool],
    ) -> None:
        device = self.model.device
        computed = self._prefill(turns)
        # The turn of each row of the batch; None = it has ended.
        rows: list[Sample | None] = list(turns)
        cache, mask = self._batch(computed)
        del computed
        ids = torch.tensor([[turn.so_far[-1]] for turn in turns], device=device)
        temperatures = torch.tensor([turn.temperature for turn in turns], device=device)
        while True:
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            logits = self._forward(ids, mask, mask.sum(1, keepdim=True) - 1, cache)
            chosen, scores = _sample(logits[:, -1], temperatures, _drawn(rows, device))
            for place, (turn, token, score) in enumerate(
                zip(rows, chosen.tolist(), scores.tolist(), strict=True)
            ):
                if turn is None:
                    continue
                turn.ids.append(token)
                turn.logprobs.append(score)
                turn.finished = token in self.stop_ids or bool(
                    self.is_stop and self.is_stop(turn.ids)
                )
                if turn.listener:
                    turn.listener(turn.ids)
                if turn.ended:
                    rows[place] = None
                    self._keep(turn, cache, place)
                    ended(turn)
            ids = chosen[:, None]
            going = [place for place, turn in enumerate(rows) if turn is not None]
            if not going:
                return
            if rest(len(going)):
                for place, turn in enumerate(rows):
                    if turn is not None:
                        self._keep(turn, cache, place)
                return
            # Rows that ended leave the batch a quarter of it at a time, because each time other
            # rows are copied into their places.
            if len(going) <= _CROWDED * len(rows):
                order = _close_up(going)
                rows = [rows[place] for place in order]
                keep = torch.tensor(order, device=device)
                ids, mask, temperatures = ids[keep], mask[keep], temperatures[keep]
                padding = mask.shape[1] - int(mask.sum(1).max())
                mask = mask[:, padding:]
                for layer in cache.layers:
                    layer.take(order, padding)

    def _prefill(self, turns: Sequence[Sample]) -> list[Rows | None]:
        """Return each turn's keys and values, except for its last token."""
        # Samples of one question begin with the same prompt: it is computed once.
        keys = [turn.so_far for turn in turns]
        first = {
            key: turn
            for key, turn in sorted(zip(keys, turns, strict=True), key=lambda pair: pair[1].known)
        }
        rows: dict[tuple[int, ...], Rows | None] = {}
        todo: list[_Unread] = []
        for ids, turn in first.items():
            rows[ids] = kept = self._take(ids[: len(ids) if turn.ids else turn.known])
            size = kept[0][0].shape[1] if kept else 0
            if size < len(ids) - 1:
                todo.append((ids, size))
            if not turn.ids:
                turn.prefilled = len(ids) - size
                self.prefilled_tokens += turn.prefilled
                self.reused_tokens += size
        for part in _alike(todo):
            for (ids, _), done in zip(part, self._compute(part, rows), strict=True):
                rows[ids] = done
        for key, turn in zip(keys, turns, strict=True):
            turn.prefilled = turn.prefilled or first[key].prefilled
        return [rows[key] for key in keys]

    def _compute(
        self, part: Sequence[_Unread], rows: dict[tuple[int, ...], Rows | None]
    ) -> list[Rows]:
        """Complete the known keys and values of some rows, up to their last token, and return them.

        Here padding is on both sides: the new tokens are in the middle, next to the old ones.
        """
        device = self.model.device
        cache, old = self._batch([rows[ids] for ids, _ in part])
        past = old.shape[1]
        fresh = [ids[size:-1] for ids, size in part]
        width = max(map(len, fresh))
        ids = torch.tensor(
            [[*new, *[self.pad_id] * (width - len(new))] for new in fresh], device=device
        )
        real = [[1] * len(new) + [0] * (width - len(new)) for new in fresh]
        mask = torch.cat([old, torch.tensor(real, device=device)], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, past:]
        self._forward(ids, mask, positions, cache)
        return [
            row_of(cache, place, past - size, past + len(new))
            for place, ((_, size), new) in enumerate(zip(part, fresh, strict=True))
        ]

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache
    ) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_argument: cache},
        ).logits
        return logits

    def _batch(self, rows: Sequence[Rows | None]) -> tuple[Cache, torch.Tensor]:
        """Return rows as a batch's cache, padded on the left, and its mask."""
        sizes = [one[0][0].shape[1] if one else 0 for one in rows]
        width = max(sizes)
        mask = torch.tensor(
            [[0] * (width - size) + [1] * size for size in sizes], device=self.model.device
        )
        if not width:
            return Cache(layer_class_to_replicate=RoomyLayer), mask.long()
        layers = range(self.model.config.num_hidden_layers)
        return Cache(layers=[RoomyLayer.holding(rows, layer, width) for layer in layers]), mask

    def _take(self, key: tuple[int, ...]) -> Rows | None:
        rows = self._kept.pop(key, None)
        if rows is not None:
            self._kept_tokens -= rows[0][0].shape[1]
        return rows

    def _keep(self, turn: Sample, cache: Cache, place: int) -> None:
        """Keep a row's keys and values; the last sampled token has none yet."""
        key = turn.so_far
        size = len(key) - 1
        if not 0 < size <= self.max_cached_tokens or (turn.ended and turn.is_last(turn.ids)):
            return
        width = cache.get_seq_length()
        self._take(key)  # the same turn of another sample: one is enough
        self._kept[key] = row_of(cache, place, width - size, width)
        self._kept_tokens += size
        while self._kept_tokens > self.max_cached_tokens:
            self._take(next(iter(self._kept)))


def _alike(todo: Sequence[_Unread]) -> Iterator[list[_Unread]]:
    """Divide rows to compute into groups with about equally many new tokens."""
    part: list[_Unread] = []
    least = 0
    for row in sorted(todo, key=lambda row: (len(row[0]) - row[1], row[1])):
        new = len(row[0]) - row[1]
        if part and (len(part) == _PREFILL_ROWS or new > _ALIKE * least):
            yield part
            part = []
        least = least if part else new
        part.append(row)
    if part:
        yield part


def _cache_argument(model: Any) -> str:
    """Return what a model's forward calls its cache: transformers renamed it in 5.24."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # of PEFT's
    return "cache" if "cache" in signature(base.forward).parameters else "past_key_values"


def _close_up(going: Sequence[int]) -> list[int]:
    """Return the new order of the rows, with the fewest moves: the last ones fill the gaps.

    >>> _close_up([0, 2, 3, 5])
    [0, 5, 2, 3]
    """
    stay = set(going)
    moved = iter(sorted((place for place in going if place >= len(going)), reverse=True))
    return [place if place in stay else next(moved) for place in range(len(going))]


def _drawn(rows: Sequence[Sample | None], device: torch.device) -> torch.Tensor:
    """Return a number from 0 to 1 for each row: [rows, 1]."""
    numbers = [row.random.random() if row and row.random else 0.5 for row in rows]
    return torch.tensor(numbers, device=device)[:, None]


def _sample(
    logits: torch.Tensor, temperatures: torch.Tensor, drawn: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a token of each row and its log-probability: [rows, vocabulary] -> [rows], [rows].

    Args:
        logits: the logits of the next token.
        temperatures: [rows]; 0 = greedy.
        drawn: [rows, 1], from 0 up to 1.
    """
    greedy = temperatures == 0
    likely = torch.softmax(logits.float() / temperatures.where(~greedy, 1.0)[:, None], dim=-1)
    chosen = likely.argmax(-1)
    if not greedy.all():
        # One number is drawn per row: `multinomial` draws one for each token of the vocabulary,
        # which for a small model takes as long as its layers. The number is above 0 and at most the
        # whole sum, so that it falls on a token with a probability above 0.
        reached = likely.cumsum(-1)
        sampled = torch.searchsorted(reached, (1 - drawn) * reached[:, -1:])[:, 0]
        chosen = chosen.where(greedy, sampled)
    return chosen, likely.gather(1, chosen[:, None])[:, 0].log()
