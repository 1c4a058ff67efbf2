"""One pydantic config for a run: YAML in, `key=value` on the command line, unknown keys refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from .config_file import read_settings, refusal
from .data_config import DataConfig
from .model_config import ModelConfig
from .reward_config import RewardConfig
from .sections import Count, Rate, Section, Share

Stage = Literal["warm_start", "best_of_n", "grpo"]


class FitConfig(Section):
    """Supervised steps on exported traces."""

    batch_size: Count = 16
    """Rows of a forward pass."""
    gradient_accumulation: Count = 1
    """Forward passes of an optimizer step."""
    learning_rate: Rate = 1e-3
    """The highest learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """With `muon`, a model from scratch needs fewer steps (docs/experiments.md)."""
    environment_weight: Share = 0.0
    """The weight of the loss on the environment's text; the loss on the turns has weight 1. Above
    0, a model from scratch learns the language, and how to copy, from all of the text."""
    reasoning_weight: Rate = 1.0
    """The weight of the loss on the thoughts of the last turn. Above 1, a model from scratch learns
    sooner on which facts an answer depends, such as which of two is later."""
    epochs: Rate = 1.0
    """The number of times that each row is learned."""
    max_length: Count = 1024
    """Longer rows are left out, in tokens."""
    save_steps: Count = 500
    """Steps between two checkpoints."""


class WarmStartConfig(FitConfig):
    """The teacher's traces show format, splitting and reading descriptors, not the choice."""

    teacher: Literal["brief", "english"] = "brief"
    """The teacher of the traces: `english` = in short English thoughts, for a pretrained policy."""
    traces: Count = 20_000
    """The number of the teacher's traces."""
    same_pool: Count = 1
    """This many of the teacher's traces in a row are over the same pool. A step then computes its
    description once for all of them."""
    first_turns: Share = 0
    """Of this share of the traces, only the first turn is learned: the plan, at a third of the
    tokens. Traces in which a candidate was asked in vain are always whole: they are rare."""
    trace_files: tuple[Path, ...] = ()
    """Files of other traces (also from LangSmith), or folders of them (`grpo/traces` or
    `best_of_n/traces` of a run), to use instead of the teacher's."""
    correct_only: bool = True
    """Whether traces of these files with a wrong answer are left out, if gold answers are known.
    Metrics among the rewards tell (any of them, f1 by exact match). If all rewards are functions
    of your own, each answer counts as right."""
    best_of_question: bool = False
    """Whether only the cheapest trace of each question is learned."""
    max_usd: Annotated[float, Field(ge=0)] | None = None
    """Traces that cost more are left out."""
    min_reward: Share | None = None
    """Traces of these files whose outcome is lower, by the run's reward, or not known are left
    out."""


class BestOfNConfig(FitConfig):
    """Rejection sampling: of n traces of a question, learn the best one."""

    teacher_questions: Annotated[int, Field(ge=0)] = 0
    """The number of questions in an extra first round, in which the teacher writes the n traces.
    The teacher chooses at random, so only the reward decides which trace is best, and nothing has
    to be sampled from the policy. 0 = no such round."""
    rounds: Annotated[int, Field(ge=0)] = 10
    """Rounds of sampling, choosing and learning."""
    questions: Count = 64
    """The number of questions in a round."""
    teacher_samples: Annotated[int, Field(ge=2)] = 8
    """Traces that the teacher writes for each question."""
    teacher_cost_weights: Annotated[tuple[Share, ...], Field(min_length=1)] = (0, 0.25, 0.5, 0.75)
    """For each of these cost weights, the best of the teacher's traces of a question is picked. The
    teacher ignores the cost weight, so each trace serves all of them, and the picks show what the
    cost weight changes."""
    samples: Annotated[int, Field(ge=2)] = 8
    """The number of traces of each question."""
    temperature: Rate = 1.0
    """The sampling temperature of the policy."""
    keep: Share = 0.3
    """The share of earlier rows that is mixed in, so that the policy does not narrow on its own
    samples. They are the teacher's best traces if there are `teacher_questions`, else the warm
    start's, if the run has one; else there are none."""


