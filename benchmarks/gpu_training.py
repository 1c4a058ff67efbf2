"""One part of `benchmarks.gpu`, in a process of its own: GRPO steps, and what each one took."""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, TrainerCallback

from router_r1_graph import protocol
from router_r1_graph.controllers.policy.folder import SETTINGS_FILE, SHIPPED, PolicyFolder
from training.config import DataConfig, GRPOConfig, ModelConfig, RewardConfig
from training.grpo import grpo_trainer
from training.items import draw_items
from training.models import Learner, load_learner, processes, settings_of
from training.spending import Spending

from .gpu_figures import Figures, Part, Step

DEMO = SHIPPED / "demo"
_QWEN = {"steps": 10, "questions": 8, "group": 8, "micro_batch": 16}
_POLICY = {"steps": 200, "questions": 16, "group": 8, "micro_batch": 32}
_REDUCED = {"steps": 2, "questions": 1, "group": 2, "micro_batch": 2}
QWEN = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
"""The shape of Qwen2.5-0.5B, 494M weights."""
TINY = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def train_part(part: Part, reduced: bool, end: float, folder: Path) -> None:
    """Train, and write the figures into the folder after each step.

    Args:
        part: what is trained, and what samples.
        reduced: a tiny model and two small steps, for a CPU.
        end: when the last step has to be over, by `time.monotonic()`.
        folder: a folder for this part alone.
    """
    learner = shipped_learner() if part == "policy" else random_learner(reduced)
    config = GRPOConfig(
        **(_REDUCED if reduced else _POLICY if part == "policy" else _QWEN),
        learning_rate=1e-6,
        validate_every=0,
        vllm="colocate" if part == "vllm" else "off",
    )
    parameters = learner.model.num_parameters()
    trainer, _ = grpo_trainer(
        learner,
        draw_items(DataConfig(), config.steps * config.questions, seed=1),
        config,
        reward=RewardConfig(),
        folder=folder / "grpo",
        metrics=folder / "metrics.jsonl",
        seed=0,
        spending=Spending(folder / "spending"),
        bf16=part != "policy",  # the shipped policy was trained in float32
    )
    trainer.add_callback(Clock(parameters, config.questions * config.group, end, folder))
    trainer.train()


class Clock(TrainerCallback):  # type: ignore[misc]
    """Writes what each step took, and stops before one that would not fit.

    Args:
        parameters: the number of the model's weights.
        rollouts: of a step.
        end: when the last step has to be over, by `time.monotonic()`.
        folder: where the figures go.
    """

    def __init__(self, parameters: int, rollouts: int, end: float, folder: Path) -> None:
        self.parameters = parameters
        self.rollouts = rollouts
        self.end = end
        self.folder = folder
        self.steps: list[Step] = []
        self._before = self._begun = self._inside = 0.0
        self._tokens = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._before = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note when the rollouts begin."""
        self._begun = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note when the weights are there, and stop where the next step would end too late."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.monotonic()
        self._inside = now - self._begun
        control.should_save = False  # gigabytes that nobody reads
        if now + (now - self._before) > self.end:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write the step down, with what TRL and the rollouts say of it."""
        if "step_time" not in logs:  # the summary at the end
            return
        now = time.monotonic()
        generate, graph = logs["generate_seconds"], logs["graph_seconds"]
        self.steps.append(
            Step(
                seconds=now - self._before,
                generate=generate,
                graph=graph,
                train=self._inside - generate - graph,
                sampled_tokens=logs["completions/mean_length"] * self.rollouts,
                trained_tokens=logs["num_tokens"] - self._tokens,
            )
        )
        self._before, self._tokens = now, logs["num_tokens"]
        Figures(machine(), self.parameters, peak_bytes(), tuple(self.steps)).write(self.folder)


def random_learner(reduced: bool) -> Learner:
    """Return a Qwen2 with random weights, which is asked as a pretrained model is."""
    shape = TINY if reduced else QWEN
    tokenizer = worded(PolicyFolder(str(DEMO)).tokenizer(), shape["vocab_size"])
    config = ModelConfig(max_new_tokens=16 if reduced else 128)
    torch.manual_seed(0)
    with torch.device(processes().device):  # hundreds of millions of numbers
        model = Qwen2ForCausalLM(
            Qwen2Config(
                **shape,
                max_position_embeddings=config.max_context_tokens,
                rope_theta=1e6,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                bos_token_id=None,
            )
        )
    return Learner(model, tokenizer, settings_of(config), protocol.DEFAULT_TEMPLATE)


def worded(tokenizer: Any, size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose vocabulary is filled up with words that no text is encoded to.

    So every id that a random model samples is some word, as it is for a pretrained one.
    """
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    words = spec["model"]["vocab"]
    words |= {token["content"]: token["id"] for token in spec["added_tokens"]}
    words |= {f"Ġword{number}": number for number in range(len(words), size)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        pad_token=tokenizer.pad_token,
        eos_token=tokenizer.eos_token,
        padding_side="left",
    )


def shipped_learner() -> Learner:
    """Return the policy that comes with the package, as it is shipped."""
    kept = json.loads((DEMO / SETTINGS_FILE).read_text(encoding="utf-8"))
    settings = {name: value for name, value in kept.items() if name in ModelConfig.model_fields}
    return load_learner(ModelConfig(pretrained=str(DEMO), **settings))


def peak_bytes() -> int:
    """Return the most memory so far: of PyTorch's allocator on a GPU, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kB on Linux


def machine() -> str:
    """Return the processor and the versions that count."""
    where = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    )
    return ", ".join([where, *(f"{name} {_version(name)}" for name in _PACKAGES)])


_PACKAGES = ("torch", "transformers", "trl", "vllm")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
