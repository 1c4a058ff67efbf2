"""What a run is told, what it remembers and what it hands back.

State holds built-in types and LangChain messages only, so that a strict checkpoint serializer gives
back what went in. Objects (models, tools) are bound when the graph is built; knobs travel in a
frozen context.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Annotated, Any

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from langgraph.graph.message import add_messages
from langgraph.managed import RemainingSteps
from typing_extensions import TypedDict

from .candidates import CandidatePool
from .errors import ConfigError, did_you_mean
from .reply import Reply


class StopReason(StrEnum):
    """Why a run ended. In every case but the first, the answer is made from what was known."""

    ANSWERED = "answered"
    """The controller answered of its own accord."""
    ROUND_LIMIT = "round_limit"
    """All rounds were used; the controller was made to answer."""
    BUDGET_USD = "budget_usd"
    """A call or the controller itself could have cost more than was left."""
    DEADLINE = "deadline"
    """The seconds were used up."""
    INVALID = "invalid"
    """Even when made to answer, the controller wrote nothing that can be read."""
    CONTROLLER_ERROR = "controller_error"
    """The controller could not be reached or failed."""


@dataclass(frozen=True)
class RouterContext:
    """The knobs of one run; pass it as `context=` (a dict works too, and so does nothing).

    Attributes:
        cost_weight: the paper's alpha in [0, 1]: 0 = only the answer counts, 1 = only the cost.
        max_rounds: rounds of calls before the controller is made to answer; 0 = answer at once.
        max_calls_per_round: more calls in one round are not made.
        budget_usd: most USD of the whole run, controller included; None = no limit.
        deadline_seconds: most seconds of thinking and calling; waiting for a person (an interrupt)
            does not count. None = no limit.
        max_information_tokens: of each reply, so many tokens reach the controller.
        temperature: of the controller; None = as it was built.
        seed: for controllers that draw at random.
    """

    cost_weight: float = 0.5
    max_rounds: int = 4
    max_calls_per_round: int = 4
    budget_usd: float | None = None
    deadline_seconds: float | None = None
    max_information_tokens: int = 600
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
            ("temperature", 0, 2),
        ):
            value = getattr(self, name)
            optional = name in ("budget_usd", "deadline_seconds", "temperature")
            if value is None and optional:
                continue
            whole = name.startswith("max_")
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


class LedgerLine(TypedDict):
    """What one candidate, or the controller, was paid for."""

    calls: int
    failed_calls: int
    retries: int
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_usd: float
    seconds: float


class Ledger(TypedDict):
    """The bill of a run. `seconds` is how long the run took: parallel calls count once."""

    controller: LedgerLine
    candidates: dict[str, LedgerLine]
    seconds: float


class LedgerTotals(TypedDict):
    """The ledger in one line. `calls` and `failed_calls` are the candidates'."""

    cost_usd: float
    candidates_cost_usd: float
    controller_cost_usd: float
    input_tokens: int
    output_tokens: int
    seconds: float
    calls: int
    failed_calls: int


def new_ledger() -> Ledger:
    """Return an empty bill."""
    return {"controller": _line(), "candidates": {}, "seconds": 0.0}


def _line() -> LedgerLine:
    return {
        "calls": 0,
        "failed_calls": 0,
        "retries": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "reasoning_tokens": 0,
        "cost_usd": 0.0,
        "seconds": 0.0,
    }


def _charge(line: LedgerLine, bill: Mapping[str, Any]) -> LedgerLine:
    return {
        "calls": line["calls"] + 1,
        "failed_calls": line["failed_calls"] + (not bill["ok"]),
        "retries": line["retries"] + max(0, bill["attempts"] - 1),
        "input_tokens": line["input_tokens"] + bill["input_tokens"],
        "output_tokens": line["output_tokens"] + bill["output_tokens"],
        "reasoning_tokens": line["reasoning_tokens"] + bill["reasoning_tokens"],
        "cost_usd": line["cost_usd"] + bill["cost_usd"],
        "seconds": line["seconds"] + bill["seconds"],
    }


def charge_controller(ledger: Ledger, reply: Reply) -> Ledger:
    """Return the ledger with one turn of the controller added."""
    line = _charge(ledger["controller"], {**vars(reply), "ok": reply.ok})
    return {**ledger, "controller": line, "seconds": ledger["seconds"] + reply.seconds}


