"""The log-probabilities of given endings after given contexts, teacher-forced.

Contexts that begin alike are computed once up to where they differ from the first one. All else
shares forward passes, as many rows at a time as fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch

from .batch import Batch
from .batch_cache import Rows
from .forward import Forward
from .prefixes import BatchRow, begun_alike

_MOST_TOKENS = 4096
"""The most tokens of one forward pass, cached ones included, unless a row has more. 134M parameters
(SmolLM2) keep 46 kB of each in float32."""


class EndingScorer:
    """Computes log-probabilities of endings.

    On a CPU, a model in half precision is copied into float32: there it is several times as fast,
    and rounding in bfloat16 is as large as the effects to be measured.

    Args:
        model: a causal LM of transformers.
        pad_id: the padding token.
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        self._device = model.device
        if self._device.type == "cpu" and model.dtype in (torch.bfloat16, torch.float16):
            model = deepcopy(model).float()
        self._forward = Forward(model, pad_id)
        self._pad = pad_id

    def logprobs(
        self, contexts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Return the log-probability of each ending after each context: [contexts, endings].

        Args:
            contexts: ids, at least one a context.
            endings: ids, at least one an ending.
        """
        with torch.no_grad():
            if not self._forward.pads:  # layers that cannot mask padding
                return torch.tensor([[self._alone(c, e) for e in endings] for c in contexts])
            return torch.cat([*self._together(contexts, endings)])

    def _together(
        self, contexts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]
    ) -> Iterator[torch.Tensor]:
        first = contexts[0]
        (base,) = self._rows([None], [first[:-1]]) if len(first) > 1 else (None,)
        for part in _parts(contexts):
            # The last tokens are read with the endings.
            alike = [begun_alike(first[:-1], context[:-1]) for context in part]
            known = [_beginning(base, size) for size in alike]
            rows = known
            if fresh := [context[size:-1] for context, size in zip(part, alike, strict=True)]:
                rows = self._rows(known, fresh) if any(fresh) else known
            pairs = [(place, ending) for place in range(len(part)) for ending in endings]
            found = []
            width = max(map(len, part)) + max(map(len, endings))
            size = max(1, _MOST_TOKENS // width)
            for start in range(0, len(pairs), size):
                some = pairs[start : start + size]
                read = [[part[place][-1], *ending[:-1]] for place, ending in some]
                logits = self._batch([rows[place] for place, _ in some]).read(read)
                found.append(_taken(logits, [ending for _, ending in some]))
            yield torch.cat(found).view(len(part), len(endings))

    def _rows(
        self, known: Sequence[Rows | None], fresh: Sequence[Sequence[int]]
    ) -> list[Rows | None]:
        """Return the keys and values of some rows, read on by fresh tokens."""
        batch = self._batch(known)
        batch.read(fresh, keep=1)
        return [batch.row(place).own for place in range(len(known))]

    def _batch(self, known: Sequence[Rows | None]) -> Batch:
        return Batch(self._forward, [BatchRow(own=own) for own in known], self._pad)

    def _alone(self, context: Sequence[int], ending: Sequence[int]) -> float:
        read = torch.tensor([[*context, *ending[:-1]]], device=self._device)
        positions = torch.arange(read.shape[1], device=self._device)[None]
        logits, _ = self._forward(read, positions, None, keep=len(ending))
        return float(_taken(logits[:, -len(ending) :], [ending]))


def _taken(logits: torch.Tensor, endings: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the log-probability of each row's ending: [rows, width, vocabulary] -> [rows]."""
    logprobs = logits.float().log_softmax(-1)
    return torch.stack(
        [
            logprobs[place, torch.arange(len(ending)), torch.tensor(ending)].sum()
            for place, ending in enumerate(endings)
        ]
    ).cpu()


def _parts(contexts: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    """Divide contexts, in order, into parts that fit one forward pass."""
    size = max(1, _MOST_TOKENS // max(map(len, contexts)))
    for start in range(0, len(contexts), size):
        yield contexts[start : start + size]


def _beginning(rows: Rows | None, size: int) -> Rows | None:
    return [(keys[:, :size], values[:, :size]) for keys, values in rows] if rows and size else None
