"""Runs controllers over questions, many at once; what came back is on disk at once.

The key invariant: a question that a controller was asked at a cost weight is never asked again,
whenever and however the run before ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.base import BaseTracer
from langsmith.utils import tracing_is_enabled

from .._compat import untraced
from ..answers import exact_match, f1_score
from ..candidates import CandidatePool
from ..context import RouterContext
from ..controllers import Controller
from ..errors import ConfigError, TraceError
from ..graph import create_router_r1
from ..ledger import total
from ..trace import Trace
from .questions import EvaluationQuestion
from .scorers import Scorer

Key = tuple[str, float, str]
"""Controller, cost weight, id of the question."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one question went; all that a report needs of it."""

    controller: str
    cost_weight: float
    id: str
    answer: str
    score: float
    """By the metric of the evaluation, from 0 to 1."""
    exact_match: float
    f1: float
    cost_usd: float
    seconds: float
    """Of the ledger: candidates' and controller's, added up."""
    calls: float
    rounds: float
    failures: float
    """Calls that brought an error."""
    answered: float
    """1.0 where the controller itself gave the answer."""
    asked: Mapping[str, int]
    """Calls by candidate."""
    slices: Mapping[str, str]

    @property
    def key(self) -> Key:
        """What it is the outcome of."""
        return (self.controller, self.cost_weight, self.id)


def outcome_of(trace: Trace, scorer: Scorer) -> Outcome:
    """Return how a trace with gold answers went."""
    answer = trace.answer
    bill = total(trace.ledger)
    calls = trace.calls
    return Outcome(
        controller=trace.controller,
        cost_weight=trace.context.cost_weight,
        id=trace.id,
        answer=answer,
        score=scorer(answer, trace.gold),
        exact_match=exact_match(answer, trace.gold),
        f1=f1_score(answer, trace.gold),
        cost_usd=bill["cost_usd"],
        seconds=bill["seconds"],
        calls=float(bill["calls"]),
        rounds=float(trace.rounds),
        failures=float(sum(not call.ok for call in calls)),
        answered=float(trace.stop_reason == "answered"),
        asked=Counter(call.candidate for call in calls if not call.cached),
        slices=trace.metadata.get("slices", {}),
    )


class Results:
    """The file of results: one trace a line, each flushed as it comes.

    Args:
        path: the file; None keeps nothing.
        scorer: what judges the answers.
    """

    def __init__(self, path: Path | None, scorer: Scorer) -> None:
        self.path = path
        self.scorer = scorer
        self.outcomes: dict[Key, Outcome] = {}

    def load(self, pool: CandidatePool) -> None:
        """Take what an earlier run left; a line that it was killed in is dropped.

        Raises:
            TraceError: a line in the middle is broken.
            ConfigError: the results are of another pool.
        """
        if self.path is None or not self.path.exists():
            return
        ours, whole = pool.descriptors(), 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    trace = Trace.model_validate_json(line)
                except ValueError as error:
                    raise TraceError(f"{self.path}, line {number}: not a trace: {error}") from None
                if trace.pool != ours:
                    raise ConfigError(
                        f"{self.path}: its results are of another pool ({trace.pool.name!r}); "
                        "write to another folder"
                    )
                outcome = outcome_of(trace, self.scorer)
                self.outcomes[outcome.key] = outcome
                whole += len(line)
        os.truncate(self.path, whole)

    def add(self, trace: Trace) -> Outcome:
        """Score a trace and keep it."""
        outcome = outcome_of(trace, self.scorer)
        score = {
            "answer": outcome.answer,
            "score": outcome.score,
            "exact_match": outcome.exact_match,
            "f1": outcome.f1,
        }
        scored = trace.model_copy(update={"metadata": {**trace.metadata, "score": score}})
        self.keep(outcome, scored.model_dump_json())
        return outcome

    def keep(self, outcome: Outcome, trace: str) -> None:
        """Keep an outcome; its trace, in JSON, goes to the file."""
        self.outcomes[outcome.key] = outcome
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(trace + "\n")


def run_many(work: Coroutine[Any, Any, None]) -> None:
    """Run what asks many questions, in an event loop of its own.

    LangGraph and LangChain make some thirty tasks a question, most of which have nothing to wait
    for: from Python 3.12 on they are run as they are made, which takes a fifth of the time off.
    """
    with asyncio.Runner() as runner:
        if sys.version_info >= (3, 12):
            runner.get_loop().set_task_factory(asyncio.eager_task_factory)
        runner.run(work)


async def run_controller(
    controller: Controller,
    spec: str,
    questions: Iterable[EvaluationQuestion],
    pool: CandidatePool,
    context: RouterContext,
    results: Results,
    *,
    concurrency: int = 64,
    callbacks: Sequence[BaseCallbackHandler] = (),
    done: Callable[[Outcome], None] | None = None,
) -> None:
    """Ask a controller what was not asked yet, and add it to the results.

    Args:
        controller: who decides.
        spec: what it is called in the results.
        questions: what to ask.
        pool: who can be asked.
        context: the knobs, cost weight included.
        results: where outcomes go.
        concurrency: most questions at once.
        callbacks: of every run, such as a `Recorder`.
        done: told each outcome as it is there.
    """
    router = create_router_r1(pool, controller, context=context)
    if not tracing_is_enabled() and not any(isinstance(c, BaseTracer) for c in callbacks):
        router = untraced(router)
    graph = router.compile()
    config: RunnableConfig = {"callbacks": list(callbacks)}
    slots = asyncio.Semaphore(concurrency)

    async def one(question: EvaluationQuestion) -> None:
        try:
            state = await graph.ainvoke({"question": question.question}, config)
            trace = Trace.from_state(
                state,
                pool=pool,
                controller=spec,
                context=context,
                id=question.id,
                gold=question.gold,
                metadata={"slices": dict(question.slices)},
            )
            outcome = results.add(trace)
        finally:
            slots.release()
        if done:
            done(outcome)

    async with _fewer_collections(), asyncio.TaskGroup() as group:
        for question in questions:
            if (spec, context.cost_weight, question.id) in results.outcomes:
                continue
            # A slot before a task: no more tasks than run, whatever the number of questions.
            await slots.acquire()
            group.create_task(one(question))


@contextlib.asynccontextmanager
async def _fewer_collections() -> AsyncIterator[None]:
    """Let Python look for cycles less often: with many questions under way, all of it is alive.

    At its defaults, the collector takes a fifth of an evaluation's time.
    """
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    if not frozen:  # else what the application froze would thaw with ours
        gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen:
            gc.unfreeze()


def cost_weights_of(controller: Controller, wanted: Sequence[float]) -> list[float]:
    """Return the cost weights at which a controller has to be asked.

    A rule that does not read the cost weight does the same at each of them.
    """
    return list(wanted) if getattr(controller, "reads_cost_weight", True) else list(wanted[:1])
