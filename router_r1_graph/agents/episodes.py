"""Tasks of the embedded world of agents, played with any controller: traces, bills, outcomes.

An episode makes the same `View` for each step that `RouterMiddleware` makes inside an agent, so
that a controller fitted on its traces decides there too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from ..budget import Left
from ..candidates import Candidate, CandidatePool
from ..context import RouterContext
from ..controllers import Controller, View
from ..controllers.rules import OneCallController
from ..controllers.step import AgentStep, step_text
from ..routing.first_turn import decide_only
from ..simulation.agent_world import PROMPT_TOKENS, Step, Task, call, repair


@dataclass(frozen=True)
class PlayedStep:
    """One step of an episode.

    Attributes:
        question: the text that the controller read.
        candidate: the one that answered.
        ok: whether the candidate mastered it.
        cost_usd: of the call, caches considered.
        cached_input_tokens: those of the prompt that were in the candidate's cache.
        cache_loss_usd: how much of the cost is due to a prefix that another candidate has cached.
    """

    question: str
    candidate: str
    ok: bool
    cost_usd: float
    cached_input_tokens: int
    cache_loss_usd: float


@dataclass(frozen=True)
class Episode:
    """A played task: whether it was solved, and its steps."""

    task: str
    solved: bool
    steps: tuple[PlayedStep, ...]

    @property
    def cost_usd(self) -> float:
        """The cost of all calls."""
        return sum(step.cost_usd for step in self.steps)

    @property
    def cache_loss_usd(self) -> float:
        """The cost of changes of the model, since caches were left."""
        return sum(step.cache_loss_usd for step in self.steps)

    @property
    def changes(self) -> int:
        """The number of times that another candidate took over."""
        names = [step.candidate for step in self.steps]
        return sum(a != b for a, b in pairwise(names))


@dataclass
class _Caches:
    """The prefix that each candidate has read, and when, in seconds since the task began."""

    read: dict[str, tuple[int, float]] = field(default_factory=dict)

    def warm(self, pool: CandidatePool, now: float) -> dict[str, int]:
        return {
            c.name: self.read[c.name][0]
            for c in pool.candidates
            if c.name in self.read
            and c.cache_ttl_seconds
            and now - self.read[c.name][1] <= c.cache_ttl_seconds
        }


def play(
    task: Task, pool: CandidatePool, controller: Controller, context: RouterContext
) -> Episode:
    """Play one task to its end, or until it is given up.

    If a controller chooses no candidate, the first one of the pool gets the step.
    """
    todo: list[Step] = list(task.plan)
    unnoticed: list[Step] = []
    messages: tuple[AnyMessage, ...] = ()
    steps: list[PlayedStep] = []
    caches, now, tokens, last = _Caches(), 0.0, PROMPT_TOKENS, ""
    attempts: dict[tuple[str, str], int] = {}
    while todo and len(steps) < task.most_calls:
        step = todo[0]
        told = AgentStep(len(steps), messages, tokens, last, caches.warm(pool, now))
        text = step_text(
            f"{task.text} Next: {step.text}" if not messages else task.text, messages, 200, last
        )
        view = View(text, pool, context, Left(1), step=told)
        candidate = _chosen(view, controller)
        attempt = attempts.get((step.seed, candidate.name), 0)
        attempts[step.seed, candidate.name] = attempt + 1
        outcome = call(step, candidate, attempt)
        warm = told.warm_tokens.get(candidate.name, 0)
        usd = candidate.cached_usd(tokens, outcome.output_tokens, warm)
        loss = told.cache_loss_usd(candidate)
        steps.append(PlayedStep(text, candidate.name, outcome.ok, usd, warm, loss))
        now += outcome.seconds
        caches.read[candidate.name] = (tokens, now)
        tokens += outcome.output_tokens + outcome.result_tokens
        last = candidate.name
        said, failed = "done.", False
        if not outcome.ok and outcome.noticed:
            said, failed = "that did not work.", True
        elif step.kind == "test" and unnoticed:
            said, failed = "tests fail.", True
            todo[0:0] = [repair(one) for one in unnoticed]
            unnoticed = []
        else:
            todo.pop(0)
            if not outcome.ok:
                unnoticed.append(step)
        if todo:
            said += f" Next: {todo[0].text}"
        messages = _written(step, said, failed)
    return Episode(task.id, not todo and not unnoticed, tuple(steps))


def _chosen(view: View, controller: Controller) -> Candidate:
    """Return the candidate of the first call; a rule need not write it down to be read again."""
    if isinstance(controller, OneCallController):
        return controller.choose(view)
    planned = decide_only(view, controller).calls
    named = (view.pool.find(call.candidate) for call in planned)
    return next(filter(None, named), view.pool.candidates[0])


def _written(step: Step, said: str, failed: bool) -> tuple[AnyMessage, ...]:
    turn = AIMessage("", tool_calls=[{"name": step.kind, "args": {"of": step.what}, "id": "1"}])
    status = "error" if failed else "success"
    return turn, ToolMessage(said, tool_call_id="1", status=status)


def play_all(
    tasks: Iterable[Task], pool: CandidatePool, controller: Controller, context: RouterContext
) -> list[Episode]:
    """Play tasks one after the other."""
    return [play(task, pool, controller, context) for task in tasks]


def utilities(episodes: Sequence[Episode], usd_of_a_solution: float) -> list[float]:
    """Return the worth of each episode: 1 if solved, less its cost.

    Args:
        episodes: the episodes.
        usd_of_a_solution: the price at which a solved task is worth nothing.
    """
    return [episode.solved - episode.cost_usd / usd_of_a_solution for episode in episodes]
