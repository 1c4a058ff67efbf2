"""Runs controllers over questions, many at once; each outcome is written to disk at once.

The key invariant: each (controller, cost weight, question) is asked at most once, also across
interrupted runs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from langchain_core.callbacks import BaseCallbackHandler

from ..answers import exact_match, f1_score
from ..budget import StopReason
from ..call_records import CallRecord
from ..candidates import CandidatePool
from ..candidates.in_vain import IN_VAIN
from ..candidates.store import ReplyStore
from ..context import RouterContext
from ..controllers import Controller
from ..errors import ConfigError, TraceError
from ..files import append_line, objects_in, write_whole
from ..ledger import price_usd, total
from ..trace import Trace
from .loop import AskItem, Item, ask_many, ask_router
from .origin import Origin, difference, other_options, other_pool
from .questions import EvaluationQuestion
from .scorers import Scorer, stated

Key = tuple[str, float, str]
"""Controller, cost weight, id of the question."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one question: all that a report needs."""

    controller: str
    cost_weight: float
    id: str
    answer: str
    score: float
    """The score by the evaluation's metric, from 0 to 1."""
    exact_match: float
    f1: float
    """The last two, for any metric."""
    cost_usd: float
    """The cost as if nothing was stored, so that controllers can be compared."""
    seconds: float
    """The seconds on the ledger: candidates' and controller's, added up."""
    calls: float
    rounds: float
    failures: float
    """Calls that failed."""
    answered: float
    """1.0 if the controller itself gave the answer."""
    asked: Mapping[str, int]
    """Calls by candidate."""
    slices: Mapping[str, str]
    stored_calls: int = 0
    """Calls whose reply was stored, the controller's included."""
    saved_usd: float = 0.0
    """The part of `cost_usd` that these saved."""
    stated: float = 0.0
    """1.0 if the answer states a gold one in any form, see `scorers.stated`."""
    error: str = ""
    """Why neither a candidate nor the controller replied; "" = one did."""
    explore: float = 0.0
    """The share of calls whose candidate was drawn at random, from 0 to 1."""
    uncertain_usd: float = 0.0
    """The most that attempts cost whose price is unknown; no part of `cost_usd`."""
    unread: bool = False
    """Whether all its replies were paid and are of no use: another call would bring the same."""

    @property
    def asked_again(self) -> bool:
        """Whether a resumed evaluation asks its question again."""
        return bool(self.error) and not self.unread

    @property
    def key(self) -> Key:
        """The run and question that it is the outcome of."""
        return (self.controller, self.cost_weight, self.id)


def outcome_of(trace: Trace, scorer: Scorer) -> Outcome:
    """Return the outcome of a trace with gold answers."""
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
        cost_usd=price_usd(bill),
        seconds=bill["seconds"],
        calls=float(bill["calls"]),
        rounds=float(trace.rounds),
        failures=float(sum(not call.ok for call in calls)),
        answered=float(trace.stop_reason == "answered"),
        asked=Counter(call.candidate for call in calls if not call.cached),
        slices=trace.metadata.get("slices", {}),
        stored_calls=bill["stored_calls"],
        saved_usd=bill["saved_usd"],
        stated=stated(answer, trace.gold),
        error=_error(trace, calls),
        explore=trace.context.explore,
        uncertain_usd=bill.get("uncertain_usd", 0.0),
        unread=bool(calls) and all(_is_unread(call) for call in calls),
    )


def _is_unread(call: CallRecord) -> bool:
    paid = call.input_tokens + call.output_tokens or call.cost_usd + call.saved_usd
    kind = (call.error or "").partition(":")[0]
    # Without usage, the words that come in an outage are no model's, and the store has no reply.
    written = call.output_tokens or call.stored or kind == "malformed"
    return bool(paid and written) and kind in IN_VAIN and not call.ok


def _error(trace: Trace, calls: Sequence[CallRecord]) -> str:
    """Return why no candidate replied; "" = one did, or none was asked.

    A paid reply counts as a reply, even an empty one.
    """
    if trace.stop_reason == StopReason.NO_REPLY:
        return trace.error
    if any(call.ok for call in calls) or price_usd(total(trace.ledger)) > 0:
        return ""
    return trace.error or next((call.error for call in calls if call.error), "")


