"""Many questions at once through the very graph that serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from router_r1_graph import Controller, Trace, create_router_r1

from .items import Item


def roll_out(
    items: Sequence[Item],
    controller: Controller,
    *,
    name: str = "policy",
    in_flight: int = 256,
    done: Callable[[Trace], None] | None = None,
) -> list[Trace]:
    """Run every item and return the traces in the items' order.

    Args:
        items: what to ask; the same item may stand several times.
        controller: who decides.
        name: the controller's name in the traces.
        in_flight: most questions at once; those that think at once share a batch.
        done: told each trace when it is there.
    """
    return asyncio.run(_roll_out(items, controller, name, in_flight, done))


async def _roll_out(
    items: Sequence[Item],
    controller: Controller,
    name: str,
    in_flight: int,
    done: Callable[[Trace], None] | None,
) -> list[Trace]:
    slots = asyncio.Semaphore(in_flight)
    graphs = {}  # one for each pool object: the samples of a question share it
    for item in items:
        if id(item.pool) not in graphs:
            graphs[id(item.pool)] = create_router_r1(item.pool, controller).compile()

    async def one(item: Item) -> Trace:
        async with slots:
            state = await graphs[id(item.pool)].ainvoke(
                {"question": item.question}, context=item.context
            )
        trace = Trace.from_state(
            state,
            pool=item.pool,
            controller=name,
            context=item.context,
            id=item.id,
            gold=item.gold,
        )
        if done:
            done(trace)
        return trace

    return list(await asyncio.gather(*map(one, items)))
