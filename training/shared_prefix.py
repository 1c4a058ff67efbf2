"""Logits at the least cost: only of the tokens that count, and with common prefixes computed once.

Questions over one pool have the whole description of the pool in common, and the samples of a
question its prompt: most of the tokens of a step. Gradients go through the shared part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from router_r1_graph.controllers.policy.forward import Forward


@contextmanager
def logits_of(model: Any, where: torch.Tensor) -> Iterator[None]:
    """Within the block, a model returns the logits of marked tokens only: [marked, vocabulary].

    Args:
        model: a causal LM of transformers, or PEFT's around one.
        where: [rows, tokens]; True = marked.
    """

    def marked(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][where], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(marked)
    try:
        yield
    finally:
        hook.remove()


def common_columns(ids: torch.Tensor, most: int) -> int:
    """Return how many of the first columns are the same in all rows, at most `most`."""
    same = (ids[:, :most] == ids[:1, :most]).all(0)
    return int(same.cumprod(0).sum())


def logits_after(
    model: Any,
    prefixes: tuple[torch.Tensor, torch.Tensor],
    which: torch.Tensor,
    ids: torch.Tensor,
    mask: torch.Tensor,
    where: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of rows that go on from shared prefixes.

    Args:
        model: a causal LM whose rows may be padded (`Forward.pads`).
        prefixes: ids and mask of the different prefixes, [prefixes, P]; padding is on the left.
        which: the prefix of each row: [rows].
        ids: the tokens after it: [rows, S].
        mask: 1 for each real token of it.
        where: the tokens of `ids` after which logits are wanted: [rows, S].

    Returns:
        Those after each prefix, [prefixes, vocabulary], and after the wanted tokens, [wanted,
        vocabulary].
    """
    forward = Forward(model)
    before, real = prefixes
    first, cache = forward(before, _positions(real), None, real)
    cache.batch_select_indices(which)
    whole = torch.cat([real[which], mask], dim=1)
    positions = _positions(whole)[:, before.shape[1] :]
    with logits_of(model, where):
        rest, _ = forward(ids, positions, cache, whole, keep=0)
    return first[:, -1], rest


def different_rows(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places of the first of each kind of row, and the kind of each row."""
    kinds: dict[tuple[int, ...], int] = {}
    first: list[int] = []
    which: list[int] = []
    for place, row in enumerate(ids.tolist()):
        kind = kinds.setdefault(tuple(row), len(first))
        if kind == len(first):
            first.append(place)
        which.append(kind)
    return torch.tensor(first, device=ids.device), torch.tensor(which, device=ids.device)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)
