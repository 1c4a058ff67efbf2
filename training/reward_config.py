"""The section `reward` of a config: the worth of an answer, and the weight of its cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from router_r1_graph.errors import did_you_mean
from router_r1_graph.evaluation.scorers import SCORERS

from .sections import Rate, Section

NAMED = (*SCORERS, "llm_judge")
"""The reward functions that have a short name."""


class RewardFunction(Section):
    """A function that judges the answer of a trace; its name alone is enough, too."""

    function: str
    """`module:name` of your own, `llm_judge`, `feedback:KEY` of LangSmith, or a metric, which
    compares the answer with the gold answers."""
    weight: Rate = 1.0
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    """The weights of the parts that it names, in the mean that is its outcome; 0 = such a part is
    only logged. None = all count alike."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments: of every call of a function, or of a class, which is made once."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"function": value} if isinstance(value, str) else value

    @field_validator("function")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in NAMED or re.fullmatch(r"feedback:.+|[\w.]+:[\w.]+", value):
            return value
        raise ValueError(
            f"unknown reward {value!r}{did_you_mean(value, NAMED)}; allowed: {', '.join(NAMED)}, "
            "feedback:KEY, or module:name of your own"
        )

    @field_validator("options")
    @classmethod
    def _no_key(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if re.search(r"api_?key(?!_env)|secret|password", name, re.I):
                raise ValueError(f"{name}: a key does not belong in a file; use api_key_env")
        return value

    @model_validator(mode="after")
    def _parts_to_weigh(self) -> RewardFunction:
        if self.weights is None:
            return self
        if self.function in NAMED or self.needs_feedback:
            raise ValueError(f"weights: {self.function} names no parts; leave them out")
        if not any(self.weights.values()):
            raise ValueError("weights: at least one part needs a weight above 0")
        return self

    @property
    def needs_gold(self) -> bool:
        """Whether it compares with gold answers."""
        return self.function in SCORERS

    @property
    def needs_feedback(self) -> bool:
        """Whether it reads the feedback of people, which no rollout has."""
        return self.function.startswith("feedback:")


class RewardConfig(Section):
    """The rules by which a trace is judged; the name of a function alone is `functions`."""

    functions: tuple[RewardFunction, ...] = ()
    """Reward functions: their weighted mean is the outcome, in place of the metric."""
    metric: Literal["exact_match", "f1"] = "exact_match"
    """How the answer is compared with the gold answers, if there are no `functions`."""
    scale: Literal["percentile", "absolute"] = "percentile"
    """`percentile` = the paper's: between the cheapest and the most expensive of the run's last
    episodes; `absolute` = in USD, so that a cost weight means the same in any pool."""
    usd: Rate = 1e-3
    """For the absolute scale: the cost at which cheapness is 0."""
    floor: Annotated[float, Field(le=0)] = 0.0
    """For the absolute scale: the lowest cheapness. Below 0, costs above `usd` still differ."""
    gated: bool = True
    """Whether cost counts for right answers only, as in the paper's code, though not its
    equation."""

    @model_validator(mode="before")
    @classmethod
    def _one_function(cls, value: Any) -> Any:
        return {"functions": [value]} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _all_count(self) -> RewardConfig:
        if self.functions and self.metric != "exact_match":
            raise ValueError(
                "metric has no effect beside functions; leave it out, or name it among them: "
                f"functions: [{self.metric}, ...]"
            )
        for name in ("usd", "floor"):
            default = type(self).model_fields[name].default
            if self.scale == "percentile" and getattr(self, name) != default:
                raise ValueError(f"{name} has no effect without scale: absolute")
        return self

    @property
    def needs_gold(self) -> bool:
        """Whether every question needs gold answers to be judged."""
        return all(one.needs_gold for one in self.functions)

    def right(self, answer: str, gold: Sequence[str]) -> bool:
        """Return whether an answer is right, by any of the metrics; f1 counts as an exact match.

        If there are functions but none is a metric, gold answers tell nothing: each answer is.
        """
        named = [one.function for one in self.functions] or [self.metric]
        metrics = ["exact_match" if name == "f1" else name for name in named if name in SCORERS]
        return not metrics or any(SCORERS[name](answer, gold) == 1 for name in metrics)

    @property
    def feedback_only(self) -> bool:
        """Whether it reads nothing but the feedback of people."""
        return bool(self.functions) and all(one.needs_feedback for one in self.functions)
