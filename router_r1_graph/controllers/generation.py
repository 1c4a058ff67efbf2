"""Batched sampling from a causal LM that keeps each question's key-value cache between turns.

Tokens in, tokens out: a request is a list of ids, the result the ids sampled after it with their
log-probabilities. Rows of different lengths share one batch: caches and new ids are padded on the
left, and positions count real tokens only.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from .streaming import Listener

_CROWDED = 0.75
"""The share of rows still sampled at which the others leave a batch."""

Rows = list[tuple[torch.Tensor, torch.Tensor]]
"""One row's keys and values for each layer: [heads, tokens, head size]."""


@dataclass(frozen=True)
class Sampled:
    """What was sampled after one request.

    `ids` and `logprobs` have the same length; log-probabilities are of the distribution that was
    sampled from (of the model's own where sampling is greedy).
    """

    ids: list[int]
    logprobs: list[float]
    finished: bool
    """Whether a stop token or stop string ended it, not the length."""
    prefilled: int
    """Prompt tokens that had to be computed; the rest came from the cache."""


class Generator:
    """Samples turns from a model.

    Args:
        model: a Hugging Face causal LM with a standard cache.
        pad_id: the padding token.
        stop_ids: tokens that end a turn, and stay in it.
        is_stop: told the last ids of a turn, whether its text ends it; None = only `stop_ids` do.
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
        self._cache: OrderedDict[tuple[int, ...], Rows] = OrderedDict()
        self._cached_tokens = 0
        self.prefilled_tokens = 0
        self.reused_tokens = 0
        self.seconds = 0.0  # spent in the model

    def forget(self) -> None:
        """Drop every cache: the weights have changed."""
        self._cache.clear()
        self._cached_tokens = 0

    def generate(
        self,
        requests: Sequence[tuple[Sequence[int], int]],
        *,
        max_new_tokens: int,
        temperature: float,
        random: torch.Generator | None = None,
        listeners: Sequence[Listener | None] = (),
    ) -> list[Sampled]:
        """Sample one turn after each request.

        Args:
            requests: the ids so far, and how many of them the previous turn of the same question
                ended with (0 for a first turn): the key to its cache.
            max_new_tokens: most ids of one turn.
            temperature: 0 = greedy.
            random: the source of randomness.
            listeners: who hears of each request's ids one by one; none, or one for each request.
        """
        start = time.perf_counter()
        with torch.no_grad():
            sampled = self._generate(
                requests, max_new_tokens, temperature, random, dict(enumerate(listeners))
            )
        self.seconds += time.perf_counter() - start
        return sampled

    def _generate(
        self,
        requests: Sequence[tuple[Sequence[int], int]],
        max_new_tokens: int,
        temperature: float,
        random: torch.Generator | None,
        listeners: Mapping[int, Listener | None],
    ) -> list[Sampled]:
        device = self.model.device
        # Samples of one question begin with the same prompt: it is computed once.
        distinct = list(dict.fromkeys((tuple(ids), known) for ids, known in requests))
        place_of = {request: place for place, request in enumerate(distinct)}
        copies = [place_of[tuple(ids), known] for ids, known in requests]
        kept = [self._take(ids[:known]) if known else None for ids, known in distinct]
        lengths = [rows[0][0].shape[1] if rows else 0 for rows in kept]
        fresh = [list(ids[n:]) for (ids, _), n in zip(distinct, lengths, strict=True)]
        past, width = max(lengths), max(map(len, fresh))
        self.prefilled_tokens += sum(map(len, fresh))
        self.reused_tokens += sum(lengths)
        cache = Cache(layer_class_to_replicate=_RoomyLayer)
        if past:
            for layer in range(self.model.config.num_hidden_layers):
                cache.update(*_stack(kept, layer, past, self.model), layer)
        mask = torch.tensor(
            [
                [0] * (past - n) + [1] * n + [0] * (width - len(new)) + [1] * len(new)
                for n, new in zip(lengths, fresh, strict=True)
            ],
            device=device,
        )
        ids = torch.tensor(
            [[self.pad_id] * (width - len(new)) + new for new in fresh], device=device
        )
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, past:]
        # Which request each row of the batch belongs to; None = to one that has ended.
        rows: list[int | None] = list(range(len(requests)))
        out: list[list[int]] = [[] for _ in requests]
        logprobs: list[list[float]] = [[] for _ in requests]
        finished = [False] * len(requests)
        for step in range(max_new_tokens):
            logits = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_argument: cache},
            ).logits[:, -1]
            if step == 0 and len(distinct) < len(requests):
                order = torch.tensor(copies, device=device)
                cache.batch_select_indices(order)
                logits, mask, positions = logits[order], mask[order], positions[order]
            chosen, scores = _sample(logits, temperature, random)
            last = step == max_new_tokens - 1
            for place, (row, token, score) in enumerate(
                zip(rows, chosen.tolist(), scores.tolist(), strict=True)
            ):
                if row is None:
                    continue
                out[row].append(token)
                logprobs[row].append(score)
                finished[row] = token in self.stop_ids or bool(
                    self.is_stop and self.is_stop(out[row])
                )
                if listener := listeners.get(row):
                    listener(out[row])
                if finished[row] or last:
                    self._keep(requests[row][0], out[row], cache, place, mask[place])
                    rows[place] = None
            going = [place for place, row in enumerate(rows) if row is not None]
            if not going:
                break
            # Rows that ended leave the batch, a quarter of it at once: each time, the whole cache
            # is copied.
            if len(going) <= _CROWDED * len(rows):
                keep = torch.tensor(going, device=device)
                cache.batch_select_indices(keep)
                mask, chosen, positions = mask[keep], chosen[keep], positions[keep]
                rows = [rows[place] for place in going]
            ids = chosen[:, None]
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        return [
            Sampled(o, p, f, len(fresh[place]))
            for o, p, f, place in zip(out, logprobs, finished, copies, strict=True)
        ]

    def _take(self, key: tuple[int, ...]) -> Rows | None:
        rows = self._cache.pop(key, None)
        if rows is not None:
            self._cached_tokens -= rows[0][0].shape[1]
        return rows

    def _keep(
        self, ids: Sequence[int], sampled: list[int], cache: Cache, place: int, mask: Any
    ) -> None:
        """Keep a row's keys and values; the last sampled token has none yet."""
        size = int(mask.sum())
        if not 0 < size <= self.max_cached_tokens:
            return
        real = mask.bool()
        rows = [
            (layer.keys[place][:, real].clone(), layer.values[place][:, real].clone())
            for layer in cache.layers
        ]
        self._take((*ids, *sampled))  # the same turn of another sample: one is enough
        self._cache[(*ids, *sampled)] = rows
        self._cached_tokens += size
        while self._cached_tokens > self.max_cached_tokens:
            self._cached_tokens -= self._cache.popitem(last=False)[1][0][0].shape[1]


