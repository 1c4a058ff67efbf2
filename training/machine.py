"""A trainer's settings for the machine that it computes on."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from router_r1_graph._compat import attention_of

_SMALL = 10_000_000
"""Below this many weights, PyTorch's fused attention takes twice the time of a plain one in a
backward pass on a CPU. A model of 135M weights gains by it, but not in bfloat16, in which only
matrix products are fast (docs/experiments.md)."""


def device_options(bf16: bool) -> dict[str, Any]:
    """Return the options of TRL's configs for this machine."""
    gpu = torch.cuda.is_available()
    return {
        "use_cpu": not gpu,
        "bf16": bf16,
        "dataloader_pin_memory": gpu,
        "logging_nan_inf_filter": False,
    }


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensors, instead of returning it to the kernel.

    A step on a CPU frees and takes hundreds of megabytes, whose pages the kernel would clear again
    each time: a quarter of a step's time (docs/experiments.md). Does nothing without glibc.
    """
    if sys.platform != "linux" or (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is None:
        return
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**30)


@contextmanager
def attention_for_training(model: Any, bf16: bool) -> Iterator[None]:
    """Within the block, compute with the attention that is fastest in a backward pass on a CPU.

    Args:
        model: a model of transformers, or PEFT's around one.
        bf16: whether it computes in bfloat16.
    """
    before = attention_of(model)
    plain = bf16 or model.num_parameters() < _SMALL
    if before is None or model.device.type != "cpu" or not plain:
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def adapter_as_computed(model: Any, cast: bool) -> AbstractContextManager[None]:
    """Within the block, leave an adapter's inputs in the type in which autocast computes.

    PEFT casts each input to the type of the adapter's weights, float32, and autocast casts it back.
    """
    if not cast:
        return nullcontext()
    from peft.helpers import disable_input_dtype_casting

    return disable_input_dtype_casting(model)
