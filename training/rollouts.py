"""Many questions at once through the same graph that serves, and which of them failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from langsmith import tracing_context

from router_r1_graph import Controller, ReplyStore, StopReason, Trace
from router_r1_graph.evaluation.loop import Item, ask_many, run

#: Kinds of errors that say nothing about the policy: its endpoint, key or network is at fault.
_OUTSIDE = ("auth", "not_found", "rate_limited", "server_error", "timeout", "connection")


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
    done: Callable[[Trace], None] | None = None,
) -> list[Trace]:
    """Run every item and return the traces in the items' order.

    LangSmith gets none of the runs, whatever the environment says: a training makes a hundred
    thousand of them.

    Args:
        items: what to ask; if an item occurs several times, each sample has a seed of its own.
        controller: the controller.
        name: the controller's name in the traces.
        in_flight: most questions at once; those that think at once share a batch.
        patience: how a rollout that failed from outside is tried again.
        replies: where replies are kept, so that the same call is paid once; None = nowhere.
        done: gets each trace as soon as it is there, those of failed tries among them.
    """
    asked = list(_samples(items))
    traces: dict[int, Trace] = {}
    waiting = list(range(len(asked)))
    wait = patience.wait_seconds
    for left in reversed(range(patience.tries)):
        places = waiting

        def keep(place: int, trace: Trace, places: Sequence[int] = places) -> None:
            traces[places[place]] = trace
            if done:
                done(trace)

        with tracing_context(enabled=False):
            work = [asked[place] for place in places]
            run(ask_many(work, controller, keep, name=name, at_once=in_flight, replies=replies))
        waiting = [place for place in places if failure_from_outside(traces[place])]
        if not waiting or not left:
            break
        time.sleep(wait)
        wait *= 2
    return [traces[place] for place in sorted(traces)]


def failure_from_outside(trace: Trace) -> str:
    """Return why a run failed through no fault of the policy; "" where it did not.

    That is a sampler that failed, or real endpoints of which not one replied. Where simulated
    candidates fail, or some of the calls, the policy is to learn to ask others. A context that is
    too long is the policy's fault, too, if it has written a turn of it.
    """
    if trace.stop_reason == StopReason.CONTROLLER_ERROR:
        if trace.error.startswith("context_length:") and trace.turns:
            return ""
        return f"the sampler failed: {trace.error}"
    simulated = {c.name for c in trace.pool.candidates if c.provider == "simulated"}
    calls = [call for call in trace.calls if call.candidate not in simulated]
    errors = [call.error or "" for call in calls if not call.ok]
    if errors and len(errors) == len(trace.calls) and all(e.startswith(_OUTSIDE) for e in errors):
        return f"no candidate replied: {calls[-1].candidate}: {errors[-1]}"
    return ""


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
