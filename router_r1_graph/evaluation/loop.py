"""Many questions at once through compiled graphs: the one loop of evaluation, training and tour."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any, TypeVar

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from ..candidates import CandidatePool
from ..candidates.apart import run_apart
from ..candidates.store import ReplyStore
from ..context import RouterContext
from ..controllers import Controller
from ..graph import create_router_r1
from ..trace import Trace


@dataclass(frozen=True)
class Item:
    """One question, the pool to ask, and the knobs.

    Attributes:
        id: the id of the question.
        question: the question.
        gold: gold answers, where known.
        pool: the candidates.
        context: the knobs.
        metadata: anything else for its trace, JSON types only.
    """

    id: str
    question: str
    gold: tuple[str, ...]
    pool: CandidatePool
    context: RouterContext
    metadata: Mapping[str, Any] = field(default_factory=dict)


_Asked = TypeVar("_Asked")
"""The input of one run: an `Item`, in most places."""
_Came = TypeVar("_Came")
"""The result of one run: traces, in most places."""

AskItem = Callable[[Item], Awaitable[Sequence[Trace]]]
"""Asks one question, and returns the traces of the router's runs."""


def ask_router(
    controller: Controller,
    *,
    name: str = "",
    callbacks: Sequence[BaseCallbackHandler] = (),
    replies: ReplyStore | None = None,
) -> AskItem:
    """Return a function that asks the router itself: one run, one trace.

    Args:
        controller: the controller; questions that think at the same time may share a batch.
        name: the controller's name in traces; "" = its own name.
        callbacks: callbacks of every run, such as a `Recorder`.
        replies: where replies are kept, so that the same call is paid once; None = nowhere.
    """
    graphs: dict[int, CompiledStateGraph[Any, Any, Any, Any]] = {}  # one for each pool object
    config: RunnableConfig = {"callbacks": list(callbacks)}

    async def ask(item: Item) -> Sequence[Trace]:
        if id(item.pool) not in graphs:
            graph = create_router_r1(item.pool, controller, replies=replies)
            graphs[id(item.pool)] = graph.compile()
        state = await graphs[id(item.pool)].ainvoke(
            {"question": item.question}, config, context=item.context
        )
        return [trace_of(item, state, name)]

    return ask


def trace_of(item: Item, state: Mapping[str, Any], controller: str) -> Trace:
    """Return the trace of an item from the final state of its run."""
    return Trace.from_state(
        state,
        pool=item.pool,
        controller=controller,
        id=item.id,
        gold=item.gold,
        metadata=item.metadata,
    )


async def ask_many(
    items: Iterable[_Asked],
    ask: Callable[[_Asked], Awaitable[Sequence[_Came]]],
    done: Callable[[int, _Came], None],
    *,
    at_once: int = 64,
) -> None:
    """Ask questions, many at once; the first error ends all of them and is raised.

    Args:
        items: the questions; read one by one as places become free, so there may be any number.
        ask: asks one of them: `ask_router`, another graph that the router is a part of, or any
            other function of an item.
        done: gets the place of each item and its result, as soon as it is there.
        at_once: most questions at once.
    """
    places = asyncio.Semaphore(at_once)

    async def one(place: int, item: _Asked) -> None:
        try:
            came = await ask(item)
        finally:
            places.release()
        for one_of_it in came:
            done(place, one_of_it)

    try:
        async with _fewer_collections(), asyncio.TaskGroup() as group:
            for place, item in enumerate(items):
                # Take a place before making a task, so that there are no more tasks than running
                # questions.
                await places.acquire()
                group.create_task(one(place, item))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that asks many questions, in an event loop of its own.

    LangGraph and LangChain make about thirty tasks per question, and most of them never wait. From
    Python 3.12 on, tasks run as they are made, which saves a fifth of the time.
    """
    run_apart(lambda: _run(work))


def _run(work: Coroutine[Any, Any, None]) -> None:
    stopped = False

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A signal raises in whichever task is running, and a second one in the midst of closing:
        # that these have ended so, or not at all, is what was asked for.
        if not stopped:
            loop.default_exception_handler(context)

    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(report)
        if sys.version_info >= (3, 12):
            runner.get_loop().set_task_factory(asyncio.eager_task_factory)
        try:
            runner.run(work)
        except KeyboardInterrupt:
            stopped = True
            raise


@contextlib.asynccontextmanager
async def _fewer_collections() -> AsyncIterator[None]:
    """Run Python's garbage collector less often: with many questions at once, it finds no garbage.

    At its defaults, the collector takes a fifth of an evaluation's time.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
