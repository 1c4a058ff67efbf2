"""Many questions at once through the same graph that serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from router_r1_graph import Controller, ReplyStore, Trace
from router_r1_graph.evaluation.loop import Item, ask_many, run


def roll_out(
    items: Sequence[Item],
    controller: Controller,
    *,
    name: str = "policy",
    in_flight: int = 256,
    replies: ReplyStore | None = None,
    done: Callable[[Trace], None] | None = None,
) -> list[Trace]:
    """Run every item and return the traces in the items' order.

    Args:
        items: what to ask; if an item occurs several times, each sample has a seed of its own.
        controller: the controller.
        name: the controller's name in the traces.
        in_flight: most questions at once; those that think at once share a batch.
        replies: where replies are kept, so that the same call is paid once; None = nowhere.
        done: gets each trace as soon as it is there.
    """
    traces: list[Trace | None] = [None] * len(items)

    def keep(place: int, trace: Trace) -> None:
        traces[place] = trace
        if done:
            done(trace)

    work = ask_many(
        _samples(items), controller, keep, name=name, at_once=in_flight, replies=replies
    )
    run(work)
    return [trace for trace in traces if trace is not None]


def _samples(items: Sequence[Item]) -> Iterator[Item]:
    """Yield the items, with other seeds for the second and further samples of a question."""
    seen: Counter[tuple[str, str]] = Counter()
    for item in items:
        sample = seen[item.id, item.question]
        seen[item.id, item.question] += 1
        if not sample:
            yield item
        else:
            yield replace(item, context=replace(item.context, seed=item.context.seed + sample))
