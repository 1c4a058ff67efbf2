"""Many questions at once through the same graph that serves, and which of them failed."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from accelerate.utils import gather_object
from langsmith import tracing_context

from router_r1_graph import Controller, ReplyStore, StopReason, Trace
from router_r1_graph.call_records import CallRecord
from router_r1_graph.candidates.resilience.fallback import UNREACHABLE
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.evaluation.loop import AskItem, Item, ask_many, ask_router, run
from router_r1_graph.words import counted

from .errors import BudgetSpentError, OutsideError
from .outcomes import Outcomes, judgement_of
from .own_graph import GRAPH_FAILED, NOT_ASKED, OwnGraph
from .spending import Spending, StageBill

_OUTSIDE = tuple(UNREACHABLE)
"""Kinds of errors that say nothing about the policy."""
NO_REPLY = "no candidate replied"
"""The beginning of the message for a rollout whose candidates could not be reached."""


@dataclass(frozen=True)
class Patience:
    """How a rollout that failed from outside is tried again.

    Attributes:
        tries: how often in all.
        wait_seconds: before the second try; twice as long before each further one.
    """

    tries: int = 1
    wait_seconds: float = 5.0


def roll_out(
    items: Sequence[Item],
    controller: Controller,
    *,
    name: str = "policy",
    in_flight: int = 256,
    patience: Patience = Patience(),
    replies: ReplyStore | None = None,
    graph: OwnGraph | None = None,
    outcomes: Outcomes | None = None,
    done: Callable[[Trace], None] | None = None,
    bill: StageBill | None = None,
) -> list[Trace]:
    """Run every item and return the traces in the items' order, judged if that is wanted.

    A graph of the user's own may ask the router several times in one run. One of these traces,
    drawn by the item's seed, represents the run, so that each of them is learned over time.

    LangSmith gets none of the runs, even if tracing is on: a training makes a hundred
    thousand of them.

    Args:
        items: the questions; if an item occurs several times, each sample has a seed of its own.
        controller: the controller.
        name: the controller's name in the traces.
        in_flight: most questions at once; those that think at the same time share a batch.
        patience: the retries of a rollout that failed from outside.
        replies: the store of replies, so that the same call is paid once; None = no store.
        graph: the user's own graph around the router; None = the router alone.
        outcomes: judges the traces; None = they are not judged here.
        done: gets each trace as soon as it is there, those of failed tries among them.
        bill: records each call. If nothing more may be paid, the running questions are finished,
            and no other one is asked. None = nothing is paid.

    Raises:
        BudgetSpentError: not all items may be asked.
        ConfigError: the user's own graph cannot be made or asked, or a reward function returned
            no valid reward.
    """
    asked = list(_samples(items))
    asks = ask_router if graph is None else graph.asks
    make = partial(asks, controller, name=name, replies=replies)
    ask: AskItem = bill.paid(lambda callbacks: make(callbacks=callbacks)) if bill else make()
    traces: dict[int, Trace] = {}
    waiting = list(range(len(asked)))
    wait = patience.wait_seconds
    for left in reversed(range(patience.tries)):
        places = waiting
        refuses = bill.refusal if bill else str
        this = _Try([asked[place] for place in places], in_flight, refuses, done)
        # A user's own graph may run in more threads than there are.
        together = _together(controller, None if graph else this.running)
        with tracing_context(enabled=False), together:
            run(ask_many(this.ask(), ask, this.keep, at_once=in_flight))
        if this.refused:
            raise BudgetSpentError(this.refused)
        for place, several in this.found.items():
            traces[places[place]] = _one_of(several, asked[places[place]])
        waiting = [place for place in places if failure_from_outside(traces[place])]
        if not waiting or not left:
            break
        time.sleep(wait)
        wait *= 2
    whole = [traces[place] for place in sorted(traces)]
    if not outcomes:
        return whole
    with tracing_context(enabled=False):
        fit = {place: t for place, t in enumerate(whole) if not why_left_out(t)}
        judged = dict(zip(fit, outcomes.judge([*fit.values()]), strict=True))
    return [judged.get(place, trace) for place, trace in enumerate(whole)]


class _Try:
    """One try of items, which ends early if nothing more may be paid."""

    def __init__(
        self,
        items: Sequence[Item],
        in_flight: int,
        refuses: Callable[[], str],
        done: Callable[[Trace], None] | None,
    ) -> None:
        self.items = items
        self.in_flight = in_flight
        self.refuses = refuses
        self.done = done
        self.asked = 0
        self.refused = ""
        """Why it ended early."""
        self.found: dict[int, list[Trace]] = defaultdict(list)

    def ask(self) -> Iterator[Item]:
        """Yield the items that may be asked; running ones are not stopped."""
        for item in self.items:
            if refused := self.refuses():
                self.refused = refused
                return
            self.asked += 1
            yield item

    def running(self) -> int:
        """Return how many questions are running, or begin as soon as there is a place."""
        begun = self.asked if self.refused else len(self.items)
        return min(self.in_flight, begun - len(self.found))

    def keep(self, place: int, trace: Trace) -> None:
        """Take a finished run."""
        self.found[place].append(trace)
        if self.done:
            self.done(trace)


@contextmanager
def _together(controller: Controller, running: Callable[[], int] | None) -> Iterator[None]:
    """Have a policy sample the turns of all running questions together."""
    if running is None or not isinstance(controller, PolicyController):
        yield
        return
    controller.wait_for_all(running)
    try:
        yield
    finally:
        controller.wait_for_all(None)


def _one_of(traces: Sequence[Trace], item: Item) -> Trace:
    """Return the trace that represents a run: a failed one, if there is one."""
    if len(traces) == 1:
        return traces[0]
    failed = [trace for trace in traces if failure_from_outside(trace)]
    # The order in which they finish depends on timing.
    ordered = sorted(failed or traces, key=lambda trace: (trace.question, trace.turns))
    return random.Random(f"{item.context.seed}/{item.question}").choice(ordered)


def judged_of(traces: Sequence[Trace], stage: str) -> list[Trace]:
    """Return the traces that are not left out.

    Raises:
        OutsideError: all are, half of them failed from outside, or no candidate replied to any.
    """
    kept = [trace for trace in traces if not why_left_out(trace)]
    failed = [failure for trace in traces if (failure := failure_from_outside(trace))]
    away = any(failure.startswith(NO_REPLY) for failure in failed)
    nobody = not any(map(got_reply, traces))
    if (failed and 2 * len(failed) >= len(traces)) or (away and nobody):
        raise OutsideError(
            f"{stage}: {len(failed)} of {counted(len(traces), 'rollout')} failed through no fault "
            f"of the policy; the last: {failed[-1]}"
        )
    silent = [error for trace in traces if (error := unheard(trace))]
    if nobody and silent and 2 * len(silent) >= len(traces):
        raise OutsideError(
            f"{stage}: none of {counted(len(silent), 'rollout')} that asked candidates got a "
            f"reply; the last: {silent[-1]}"
        )
    if traces and not kept:
        raise OutsideError(
            f"{stage}: all {counted(len(traces), 'rollout')} are left out; the last: "
            f"{why_left_out(traces[-1])}"
        )
    return kept


def why_left_out(trace: Trace) -> str:
    """Return why nothing can be learned from a rollout; "" if something can."""
    if failure := failure_from_outside(trace):
        return failure
    if not trace.turns:
        return str(trace.metadata.get(NOT_ASKED, "the policy wrote nothing"))
    silent = judgement_of(trace).get("outcome", 0.0) is None
    return "no reward function said anything" if silent else ""


def failure_from_outside(trace: Trace) -> str:
    """Return why a run failed through no fault of the policy; "" if it did not.

    The reasons are: the sampler failed, no real endpoint replied, the user's own graph failed, or a
    reward function failed. If simulated candidates fail, or only some of the calls, the policy
    should learn to ask others. A context that is too long is the policy's fault, too, if it has
    written a turn of it.
    """
    if failure := trace.metadata.get(GRAPH_FAILED) or judgement_of(trace).get("failure"):
        return str(failure)
    if trace.stop_reason == StopReason.CONTROLLER_ERROR and NOT_ASKED not in trace.metadata:
        if trace.error.startswith("context_length:") and trace.turns:
            return ""
        return f"the sampler failed: {trace.error}"
    calls = _real_calls(trace)
    errors = [call.error or "" for call in calls if not call.ok]
    if errors and len(errors) == len(trace.calls) and all(e.startswith(_OUTSIDE) for e in errors):
        return f"{NO_REPLY}: {calls[-1].candidate}: {errors[-1]}"
    return ""


_OF_THE_QUERY = ("declined", "context_length", "no_record", "refused")
"""Kinds of errors that another query might not have brought."""


def unheard(trace: Trace) -> str:
    """Return the last error of a run that asked real candidates, if none of them replied; else "".

    Whether the policy or the endpoints are at fault is told by many runs only.
    """
    calls = _real_calls(trace)
    errors = [call.error or "" for call in calls if not call.ok]
    if not errors or len(errors) < len(calls) or all(e.startswith(_OF_THE_QUERY) for e in errors):
        return ""
    return f"{calls[-1].candidate}: {errors[-1]}"


def got_reply(trace: Trace) -> bool:
    """Return whether a candidate that is not simulated replied."""
    return any(call.ok for call in _real_calls(trace))


def _real_calls(trace: Trace) -> list[CallRecord]:
    simulated = {c.name for c in trace.pool.candidates if c.provider == "simulated"}
    return [call for call in trace.calls if call.candidate not in simulated]


def require_budget(spending: Spending, stage: str) -> None:
    """Check that a stage may pay; all processes have to call this, as one decides for all.

    Raises:
        BudgetSpentError: it may not.
    """
    if refused := gather_object([spending.refusal(stage)])[0]:
        raise BudgetSpentError(refused)


def _samples(items: Sequence[Item]) -> Iterator[Item]:
    """Yield the items, with other seeds for the second and further ones that are equal."""
    seen: Counter[tuple[str, str, int, float]] = Counter()
    for item in items:
        same = (item.id, item.question, item.context.seed, item.context.cost_weight)
        sample = seen[same]
        seen[same] += 1
        if not sample:
            yield item
        else:
            yield replace(item, context=replace(item.context, seed=item.context.seed + sample))
