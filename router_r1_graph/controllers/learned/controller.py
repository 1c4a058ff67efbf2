"""The controller of every learned method: predict, weigh against cost, ask one candidate.

    utility = (1 - a) * predicted score - a * normalised cost        a = the run's cost weight

The cost of a candidate is its mean measured USD over the questions of the fit. If any candidate has
none, list prices (input + output, USD per million tokens, unknown = 0) are used for all. The cost
is normalised over the candidates on offer: 0 = the cheapest, 1 = the most expensive, linear between
them, and 0 for all if all cost the same. At equal utility the cheaper candidate wins, then the
first.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...candidates import Candidate, CandidatePool
from ...candidates.reply import Reply
from ...errors import ConfigError, ControllerError, did_you_mean
from ...protocol import parse
from ..choice import Choice
from ..controller import View
from ..rules import OneCallController
from ..step import AgentStep
from .embedding import Embedding, fit_embedding, load_embedding
from .features import Features
from .matrix import ScoreMatrix
from .neighbours import Neighbours
from .prediction import Predictor, candidate_means

VERSION = 1
_HEAD, _ARRAYS = "learned.json", "learned.npz"


@dataclass(frozen=True)
class Method:
    """A way to predict scores.

    Attributes:
        describe: a description in one line.
        options: what `fit` takes, with defaults: whole numbers of at least 1.
        fit: from vectors, scores, seed and options to a predictor.
        load: from `Predictor.arrays()` to a predictor.
        open: whether fitted candidates may be missing in the pool, and others may be added.
    """

    describe: str
    options: Mapping[str, int]
    fit: Callable[..., Predictor]
    load: Callable[..., Predictor]
    open: bool = False


def _network(kind: str, describe: str, **options: int) -> Method:
    def fit(vectors: np.ndarray, scores: np.ndarray, **settings: int) -> Predictor:
        from .networks import Network  # torch is an optional extra

        return Network.fit(vectors, scores, kind=kind, **settings)

    def load(**arrays: np.ndarray) -> Predictor:
        from .networks import Network

        return Network(kind, **arrays)

    return Method(describe, options, fit, load)


METHODS: Mapping[str, Method] = {
    "knn": Method("mean score on the nearest questions", {"k": 20}, Neighbours.fit, Neighbours),
    "mf": _network("mf", "question vector x candidate vector", dim=32, epochs=60),
    "irt": _network("irt", "abilities, and a difficulty from the question", dim=16, epochs=60),
    "features": Method(
        "scores on clusters of probe questions; candidates can be added",
        {"clusters": 20},
        Features.fit,
        Features,
        open=True,
    ),
    "encoder": _network("encoder", "one pass over question and candidates", dim=32, epochs=30),
}


class LearnedController(OneCallController):
    """Asks the candidate with the highest utility the whole question, and repeats its reply.

    Make one with `fit` or `load`. The pool must hold the fitted candidates, in any order. Only with
    `features` may some be missing; `add` then makes others known.

    Attributes:
        method: its name in `METHODS`.
        known: the candidates that were fitted (or added), as descriptors.
        costs: the cost of each, length C.
        cost_source: `measured` (USD for a question) or `prices` (USD per million tokens).
        about: how it was made, for people who read the folder.
    """

    reads_cost_weight = True

    def __init__(
        self,
        method: str,
        embedding: Embedding,
        predictor: Predictor,
        known: CandidatePool,
        costs: np.ndarray,
        cost_source: Literal["measured", "prices"],
        about: Mapping[str, Any],
        *,
        name: str | None = None,
    ) -> None:
        self.method = method
        self.embedding = embedding
        self.predictor = predictor
        self.known = known
        self.costs = costs
        self.cost_source = cost_source
        self.about = dict(about)
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
    ) -> LearnedController:
        """Fit a controller to a score matrix.

        The same matrix, seed and options give the same controller on one machine.

        Args:
            method: one of `METHODS`.
            matrix: Q x C scores.
            seed: the seed of all random draws.
            embedding: `tfidf` or `minilm`.
            options: options of the method; see `METHODS`.

        Raises:
            ConfigError: no such method, embedding or option, or a candidate without any score.
            ImportError: what it needs is not installed.
        """
        settings = _settings(method, options or {})
        _all_measured(matrix)
        words = fit_embedding(embedding, matrix.questions, seed)
        vectors = words.vectors(matrix.questions)
        predictor = METHODS[method].fit(vectors, matrix.scores, seed=seed, **settings)
        costs, source = _costs(matrix)
        about = {"seed": seed, "options": settings, "questions": len(matrix.questions)}
        return cls(method, words, predictor, matrix.pool.descriptors(), costs, source, about)

    def add(self, matrix: ScoreMatrix) -> LearnedController:
        """Return a controller that also knows the candidates of a matrix; nothing is fitted again.

        Args:
            matrix: the new candidates' scores on some questions, ideally those of the fit.

        Raises:
            ConfigError: the method cannot add candidates, a candidate is known already or was not
                measured, or its cost is of another kind than the others'.
        """
        if not isinstance(self.predictor, Features):
            able = ", ".join(name for name, method in METHODS.items() if method.open)
            raise ConfigError(f"{self.name}: only {able} can add candidates; fit again")
        _all_measured(matrix)
        costs, source = _costs(matrix)
        if source != self.cost_source:
            raise ConfigError(f"{self.name}: costs here are {self.cost_source}, there {source}")
        vectors = self.embedding.vectors(matrix.questions)
        try:
            known = CandidatePool(
                name=self.known.name,
                candidates=(*self.known.candidates, *matrix.pool.descriptors().candidates),
            )
        except ValueError:
            twice = [name for name in matrix.names if self.known.find(name)]
            raise ConfigError(f"{self.name}: known already: {_some(twice)}") from None
        return LearnedController(
            self.method,
            self.embedding,
            self.predictor.extended(vectors, matrix.scores),
            known,
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
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        head = {
            "version": VERSION,
            "method": self.method,
            "embedding": self.embedding.name,
            "cost_source": self.cost_source,
            "about": self.about,
            "pool": self.known.model_dump(mode="json", exclude_defaults=True),
            "words": self.embedding.words(),
        }
        arrays = {
            **{f"embedding/{k}": v for k, v in self.embedding.arrays().items()},
            **{f"predictor/{k}": v for k, v in self.predictor.arrays().items()},
        }
        (folder / _HEAD).write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
        np.savez_compressed(folder / _ARRAYS, costs=self.costs, **arrays)

    @classmethod
    def load(cls, folder: str | Path, *, name: str | None = None) -> LearnedController:
        """Read a controller that `save` has written.

        Raises:
            ControllerError: the folder holds none, a broken one, or one of another version.
            ImportError: what it needs is not installed.
        """
        folder = Path(folder)
        if not (folder / _HEAD).is_file():
            raise ControllerError(f"{folder}: no learned controller there (no {_HEAD})")
        try:
            head = json.loads((folder / _HEAD).read_text(encoding="utf-8"))
            if head["version"] != VERSION:
                raise ControllerError(
                    f"{folder / _HEAD}: version {head['version']!r}; this release reads {VERSION}"
                )
            known = CandidatePool.model_validate(head["pool"])
            with (folder / _ARRAYS).open("rb") as opened:  # np.load leaves a broken file open
                with np.load(opened, allow_pickle=False) as file:
                    arrays = dict(file)
            embedding = load_embedding(
                head["embedding"], head["words"], _under("embedding/", arrays)
            )
            predictor = METHODS[head["method"]].load(**_under("predictor/", arrays))
            costs = arrays["costs"]
            if costs.shape != (len(known.candidates),):
                raise ValueError(f"{len(known.candidates)} candidates, {costs.shape} costs")
            return cls(
                head["method"],
                embedding,
                predictor,
                known,
                costs,
                head["cost_source"],
                head["about"],
                name=name or f"{head['method']}:{folder}",
            )
        except _BROKEN as error:
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ControllerError(f"{folder}: a broken learned controller: {why}") from None

    def check(self, pool: CandidatePool) -> list[int]:
        """Return, for each candidate of a pool, its index among the fitted ones.

        Raises:
            ControllerError: the pool's candidates are not those that were fitted.
        """
        numbers = {id(pool.find(c.name)): i for i, c in enumerate(self.known.candidates)}
        new = [c.name for c in pool.candidates if id(c) not in numbers]
        gone = [c.name for c in self.known.candidates if pool.find(c.name) is None]
        can_add = METHODS[self.method].open
        if new or (gone and not can_add):
            parts = [f"new: {_some(new)}"] if new else []
            parts += [f"gone: {_some(gone)}"] if gone and not can_add else []
            advice = "add them or fit again" if can_add else "fit again"
            raise ControllerError(
                f"{self.name}: the candidates of {pool.where} are not those of the fit "
                f"({'; '.join(parts)}); {advice}"
            )
        return [numbers[id(c)] for c in pool.candidates]

    def utilities(
        self, questions: Sequence[str], pool: CandidatePool, cost_weight: float
    ) -> np.ndarray:
        """Return the utility of each of the pool's candidates for each question, N x C.

        Raises:
            ControllerError: the pool's candidates are not those that were fitted.
        """
        columns = self.check(pool)
        scores = self.predictor.predict(self.embedding.vectors(questions))[:, columns]
        return (1 - cost_weight) * scores - cost_weight * _normalised(self.costs[columns])

    def choices(
        self, questions: Sequence[str], pool: CandidatePool, cost_weight: float
    ) -> np.ndarray:
        """Return, for each question, the pool index of the candidate to ask, length N.

        Raises:
            ControllerError: the pool's candidates are not those that were fitted.
        """
        costs = self.costs[self.check(pool)]
        order = np.argsort(costs, kind="stable")  # argmax takes the first of equals: the cheapest
        best = self.utilities(questions, pool, cost_weight)[:, order].argmax(axis=1)
        return np.asarray(order[best])

    def choose(self, view: View) -> Candidate:
        """Return the candidate with the highest utility."""
        if view.step is not None:
            utilities = self._of_step(view, view.step)
            by_price = np.argsort([c.price_usd_per_mtok for c in view.pool.candidates])
            return view.pool.candidates[int(by_price[utilities[by_price].argmax()])]
        choice = self.choices([view.question], view.pool, view.context.cost_weight)[0]
        return view.pool.candidates[int(choice)]

    def _of_step(self, view: View, step: AgentStep) -> np.ndarray:
        """Return the utilities of an agent's step, whose costs depend on the prompt caches.

        The unit of cost is the range of the fit's mean costs, so that a step that costs little
        more with a better candidate weighs little, and a cold cache weighs what it costs.
        """
        columns = self.check(view.pool)
        scores = self.predictor.predict(self.embedding.vectors([view.question]))[0, columns]
        costs = np.array([step.cost_usd(c) for c in view.pool.candidates])
        unit = np.ptp(self.costs) if self.cost_source == "measured" else np.ptp(costs)
        weighed = (costs - costs.min()) / unit if unit else np.zeros_like(costs)
        a = view.context.cost_weight
        return np.asarray((1 - a) * scores - a * weighed)

    def weigh(self, view: View, reply: Reply) -> tuple[Choice, ...]:
        """Return the utilities, if the turn asks somebody."""
        if not parse(reply.text).calls:
            return ()
        if view.step is not None:
            values = self._of_step(view, view.step)
        else:
            values = self.utilities([view.question], view.pool, view.context.cost_weight)[0]
        names = [candidate.name for candidate in view.pool.candidates]
        return (Choice("utility", dict(zip(names, values.tolist(), strict=True))),)


_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,  # torch: weights of other shapes
    AttributeError,
    EOFError,
    zipfile.BadZipFile,
)


def _settings(method: str, options: Mapping[str, int]) -> dict[str, int]:
    if method not in METHODS:
        raise ConfigError(
            f"unknown method {method!r}{did_you_mean(method, METHODS)}; allowed: "
            f"{', '.join(METHODS)}"
        )
    allowed = METHODS[method].options
    for name, value in options.items():
        if name not in allowed:
            raise ConfigError(
                f"{method}: unknown option {name!r}{did_you_mean(name, allowed)}; allowed: "
                f"{', '.join(allowed)}"
            )
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{method}: {name} is a whole number of at least 1, not {value!r}")
    return {**allowed, **options}


def _all_measured(matrix: ScoreMatrix) -> None:
    missing = np.isnan(matrix.scores).all(axis=0)
    if missing.any():
        names = [name for name, none in zip(matrix.names, missing, strict=True) if none]
        raise ConfigError(f"no score of {_some(names)}: nothing to learn from")


def _costs(matrix: ScoreMatrix) -> tuple[np.ndarray, Literal["measured", "prices"]]:
    """Return each candidate's cost, length C, and where it comes from."""
    measured = candidate_means(matrix.costs_usd)
    if not np.isnan(measured).any():
        return measured, "measured"
    prices = [candidate.price_usd_per_mtok for candidate in matrix.pool.candidates]
    return np.array(prices, dtype=float), "prices"


def _normalised(costs: np.ndarray) -> np.ndarray:
    """Return costs between 0 (cheapest) and 1 (most expensive); 0 where all are the same."""
    low, high = costs.min(), costs.max()
    return (costs - low) / (high - low) if high > low else np.zeros_like(costs)


def _some(names: list[str]) -> str:
    """Return names for a message, the first five of them."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