class GRPOConfig(Section):
    """Group-relative policy optimisation by TRL."""

    steps: Count = 200
    """Optimizer steps."""
    questions: Count = 16
    """The number of questions in a step."""
    group: Annotated[int, Field(ge=2)] = 8
    """The number of traces of each question."""
    micro_batch: Count = 16
    """Traces of a forward pass; `questions` * `group` is a multiple of it."""
    learning_rate: Rate = 1e-6
    """The learning rate, which stays the same."""
    beta: Annotated[float, Field(ge=0)] = 0.001
    """The weight of the KL divergence from the policy at the start of the stage."""
    temperature: Rate = 1.0
    """The sampling temperature of the policy."""
    advantage: Literal["sum", "apart", "per_call"] = "apart"
    """`sum` = the reward, normalised in its group. `apart` = outcome normalised over the group and
    cost over its right traces, then weighted, so that the outcome's noise does not hide the cost.
    `per_call` = the same, but each turn is judged by the money spent from that turn on."""
    save_steps: Count = 50
    """Steps between two checkpoints."""
    tries: Annotated[int, Field(ge=1, le=10)] = 3
    """The number of tries of a rollout, if its sampler or all of its real candidates failed."""
    wait_seconds: Annotated[float, Field(ge=0)] = 5.0
    """The time before the second try; it doubles before each further one."""
    validate_every: Annotated[int, Field(ge=0)] = 50
    """The number of steps between two validations, which ask held-out questions; 0 = never."""
    validate_questions: Count = 50
    """The number of held-out questions; each is asked at every cost weight."""
    validate_cost_weights: Annotated[tuple[Share, ...], Field(min_length=1)] = (0, 0.5, 0.9)
    """The cost weights at which held-out questions are asked."""
    patience: Annotated[int, Field(ge=0)] = 0
    """The number of validations without a better one after which the stage stops; 0 = never."""
    vllm: Literal["off", "colocate", "server"] = "off"
    """The sampler: the trained model itself, vLLM on the same GPUs, or `trl vllm-serve` elsewhere
    (from one training process)."""
    vllm_url: str = "http://127.0.0.1:8000"
    """The address of `trl vllm-serve`, for `server`."""
    vllm_memory: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The share of each GPU's memory that vLLM gets with `colocate`."""


class RepliesConfig(Section):
    """The store of replies: the same call is paid once, by this run and others that name it."""

    file: Path | None = None
    """The SQLite file; None = `replies.sqlite` in `out`, if a pool has real candidates or a model
    judges."""
    every: bool = False
    """Whether sampled replies are kept, too. The samples of a question then share them."""


class HubConfig(Section):
    """The upload of the finished policy to the Hugging Face hub.

    The token is that of the environment (`HF_TOKEN`) or of `hf auth login`.
    """

    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    """The repository, as `name/policy`; made if it is missing. None = nothing is uploaded."""
    private: bool = True
    """Whether a new repository is private."""


