"""The optimizer for models from scratch."""

from __future__ import annotations

from typing import Any

import torch


class Muon(torch.optim.Optimizer):
    """Muon for the matrices of the blocks, AdamW for embeddings, head and norms, as one optimizer.

    Source: Keller Jordan, "Muon: an optimizer for hidden layers" (2024); torch.optim.Muon.
    """

    def __init__(self, model: torch.nn.Module, learning_rate: float) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if p.ndim == 2 and not _is_of_words(name)]
        others = [p for name, p in named if p.ndim != 2 or _is_of_words(name)]
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(
                matrices,
                lr=learning_rate,
                weight_decay=0.01,
                adjust_lr_fn="match_rms_adamw",  # so that one learning rate fits both
            ),
            torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
        )
        super().__init__([*matrices, *others], {"lr": learning_rate})
        self._share_groups()

    def _share_groups(self) -> None:
        # The very groups of the parts, so that a schedule of the learning rate reaches them.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> Any:
        """Make one step of both."""
        loss = closure() if closure else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of both back."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def _is_of_words(name: str) -> bool:
    return "embed" in name or "lm_head" in name
