"""The outcomes of a run's answers, by its reward functions.

The key invariant: a trace is judged once, right after its run, and its judgement travels with it,
in `metadata["reward"]`. So the cost of a judgement is on disk and on the bill, the trace files have
the reward of each trace, and all readers of the judgement (GRPO, best of n, validation) read the
same one.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

from router_r1_graph import ConfigError, ReplyStore, Trace
from router_r1_graph.candidates.keys import scrub
from router_r1_graph.candidates.providers import import_name
from router_r1_graph.errors import did_you_mean
from router_r1_graph.evaluation.loop import ask_many, run
from router_r1_graph.evaluation.scorers import SCORERS
from router_r1_graph.outside import writable
from router_r1_graph.rewards import written_answer

from .judges import LLMJudge
from .reward_config import RewardConfig, RewardFunction
from .spending import Spending

logger = logging.getLogger(__name__)

JUDGEMENT = "reward"
"""The key of a trace's metadata that holds its `Judgement`."""
COST = "cost_usd"
"""The key of a function's mapping that is no part: the cost of judging."""
_AT_ONCE = 64


class Judgement(TypedDict, total=False):
    """The judgement of reward functions on a trace; JSON types only."""

    outcome: float | None
    """Their weighted mean, in [0, 1]; None = none of them has a judgement."""
    parts: dict[str, float]
    """By name: each function's number, or the numbers that it named."""
    cost_usd: float
    failure: str
    """Why the trace could not be judged, else ""."""


class _Said(NamedTuple):
    """The judgement of one function: its number and its parts; None = it has none."""

    value: float | None
    parts: Mapping[str, float]
    cost_usd: float = 0.0


_NOTHING = _Said(None, {})
_ROUNDING = 1e-6
"""A cosine or a sum of shares may be so far from 0 or 1."""


class Outcomes:
    """Judges traces by the reward functions of a run, many at once.

    Args:
        config: names the functions; with none, no trace is judged here.
        spending: the bill of the run, on which the cost of judging goes.
        folder: of the config file, where a user's own modules may lie.
        replies: the store of the grades of `llm_judge`, unless it names another one.

    Raises:
        ConfigError: a function cannot be imported, made or called.
    """

    def __init__(
        self,
        config: RewardConfig,
        spending: Spending | None = None,
        folder: Path | None = None,
        replies: ReplyStore | None = None,
    ) -> None:
        self._functions = [(one, _function(one, folder, replies)) for one in config.functions]
        short = [one.function.rpartition(":")[2] for one in config.functions]
        self._names = [
            name if short.count(name) == 1 else f"{name}_{place}"
            for place, name in enumerate(short, 1)
        ]
        self._spending = spending

    def __bool__(self) -> bool:
        return bool(self._functions)

    def judge(self, traces: Sequence[Trace]) -> list[Trace]:
        """Return the traces with their judgements.

        A function that raises fails the trace, not the run: such a trace is left out.

        Raises:
            ConfigError: a function returned anything but a number from 0 to 1, a mapping to such
                numbers, or None.
        """
        judged = list(traces)

        async def work() -> None:
            with ThreadPoolExecutor(_AT_ONCE) as threads:

                async def judge(trace: Trace) -> Sequence[Trace]:
                    return [await self._judge(trace, threads)]

                await ask_many(traces, judge, judged.__setitem__, at_once=_AT_ONCE)

        if self._functions:
            run(work())
        return judged

    async def _judge(self, trace: Trace, threads: ThreadPoolExecutor) -> Trace:
        said: list[tuple[float, _Said]] = []
        failure = ""
        for name, (part, function) in zip(self._names, self._functions, strict=True):
            try:
                value = await _called(function, trace, threads)
            except Exception as error:  # a user's function may raise anything
                why = " ".join(writable(scrub(f"{type(error).__name__}: {error}")).split())[:300]
                failure = f"the reward failed: {part.function}: {why}"
                logger.warning("trace %r: %s", trace.id, failure)
                break
            said.append((part.weight, _read(part, name, value)))
        cost = sum(one.cost_usd for _, one in said)
        if self._spending:
            self._spending.add_usd(JUDGEMENT, cost)
        judgement = Judgement(
            outcome=None if failure else _mean((weight, one.value) for weight, one in said),
            parts={name: number for _, one in said for name, number in one.parts.items()},
            cost_usd=cost,
            failure=failure,
        )
        return trace.model_copy(update={"metadata": {**trace.metadata, JUDGEMENT: judgement}})


def judgement_of(trace: Trace) -> Judgement:
    """Return the judgement on a trace; an empty one if it was not judged."""
    found = trace.metadata.get(JUDGEMENT)
    return cast(Judgement, found) if isinstance(found, dict) else Judgement()


