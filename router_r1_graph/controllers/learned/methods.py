"""The ways to predict scores, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from ...errors import ConfigError, did_you_mean
from .features import Features
from .linear import Linear
from .neighbours import Neighbours
from .prediction import Predictor

AUTO = "auto"
"""The name of the comparison of all methods, in place of a method's."""


@dataclass(frozen=True)
class Method:
    """A way to predict scores.

    Attributes:
        describe: a description in one line.
        options: those of `fit`, with defaults: whole numbers of at least 1.
        fit: from vectors, scores, seed and options to a predictor.
        load: from `Predictor.arrays()` to a predictor.
        tries: the values of options that `auto` compares; one that is missing keeps its default.
        open: whether fitted candidates may be missing in the pool, and others may be added.
    """

    describe: str
    options: Mapping[str, int]
    fit: Callable[..., Predictor]
    load: Callable[..., Predictor]
    tries: Mapping[str, Sequence[int]] = field(default_factory=dict)
    open: bool = False


def _network(kind: str, describe: str, epochs: int, dim: int, *dims: int) -> Method:
    def fit(vectors: np.ndarray, scores: np.ndarray, **settings: int) -> Predictor:
        from .networks import Network  # torch is an optional extra

        return Network.fit(vectors, scores, kind=kind, **settings)

    def load(**arrays: np.ndarray) -> Predictor:
        from .networks import Network

        return Network(kind, **arrays)

    return Method(describe, {"dim": dim, "epochs": epochs}, fit, load, {"dim": (dim, *dims)})


METHODS: Mapping[str, Method] = {
    "knn": Method(
        "mean score on the nearest questions",
        {"k": 20},
        Neighbours.fit,
        Neighbours,
        {"k": (10, 30, 100, 300)},
    ),
    "linear": Method("ridge regression on the question's vector", {}, Linear.fit, Linear),
    "mf": _network("mf", "question vector x candidate vector", 60, 32, 8),
    "irt": _network("irt", "abilities, and a difficulty from the question", 60, 16, 4),
    "features": Method(
        "scores on clusters of probe questions; candidates can be added",
        {"clusters": 20},
        Features.fit,
        Features,
        {"clusters": (5, 20, 60)},
        open=True,
    ),
    "encoder": _network("encoder", "one pass over question and candidates", 30, 32),
}

COMPARED = tuple(name for name in METHODS if name != "encoder")
"""The methods that `auto` compares by default: all but one, which is several times as slow."""


@dataclass(frozen=True)
class Setting:
    """A method with its options and the embedding that it reads."""

    method: str
    embedding: str
    options: Mapping[str, int]

    def __str__(self) -> str:
        tried = METHODS[self.method].tries
        told = [f"{name}={value}" for name, value in self.options.items() if name in tried]
        return " ".join([self.method, *told, *([self.embedding] * (self.embedding != "tfidf"))])

    def fit(self, vectors: np.ndarray, scores: np.ndarray, seed: int) -> Predictor:
        """Fit the method to vectors Q x D and scores Q x C.

        Raises:
            ImportError: a package that it needs is not installed.
        """
        return METHODS[self.method].fit(vectors, scores, seed=seed, **self.options)


def setting_of(method: str, embedding: str, options: Mapping[str, int]) -> Setting:
    """Return a method with these options, and its defaults for the others.

    Raises:
        ConfigError: there is no such method or option.
    """
    names = (*METHODS, AUTO)
    if method not in names:
        raise ConfigError(
            f"unknown method {method!r}{did_you_mean(method, names)}; allowed: {', '.join(names)}"
        )
    allowed = METHODS[method].options if method in METHODS else {}
    for name, value in options.items():
        if method == AUTO:
            raise ConfigError(f"auto chooses the options itself: no {name}")
        if name not in allowed:
            raise ConfigError(
                f"{method}: unknown option {name!r}{did_you_mean(name, allowed)}; allowed: "
                f"{', '.join(allowed) or 'none'}"
            )
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{method}: {name} is a whole number of at least 1, not {value!r}")
    return Setting(method, embedding, {**allowed, **options})


def all_settings(methods: Sequence[str], embeddings: Sequence[str]) -> list[Setting]:
    """Return every setting of these methods and embeddings that `auto` compares."""
    return [
        setting_of(name, embedding, dict(zip(METHODS[name].tries, values, strict=True)))
        for name in methods
        for embedding in embeddings
        for values in product(*METHODS[name].tries.values())
    ]
