"""The plan of an evaluation, and the checks before the first call."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from ..candidates import CandidatePool, as_pool
from ..candidates.store import ReplyStore
from ..context import Knobs, RouterContext, as_context
from ..errors import ConfigError, PoolError
from ..files import require_file, require_folder, require_lines
from .questions import EvaluationQuestion
from .recorded_replies import RESULTS
from .run import Results
from .scorers import parse_scorer

MOST_CONSTANTS = 16
"""For a larger pool, only the best and cheapest candidates are controls."""


@dataclass
class Evaluation:
    """The plan of an evaluation.

    Attributes:
        pool: the candidates; a pool file or a shipped pool's name is read.
        questions: the questions to ask.
        controllers: the specs of the controllers.
        cost_weights: the cost weights at which each controller that reads the cost weight is run.
        context: all other settings: a `RouterContext`, which a dict of changes is made into.
            `approve_above_usd` is refused: nobody can approve a call there.
        metric: the kind of score.
        controls: whether constants, random and oracle are run too.
        concurrency: most questions at once.
        processes: the number of processes; use several if the candidates are faster than a core.
        out: the folder of results and report; None = nothing is kept.
        folds: cross-validate learned controllers that are named without a folder (`knn`): split the
            questions into this many parts, and ask each part with a fit on the others.
        record: a file to append every reply to, with the gold answers of whole questions;
            `provider: recorded` can replay it, and `fit` learns from it.
        replies: where replies are kept, so that the same call is paid once, whichever controller
            makes it. None = in `out`, or in a temporary folder without `out`; nothing is kept if
            all candidates are simulated or recorded.
        budget_usd: the most that this run may pay, all controllers together; None = no limit. A
            question is asked if the budget still covers its worst case, as far as this is known.
        resume: whether to continue with results that are there already.
        seed: the seed of the resamples.
        skipped: rows of the data that were left out, with the reasons.
        command: the command line, for the report.
    """

    pool: CandidatePool
    questions: Sequence[EvaluationQuestion]
    controllers: Sequence[str]
    cost_weights: Sequence[float] = (0.5,)
    context: Knobs = field(default_factory=RouterContext)
    metric: str = "exact_match"
    controls: bool = True
    concurrency: int = 64
    processes: int = 1
    out: Path | None = None
    folds: int = 0
    record: Path | None = None
    replies: ReplyStore | None = None
    resume: bool = False
    seed: int = 0
    skipped: Sequence[str] = ()
    budget_usd: float | None = None
    command: str = ""

    def __post_init__(self) -> None:
        """Read the pool and the knobs.

        Raises:
            PoolError: the pool cannot be used.
            ConfigError: a key of `context` names no setting, or a setting is out of range or waits
                for a person.
        """
        self.pool = as_pool(self.pool)
        self.context = context = as_context(self.context)
        context.check(self.pool)
        if context.approve_above_usd is not None:
            raise ConfigError("approve_above_usd: no person can approve a call of an evaluation")


def control_specs(pool: CandidatePool) -> list[str]:
    """Return the controls for a pool: constants, random, and the oracle if it can be known."""
    candidates = list(pool.candidates)
    if len(candidates) > MOST_CONSTANTS:
        by_score = sorted(
            candidates, key=lambda c: -sum(c.benchmarks.values()) / max(1, len(c.benchmarks))
        )
        candidates = [pool.by_price[0], *by_score[: MOST_CONSTANTS - 1]]
    specs = [f"constant:{c.name}" for c in {c.name: c for c in candidates}.values()]
    specs.append("random")
    from ..controllers.embedded import world_of  # with the simulation, which others do without

    try:
        world_of(pool)
        specs.append("oracle")
    except (ConfigError, PoolError):
        pass  # then the oracle of constants is computed from them
    return specs


def open_results(plan: Evaluation) -> Results:
    """Check that all outputs can be written, and return the existing results.

    Raises:
        ConfigError: a file cannot be written, or holds results and `resume` is off.
    """
    scorer = parse_scorer(plan.metric)
    if plan.processes > 1 and plan.record:
        raise ConfigError("recording replies needs one process")
    if plan.processes > 1 and plan.budget_usd is not None:
        raise ConfigError("a budget of the whole evaluation needs one process")
    if plan.out is None:
        require_lines("--record", plan.record, "replies")
        return Results(None, scorer)
    require_folder("--out", plan.out)
    if plan.record and plan.record.absolute().parent != plan.out.absolute():
        require_lines("--record", plan.record, "replies")
    file = plan.out / RESULTS
    plan.out.mkdir(parents=True, exist_ok=True)
    require_file("--out", file)
    require_lines("--record", plan.record, "replies")
    if file.exists() and file.stat().st_size and not plan.resume:
        raise ConfigError(
            f"{file} holds results already: go on with --resume, or name another --out"
        )
    results = Results(file, scorer)
    results.load(plan.pool, plan.questions, as_context(plan.context))
    return results


def is_free(pool: CandidatePool) -> bool:
    """Whether its candidates cost nothing: all are simulated or recorded."""
    return all(candidate.provider in ("simulated", "recorded") for candidate in pool.candidates)


@contextmanager
def paid_once(plan: Evaluation) -> Iterator[Evaluation]:
    """Yield the plan with a reply store, so that several controllers' same call is paid once."""
    if plan.replies is not None or is_free(plan.pool):
        yield plan
        return
    with ExitStack() as stack:
        folder = plan.out or Path(stack.enter_context(TemporaryDirectory()))
        store = stack.enter_context(ReplyStore(folder / "replies.sqlite", every=True))
        yield dataclasses.replace(plan, replies=store)
