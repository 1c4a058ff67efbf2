"""The controller of every learned method: predict, weigh against cost, ask one candidate.

    utility = (1 - a) * predicted score - a * normalised cost        a = the run's cost weight

The cost of a candidate is its mean measured USD over the questions of the fit. If any candidate has
none, list prices (input + output, USD per million tokens, unknown = 0) are used for all. The cost
is normalised over the candidates on offer: 0 = the cheapest, 1 = the most expensive, linear between
them, and 0 for all if all cost the same. At equal utility the cheaper candidate wins, then the
first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...candidates import Candidate, CandidatePool
from ...candidates.reply import Reply
from ...candidates.written_down import STORED
from ...errors import ConfigError
from ...protocol import parse
from ..choice import Choice
from ..controller import View
from ..rules import OneCallController
from ..step import AgentStep
from .auto import compare
from .costs import CostSource, best_column, mean_costs, step_utility, utility
from .features import Features
from .folder import columns, reading, require_measured, some, write
from .matrix import ScoreMatrix
from .methods import AUTO, COMPARED, METHODS, setting_of
from .parts import Part, fit_parts, packed, unpacked
from .prediction import candidate_means
from .verdict import Verdict, read_verdict

VERSION = 2


class LearnedController(OneCallController):
    """Asks the candidate with the highest utility the whole question, and repeats its reply.

    Make one with `fit` or `load`. The pool must hold the fitted candidates, in any order. Only with
    `features` may some be missing; `add` then makes others known.

    Attributes:
        method: its name in `METHODS`, or `auto`.
        parts: the predictors: one, or with `auto` those that were kept.
        known: the candidates that were fitted (or added), as descriptors.
        means: the mean score of each, length C.
        costs: the cost of each, length C.
        cost_source: `measured` (USD for a question) or `prices` (USD per million tokens).
        about: its origin, for people who read the folder.
        verdicts: those of `auto` at each cost weight; empty for other methods.
    """

    reads_cost_weight = True

    def __init__(
        self,
        method: str,
        parts: Sequence[Part],
        known: CandidatePool,
        means: np.ndarray,
        costs: np.ndarray,
        cost_source: CostSource,
        about: Mapping[str, Any],
        *,
        verdicts: Sequence[Verdict] = (),
        name: str | None = None,
    ) -> None:
        self.method = method
        self.parts = tuple(parts)
        self.known = known
        self.means = means
        self.costs = costs
        self.cost_source = cost_source
        self.about = dict(about)
        self.verdicts = tuple(verdicts)
        self.name = name or method

    @classmethod
    def fit(
        cls,
        method: str,
        matrix: ScoreMatrix,
        *,
        seed: int = 0,
        embedding: str = "tfidf",
        options: Mapping[str, int] | None = None,
        methods: Sequence[str] = COMPARED,
        progress: Callable[[str], None] | None = None,
    ) -> LearnedController:
        """Fit a controller to a score matrix.

        The same matrix, seed and options give the same controller on one machine.

        Args:
            method: one of `METHODS`, or `auto`, which compares them.
            matrix: Q x C scores.
            seed: the seed of all random draws.
            embedding: `tfidf` or `minilm`; of `auto` also both, as `tfidf,minilm`.
            options: options of the method; see `METHODS`.
            methods: those that `auto` compares; `encoder`, the slowest, only if it is named.
            progress: called with the next step of `auto`, in words.

        Raises:
            ConfigError: no such method, embedding or option, a candidate without any score, or too
                few questions for `auto`.
            ImportError: a package that it needs is not installed.
        """
        settings = [setting_of(method, embedding, options or {})]
        require_measured(matrix)
        about: dict[str, Any] = {"seed": seed, "questions": len(matrix.questions)}
        verdicts: Sequence[Verdict] = ()
        if method == AUTO:
            verdicts, settings = compare(
                matrix,
                seed=seed,
                methods=[setting_of(name, embedding, {}).method for name in methods],
                embeddings=embedding.split(","),
                progress=progress,
            )
        else:
            about["options"] = dict(settings[0].options)
        parts = fit_parts(settings, matrix, seed)
        costs, source = mean_costs(matrix)
        known = matrix.pool.descriptors()
        means = candidate_means(matrix.scores)
        return cls(method, parts, known, means, costs, source, about, verdicts=verdicts)

    def add(self, matrix: ScoreMatrix) -> LearnedController:
        """Return a controller that also knows the candidates of a matrix; nothing is fitted again.

        Args:
            matrix: the new candidates' scores on some questions, ideally those of the fit.

        Raises:
            ConfigError: the method cannot add candidates, a candidate is known already or was not
                measured, or its cost is of another kind than the others'.
        """
        predictor = self.parts[0].predictor if self.method in METHODS else None
        if not isinstance(predictor, Features):
            able = ", ".join(name for name, method in METHODS.items() if method.open)
            raise ConfigError(f"{self.name}: only {able} can add candidates; fit again")
        require_measured(matrix)
        costs, source = mean_costs(matrix)
        if source != self.cost_source:
            raise ConfigError(f"{self.name}: costs here are {self.cost_source}, there {source}")
        embedding = self.parts[0].embedding
        try:
            known = CandidatePool(
                name=self.known.name,
                candidates=(*self.known.candidates, *matrix.pool.descriptors().candidates),
            )
        except ValueError:
            twice = [name for name in matrix.names if self.known.find(name)]
            raise ConfigError(f"{self.name}: known already: {some(twice)}") from None
        extended = predictor.extended(embedding.vectors(matrix.questions), matrix.scores)
        return LearnedController(
            self.method,
            [Part(self.method, embedding, extended)],
            known,
            np.concatenate([self.means, candidate_means(matrix.scores)]),
            np.concatenate([self.costs, costs]),
            self.cost_source,
            self.about,
            name=self.name,
        )

    def save(self, folder: str | Path) -> None:
        """Write the controller: JSON and npz, nothing that runs code when it is loaded.

        Raises:
            OSError: the folder cannot be written.
        """
        head, arrays = packed(self.parts)
        head |= {
            "cost_source": self.cost_source,
            "about": self.about,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "pool": self.known.model_dump(mode="json", exclude_defaults=True),
        }
        write(
            folder, self.method, VERSION, head, {**arrays, "costs": self.costs, "means": self.means}
        )

    @classmethod
    def load(
        cls, folder: str | Path, *, method: str | None = None, name: str | None = None
    ) -> LearnedController:
        """Read a controller that `save` has written.

        Args:
            folder: its folder.
            method: the one that it must be of; None = any.
            name: its name; None = its method and folder.

        Raises:
            ControllerError: the folder holds none, a broken one, or one of another method or
                version.
            ImportError: a package that it needs is not installed.
        """
        what, methods = (method, [method]) if method else ("one of these", [*METHODS, AUTO])
        with reading(folder, what, methods, VERSION) as (head, arrays):
            loaded = cls(
                head["method"],
                unpacked(head, arrays),
                CandidatePool.model_validate(head["pool"], context=STORED),
                arrays["means"],
                arrays["costs"],
                head["cost_source"],
                head["about"],
                verdicts=[read_verdict(**verdict) for verdict in head["verdicts"]],
                name=name or f"{head['method']}:{folder}",
            )
            loaded._whole()
        return loaded

    def _whole(self) -> None:
        """Check that the loaded parts belong together."""
        count = len(self.known.candidates)
        for what, values in (("costs", self.costs), ("means", self.means)):
            if values.shape != (count,):
                raise ValueError(f"{count} candidates, {values.shape} {what}")
        used = [v.part for v in self.verdicts if v.part is not None] if self.method == AUTO else [0]
        if not all(0 <= part < len(self.parts) for part in used):
            raise ValueError(f"{len(self.parts)} parts")
        if (self.method == AUTO) != bool(self.verdicts) or self.method not in (*METHODS, AUTO):
            raise ValueError(f"{self.method!r} with {len(self.verdicts)} verdicts")

    def check(self, pool: CandidatePool) -> None:
        """Check that a pool has the candidates of the fit, or for an open method some of them.

        Raises:
            ControllerError: it has not.
        """
        self._columns(pool, fewer=self._is_open)

    @property
    def _is_open(self) -> bool:
        return self.method != AUTO and METHODS[self.method].open

    def _columns(self, pool: CandidatePool, *, fewer: bool = True) -> list[int]:
        """Return, for each candidate of a pool, its index among the fitted ones.

        A question may be shown to some of them only: those that take images, or that it names.
        """
        names = [candidate.name for candidate in self.known.candidates]
        advice = "add them or fit again" if self._is_open else ""
        return columns(names, pool, self.name, fewer=fewer, advice=advice)

    def verdict(self, cost_weight: float) -> Verdict | None:
        """Return the verdict of `auto` at the nearest cost weight; None for another method."""
        return min(
            self.verdicts, key=lambda found: abs(found.cost_weight - cost_weight), default=None
        )

    def caution(self, cost_weight: float) -> str:
        """Return a warning that routing does not pay, with numbers, if `auto` found so; else "".

        Where scores are missing, it may be that the data cannot tell.
        """
        found = self.verdict(cost_weight)
        if found is None or found.part is not None:
            return ""
        return found.caution(len(self.known.candidates), self.about["questions"], self.cost_source)

    def utilities(
        self, questions: Sequence[str], pool: CandidatePool, cost_weight: float
    ) -> np.ndarray:
        """Return the utility of each of the pool's candidates for each question, N x C.

        With `auto` that of the best constant is raised by the margin. Costs are scaled as in the
        fit, also where the pool has a part of its candidates.

        Raises:
            ControllerError: a candidate was not fitted.
        """
        places = self._columns(pool)
        costs = self.costs[places]
        return utility(self._scores(questions, places, cost_weight), costs, self.costs, cost_weight)

    def _scores(
        self, questions: Sequence[str], columns: Sequence[int], cost_weight: float
    ) -> np.ndarray:
        """Return the predicted scores of candidates, N x C; `auto` adds its margin to the constant.

        Where routing does not pay, they are the mean scores of the fit.
        """
        means, costs = self.means[columns], self.costs[columns]
        verdict = self.verdict(cost_weight)
        if verdict is None:
            return self.parts[0].predict(questions)[:, columns]
        if verdict.part is None:
            return np.repeat(means[None], len(questions), axis=0)
        scores = self.parts[verdict.part].predict(questions)[:, columns]
        constant = best_column(utility(means, costs, self.costs, cost_weight)[None], costs)
        scores[:, constant] += verdict.margin
        return scores

    def choices(
        self, questions: Sequence[str], pool: CandidatePool, cost_weight: float
    ) -> np.ndarray:
        """Return, for each question, the pool index of the candidate to ask, length N.

        Raises:
            ControllerError: a candidate was not fitted.
        """
        costs = self.costs[self._columns(pool)]
        return best_column(self.utilities(questions, pool, cost_weight), costs)

    def choose(self, view: View) -> Candidate:
        """Return the candidate with the highest utility."""
        if view.step is not None:
            utilities = self._of_step(view, view.step)
            by_price = np.argsort([c.price_usd_per_mtok for c in view.pool.candidates])
            return view.pool.candidates[int(by_price[utilities[by_price].argmax()])]
        choice = self.choices([view.question], view.pool, view.context.cost_weight)[0]
        return view.pool.candidates[int(choice)]

    def _of_step(self, view: View, step: AgentStep) -> np.ndarray:
        """Return the utility of each candidate for an agent's step, length C."""
        weight = view.context.cost_weight
        scores = self._scores([view.question], self._columns(view.pool), weight)[0]
        least_unit = float(np.ptp(self.costs)) if self.cost_source == "measured" else 0.0
        return step_utility(scores, step, view.pool.candidates, least_unit, weight)

    def weigh(self, view: View, reply: Reply) -> tuple[Choice, ...]:
        """Return the utilities, if the turn asks a candidate."""
        if not parse(reply.text).calls:
            return ()
        if view.step is not None:
            values = self._of_step(view, view.step)
        else:
            values = self.utilities([view.question], view.pool, view.context.cost_weight)[0]
        names = [candidate.name for candidate in view.pool.candidates]
        return (Choice("utility", dict(zip(names, values.tolist(), strict=True))),)
