"""Rows that begin alike: what they have in common is computed once, with its gradients.

Questions over one pool have the whole description of the pool in common, and the samples of a
question its prompt: most of the tokens of a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from router_r1_graph.controllers.policy.forward import Forward


def common_columns(ids: torch.Tensor, most: int) -> int:
    """Return how many of the first columns are the same in all rows, at most `most`."""
    same = (ids[:, :most] == ids[:1, :most]).all(0)
    return int(same.cumprod(0).sum())


def logits_after(
    forward: Forward,
    prefixes: tuple[torch.Tensor, torch.Tensor],
    which: torch.Tensor,
    ids: torch.Tensor,
    mask: torch.Tensor,
    columns: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the logits of rows that go on from shared prefixes.

    Args:
        forward: the model; its rows may be padded (`Forward.pads`).
        prefixes: ids and mask of the different prefixes, [prefixes, P]; padding is on the left.
        which: the prefix of each row: [rows].
        ids: what comes after it: [rows, S].
        mask: 1 for each real token of it.
        columns: the columns of `ids` whose logits are wanted; None = all.

    Returns:
        [rows, 1 + columns, vocabulary]; the first is that of the prefix's last token.
    """
    before, real = prefixes
    first, cache = forward(before, _positions(real), None, real)
    cache.batch_select_indices(which)
    whole = torch.cat([real[which], mask], dim=1)
    positions = _positions(whole)[:, before.shape[1] :]
    rest, _ = forward(ids, positions, cache, whole, keep=0 if columns is None else columns)
    if columns is not None and rest.shape[1] != len(columns):  # a model that cannot leave any out
        rest = rest[:, columns]
    return torch.cat([first[which, -1:], rest], dim=1)


def different_rows(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places of the first of each kind of row, and the kind of each row."""
    kinds: dict[tuple[int, ...], int] = {}
    first: list[int] = []
    which: list[int] = []
    rows: Sequence[list[int]] = ids.tolist()
    for place, row in enumerate(rows):
        kind = kinds.setdefault(tuple(row), len(first))
        if kind == len(first):
            first.append(place)
        which.append(kind)
    return torch.tensor(first, device=ids.device), torch.tensor(which, device=ids.device)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)