class RunConfig(Section):
    """Everything about a run."""

    out: Path
    """The folder of the run."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """The seed of all random draws."""
    stages: tuple[Stage, ...] = Field(("warm_start", "best_of_n", "grpo"), min_length=1)
    """The stages, in their order."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    graph: str | None = None
    """`module:factory` of your own LangGraph application, which gets the compiled router and is
    rolled out; None = the router alone."""
    reward: RewardConfig = RewardConfig()
    warm_start: WarmStartConfig = WarmStartConfig()
    best_of_n: BestOfNConfig = BestOfNConfig()
    grpo: GRPOConfig = GRPOConfig()
    budget_usd: Annotated[float, Field(ge=0)] | None = None
    """The most that the run may pay, by the ledgers of its rollouts, over all stages and resumes;
    simulated candidates are not paid. Before a step that would cost more, it stops with a
    checkpoint. None = no limit."""
    replies: RepliesConfig = RepliesConfig()
    evaluate_questions: Annotated[int, Field(ge=0)] = 200
    """Held-out questions after each stage, asked at each of `grpo.validate_cost_weights`; 0 =
    none."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Torch's threads on a CPU; 0 = torch decides. 1 is fastest for tiny models on a busy
    machine."""
    report_to: tuple[str, ...] = ()
    """Trackers to use besides metrics.jsonl: trackio, tensorboard or wandb."""
    hub: HubConfig = HubConfig()

    @cached_property
    def folder(self) -> Path | None:
        """The folder of the config file, where a user's own modules may lie; None = no file.

        Set when a file is read. Not a field: the folder must not make configs unequal.
        """
        return None

    @property
    def held_out_questions(self) -> int:
        """The most held-out questions that a measurement or validation asks; 0 = none is asked."""
        validated = "grpo" in self.stages and self.grpo.validate_every > 0
        return max(self.evaluate_questions, self.grpo.validate_questions if validated else 0)

    @model_validator(mode="after")
    def _belongs_together(self) -> RunConfig:
        if len({*self.stages}) < len(self.stages):
            raise ValueError("stages: each can be named once")
        if "warm_start" in self.stages[1:]:
            raise ValueError(
                "stages: warm_start begins with a new model, so it is the first; to go on from a "
                "policy, name it in model.pretrained"
            )
        if self.graph and not self.reward.functions:
            raise ValueError(
                "graph needs a reward that says what its outcome is worth, such as "
                "reward: module:function"
            )
        rolled_out = sorted({"best_of_n", "grpo"} & {*self.stages})
        if self.reward.feedback_only and rolled_out:
            raise ValueError(
                f"reward: only feedback, which no rollout of {' and '.join(rolled_out)} has: name "
                "another function beside it, or set stages: [warm_start] with warm_start.min_reward"
            )
        if self.warm_start.min_reward is not None and not self.warm_start.trace_files:
            raise ValueError("warm_start.min_reward is for warm_start.trace_files; name some")
        if not self.reward.needs_gold:
            self.__dict__["data"] = self.data.without_gold()  # frozen for all others
        if (self.grpo.questions * self.grpo.group) % self.grpo.micro_batch:
            raise ValueError("grpo.questions * grpo.group must be a multiple of grpo.micro_batch")
        if "grpo" in self.stages and self.grpo.advantage != "sum" and not self.reward.gated:
            raise ValueError(
                "reward.gated: false needs grpo.advantage: sum; the others reward cost among right "
                "answers only"
            )
        if self.data.source == "world":
            return self
        own = f"the teacher knows the embedded world only, and data.source is {self.data.source}"
        if "warm_start" in self.stages and not self.warm_start.trace_files:
            raise ValueError(
                f"stages: {own}; name traces in warm_start.trace_files, or leave the warm start "
                "out, as in stages: [grpo]"
            )
        if "best_of_n" in self.stages and self.best_of_n.teacher_questions:
            raise ValueError(f"best_of_n.teacher_questions: {own}; set it to 0")
        if self.held_out_questions and self.data.split_by_hash and not self.data.held_out:
            raise ValueError(
                "data.held_out is 0, so there is nothing to measure on; raise it, name "
                "data.eval_files, or set evaluate_questions and grpo.validate_every to 0"
            )
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config file and apply `key.sub=value` overrides, whose values are YAML.

    Raises:
        ConfigError: the file cannot be read, or a key or value is not allowed; names file and key.
    """
    try:
        config = RunConfig.model_validate(read_settings(path, overrides))
    except ValidationError as error:
        raise refusal(path, error, RunConfig) from None
    config.__dict__["folder"] = path.parent
    return config
