"""Controllers compared in the embedded world of agents: `router-r1 evaluate agents`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from ..candidates import CandidatePool
from ..context import RouterContext
from ..controllers import ConstantController, Controller, RandomController, StickyController
from ..controllers.learned.steps import StepController
from ..evaluation.statistics import Bootstrap, Interval
from ..simulation.agent_world import agent_pool, tasks
from .controls import DifficultyController, score_matrix
from .episodes import Episode, play_all, utilities

USD_OF_A_SOLUTION = 1.0
"""The worth of a solved task, if controllers are compared by one number."""
TRAINING_TASKS = 100
_WEIGHTS = (0.03, 0.05, 0.07, 0.1, 0.2)
_LIMITS = ((0.3, 0.45, 0.6), (0.35, 0.5, 0.7), (0.4, 0.6, 0.8))


@dataclass(frozen=True)
class Row:
    """One controller on the same tasks as all others.

    Attributes:
        controller: its name.
        cost_weight: the one at which it decided.
        solved: the share of tasks that it solved.
        cost_usd: of a task.
        cache_loss_usd: of a task: the price of changes of the model.
        calls: of a task.
        changes: of the model, in a task.
        ahead: how much more the fitted controller's tasks are worth, paired: a solved one is worth
            1, less its cost in USD; None for itself.
    """

    controller: str
    cost_weight: float
    solved: Interval
    cost_usd: Interval
    cache_loss_usd: float
    calls: float
    changes: float
    ahead: Interval | None


@dataclass(frozen=True)
class Comparison:
    """All controllers, the fitted one first, and the fitted controller itself."""

    rows: tuple[Row, ...]
    fitted: StepController
    tasks: int
    seed: int

    @property
    def best_constant(self) -> Row:
        """The constant that solves most, the cheapest of equals."""
        constants = [row for row in self.rows if row.controller.startswith("constant:")]
        return max(constants, key=lambda row: (row.solved.mean, -row.cost_usd.mean))

    def summary(self) -> dict[str, object]:
        """Return it as one JSON object."""
        rows = [asdict(row) for row in self.rows]
        return {"tasks": self.tasks, "seed": self.seed, "controllers": rows}

    def verdict(self) -> str:
        """Say in a sentence whether the fitted controller is worth it."""
        ours, best = self.rows[0], self.best_constant
        share = ours.cost_usd.mean / best.cost_usd.mean
        others = [r for r in self.rows[1:] if r.ahead and not r.ahead.low > 0]
        than = f"no better than {', '.join(r.controller for r in others)}" if others else ""
        return (
            f"{ours.controller} solves {ours.solved.mean:.1%} of {self.tasks} tasks, "
            f"{best.controller} {best.solved.mean:.1%}, at {share:.2f} of its cost; it is "
            + (than or "better than every other controller, each interval clear of zero")
        )


def compare(
    others: Sequence[Controller] = (),
    *,
    count: int = 200,
    seed: int = 0,
    cost_weight: float | None = None,
) -> Comparison:
    """Fit a controller on traces of training tasks, and compare it with others on test tasks.

    The traces are those of all constants and of random choices. The fitted controller's cost weight
    and the limits of the rule by difficulty are chosen on training tasks, too: the cheapest of
    those that solve most.

    Args:
        others: more controllers to compare with, beside constants, `sticky` and `difficulty`.
        count: how many test tasks.
        seed: of tasks, random choices and resamples.
        cost_weight: of all controllers; None = chosen on training tasks, 0.5 for the others.

    Raises:
        ConfigError: the cost weight is out of range.
    """
    pool = agent_pool()
    train = tasks("train", TRAINING_TASKS, seed)
    half = RouterContext(cost_weight=0.5 if cost_weight is None else cost_weight, seed=seed)
    constants = [ConstantController(c.name, pool) for c in pool.candidates]
    drawn = [*constants, RandomController(1), RandomController(2)]
    traces = [episode for c in drawn for episode in play_all(train, pool, c, half)]
    fitted = StepController.fit(score_matrix(traces, pool))

    def worth(controller: Controller, context: RouterContext) -> tuple[int, float]:
        """Return the worth of a setting: first the solved tasks, then the cost."""
        episodes = play_all(train, pool, controller, context)
        solved = sum(episode.solved for episode in episodes)
        return solved, -sum(episode.cost_usd for episode in episodes)

    context = half
    if cost_weight is None:
        weights = [RouterContext(cost_weight=weight, seed=seed) for weight in _WEIGHTS]
        context = max(weights, key=lambda one: worth(fitted, one))
    rule = max(map(DifficultyController, _LIMITS), key=lambda one: worth(one, half))
    test = tasks("test", count, seed)
    controls = [*constants, RandomController(seed), StickyController(), rule, *others]
    played = [(fitted.name, context.cost_weight, play_all(test, pool, fitted, context))]
    played += [(c.name, half.cost_weight, play_all(test, pool, c, half)) for c in controls]
    rows = tuple(_rows(played, count, seed))
    return Comparison(rows, fitted, count, seed)


def _rows(
    played: Sequence[tuple[str, float, list[Episode]]], count: int, seed: int
) -> Iterator[Row]:
    draws = Bootstrap(count, seed)
    ours = utilities(played[0][2], USD_OF_A_SOLUTION)
    for place, (name, weight, episodes) in enumerate(played):
        worth = utilities(episodes, USD_OF_A_SOLUTION)
        yield Row(
            controller=name,
            cost_weight=weight,
            solved=draws.mean([float(e.solved) for e in episodes]),
            cost_usd=draws.mean([e.cost_usd for e in episodes]),
            cache_loss_usd=sum(e.cache_loss_usd for e in episodes) / count,
            calls=sum(len(e.steps) for e in episodes) / count,
            changes=sum(e.changes for e in episodes) / count,
            ahead=draws.difference(ours, worth) if place else None,
        )


def world_pool() -> CandidatePool:
    """Return the pool of the world of agents."""
    return agent_pool()