def _mean(values: Iterable[tuple[float, float | None]]) -> float | None:
    """Return the mean of values by their weights; None if no value counts."""
    known = [(weight, value) for weight, value in values if value is not None]
    whole = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / whole if whole else None


def _function(
    part: RewardFunction, folder: Path | None, replies: ReplyStore | None
) -> partial[Any]:
    name = part.function
    if part.needs_gold:
        return _bound(name, _compared, SCORERS[name], **part.options)
    if part.needs_feedback:
        return _bound(name, _given, name.partition(":")[2], **part.options)
    try:
        found = LLMJudge if name == "llm_judge" else import_name(name, folder)
    except ConfigError as error:
        raise ConfigError(f"reward {name}: {error}") from error
    if not callable(found):
        raise ConfigError(f"reward {name}: it cannot be called")
    if not inspect.isclass(found):
        return _bound(name, found, **part.options)
    try:
        kept = {"replies": replies} if found is LLMJudge else {}
        made = found(**{**kept, **part.options})
    except Exception as error:  # a user's class may raise anything
        why = " ".join(scrub(f"{type(error).__name__}: {error}").split())
        raise ConfigError(f"reward {name}: cannot be made: {why}") from error
    if not callable(made):
        raise ConfigError(f"reward {name}: an instance of it cannot be called with a trace")
    return _bound(name, made)


def _bound(name: str, function: Callable[..., Any], *before: Any, **options: Any) -> partial[Any]:
    """Return a function of a trace alone."""
    try:
        inspect.signature(function).bind(*before, None, **options)
    except TypeError as error:
        raise ConfigError(f"reward {name}: cannot be called with a trace: {error}") from None
    except ValueError:  # it has no signature, as some that are written in C
        pass
    return partial(function, *before, **options)


def _compared(scorer: Callable[[str, Sequence[str]], float], trace: Trace) -> float | None:
    return scorer(written_answer(trace) or "", trace.gold) if trace.gold else None


def _given(key: str, trace: Trace, *, low: float = 0.0, high: float = 1.0) -> float | None:
    """Return the feedback on a trace, which is between `low` and `high`, as a share of the way."""
    given = trace.metadata.get("feedback", {}).get(key)
    return None if given is None else (float(given) - low) / (high - low)


async def _called(function: partial[Any], trace: Trace, threads: ThreadPoolExecutor) -> Any:
    """Call a function; one that is not async, in a thread, as it may wait for an endpoint."""
    inner = function.func
    if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(
        getattr(inner, "__call__", None)  # noqa: B004 - of an instance of a class
    ):
        return await function(trace)
    context = contextvars.copy_context()
    value = await asyncio.get_running_loop().run_in_executor(threads, context.run, function, trace)
    return await value if inspect.isawaitable(value) else value


def _read(function: RewardFunction, short: str, value: Any) -> _Said:
    """Read the result of a function.

    Raises:
        ConfigError: it is neither a number from 0 to 1, nor a mapping of such, nor None; or its
            parts are not those that have weights.
    """
    name, weights = function.function, function.weights
    if value is None:
        return _NOTHING
    if not isinstance(value, Mapping):
        number = _number(name, "", value, most=1.0)
        if weights is not None:
            raise ConfigError(f"reward {name} gave {number}; weights are for parts with names")
        return _Said(number, {short: number})
    cost = _number(name, COST, value.get(COST, 0.0), most=math.inf)
    parts = {
        writable(str(key)): _number(name, str(key), number, most=1.0)
        for key, number in value.items()
        if key != COST and number is not None
    }
    for key in parts:
        if weights is not None and key not in weights:
            raise ConfigError(
                f"reward {name} gave {key!r}, which has no weight{did_you_mean(key, weights)}; "
                f"weights has {', '.join(weights)}; 0 = only logged"
            )
    mean = _mean((1.0 if weights is None else weights[key], parts[key]) for key in parts)
    return _Said(mean, {f"{short}/{key}": number for key, number in parts.items()}, cost)


def _number(name: str, key: str, value: Any, most: float) -> float:
    what = f"{key!r} as {value!r:.80}" if key else f"{value!r:.80}"
    if not isinstance(value, Real):
        raise ConfigError(
            f"reward {name} gave {what}, a {type(value).__name__}; a reward function returns a "
            "number from 0 to 1, a mapping of names to such, or None"
        )
    number = float(value)
    if most == 1 and -_ROUNDING <= number <= 1 + _ROUNDING:
        return min(1.0, max(0.0, number))
    if not 0 <= number <= most or math.isinf(number):
        allowed = "from 0 to 1" if most == 1 else "of 0 or above"
        raise ConfigError(f"reward {name} gave {what}; it must be a number {allowed}")
    return number
