"""A world of agents' tasks: 10 to 30 steps with tools, easy and hard, and their failures.

A task is a plan of steps. The result of each step names the next one, so that a controller can read
it. A model masters a step if its skill at that kind of work reaches the step's need. Otherwise, the
tool reports an error and the step has to be repeated. A bad change may also go unnoticed, until the
next tests fail and it has to be repaired. Everything is a
function of the seed, the split and the number of the task: nothing is drawn at run time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ..candidates import Candidate, CandidatePool
from .draw import fraction

#: Kind of work -> what it needs at least, in [0, 1]: the tool of the same name does it.
KINDS: Mapping[str, float] = {
    "read": 0.05,
    "search": 0.15,
    "query": 0.35,
    "edit": 0.35,
    "test": 0.05,
    "debug": 0.5,
    "plan": 0.45,
}
#: A word of a step -> how much more it needs.
CUES: Mapping[str, float] = {
    "typo": -0.2,
    "rename": -0.15,
    "comment": -0.15,
    "log": -0.1,
    "format": -0.1,
    "loop": 0.05,
    "cache": 0.15,
    "parser": 0.15,
    "index": 0.1,
    "migration": 0.3,
    "deadlock": 0.4,
    "race": 0.4,
    "overflow": 0.3,
    "recursion": 0.25,
}
_PLACES = ("billing", "search", "login", "export", "mail", "report", "upload", "audit")
#: Name -> skill by kind of work, in [0, 1]; `all` for the others.
_SKILLS: Mapping[str, Mapping[str, float]] = {
    "Flit": {"all": 0.38, "read": 0.6, "search": 0.5, "test": 0.6},
    "Marl": {"all": 0.55, "query": 0.95, "plan": 0.85, "debug": 0.45},
    "Quern": {"all": 0.5, "edit": 0.85, "debug": 0.85, "query": 0.3, "plan": 0.3},
    "Tarn": {"all": 1.0},
}
_SPREAD = 0.12
"""The greatest difference between a step's need and its words."""
_SILENT = 0.35
"""The share of failed changes that are noticed only by the next tests."""
MOST_CALLS_PER_STEP = 1.5
"""The calls for each step of its plan after which a task is given up."""
PROMPT_TOKENS = 3000
"""The prompt before the first step: instructions and tools."""


@dataclass(frozen=True)
class Step:
    """A step of a plan.

    Attributes:
        kind: the kind of work; the tool of that name is called.
        what: the thing it is about, with the words that tell how hard it is.
        needs: the skill that it needs.
        seed: tells this step apart from all others.
    """

    kind: str
    what: str
    needs: float
    seed: str

    @property
    def text(self) -> str:
        """The sentence about this step in the result of the step before."""
        return f"{self.kind} {self.what}"


@dataclass(frozen=True)
class Task:
    """A task: the user's request, and the plan that solves it."""

    id: str
    text: str
    plan: tuple[Step, ...]

    @property
    def most_calls(self) -> int:
        """How many calls may be made before the task is given up."""
        return int(MOST_CALLS_PER_STEP * len(self.plan))


@dataclass(frozen=True)
class StepResult:
    """The outcome of one call.

    Attributes:
        ok: whether the step was mastered; an unnoticed failure was not.
        noticed: if it was not mastered, whether the tool says so.
        output_tokens: those of the model's output.
        result_tokens: those of the tool's result.
        seconds: how long both took.
    """

    ok: bool
    noticed: bool
    output_tokens: int
    result_tokens: int
    seconds: float


def agent_pool() -> CandidatePool:
    """Return the four models of the world: prices, caches and latencies, but no skills."""
    cache = {"cache_ttl_seconds": 300.0, "provider": "simulated", "max_tokens": 1000}
    prices = {  # in, out, cached, written, seconds
        "Flit": (0.1, 0.4, 0.01, 0.125, 1.0),
        "Marl": (0.6, 2.4, 0.06, 0.75, 3.0),
        "Quern": (0.8, 3.2, 0.08, 1.0, 3.0),
        "Tarn": (5.0, 25.0, 0.5, 6.25, 8.0),
    }
    return CandidatePool(
        name="agents",
        candidates=tuple(
            Candidate(
                name=name,
                input_usd_per_mtok=inp,
                output_usd_per_mtok=out,
                cached_input_usd_per_mtok=read,
                cache_write_usd_per_mtok=written,
                latency_seconds=seconds,
                **cache,
            )
            for name, (inp, out, read, written, seconds) in prices.items()
        ),
    )


def tasks(split: Literal["train", "test"], count: int, seed: int = 0) -> list[Task]:
    """Return the first tasks of a split.

    Example:
        >>> task = tasks("train", 1)[0]
        >>> 10 <= len(task.plan) <= 30
        True
    """
    return [_task(f"{split}/{seed}/{number}") for number in range(count)]


def _pick(options: tuple[str, ...], *parts: str) -> str:
    return options[int(fraction(*parts) * len(options))]


def _task(name: str) -> Task:
    hardness = fraction(name, "hardness")  # of the whole task: hard steps come together
    place = _pick(_PLACES, name, "place")
    length = 10 + int(fraction(name, "length") * 21)
    plan = []
    for number in range(length):
        seed = f"{name}/{number}"
        if number == length - 1 or (number and number % 5 == 0):
            kind = "test"
        else:
            kinds = ("read", "read", "search", "query", "edit", "edit", "debug", "plan")
            kind = _pick(kinds, seed, "kind")
        hard = fraction(seed, "hard") < 0.05 + 0.3 * hardness
        words = tuple(w for w, more in CUES.items() if (more > 0.08) == hard)
        cue = _pick(words, seed, "cue")
        apart = (2 * fraction(seed, "apart") - 1) * _SPREAD
        more = 0.0 if kind in ("read", "test") else CUES[cue]
        needs = min(0.97, max(0.0, KINDS[kind] + more + apart))
        plan.append(Step(kind, f"{place} {cue}", needs, seed))
    return Task(name, f"Mend the {place} service.", tuple(plan))


def call(step: Step, candidate: Candidate, attempt: int) -> StepResult:
    """Return the outcome of a step with this model at its n-th attempt, from 0.

    The same model fails again at a step that is too hard for it; luck matters little.
    """
    skills = _SKILLS[candidate.name]
    luck = (2 * fraction(step.seed, candidate.name, str(attempt)) - 1) * 0.04
    ok = skills.get(step.kind, skills["all"]) + luck >= step.needs
    silent = step.kind in ("edit", "debug") and fraction(step.seed, "silent") < _SILENT
    slow = fraction(step.seed, "slow") < 0.25
    tool_seconds = {"test": 400.0 if slow else 40.0, "query": 30.0}.get(step.kind, 2.0)
    return StepResult(
        ok=ok,
        noticed=not silent,
        output_tokens=100 + int(200 * fraction(step.seed, "output")),
        result_tokens=200 + int(1200 * fraction(step.seed, "result")),
        seconds=(candidate.latency_seconds or 0.0) + tool_seconds,
    )


def repair(step: Step) -> Step:
    """Return the step that repairs a change that went wrong unnoticed."""
    return replace(step, kind="debug", what=f"{step.what} again", seed=f"{step.seed}/repair")
