"""The knobs of one run, and how they are found whatever the runtime hands over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from .candidates import CandidatePool
from .errors import ConfigError, did_you_mean

CandidateContext = Literal["query", "question", "memory"]


@dataclass(frozen=True)
class RouterContext:
    """The knobs of one run; pass it as `context=` (a dict works too, and so does nothing).

    Attributes:
        cost_weight: the paper's alpha in [0, 1]: 0 = only the answer counts, 1 = only the cost.
        max_rounds: rounds of calls before the controller is made to answer; 0 = answer at once.
        max_calls_per_round: more calls in one round are not made.
        budget_usd: most USD of the whole run, controller included; None = no limit.
        deadline_seconds: most seconds of the run by the clock on the wall, from its start; waiting
            for a person (an interrupt) counts. None = no limit.
        max_information_tokens: of each reply, so many tokens reach the controller.
        candidate_context: what a candidate is told: its `query` alone; the `question` too; or, as a
            `memory`, the question and what earlier rounds brought that fits the query and the
            candidate's strengths best. Tools and retrievers are told the query alone.
        memory_tokens: most tokens of that memory.
        keep: of a round's replies, what the controller is shown: `all`; by `vote`, of replies to
            one query the one that most agree with; or `summary:CANDIDATE`, what this candidate
            makes of them (a call like any other, on the ledger).
        approve_above_usd: a call that may cost more, or has no price, waits for a person (a
            LangGraph interrupt, which needs a checkpointer); None = none does.
        temperature: of the controller; None = as it was built.
        seed: for controllers that draw at random.
    """

    cost_weight: float = 0.5
    max_rounds: int = 4
    max_calls_per_round: int = 4
    budget_usd: float | None = None
    deadline_seconds: float | None = None
    max_information_tokens: int = 600
    candidate_context: CandidateContext = "query"
    memory_tokens: int = 300
    keep: str = "all"
    approve_above_usd: float | None = None
    temperature: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every knob.

        Raises:
            ConfigError: a knob is out of range; the message names it.
        """
        for name, low, high in (
            ("cost_weight", 0, 1),
            ("max_rounds", 0, 1000),
            ("max_calls_per_round", 1, 1000),
            ("budget_usd", 0, math.inf),
            ("deadline_seconds", 0, math.inf),
            ("max_information_tokens", 1, 1_000_000),
            ("memory_tokens", 1, 1_000_000),
            ("approve_above_usd", 0, math.inf),
            ("temperature", 0, 2),
        ):
            value = getattr(self, name)
            optional = ("budget_usd", "deadline_seconds", "approve_above_usd", "temperature")
            if value is None and name in optional:
                continue
            whole = name.startswith(("max_", "memory_"))
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else int | float)
                or not low <= value <= high
                or value == math.inf
            ):
                kind = "a whole number" if whole else "a number"
                top = "" if high == math.inf else f" and at most {high}"
                raise ConfigError(f"{name} is {kind} of at least {low}{top}, not {value!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigError(f"seed is a whole number, not {self.seed!r}")
        policies = get_args(CandidateContext)
        if self.candidate_context not in policies:
            near = did_you_mean(str(self.candidate_context), policies)
            raise ConfigError(
                f"candidate_context is one of {', '.join(policies)}, "
                f"not {self.candidate_context!r}{near}"
            )
        if self.keep not in ("all", "vote") and not self.summarizer:
            raise ConfigError(f"keep is all, vote, or summary:CANDIDATE, not {self.keep!r}")

    def needs_approval(self, usd: float | None) -> bool:
        """Return whether a call that may cost so many USD waits for a person; None = unknown."""
        limit = self.approve_above_usd
        return limit is not None and (usd is None or usd > limit)

    def check(self, pool: CandidatePool) -> None:
        """Check what depends on the pool.

        Raises:
            ConfigError: `keep` names no candidate of it.
        """
        if self.summarizer and pool.find(self.summarizer) is None:
            raise ConfigError(f"keep: {pool.unknown(self.summarizer)}")

    @property
    def summarizer(self) -> str:
        """The name of the candidate that summarises each round; "" for none."""
        policy, _, name = str(self.keep).partition(":")
        return name.strip() if policy == "summary" else ""


def resolve_context(context: object, default: RouterContext) -> RouterContext:
    """Return the knobs whatever the runtime hands over.

    LangGraph gives None on a bare invoke, a dict from some callers, and inside a parent graph the
    parent's own context object: then its field or key `router_r1` is used where there is one, else
    its fields of our names.

    Raises:
        ConfigError: a dict under `router_r1` has an unknown key, or a knob is out of range.
    """
    if isinstance(context, RouterContext):
        return context
    if context is None:
        return default
    values = context if isinstance(context, Mapping) else _attributes(context)
    names = [f.name for f in fields(RouterContext)]
    if (own := values.get("router_r1")) is not None:
        if isinstance(own, Mapping):
            for key in own:
                if key not in names:
                    raise ConfigError(
                        f"context: unknown key {key!r}{did_you_mean(str(key), names)}; allowed: "
                        + ", ".join(names)
                    )
        return resolve_context(own, default)
    return RouterContext(**{n: values.get(n, getattr(default, n)) for n in names})


def _attributes(thing: object) -> Mapping[str, Any]:
    return {
        n: getattr(thing, n)
        for n in ("router_r1", *(f.name for f in fields(RouterContext)))
        if hasattr(thing, n)
    }
