"""The interface of a learned controller's method: vectors in, predicted scores out."""

from __future__ import annotations

import warnings
from typing import Protocol

import numpy as np


class Predictor(Protocol):
    """Predicts the score of each candidate.

    Shapes: Q questions fitted on, N asked about, C candidates, D the length of a vector.
    """

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Return the predicted scores in [0, 1], N x C, for vectors N x D."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fitted numbers: the class is built again from these names."""
        ...


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the rows at length 1; one that is (nearly) 0 becomes 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 1e-6, vectors / np.maximum(lengths, 1e-6), 0.0).astype(np.float32)


def candidate_means(scores: np.ndarray) -> np.ndarray:
    """Return each candidate's mean measured score, length C; NaN where it has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of an empty mean
        return np.nanmean(scores, axis=0)
