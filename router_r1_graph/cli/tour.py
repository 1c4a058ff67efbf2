"""`router-r1 demo`: a two-minute tour of the router, and a comparison of controllers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..candidates import CandidatePool
from ..console import make_console
from ..context import RouterContext
from ..controllers import Controller, default_spec, parse_controller
from ..errors import ConfigError, MissingExtraError
from ..files import require_folder
from ..graph import create_router_r1
from ..ledger import total
from ..transcript import Transcript
from ..words import counted
from .live import LiveRun
from .tables import pool_table

if TYPE_CHECKING:
    from ..evaluation.summary import Summary

_COST_WEIGHTS = (0.0, 0.5, 0.9)
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
        "A budget of $0.00013: one call fits, so the answer is what it brought",
        "What is the capital of the country where the author of Anna Karenina was born?",
        RouterContext(budget_usd=0.00013),
    ),
)


def run_tour(
    console: Console, pool: CandidatePool, *, questions: int, seed: int, out: Path
) -> None:
    """Show the pool, some runs, a table of controllers, and its picture, `curve.png`, in a folder.

    Raises:
        ConfigError: the pool's candidates are not simulated: a tour would cost money; or the
            folder cannot be written.
    """
    require_simulated(pool)
    require_folder("--out", out)
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
    try:
        picture = _compare(console, pool, questions, seed, out)
        console.print(f"\nThe picture: {picture}", soft_wrap=True)
    except MissingExtraError as error:
        console.print(f"Note: {error}", soft_wrap=True)
    console.print(
        '\nNext: router-r1 ask "Which river flows through the capital of the country where the '
        'author of Faust was born?"\nYour own LLMs: router-r1 ask QUESTION --pool mine.yaml '
        "(README has such a file)."
    )


def _compare(console: Console, pool: CandidatePool, questions: int, seed: int, out: Path) -> Path:
    """Print the table of controllers, and return the path of its picture."""
    summary = compared(pool, questions, seed, make_console(stderr=True))
    from ..evaluation.plots import draw
    from ..evaluation.report import show

    show(summary, console)
    out.mkdir(parents=True, exist_ok=True)
    return draw(summary, out)[0]


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


def require_simulated(pool: CandidatePool) -> None:
    """Raise ConfigError if a tour of a pool would cost money."""
    if any(candidate.provider != "simulated" for candidate in pool.candidates):
        raise ConfigError(
            f"demo: the pool {pool.name!r} is not simulated, and a tour would cost money; use "
            "router-r1 ask"
        )


def compared(
    pool: CandidatePool, questions: int, seed: int, console: Console | None = None
) -> Summary:
    """Evaluate the controllers that need no fit on test questions, beside every control.

    Args:
        pool: simulated candidates.
        questions: how many test questions.
        seed: of the questions.
        console: where the progress bar goes; None = nowhere.

    Raises:
        ConfigError: the pool's candidates are not simulated.
        MissingExtraError: numpy is missing.
    """
    require_simulated(pool)
    try:
        from ..evaluation.plan import Evaluation
        from ..evaluation.program import evaluate
        from ..evaluation.questions import Reader
    except ImportError as error:  # numpy
        raise MissingExtraError("the table of controllers", "eval", error) from error
    plan = Evaluation(
        pool=pool,
        questions=Reader(["demo"], limit=questions, seed=seed).read(),
        controllers=[*dict.fromkeys([default_spec(pool)[0], "keyword", "cheapest"])],
        cost_weights=_COST_WEIGHTS,
        seed=seed,
    )
    return evaluate(plan, console)
