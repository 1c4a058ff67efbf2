"""TRL's supervised trainer with the loss on the turns of a policy."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from trl import SFTTrainer

from router_r1_graph.controllers.policy.forward import Forward

from .config import FitConfig
from .export import IGNORED
from .optimizer import Muon
from .shared_prefix import common_columns, logits_after, logits_of


class TurnTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's supervised trainer; the loss on the environment's tokens can count a little, too."""

    #: The share of the environment's tokens that a step samples; their loss is scaled up for the
    #: rest.
    _SAMPLED = 0.25

    def __init__(self, *args: Any, config: FitConfig, **kwargs: Any) -> None:
        self.fit_config = config
        super().__init__(*args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Return the optimizer of the config."""
        if self.fit_config.optimizer == "muon" and self.optimizer is None:
            self.optimizer = Muon(self.model, self.args.learning_rate)
        return super().create_optimizer(*args, **kwargs)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean loss of the turns' tokens, with weights for thoughts and other tokens.

        Logits are computed for the tokens that count: all of them would be most of the memory.
        """
        config = self.fit_config
        weighted = config.environment_weight or config.reasoning_weight != 1
        turns = inputs["labels"][:, 1:] != IGNORED
        weights = self._weights(inputs, turns) if weighted else turns.float()
        where = weights > 0
        shared = self._shared_columns(inputs["input_ids"], where)
        if not weighted and not shared and where.is_cuda:
            # TRL's kernel leaves the others out too.
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        logits = self._logits(model, inputs, where, shared).float()
        target = inputs["input_ids"][:, 1:][where]
        losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        right = (logits.detach().argmax(-1) == target) & turns[where]
        accuracy = right.sum() / turns.sum().clamp(min=1)
        self._metrics["train"]["mean_token_accuracy"].append(accuracy.item())
        count = turns.sum() if num_items_in_batch is None else num_items_in_batch
        loss = (losses * weights[where]).sum() / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # of all; DDP takes the mean
        return (loss, {"logits": logits}) if return_outputs else loss

    def _shared_columns(self, ids: torch.Tensor, where: torch.Tensor) -> int:
        """Return the number of tokens with which all rows begin, before any that `where` marks.

        0 = fewer than an eighth, or they cannot be computed once for all.
        """
        if not self._shares:
            return 0
        shared = common_columns(ids, int(where.any(0).nonzero()[0]))
        return shared if 8 * shared >= ids.shape[1] else 0

    def _logits(
        self, model: Any, inputs: dict[str, Any], where: torch.Tensor, shared: int
    ) -> torch.Tensor:
        """Return a model's logits for the next tokens that `where` marks: [marked, vocabulary].

        The first `shared` columns are computed once for all rows.
        """
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        where = torch.nn.functional.pad(where, (0, 1))  # nothing comes after the last token
        if shared:
            which = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
            prefix = ids[:1, :shared], mask[:1, :shared]
            rest = ids[:, shared:], mask[:, shared:], where[:, shared:]
            return logits_after(self._unwrapped, prefix, which, *rest)[1]
        with logits_of(self._unwrapped, where):
            found: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return found

    @cached_property
    def _shares(self) -> bool:
        """Whether rows can share a prefix: gradients have to go through its cache."""
        if self.accelerator.num_processes > 1 or self.args.gradient_checkpointing:
            return False
        return Forward(self._unwrapped).pads

    @property
    def _unwrapped(self) -> Any:
        return self.accelerator.unwrap_model(self.model)

    def _weights(self, inputs: dict[str, Any], turns: torch.Tensor) -> torch.Tensor:
        """Return the weight of each token's loss but the first's: [rows, tokens - 1]."""
        config, seen, target = (
            self.fit_config,
            inputs["attention_mask"][:, 1:],
            inputs["input_ids"][:, 1:],
        )
        others = (seen == 1) & ~turns
        sampled = others & (torch.rand(others.shape, device=others.device) < self._SAMPLED)
        weights = turns + sampled * config.environment_weight / self._SAMPLED
        # The last turn: no token of the environment comes after it.
        last = turns & (others.flip(1).cumsum(1).flip(1) == 0)
        end_of_thought = self.processing_class.encode("</think>", add_special_tokens=False)[0]
        reasoning = last & (((target == end_of_thought) & last).cumsum(1) == 0)
        return weights + (config.reasoning_weight - 1) * reasoning
