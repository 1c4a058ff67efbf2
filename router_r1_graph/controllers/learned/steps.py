"""A controller of an agent's steps, fitted on traces: skill and current price of each candidate.

For each candidate, a logistic regression estimates how likely it masters the step. It reads the
words in the last line of `step_text`: the call, the candidate that made it, and the result. Then

    utility = (1 - a) * probability - a * cost / unit        a = the run's cost weight

The cost is that of this call, prompt caches considered; the unit is the range of the candidates'
mean costs in the traces.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...candidates import Candidate, CandidatePool
from ...candidates.reply import Reply
from ...protocol import parse
from ..choice import Choice
from ..controller import View
from ..rules import OneCallController
from ..step import AgentStep
from .folder import columns, reading, require_measured, write
from .matrix import ScoreMatrix
from .prediction import candidate_means

VERSION = 1
_RAREST = 3
"""A feature that occurs in fewer rows is left out."""


class StepController(OneCallController):
    """Asks the candidate with the highest utility at each step of an agent.

    Outside of agents, a question is taken for a step without a history.

    Attributes:
        names: the candidates that were fitted, C of them.
        words: feature -> its row in `weights`.
        weights: F x C, of the features.
        bias: length C.
        unit_usd: the divisor of costs.
    """

    reads_cost_weight = True

    def __init__(
        self,
        names: Sequence[str],
        words: Mapping[str, int],
        weights: np.ndarray,
        bias: np.ndarray,
        unit_usd: float,
        *,
        name: str = "steps",
    ) -> None:
        self.names = tuple(names)
        self.words = dict(words)
        self.weights = weights
        self.bias = bias
        self.unit_usd = unit_usd
        self.name = name

    @classmethod
    def fit(cls, matrix: ScoreMatrix, *, strength: float = 1.0) -> StepController:
        """Fit to each candidate's scores and costs at steps.

        Args:
            matrix: Q x C; a row is the text that a controller read at a step. A score of at
                least 0.5 means that the candidate mastered it.
            strength: the inverse of scikit-learn's regularisation.

        Raises:
            ConfigError: a candidate was never asked.
        """
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import LogisticRegression

        require_measured(matrix)
        rows = [features(text) for text in matrix.questions]
        often = Counter(word for row in rows for word in row)
        kept = sorted(word for word, count in often.items() if count >= _RAREST)
        words = {word: number for number, word in enumerate(kept)}
        places = [(i, words[w]) for i, row in enumerate(rows) for w in sorted(row) if w in words]
        index = np.array(places, dtype=int).reshape(-1, 2)
        shape = (len(rows), len(words))
        table = csr_matrix((np.ones(len(index)), (index[:, 0], index[:, 1])), shape=shape)
        weights = np.zeros((len(words), len(matrix.names)))
        bias = np.zeros(len(matrix.names))
        for column in range(len(matrix.names)):
            asked = ~np.isnan(matrix.scores[:, column])
            right = matrix.scores[asked, column] >= 0.5
            share = (right.sum() + 1) / (len(right) + 2)
            bias[column] = np.log(share / (1 - share))
            if 0 < right.sum() < len(right):
                model = LogisticRegression(C=strength, max_iter=1000).fit(table[asked], right)
                weights[:, column], bias[column] = model.coef_[0], model.intercept_[0]
        costs = candidate_means(matrix.costs_usd)
        return cls(matrix.names, words, weights, bias, float(np.nanmax(costs) - np.nanmin(costs)))

    def save(self, folder: str | Path) -> None:
        """Write the controller: JSON and npz, nothing that runs code when it is loaded.

        Raises:
            OSError: the folder cannot be written.
        """
        head = {"names": self.names, "words": list(self.words), "unit_usd": self.unit_usd}
        write(folder, "steps", VERSION, head, {"weights": self.weights, "bias": self.bias})

    @classmethod
    def load(cls, folder: str | Path, *, name: str | None = None) -> StepController:
        """Read a controller that `save` has written.

        Raises:
            ControllerError: the folder holds none, a broken one, or one of another version.
        """
        with reading(folder, "steps", ["steps"], VERSION) as (head, arrays):
            names, words = list(map(str, head["names"])), list(map(str, head["words"]))
            return cls(
                names,
                {word: number for number, word in enumerate(words)},
                arrays["weights"].astype(float).reshape(len(words), len(names)),
                arrays["bias"].astype(float).reshape(len(names)),
                float(head["unit_usd"]),
                name=name or f"steps:{folder}",
            )

    def check(self, pool: CandidatePool) -> list[int]:
        """Return, for each candidate of a pool, its column.

        Raises:
            ControllerError: a candidate was not fitted.
        """
        return columns(self.names, pool, self.name, fewer=True)

    def mastery(self, text: str, pool: CandidatePool) -> np.ndarray:
        """Return how likely each of the pool's candidates masters a step, length C.

        Raises:
            ControllerError: a candidate was not fitted.
        """
        rows = [self.words[word] for word in features(text) if word in self.words]
        logits = self.weights[rows].sum(axis=0) + self.bias
        return np.asarray(1 / (1 + np.exp(-logits[self.check(pool)])))

    def utilities(self, view: View) -> np.ndarray:
        """Return the utility of each of the pool's candidates, length C.

        A failed step is harder than it looks, and each further try makes the prompt longer: then
        the surest candidate is asked, at any cost weight.
        """
        step = view.step or AgentStep()
        a = 0.0 if step.failed else view.context.cost_weight
        usd = np.array([step.cost_usd(candidate) for candidate in view.pool.candidates])
        mastery = self.mastery(view.question, view.pool)
        return np.asarray((1 - a) * mastery - a * usd / (self.unit_usd or 1.0))

    def choose(self, view: View) -> Candidate:
        """Return the candidate with the highest utility."""
        return view.pool.candidates[int(self.utilities(view).argmax())]

    def weigh(self, view: View, reply: Reply) -> tuple[Choice, ...]:
        """Return the utilities, if the turn asks a candidate."""
        if not parse(reply.text).calls:
            return ()
        names = [candidate.name for candidate in view.pool.candidates]
        values = self.utilities(view).tolist()
        return (Choice("utility", dict(zip(names, values, strict=True))),)


def features(text: str) -> set[str]:
    r"""Return the words of the last line, their pairs, and on an error the candidate that failed.

    Example:
        >>> sorted(features('Mend it.\nAda: edit {"of": "x"}: error: no'))[:3]
        ['ada', 'ada edit', 'ada failed']
    """
    line = text.rpartition("\n")[2]
    words = [word.casefold() for word in re.findall(r"\w+", line)[:200]]
    pairs = {f"{a} {b}" for gap in (1, 2) for a, b in zip(words, words[gap:], strict=False)}
    failed = {f"{words[0]} failed"} if words and re.search(r": error\b", line) else set()
    return {*words, *pairs, *failed}
