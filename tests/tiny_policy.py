"""A tokenizer and a model of a few thousand random weights, made on the spot."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.set_num_threads(1)  # two threads slow a model this small down

SIZES = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}

TAGS = [f"<{slash}{tag}>" for tag in ("think", "search", "answer") for slash in ("", "/")]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer; its tags are single tokens, but for information."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(["Who wrote Hamlet? Quillora: William Shakespeare"] * 4, trainer)
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>", padding_side="left"
    )


def make_llama(**fields: Any) -> LlamaForCausalLM:
    """Return a Llama of random weights, always the same.

    Args:
        fields: of its config, over those of `SIZES`.
    """
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **fields})).eval()


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a random model in double precision, so that batching changes nothing."""
    model = make_llama(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return model.double()