def charge_candidates(ledger: Ledger, bills: list[Mapping[str, Any]]) -> Ledger:
    """Return the ledger with the calls of one round added; its time is that of the slowest."""
    lines = dict(ledger["candidates"])
    for bill in bills:
        lines[bill["candidate"]] = _charge(lines.get(bill["candidate"], _line()), bill)
    slowest = max((bill["seconds"] for bill in bills), default=0.0)
    return {**ledger, "candidates": lines, "seconds": ledger["seconds"] + slowest}


def total(ledger: Ledger) -> LedgerTotals:
    """Add the ledger up."""
    candidates = list(ledger["candidates"].values())
    everyone = [ledger["controller"], *candidates]
    paid = sum(line["cost_usd"] for line in candidates)
    return {
        "cost_usd": paid + ledger["controller"]["cost_usd"],
        "candidates_cost_usd": paid,
        "controller_cost_usd": ledger["controller"]["cost_usd"],
        "input_tokens": sum(line["input_tokens"] for line in everyone),
        "output_tokens": sum(line["output_tokens"] for line in everyone),
        "seconds": ledger["seconds"],
        "calls": sum(line["calls"] for line in candidates),
        "failed_calls": sum(line["failed_calls"] for line in candidates),
    }


class RouterInput(TypedDict, total=False):
    """A question, or a conversation whose last human message is the question."""

    question: Annotated[str, EphemeralValue(str)]
    """Forgotten after the first step: a later question on the thread never meets an old one."""
    messages: Annotated[list[AnyMessage], add_messages]


class RouterOutput(TypedDict, total=False):
    """What a run hands back; a parent graph takes the keys it shares, usually `messages`."""

    messages: Annotated[list[AnyMessage], add_messages]
    answer: str
    stop_reason: str
    error: str
    """Why the controller failed (stop reason `controller_error`), else ""."""
    round: int
    ledger: Ledger
    scratchpad: Annotated[list[AnyMessage], operator.add]
    """The question, then this run's turns (`AIMessage`) and observations (`ToolMessage`)."""


class RouterState(RouterInput, RouterOutput, total=False):
    """Everything a run remembers."""

    ending: str
    """The stop reason from when it is known; `stop_reason` is set when the run has ended."""
    replies: Annotated[list[AnyMessage], operator.add]
    """The replies of the round under way, until aggregate folds them in."""
    remaining_steps: RemainingSteps


class RouteCall(TypedDict):
    """What one `Send` to the route node carries."""

    id: str
    tool: str
    query: str
    seconds_left: float | None


@dataclass(frozen=True)
class Left:
    """What of the budget is left; None = no limit."""

    rounds: int
    usd: float | None = None
    seconds: float | None = None

    def describe(self) -> str:
        """Return the budget in words, for the prompt and after each round."""
        parts = [f"{self.rounds} round{'s' * (self.rounds != 1)}"]
        if self.usd is not None:
            parts.append(f"${max(0.0, self.usd):.6f}")
        if self.seconds is not None:
            parts.append(f"{max(0.0, self.seconds):.1f} s")
        return ", ".join(parts) + ("" if self.rounds else "; answer now")


@dataclass(frozen=True)
class View:
    """What a controller is asked to decide on."""

    question: str
    pool: CandidatePool
    context: RouterContext
    left: Left
    conversation: tuple[AnyMessage, ...] = ()
    """What was said in the parent graph before the question."""
    scratchpad: tuple[AnyMessage, ...] = ()
    """This question's turns (`AIMessage`) and observations (`ToolMessage`) so far."""

    @property
    def budget(self) -> Left:
        """The budget that the prompt names: the whole one, so that the prompt stays as it was.

        What is left of it stands after each round's observations.
        """
        if not self.scratchpad:
            return self.left
        context = self.context
        return Left(context.max_rounds, context.budget_usd, context.deadline_seconds)

    @property
    def must_answer(self) -> bool:
        """Whether no call will be made any more."""
        return self.left.rounds == 0


def left(ledger: Ledger, round_: int, context: RouterContext) -> Left:
    """Return what is left of the budget."""
    usd = seconds = None
    if context.budget_usd is not None:
        usd = context.budget_usd - total(ledger)["cost_usd"]
    if context.deadline_seconds is not None:
        seconds = context.deadline_seconds - ledger["seconds"]
    return Left(max(0, context.max_rounds - round_), usd, seconds)