def read_results(path: Path) -> Iterator[tuple[Trace, bytes]]:
    """Yield the traces of a file of results with their lines, but not a last one that was cut off.

    Raises:
        TraceError: a line in the middle is broken.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            ((_, data),) = objects_in([line])
            try:
                yield Trace.read(data), line
            except TraceError as error:
                raise TraceError(f"{path}, line {number}: not a trace: {error}") from None


class Results:
    """The file of results: one trace per line, each flushed at once.

    Args:
        path: the file; None keeps nothing.
        scorer: scores the answers.
    """

    def __init__(self, path: Path | None, scorer: Scorer) -> None:
        self.path = path
        self.scorer = scorer
        self.outcomes: dict[Key, Outcome] = {}

    def load(
        self,
        pool: CandidatePool,
        questions: Sequence[EvaluationQuestion] | None = None,
        context: RouterContext | None = None,
    ) -> None:
        """Load the results of an earlier run, so that they are not asked again.

        A line that was cut off is dropped from the file. So are questions without a reply, since a
        key may be right by now.

        Args:
            pool: the candidates.
            questions: the questions; None = any.
            context: the knobs, without the cost weight; None = any.

        Raises:
            TraceError: a line in the middle is broken.
            ConfigError: the results are of another pool, or of other questions, gold answers or
                knobs; the message says which.
        """
        if self.path is None or not self.path.exists():
            return
        ours, whole, dropped = pool.descriptors(), 0, list[bool]()
        origin = Origin.read(self.path.parent)
        options = origin and other_options(origin, pool)
        asked = None if questions is None else {question.id: question for question in questions}
        for trace, line in read_results(self.path):
            if other := other_pool(trace, ours) or options or difference(trace, asked, context):
                raise ConfigError(
                    f"{self.path}: its results are of {other}; write to another folder"
                )
            whole += len(line)
            outcome = outcome_of(trace, self.scorer)
            dropped.append(outcome.asked_again)
            if not outcome.asked_again:
                self.outcomes[outcome.key] = outcome
        if any(dropped):
            lines = zip(read_results(self.path), dropped, strict=True)
            kept = (line for (_, line), drop in lines if not drop)
            write_whole(self.path, b"".join(kept).decode())
        else:
            os.truncate(self.path, whole)

    def add(self, trace: Trace) -> Outcome:
        """Score a trace and keep it."""
        outcome = outcome_of(trace, self.scorer)
        score = {
            "answer": outcome.answer,
            "score": outcome.score,
            "exact_match": outcome.exact_match,
            "f1": outcome.f1,
            "stated": outcome.stated,
        }
        scored = trace.model_copy(update={"metadata": {**trace.metadata, "score": score}})
        self.keep(outcome, scored.model_dump_json())
        return outcome

    def keep(self, outcome: Outcome, trace: str) -> None:
        """Keep an outcome; its trace, in JSON, goes to the file."""
        self.outcomes[outcome.key] = outcome
        if self.path is not None:
            append_line(self.path, trace)


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
    replies: ReplyStore | None = None,
    limited: Callable[[AskItem], AskItem] = lambda ask: ask,
    done: Callable[[Outcome], None] | None = None,
) -> None:
    """Ask a controller the remaining questions, and add the outcomes to the results.

    Args:
        controller: the controller.
        spec: its name in the results.
        questions: the questions to ask.
        pool: the candidates.
        context: the knobs, cost weight included.
        results: where outcomes go.
        concurrency: most questions at once.
        callbacks: callbacks of every run, such as a `Recorder`.
        replies: where replies are kept, so that the same call is paid once; None = nowhere.
        limited: wraps the function that asks, to limit the payments (`spending.within`).
        done: gets each outcome as soon as it is there.
    """
    asked = (
        Item(q.id, q.question, q.gold, pool, context, {"slices": dict(q.slices)})
        for q in questions
        if (spec, context.cost_weight, q.id) not in results.outcomes
    )

    def keep(_: int, trace: Trace) -> None:
        outcome = results.add(trace)
        if done:
            done(outcome)

    ask = ask_router(controller, name=spec, callbacks=callbacks, replies=replies)
    await ask_many(asked, limited(ask), keep, at_once=concurrency)


def cost_weights_of(
    controller: Controller, wanted: Sequence[float], earlier: float | None = None
) -> list[float]:
    """Return the cost weights at which a controller has to be asked.

    A rule that does not read the cost weight is asked at only one, since it does the same at each.
    It is the one at which it has been asked before, if any.
    """
    if getattr(controller, "reads_cost_weight", True):
        return list(wanted)
    return list(wanted[:1]) if earlier is None else [earlier]
