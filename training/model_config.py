"""The section `model` of a config: the model to train, and the settings of its turns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from router_r1_graph.controllers.policy.folder import STOP

from .sections import Count, Section


class ScratchModel(Section):
    """A small Llama and its tokenizer, made for the embedded world."""

    vocabulary: Annotated[int, Field(ge=300)] = 1536
    """The number of tokens of the tokenizer, which is trained too."""
    hidden_size: Count = 128
    """The width of the model; a multiple of 2 * `heads`."""
    layers: Count = 4
    """The number of layers."""
    heads: Count = 4
    """The number of attention heads of a layer."""
    kv_heads: Annotated[int, Field(ge=0)] = 0
    """With fewer than `heads`, several heads share their keys and values. That speeds up batches of
    many rows, which wait for these to be read from memory. 0 = as many as `heads`."""

    @model_validator(mode="after")
    def _check(self) -> ScratchModel:
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"heads: {self.heads} is no multiple of kv_heads: {self.kv_heads}")
        if self.hidden_size % (2 * self.heads):  # rotary positions turn pairs of numbers
            raise ValueError(
                f"hidden_size: {self.hidden_size} is no multiple of 2 * heads: {2 * self.heads}"
            )
        return self


class ModelConfig(Section):
    """The model to train: a pretrained one, or one from scratch."""

    pretrained: str | None = None
    """A folder or a name on the Hugging Face hub; None = from scratch."""
    scratch: ScratchModel = ScratchModel()
    template: Path | None = None
    """The prompt template; None = a short one for a model from scratch, else the library's."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = STOP
    """Texts that end a turn. With these, a turn may hold several calls, as the prompt says: it ends
    in an end token, or where the model begins to write the replies itself."""
    observations: Literal["plain", "chat"] | None = None
    """Whether observations continue the same assistant turn (`plain`, as in the paper), or are a
    user message of the chat template (`chat`). None = `chat` for a pretrained model, which knows
    that form before the first step, and ends its turns itself; `plain` for one from scratch."""
    thinking: bool = False
    """Whether the model's own thinking is on, if its chat template can switch it;
    `max_new_tokens` has to leave room for it."""
    max_new_tokens: Count = 1024
    """The most tokens of a turn."""
    max_context_tokens: Count = 4096
    """The most tokens of prompt, turns and observations together."""
    bf16: bool = False
    """Compute in bfloat16; the policy of a pretrained model is saved in it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """0 = all weights are trained. Otherwise an adapter (LoRA) is; the folders of the stages hold
    it."""
    merge: bool = True
    """Whether LoRA's changes are merged into the weights of the policy at the end, in float32. Else
    the policy is an adapter, and is loaded together with the pretrained model."""

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.lora_rank and self.pretrained is None:
            raise ValueError("lora_rank: an adapter needs a pretrained model")
        if self.max_new_tokens >= self.max_context_tokens:
            raise ValueError(
                f"max_new_tokens: a turn of {self.max_new_tokens} does not fit in "
                f"max_context_tokens: {self.max_context_tokens} behind a prompt"
            )
        return self
