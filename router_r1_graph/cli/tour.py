"""`router-r1 demo`: what the router does, in two minutes, and how controllers compare."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..answers import exact_match
from ..candidates import CandidatePool
from ..context import RouterContext
from ..controllers import Controller, default_spec, parse_controller
from ..controllers.embedded import world_of
from ..errors import ConfigError
from ..evaluation.loop import Item, ask_many, ask_router
from ..graph import create_router_r1
from ..ledger import total
from ..simulation import Question, generate
from ..trace import Trace
from ..transcript import Transcript
from ..words import counted, fixed
from .live import LiveRun
from .tables import pool_table, wilson

_AT_ONCE = 32
_SCENES = (
    (
        "Three hops, each asked of the cheapest candidate that fits",
        "What is the currency of the country where the author of Hamlet was born?",
        RouterContext(),
    ),
    (
        "A comparison: two questions at once",
        "Were Jane Austen and Leo Tolstoy born in the same country?",
        RouterContext(),
    ),
    (
        "A budget of $0.00013: no call that could cost more than is left",
        "In which city was the author of Hamlet born?",
        RouterContext(budget_usd=0.00013),
    ),
)


@dataclass(frozen=True)
class Score:
    """How a controller did; `low` and `high` are the 95% Wilson interval of exact match.

    `cost_usd` and `calls` are means over questions, `seconds` is wall time of all of them.
    """

    controller: str
    exact_match: float
    low: float
    high: float
    cost_usd: float
    calls: float
    seconds: float


def run_tour(console: Console, pool: CandidatePool, *, questions: int, seed: int) -> None:
    """Show the pool, some runs, and a table of controllers.

    Raises:
        ConfigError: the pool's candidates are not simulated: a tour would cost money.
    """
    _require_simulated(pool)
    console.rule("The pool", align="left")
    console.print(pool_table(pool))
    spec, note = default_spec(pool)
    if note:
        console.print(f"\nNote: {note}.", markup=False)
    controller = parse_controller(spec, pool)
    for title, question, context in _SCENES:
        console.print()
        console.rule(title, align="left")
        _play(console, pool, question, controller, context)
    console.print()
    console.rule(f"Controllers on {counted(questions, 'test question')}", align="left")
    scores = asyncio.run(compare(pool, questions, seed, console, {spec: controller}))
    console.print(score_table(scores))
    console.print(
        "Exact match with its 95% Wilson interval; cost is what the candidates were paid, in USD "
        "per 1,000 questions.\nBest constant: the candidate that alone was right most often on 100 "
        "training questions. Oracle: the best reachable, at its least cost.",
        style="dim",
    )
    console.print(
        '\nNext: router-r1 ask "Which river flows through the capital of the country where the '
        'author of Faust was born?"\nYour own LLMs: router-r1 ask --pool mine.yaml (see README).'
    )


def _play(
    console: Console,
    pool: CandidatePool,
    question: str,
    controller: Controller,
    context: RouterContext,
) -> None:
    graph = create_router_r1(pool, controller, context=context).compile()
    transcript = Transcript(console, pool)
    transcript.question(question)
    with transcript:
        state = asyncio.run(LiveRun(graph, pool, question, context, transcript).run())
    transcript.answer(state["answer"])
    transcript.stopped(state["stop_reason"], state["error"])
    transcript.bill(total(state["ledger"]), state["ledger"])


def _require_simulated(pool: CandidatePool) -> None:
    if any(candidate.provider != "simulated" for candidate in pool.candidates):
        raise ConfigError(
            f"demo: the pool {pool.name!r} is not simulated, and a tour would cost money; use "
            "router-r1 ask"
        )


async def compare(
    pool: CandidatePool,
    count: int,
    seed: int,
    console: Console | None = None,
    made: Mapping[str, Controller] | None = None,
) -> list[Score]:
    """Ask test questions by every controller; in a terminal, with a progress bar.

    Args:
        pool: simulated candidates.
        count: how many test questions.
        seed: of the questions.
        console: where the progress bar goes; None = nowhere.
        made: controllers that are there already, by spec: a policy takes seconds to load.

    Raises:
        ConfigError: the pool's candidates are not simulated.
    """
    _require_simulated(pool)
    world = world_of(pool)
    test = generate(world, split="test", n=count, seed=seed)
    train = generate(world, split="train", n=100, seed=seed)
    constants = [f"constant:{candidate.name}" for candidate in pool.candidates]
    others = dict.fromkeys(["cheapest", "random", "keyword", default_spec(pool)[0], "oracle"])
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        TimeElapsedColumn(),
    )
    hidden = console is None or not console.is_interactive
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:

        async def score(spec: str, questions: Sequence[Question]) -> Score:
            controller = (made or {}).get(spec) or parse_controller(spec, pool)
            return await _score(spec, controller, pool, questions, progress)

        trials = [await score(constant, train) for constant in constants]
        best = max(trials, key=lambda score: (score.exact_match, -score.cost_usd)).controller
        scores = [await score(spec, test) for spec in (best, *others)]
    name = best.removeprefix("constant:")
    return [
        Score(**{**asdict(scores[0]), "controller": f"best constant ({name})"}),
        *scores[1:],
    ]


async def _score(
    spec: str,
    controller: Controller,
    pool: CandidatePool,
    questions: Sequence[Question],
    progress: Progress,
) -> Score:
    task = progress.add_task(spec, total=len(questions), status="")
    right: list[float] = []
    costs: list[float] = []
    calls: list[int] = []
    start = time.perf_counter()

    def done(_: int, trace: Trace) -> None:
        bill = total(trace.ledger)
        right.append(exact_match(trace.answer, trace.gold))
        costs.append(bill["cost_usd"])
        calls.append(bill["calls"])
        rate = len(right) / (time.perf_counter() - start)
        status = (
            f"{rate:4.0f}/s  exact match {statistics.fmean(right):.2f}  "
            f"${fixed(statistics.fmean(costs) * 1e3, 4)} per 1,000"
        )
        progress.update(task, advance=1, status=status)

    items = (Item(q.id, q.text, q.gold, pool, RouterContext()) for q in questions)
    await ask_many(items, ask_router(controller, name=spec), done, at_once=_AT_ONCE)
    low, high = wilson(sum(right), len(right))
    return Score(
        controller=spec,
        exact_match=statistics.fmean(right),
        low=low,
        high=high,
        cost_usd=statistics.fmean(costs),
        calls=statistics.fmean(calls),
        seconds=time.perf_counter() - start,
    )


def score_table(scores: Sequence[Score]) -> Table:
    """Return the scores as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("controller")
    for name in ("exact match", "95%", "USD / 1,000", "calls", "seconds"):
        table.add_column(name, justify="right")
    for score in scores:
        table.add_row(
            Text(score.controller),
            f"{score.exact_match:.3f}",
            f"{score.low:.2f} to {score.high:.2f}",
            fixed(score.cost_usd * 1e3, 4),
            f"{score.calls:.2f}",
            f"{score.seconds:.1f}",
        )
    return table
