"""The predictors of a fitted controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .embedding import Embedding, fit_embedding, load_embedding
from .matrix import ScoreMatrix
from .methods import METHODS, Setting
from .prediction import Predictor


@dataclass(frozen=True)
class Part:
    """A fitted predictor of one method, and the embedding that it reads."""

    method: str
    embedding: Embedding
    predictor: Predictor

    def predict(self, questions: Sequence[str]) -> np.ndarray:
        """Return the predicted scores, N x C."""
        return self.predictor.predict(self.embedding.vectors(questions))


def fit_parts(settings: Sequence[Setting], matrix: ScoreMatrix, seed: int) -> list[Part]:
    """Fit each setting to a whole matrix; those of one embedding share it.

    Raises:
        ConfigError: there is no such embedding, or no word in the questions.
        ImportError: a package that a setting needs is not installed.
    """
    names = dict.fromkeys(setting.embedding for setting in settings)
    words = {name: fit_embedding(name, matrix.questions, seed) for name in names}
    vectors = {name: embedding.vectors(matrix.questions) for name, embedding in words.items()}
    return [
        Part(s.method, words[s.embedding], s.fit(vectors[s.embedding], matrix.scores, seed))
        for s in settings
    ]


def packed(parts: Sequence[Part]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the parts as entries of a folder's head, and their arrays.

    An embedding that several parts read is there once.
    """
    embeddings = {part.embedding.name: part.embedding for part in parts}
    head = {
        "parts": [{"method": part.method, "embedding": part.embedding.name} for part in parts],
        "words": {name: embedding.words() for name, embedding in embeddings.items()},
    }
    arrays = {
        f"embedding/{name}/{key}": values
        for name, embedding in embeddings.items()
        for key, values in embedding.arrays().items()
    }
    for number, part in enumerate(parts):
        arrays |= {f"part/{number}/{k}": v for k, v in part.predictor.arrays().items()}
    return head, arrays


def unpacked(head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[Part]:
    """Return the parts that `packed` was given; inside of `folder.reading`, which names errors.

    Raises:
        ImportError: a package that they need is not installed.
    """
    embeddings = {
        name: load_embedding(name, words, _under(f"embedding/{name}/", arrays))
        for name, words in head["words"].items()
    }
    return [
        Part(
            part["method"],
            embeddings[part["embedding"]],
            METHODS[part["method"]].load(**_under(f"part/{number}/", arrays)),
        )
        for number, part in enumerate(head["parts"])
    ]


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
