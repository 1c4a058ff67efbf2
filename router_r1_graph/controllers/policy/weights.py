"""The weights of a policy, loaded by the right class of transformers."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)

from ...errors import ControllerError
from .folder import PolicyFolder, token_ids
from .packaged import quiet_loading


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


def for_cpu(model: Any) -> Any:
    """Return a model in the form in which a CPU computes fastest; an adapter is merged, in float32.

    Weights of half precision become float32, unless the CPU multiplies matrices in bfloat16: then
    they are read in half the time, and a turn's loss is the same to four digits.
    """
    halves = model.dtype in (torch.bfloat16, torch.float16)
    model = model.float()
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # of newer torch
    if halves and (known.get("avx512_bf16") or known.get("amx_bf16")):
        model = model.to(torch.bfloat16)
    return model


def load_weights(policy: PolicyFolder, *, dtype: Any, is_trainable: bool = False) -> Any:
    """Load a causal LM, or an adapter with the model that it changes (safetensors, no remote code).

    Args:
        policy: a folder, or a model on the hub.
        dtype: the type of the weights; `auto` = as saved. An adapter's are float32.
        is_trainable: whether an adapter is trained on.

    Raises:
        ControllerError: there is no such model, it is no causal LM, or it cannot be loaded.
    """
    policy.check()
    try:
        if policy.is_adapter:
            return _with_adapter(policy, dtype, is_trainable)
        with quiet_loading():
            owner = class_of(AutoConfig.from_pretrained(policy.source))
            model = owner.from_pretrained(policy.source, dtype=dtype, use_safetensors=True)
        if policy.in_package:  # an adapter names its model by what is the same on every machine
            model.name_or_path = policy.path
        return model
    except ControllerError as error:
        raise ControllerError(f"policy {policy.path!r}: {error}") from None
    except Exception as error:  # broken files and the hub raise many types
        raise policy.unusable("model", error) from error


def _with_adapter(policy: PolicyFolder, dtype: Any, is_trainable: bool) -> Any:
    if find_spec("peft") is None:
        raise ControllerError("an adapter (LoRA) needs PEFT: pip install peft")
    from peft import PeftModel

    model = load_weights(policy.base, dtype=dtype)
    return PeftModel.from_pretrained(model, policy.source, is_trainable=is_trainable)
