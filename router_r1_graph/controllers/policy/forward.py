"""A model's forward pass with its cache: the names in each family, and the kinds of memory."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..._compat import attention_of
from .attention import sharing
from .batch_cache import row_of
from .prefixes import Shared, TokenPrefix

_KEYS_AND_VALUES = {DynamicLayer, DynamicSlidingWindowLayer}
_CACHES = ("cache", "past_key_values", "cache_params")
"""The names of the cache in transformers' models; it was renamed in 5.24."""
_CONTINUES = {
    *("falcon_h1", "granitemoehybrid", "lfm2", "nemotron_h", "olmo_hybrid"),
    *("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"),
}
"""Families with other layers that read several tokens after a cache as they do without one; this
was compared (tests/test_policy_models.py). Mamba, Jamba and Zamba 2 do not."""


def arguments(model: Any) -> Collection[str]:
    """Return the names of the arguments that a model's forward takes."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # of PEFT's
    # The class's: a trainer may have put another one in its place.
    return signature(type(base).forward).parameters


class Forward:
    """Reads tokens into a cache, and returns the logits of the next one.

    Args:
        model: a causal LM of transformers, or PEFT's around one.
        token: any token, to try the model with.
    """

    def __init__(self, model: Any, token: int = 0) -> None:
        self._model = model
        self._token = token
        self._takes = arguments(model)
        self._cache = next((name for name in _CACHES if name in self._takes), None)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        device: torch.device = self._model.device
        return device

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        cache: Any,
        mask: Any = None,
        keep: int | torch.Tensor = 1,
        shared: Shared | None = None,
    ) -> tuple[torch.Tensor, Any]:
        """Read on.

        Args:
            ids: the tokens to read: [rows, tokens].
            positions: theirs: [rows, tokens].
            cache: of the tokens before; None = a new one.
            mask: 1 for each real token, of those before too; None = all are real.
            keep: the number of last tokens that get logits (0 = all), or their places.
            shared: the prefixes of the rows, within `sharing`; the cache and the mask begin after
                them.

        Returns:
            The logits, [rows, kept, vocabulary] (of each token, if a model cannot leave the others
            out), and the cache with these tokens; None if the model has none.
        """
        if isinstance(keep, int) and 0 < keep < ids.shape[1]:
            # By place, since a slice is not in one piece: torch multiplies that by a copy of the
            # last matrix for each row, where it is frozen (16 rows in bfloat16: 1,584 ms, not 11).
            keep = torch.arange(ids.shape[1] - keep, ids.shape[1], device=ids.device)
        options = {"attention_mask": mask, "position_ids": positions, "logits_to_keep": keep}
        options = {name: value for name, value in options.items() if name in self._takes}
        if self._cache:
            options |= {self._cache: cache, "use_cache": True}
        if shared:
            options["shared"] = shared
        outputs = self._model(input_ids=ids, **options)
        return outputs.logits, outputs.get(self._cache)

    @cached_property
    def _layers(self) -> list[Any]:
        """What the layers remember of one token, as tensors; [] = it is of another kind."""
        if not self._cache or "attention_mask" not in self._takes:
            return []
        ids = torch.tensor([[self._token]], device=self.device)
        with torch.no_grad():
            _, cache = self(ids, torch.zeros_like(ids), None)
        return cache.layers if type(cache) is DynamicCache else []  # else a family's own kind

    @cached_property
    def _kinds(self) -> list[type]:
        """The kinds of the layers that remember something; [] = they are of another kind."""
        # The last layers may share keys and values of earlier ones, and remember nothing.
        kinds = [type(layer) for layer in self._layers if getattr(layer, "keys", layer) is not None]
        return kinds if kinds == [*map(type, self._layers)][: len(kinds)] else []

    @cached_property
    def pads(self) -> bool:
        """Whether rows of different lengths may share a batch.

        They may where each layer remembers keys and values of its tokens, and no more: padding is
        masked there.
        """
        return bool(self._kinds) and {*self._kinds} <= _KEYS_AND_VALUES

    @property
    def skips(self) -> bool:
        """Whether tokens may be left out in the middle: no layer counts columns to forget some."""
        return {*self._kinds} == {DynamicLayer}

    @cached_property
    def shares(self) -> bool:
        """Whether rows may share prefixes: on a CPU, where each layer attends to all tokens."""
        return self._model.device.type == "cpu" and self._attends_alike

    @cached_property
    def graphs(self) -> bool:
        """Whether passes may be recorded as CUDA graphs: all its layers remember the same kind."""
        return self._model.device.type == "cuda" and self.uniform and self._attends_alike

    @property
    def uniform(self) -> bool:
        """Whether keys and values of all layers have one shape."""
        if len(self._kinds) < len(self._layers) or not self.skips:
            return False
        return len({one.shape for layer in self._layers for one in (layer.keys, layer.values)}) == 1

    @cached_property
    def _attends_alike(self) -> bool:
        """Whether a model gives the same logits with the attention of `sharing`.

        Some attention has more than that (biases, sinks, limits on scores). So the logits after a
        prefix are compared with those without it.
        """
        if attention_of(self._model) != "sdpa" or not self.skips:
            return False
        words = self._model.config.get_text_config().vocab_size
        # Four beginnings, each of four rows.
        ids = torch.randint(words, (16, 8), generator=torch.Generator().manual_seed(0))
        ids = ids.to(self.device)
        ids[:, :4] = ids[::4, :4].repeat_interleave(4, dim=0)
        positions = torch.arange(8, device=ids.device).expand_as(ids)
        with torch.no_grad():
            expected, whole = self(ids, positions, None, torch.ones_like(ids))
            prefixes = [TokenPrefix((0,) * 4, row_of(whole, row, 0, 4)) for row in range(0, 16, 4)]
            shared = Shared.by([p for p in prefixes for _ in range(4)], ids.device)
            after, where = ids[:, 4:], positions[:, 4:]
            try:
                with sharing(self._model):
                    found, _ = self(
                        after, where, DynamicCache(), torch.ones_like(after), shared=shared
                    )
            except (AttributeError, RuntimeError, TypeError, ValueError):  # another attention
                return False
        likely = [logits[:, -1].float().softmax(-1) for logits in (expected, found)]
        moved = (likely[0] - likely[1]).abs().sum(-1) / 2
        # In values, not keys: their rotation may be in float32. A trainer has autocast within the
        # model's forward pass, where it cannot be seen from outside.
        if self._layers[0].values.dtype == torch.float32:
            return bool(moved.max() < 1e-4)
        # What rounding does differs from row to row: some logits move by 4, as from float32 to
        # bfloat16. Another attention moves all rows.
        return bool(moved.median() < 0.1)

    @property
    def continues(self) -> bool:
        """Whether the cache of one turn is good for the next one."""
        return self.pads or self._model.config.get_text_config().model_type in _CONTINUES
