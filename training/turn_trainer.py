"""TRL's supervised trainer with the loss on the turns of a policy."""

from __future__ import annotations

from typing import Any

import torch
from trl import SFTTrainer

from router_r1_graph.controllers.policy.forward import arguments

from .config import FitConfig
from .export import IGNORED
from .optimizer import Muon


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
        if not weighted and inputs["input_ids"].is_cuda:  # TRL's kernel leaves the others out too
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        turns = inputs["labels"][:, 1:] != IGNORED
        weights = self._weights(inputs, turns) if weighted else turns.float()
        where = weights > 0
        columns = where.any(0).nonzero()[:, 0]
        keep = {"logits_to_keep": columns} if "logits_to_keep" in arguments(self._unwrapped) else {}
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
            **keep,
        )
        logits = outputs.logits if keep else outputs.logits[:, columns]
        target, where, weights, turns = (
            one[:, columns] for one in (inputs["input_ids"][:, 1:], where, weights, turns)
        )
        losses = torch.nn.functional.cross_entropy(
            logits[where].float(), target[where], reduction="none"
        )
        right = (logits.detach().argmax(-1) == target) & turns
        accuracy = right.sum() / turns.sum().clamp(min=1)
        self._metrics["train"]["mean_token_accuracy"].append(accuracy.item())
        count = turns.sum() if num_items_in_batch is None else num_items_in_batch
        loss = (losses * weights[where]).sum() / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # of all; DDP takes the mean
        return (loss, outputs) if return_outputs else loss

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
