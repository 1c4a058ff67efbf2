"""Controls for a controller of the world of agents, and the matrix that it is fitted on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from ..candidates import Candidate, CandidatePool
from ..controllers import View
from ..controllers.learned.matrix import ScoreMatrix
from ..controllers.rules import OneCallController
from ..simulation.agent_world import CUES, KINDS
from .episodes import Episode

_NEXT = re.compile(r"Next: (\w+) \w+ (\w+)")


class DifficultyController(OneCallController):
    """A rule by difficulty: the words of a step say its level, and so the cheapest fit candidate.

    It reads the words as the world means them. The levels are prices: up to the first limit the
    cheapest candidate, up to the next one the second, and so on. After a failed step the next in
    price takes over.

    Args:
        limits: the most that a step may need, for each candidate from the cheapest; the most
            expensive one has no limit.
    """

    name = "difficulty"

    def __init__(self, limits: tuple[float, ...] = (0.3, 0.45, 0.6)) -> None:
        self.limits = limits

    def choose(self, view: View) -> Candidate:
        """Return the candidate of the step's level."""
        by_price = view.pool.by_price
        kind, cue = (_NEXT.findall(view.question) or [("", "")])[-1]
        needs = KINDS.get(kind, 0.5) + (0.0 if kind in ("read", "test") else CUES.get(cue, 0.0))
        level = sum(needs > limit for limit in self.limits)
        step = view.step
        last = view.pool.find(step.last) if step and step.failed else None
        if last is not None:
            level = max(level, by_price.index(last) + 1)
        return by_price[min(level, len(by_price) - 1)]


def score_matrix(episodes: Iterable[Episode], pool: CandidatePool) -> ScoreMatrix:
    """Return the scores of each candidate at each kind of step in traces, for `fit`.

    A row is the text that a controller read at a step. Candidates that were not asked at a step
    have no score.
    """
    names = [candidate.name for candidate in pool.candidates]
    scores: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in names])
    costs: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in names])
    for episode in episodes:
        for step in episode.steps:
            column = names.index(step.candidate)
            scores[step.question][column].append(float(step.ok))
            costs[step.question][column].append(step.cost_usd)

    def mean(cells: dict[str, list[list[float]]]) -> np.ndarray:
        rows = [[np.mean(cell) if cell else np.nan for cell in row] for row in cells.values()]
        return np.array(rows, dtype=float)

    return ScoreMatrix(tuple(scores), pool, mean(scores), mean(costs))
