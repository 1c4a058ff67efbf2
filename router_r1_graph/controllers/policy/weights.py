"""The weights of a policy: which of transformers' classes loads them."""

from __future__ import annotations

from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)

from ...errors import ControllerError
from .folder import token_ids


def class_of(config: Any) -> Any:
    """Return the class of transformers that makes a model of this config.

    A model that reads images as well is used for text only.

    Raises:
        ControllerError: its models write no text.
    """
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not config.is_encoder_decoder:
        return AutoModelForImageTextToText
    raise ControllerError(
        f"models of type {config.model_type!r} are no causal language models of transformers"
    )


def end_ids(model: Any) -> frozenset[int]:
    """Return the tokens that end a turn, by the model's generation config."""
    return token_ids(model.generation_config.eos_token_id)


def load_weights(source: str, *, dtype: Any) -> Any:
    """Load a causal LM (safetensors, no remote code).

    Args:
        source: a folder, or the name of a model on the hub.
        dtype: the type of the weights; `auto` = as saved.

    Raises:
        ControllerError: it is no causal LM.
        Exception: what transformers raises of broken files and of the hub, which is of many types.
    """
    model = class_of(AutoConfig.from_pretrained(source))
    return model.from_pretrained(source, dtype=dtype, use_safetensors=True)
