"""The model that is trained: loaded or made from scratch; and the folder of a policy."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from router_r1_graph import ConfigError, protocol
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import (
    SETTINGS_FILE,
    TEMPLATE_FILE,
    PolicyFolder,
    PolicySettings,
)
from router_r1_graph.controllers.policy.tokens import TokenCodec
from router_r1_graph.controllers.policy.weights import end_ids, load_weights

from .model_config import ModelConfig

BRIEF_TEMPLATE = protocol.DEFAULT_TEMPLATE.with_name("brief.txt")
_PAD, _END = "<|pad|>", "<|end|>"
_TAGS = [
    f"<{slash}{name}>"
    for name in ("think", "search", "information", "answer")
    for slash in ("", "/")
]


@dataclass
class Learner:
    """A model under training with all other parts of a policy."""

    model: Any
    tokenizer: Any
    settings: PolicySettings
    template: Path

    @property
    def codec(self) -> TokenCodec:
        """The codec that tokenises its contexts."""
        return TokenCodec.of(self.tokenizer, self.template, self.settings, end_ids(self.model))

    def controller(self, *, temperature: float = 0.0, seed: int = 0) -> PolicyController:
        """Return the model as the controller node of the graph."""
        self.model.eval()
        return PolicyController(
            self.model,
            self.tokenizer,
            self.settings,
            template=self.template,
            temperature=temperature,
            seed=seed,
            max_batch=256,
        )

    def save(self, folder: Path) -> None:
        """Write a policy folder: a normal Hugging Face model, its template and settings.

        A model with an adapter is written as the adapter alone.

        Raises:
            OSError: it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if is_adapted(self.model):  # without the copy that TRL makes as the reference
                self.model.save_pretrained(folder, selected_adapters=["default"])
                self.model.generation_config.save_pretrained(folder)
            else:
                self.model.save_pretrained(folder)
        except SafetensorError as error:  # of Rust, on a full disk
            raise OSError(f"{folder}: {error}") from None
        self.tokenizer.save_pretrained(folder)
        settings = json.dumps(asdict(self.settings), indent=2)
        (folder / SETTINGS_FILE).write_text(settings + "\n", encoding="utf-8")
        if self.template.resolve() != (folder / TEMPLATE_FILE).resolve():
            shutil.copyfile(self.template, folder / TEMPLATE_FILE)


def load_learner(config: ModelConfig, path: str | Path | None = None) -> Learner:
    """Load a model: a policy folder of an earlier stage, or the pretrained one.

    Raises:
        ConfigError: no model is named.
        ControllerError: there is no such model, or it cannot be loaded.
    """
    if path is None and config.pretrained is None:
        raise ConfigError(
            "model.pretrained names no model, and one from scratch begins with the stage warm_start"
        )
    source = Path(path or str(config.pretrained))
    # An adapter names the model that it changes, and is loaded from anywhere.
    policy = PolicyFolder(str(source.resolve()) if source.is_dir() else str(source))
    policy.check()
    tokenizer = policy.tokenizer()
    model = load_weights(policy, dtype=held_in(config), is_trainable=True)
    template = policy.template or config.template or protocol.DEFAULT_TEMPLATE
    return Learner(_on_device(model), tokenizer, settings_of(config), template)


def make_learner(config: ModelConfig, texts: Iterable[str], seed: int) -> Learner:
    """Make a small model and its tokenizer from scratch.

    Names are spelled in pieces, so that an unseen name can be copied. Each digit is a token of its
    own, with the space before it.
    """
    scratch = config.scratch
    bpe = Tokenizer(models.BPE())
    words = Regex(r" ?\d| ?[A-Za-z']+|\n| ?[^\sA-Za-z\d]|\s")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=scratch.vocabulary - len(_TAGS),
        special_tokens=[_PAD, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(map(_without_tags, texts), trainer)
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in _TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=_PAD, eos_token=_END, padding_side="left"
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=scratch.hidden_size,
            intermediate_size=scratch.hidden_size * 3,
            num_hidden_layers=scratch.layers,
            num_attention_heads=scratch.heads,
            num_key_value_heads=scratch.kv_heads or scratch.heads,
            max_position_embeddings=config.max_context_tokens,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    template = config.template or BRIEF_TEMPLATE
    return Learner(_on_device(model), tokenizer, settings_of(config), template)


def held_in(config: ModelConfig) -> torch.dtype:
    """Return the type in which a model's weights are held while it is trained.

    Trained weights are held in float32, and bf16 is for computing only: in bfloat16, the small
    steps of fine-tuning round to nothing. Weights that LoRA leaves alone can take half the memory.
    """
    return torch.bfloat16 if config.bf16 and config.lora_rank else torch.float32


def finish(learner: Learner, config: ModelConfig) -> None:
    """Give a policy's weights the form in which they are served; it is not trained after that.

    LoRA is merged in float32, and stays so: its changes are smaller than the steps between two
    numbers in bfloat16, which loses up to all of them. With `merge: false`, it stays an adapter.
    All weights of a pretrained model that was trained with `bf16` become bfloat16: no step computed
    with more than that.
    """
    if is_adapted(learner.model):
        if config.merge:
            learner.model = learner.model.float().merge_and_unload()
    elif config.bf16 and config.pretrained:
        learner.model = learner.model.to(torch.bfloat16)


def is_adapted(model: Any) -> bool:
    """Return whether a model is PEFT's around another."""
    return hasattr(model, "peft_config") and hasattr(model, "merge_and_unload")


def lora_config(rank: int, model: Any = None) -> Any:
    """Return PEFT's config; None when all weights are trained, or the model has its adapter."""
    if not rank or is_adapted(model):
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")


def taken_from(trainer: Any) -> Any:
    """Return the model that a trainer trained, and free the rest of it (the optimizer)."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.zero_grad(set_to_none=True)
    trainer.accelerator.free_memory()
    trainer.optimizer = trainer.lr_scheduler = None
    if "ref" in getattr(model, "peft_config", {}):  # the reference, as TRL names it
        model.delete_adapter("ref")
    gc.collect()  # trainers are full of cycles
    return model


def settings_of(config: ModelConfig) -> PolicySettings:
    """Return the settings of the turns of this config's policy."""
    return PolicySettings(
        stop=config.stop,
        observations=config.observations or ("chat" if config.pretrained else "plain"),
        thinking=config.thinking,
        max_new_tokens=config.max_new_tokens,
        max_context_tokens=config.max_context_tokens,
    )


def _without_tags(text: str) -> str:
    for tag in _TAGS:
        text = text.replace(tag, " ")
    return text


def processes() -> PartialState:
    """Return which of the run's processes this one is, and its device."""
    return PartialState(cpu=not torch.cuda.is_available())


def refuse_sharding() -> None:
    """Refuse to split the weights over processes, before anything is trained or paid.

    Runs of the graph differ in length, so the processes cannot take their forward passes in step,
    as sharded weights need (docs/experiments.md); and one process alone saves and measures.

    Raises:
        ConfigError: accelerate is configured to shard.
    """
    for variable, name in (
        ("ACCELERATE_USE_FSDP", "FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "accelerate's parallelism_config"),
    ):
        # As accelerate reads them.
        if os.environ.get(variable, "").lower() in ("1", "true", "t", "yes", "y", "on"):
            raise ConfigError(
                f"{name} splits a model over GPUs, and runs of the graph differ in length, so its "
                "processes would wait for each other for ever; start plain processes "
                "(torchrun --nproc_per_node N, or accelerate launch --multi_gpu), with "
                "model.lora_rank where the model is too large for one GPU"
            )


def _on_device(model: Any) -> Any:
    return model.to(processes().device)
