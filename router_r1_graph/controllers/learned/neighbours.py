"""knn: a candidate's predicted score is its mean score on the nearest questions.

Source: arXiv 2505.12601 (kNN routing): the plain mean over the k nearest by cosine similarity.
"""

from __future__ import annotations

import numpy as np

from .prediction import candidate_means


class Neighbours:
    """The k nearest questions of the fit.

    Questions that share nothing with the one asked (similarity 0) are no neighbours. If a candidate
    was measured on no neighbour, its mean over all questions is used.

    Args:
        vectors: Q x D, of length 1 or 0.
        scores: Q x C.
        k: how many neighbours.
    """

    def __init__(self, vectors: np.ndarray, scores: np.ndarray, k: np.ndarray | int) -> None:
        self.vectors, self.k = vectors, int(k)
        scores = scores.astype(np.float32)  # as in the file, so that a loaded one agrees
        self._measured = ~np.isnan(scores)
        self._scores = np.where(self._measured, scores, np.float32(0))
        self._means = candidate_means(scores)

    @classmethod
    def fit(cls, vectors: np.ndarray, scores: np.ndarray, *, seed: int, k: int) -> Neighbours:
        """Remember the questions."""
        return cls(vectors, scores, k)

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Return the mean scores of the neighbours, N x C."""
        similar = vectors @ self.vectors.T
        k = min(self.k, similar.shape[1])
        # A stable sort, so that of equally near questions the first one counts on every machine.
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
        weights = np.zeros_like(similar)
        np.put_along_axis(weights, nearest, 1.0, axis=1)
        weights[similar <= 1e-6] = 0.0
        seen = weights @ self._measured.astype(weights.dtype)
        total = weights @ self._scores
        return np.where(seen > 0, total / np.maximum(seen, 1.0), self._means)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the questions, their scores and k."""
        scores = np.where(self._measured, self._scores, np.nan)
        return {"vectors": self.vectors, "scores": scores, "k": np.array(self.k)}
