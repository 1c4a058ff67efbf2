"""Batched sampling from a causal LM that keeps each question's key-value cache between turns.

Tokens in, tokens out: a `Sample` holds the ids to sample after, and gets the sampled ids with their
log-probabilities. The new context of each turn is computed first, a few rows at a time. Then all
turns share one batch, and each pass samples a token for each. Turns that end leave the batch. The
last few may rest: they join the turns that have arrived meanwhile, and continue where they were.

If few turns share a batch, the next tokens of each are guessed from earlier text, and a pass reads
the guess as well: it samples after each of its tokens, up to the first that is not the sampled one.
The samples are the same as without guesses, at any temperature. Guesses work because turns repeat
names, prices and sub-questions of their context, and the phrases of earlier turns.

Padding and prefixes (`Batch`) are right if each layer remembers keys and values. A model with other
layers (linear attention, convolutions, state spaces) samples one turn at a time, without padding,
and remembers what it has read in the cache that transformers makes for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from .attention import sharing
from .batch import Batch
from .contexts import Contexts
from .cuda_graphs import GraphedBatch, Slots
from .forward import Forward
from .guesses import Guesses
from .kept_caches import KeptCaches
from .packing import closed_up
from .prefixes import BatchRow
from .sampling import Sample, sample_tokens

_CROWDED = 0.75
"""When no more than this share of the rows is still sampled, the others leave the batch."""
_MOST_READ = 40
"""The most tokens that a pass reads with guesses: with more, reading them takes longer than what
they save (docs/experiments.md)."""


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
        self._forward = Forward(model, pad_id)
        self._contexts = Contexts(self._forward, pad_id, max_cached_tokens)
        self._slots: Slots | None = None
        self._guesses = Guesses()
        self.seconds = 0.0  # spent in the model

    @property
    def kept(self) -> KeptCaches:
        """The caches that are kept between turns."""
        return self._contexts.kept

    @property
    def prefilled_tokens(self) -> int:
        """How many tokens of contexts were computed."""
        return self._contexts.prefilled_tokens

    @property
    def reused_tokens(self) -> int:
        """How many tokens of contexts had been computed before."""
        return self._contexts.reused_tokens

    def forget(self) -> None:
        """Drop every cache: the weights have changed."""
        self._contexts.forget()
        self._guesses.forget()

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
            rest: called after each pass with the number of unfinished turns; returns whether they
                are to rest.
        """
        start = time.perf_counter()
        if turns:
            with torch.no_grad():
                if self._forward.shares or self._forward.graphs:
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
        # The turn of each row of the batch; None = it has ended.
        rows: list[Sample | None] = list(turns)
        batch = self._batch(self._contexts.read(turns))
        guesses_help = isinstance(batch, Batch) and (self._forward.skips or len(rows) == 1)
        last = [turn.so_far[-1] for turn in turns]
        while True:
            most = _MOST_READ // len(rows) - 1 if guesses_help else 0
            guesses = [self._guess(turn, most) for turn in rows]
            logits = batch.read([(token, *g) for token, g in zip(last, guesses, strict=True)])
            accepted = self._sample(rows, guesses, logits)
            last = [tokens[-1] for tokens in accepted]
            batch.accept([*map(len, accepted)])
            for place, turn in enumerate(rows):
                if turn is not None and turn.ended:
                    rows[place] = None
                    self._keep(turn, partial(batch.row, place))
                    ended(turn)
            going = [place for place, turn in enumerate(rows) if turn is not None]
            if not going:
                return
            if rest(len(going)):
                for place, turn in enumerate(rows):
                    if turn is not None:
                        self._keep(turn, partial(batch.row, place))
                return
            # Rows that ended leave the batch a quarter of it at a time, because each time other
            # rows are copied into their places.
            if len(going) <= _CROWDED * len(rows):
                order = closed_up(going)
                rows = [rows[place] for place in order]
                last = [last[place] for place in order]
                batch.take(order)

    def _batch(self, rows: Sequence[BatchRow]) -> Batch | GraphedBatch:
        own = next((row.own for row in rows if row.own), None)
        if own is None or not self._forward.graphs:
            return Batch(self._forward, rows, self.pad_id)
        self._slots = self._slots or Slots(self._forward, own)
        return GraphedBatch(self._slots, rows)

    def _sample(
        self,
        rows: Sequence[Sample | None],
        guesses: Sequence[Sequence[int]],
        logits: torch.Tensor,
    ) -> list[list[int]]:
        """Sample on, after the last token of each row and its guess; return the samples.

        Args:
            rows: the turns; None = it has ended, and its one token means nothing.
            guesses: the tokens that were read after the last one.
            logits: [rows, 1 + the longest guess, vocabulary].
        """
        width, device = logits.shape[1], logits.device
        drawn = torch.tensor([r.draw(width) if r else [0.5] * width for r in rows], device=device)
        temperatures = torch.tensor([r.temperature if r else 0.0 for r in rows], device=device)
        chosen, scores = sample_tokens(
            logits.flatten(0, 1), temperatures.repeat_interleave(width), drawn.view(-1, 1)
        )
        sampled: list[list[int]] = []
        for turn, guess, tokens, of_tokens in zip(
            rows,
            guesses,
            chosen.view(-1, width).tolist(),
            scores.view(-1, width).tolist(),
            strict=True,
        ):
            sampled.append([])
            for token, score in zip(tokens, of_tokens, strict=True):
                sampled[-1].append(token)
                if turn is not None:
                    self._append(turn, token, score)
                right = len(sampled[-1]) <= len(guess) and token == guess[len(sampled[-1]) - 1]
                if not right or turn is None or turn.ended:
                    break
        return sampled

    def _guess(self, turn: Sample | None, most: int) -> tuple[int, ...]:
        """Return a guess of a turn's next tokens."""
        if turn is None or most < 1:
            return ()
        left = turn.max_new_tokens - len(turn.ids) - 1
        return self._guesses.of(turn.so_far)[: min(most, left)]

    def _sample_alone(self, turn: Sample) -> None:
        """Sample a turn to its end, without a batch, in the cache that the model makes itself."""
        device = self.model.device
        cache, size = self._contexts.take(turn)
        temperatures = torch.tensor([turn.temperature], device=device)
        while not turn.ended:
            ids = torch.tensor([turn.so_far[size:]], device=device)
            positions = torch.arange(size, len(turn.so_far), device=device)[None]
            logits, cache = self._forward(ids, positions, cache)
            size = len(turn.so_far) if cache is not None else 0  # else it reads everything again
            drawn = torch.tensor([turn.draw(1)], device=device)
            token, score = sample_tokens(logits[:, -1], temperatures, drawn)
            self._append(turn, token.item(), score.item())
        if cache is not None and self._forward.continues:
            self._keep(turn, lambda: cache)

    def _append(self, turn: Sample, token: int, score: float) -> None:
        turn.append(token, score)
        turn.finished = token in self.stop_ids or bool(self.is_stop and self.is_stop(turn.ids))
        if turn.listener:
            turn.listener(turn.ids)

    def _keep(self, turn: Sample, cache: Callable[[], Any]) -> None:
        """Keep the cache of a turn that ended or rests; the last sampled token is not in it yet."""
        if turn.finished:
            self._guesses.remember(turn.ids)
        if turn.ended and (turn.left or turn.is_last(turn.ids)):
            return
        self.kept.put(turn.so_far, len(turn.so_far) - 1, cache)
        if turn.left:  # since then
            self.kept.take(turn.so_far)
