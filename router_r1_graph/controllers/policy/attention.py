"""Attention in which rows share prefixes, for transformers' models.

Rows with a common prefix read its keys and values once, in one product of matrices
(docs/experiments.md has its effect on a CPU). On a GPU rows share none, and each key head
is read once for all query heads that it serves, without a copy for each of them (`cuda_graphs`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from ..._compat import attention_of
from .prefixes import Shared

NAME = "router_r1_shared"
_FEW = 32
"""With more new tokens and no prefix, their attention is not held all at once."""


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    shared: Shared | None = None,
    **_: Any,
) -> tuple[torch.Tensor, Any]:
    """Return the attention of each row's tokens over its prefix and the tokens after it.

    Args:
        module: the layer; `layer_idx` is its place.
        query: [rows, heads, tokens, size].
        key: after the prefixes: [rows, key heads, past and new tokens, size].
        value: like `key`.
        attention_mask: added to the scores after the prefixes: [rows, 1, tokens, past and new].
        scaling: of the scores; None = 1 / sqrt(size).
        shared: the prefixes of the rows; None = they have none.
    """
    if shared is None and query.shape[2] > _FEW:
        whole: tuple[torch.Tensor, Any] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling
        )
        return whole
    rows, heads, tokens, size = query.shape
    kinds = key.shape[1]
    each = heads // kinds * tokens  # queries of one key head
    query = query.reshape(rows, kinds, each, size) * (size**-0.5 if scaling is None else scaling)
    own = query @ key.transpose(-1, -2)
    if attention_mask is not None:
        masked = own.view(rows, kinds, -1, tokens, own.shape[-1])
        masked += attention_mask[:, :, None, :, : own.shape[-1]].to(own.dtype)
    groups = shared.groups if shared else []
    before = [(*layers[module.layer_idx], places) for layers, places in groups]
    longest = max((keys.shape[1] for keys, _, _ in before), default=0)
    scores = own.new_full((rows, kinds, each, longest), -torch.inf)
    for keys, _, places in before:
        asked = query[places].transpose(0, 1).reshape(kinds, -1, size)
        found = (asked @ keys.transpose(-1, -2)).view(kinds, len(places), each, -1)
        scores[places, :, :, : keys.shape[1]] = found.transpose(0, 1)
    weights = torch.cat([scores, own], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
    read = weights[..., longest:] @ value
    for _, values, places in before:
        part = weights[places, :, :, : values.shape[1]].transpose(0, 1)
        found = part.reshape(kinds, -1, values.shape[1]) @ values
        read[places] += found.view(kinds, len(places), each, -1).transpose(0, 1)
    read = read.reshape(rows, heads, tokens, value.shape[-1])
    return read.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, eager_mask)


_locks: WeakKeyDictionary[Any, RLock] = WeakKeyDictionary()
"""One for each model: if two samplers hold the same model, one waits for the other."""


@contextmanager
def sharing(model: Any) -> Iterator[None]:
    """Let a model attend so within the block; its forward pass takes `shared` then."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of PEFT's
    with _locks.setdefault(inner, RLock()):
        before = attention_of(model)
        model.set_attn_implementation(NAME)
        try:
            yield
        finally:
            model.set_attn_implementation(before)