def _cache_argument(model: Any) -> str:
    """Return what a model's forward calls its cache: transformers renamed it in 5.24."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # of PEFT's
    return "cache" if "cache" in signature(base.forward).parameters else "past_key_values"


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer with room for the tokens to come.

    The one it stands in for copies the whole cache for each new token, which for a batch of
    hundreds takes longer than the model.
    """

    _ROOM = 64
    _room: tuple[torch.Tensor, torch.Tensor] | None = None
    keys: torch.Tensor
    values: torch.Tensor

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values; return all of them."""
        old = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = old + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < new:
            batch, heads, _, size = key_states.shape
            keys = key_states.new_empty(batch, heads, new + self._ROOM, size)
            values = torch.empty_like(keys)
            if old:
                keys[:, :, :old], values[:, :, :old] = self.keys, self.values
            self._room = (keys, values)
        self._room[0][:, :, old:new] = key_states
        self._room[1][:, :, old:new] = value_states
        self.keys, self.values = self._room[0][:, :, :new], self._room[1][:, :, :new]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows of the batch."""
        super().batch_select_indices(indices)
        self._room = None


def _stack(
    kept: list[Rows | None], layer: int, past: int, model: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one layer's keys and values of the batch, padded on the left to `past` tokens."""
    like = next(rows for rows in kept if rows)[layer]
    stacked = []
    for which in (0, 1):
        heads, _, size = like[which].shape
        block = like[which].new_zeros(len(kept), heads, past, size)
        for place, rows in enumerate(kept):
            if rows:
                one = rows[layer][which]
                block[place, :, past - one.shape[1] :] = one
        stacked.append(block)
    return stacked[0], stacked[1]


def _sample(
    logits: torch.Tensor, temperature: float, random: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
    if temperature == 0:
        chosen = scores.argmax(-1)
    else:
        chosen = torch.multinomial(scores.exp(), 1, generator=random)[:, 0]
    return chosen, scores.gather(1, chosen[:, None])[:, 0]
