"""knn: a candidate's predicted score is its mean score on the nearest questions.

Source: arXiv 2505.12601 (kNN routing): the plain mean over the k nearest by cosine similarity.
"""

from __future__ import annotations

import numpy as np

from .prediction import candidate_means

_BATCH = 256  # questions asked about at once: each is compared with all Q
_REMEMBERED = 4000  # questions at most, since a decision takes time with each


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
        self._scores = scores
        self._measured = (~np.isnan(scores)).astype(np.float32)
        self._known = np.nan_to_num(scores)
        self._means = candidate_means(scores)

    @classmethod
    def fit(cls, vectors: np.ndarray, scores: np.ndarray, *, seed: int, k: int) -> Neighbours:
        """Remember the questions; of more than 4,000 as many are drawn."""
        if len(vectors) > _REMEMBERED:
            drawn = np.random.default_rng(seed).choice(len(vectors), _REMEMBERED, replace=False)
            one_of_each = (~np.isnan(scores)).argmax(axis=0)  # so that each candidate has a mean
            kept = np.union1d(drawn, one_of_each)
            vectors, scores = vectors[kept], scores[kept]
        return cls(vectors, scores, k)

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Return the mean scores of the neighbours, N x C."""
        parts = np.split(vectors, range(_BATCH, len(vectors), _BATCH))
        return np.concatenate([self._means_near(part) for part in parts])

    def _means_near(self, vectors: np.ndarray) -> np.ndarray:
        similar = vectors @ self.vectors.T
        k = min(self.k, similar.shape[1])
        least = np.partition(similar, -k, axis=1)[:, -k, None]
        nearer, tied = similar > least, similar == least
        # Of equally near questions the first ones count, on every machine.
        near = nearer | tied & (tied.cumsum(axis=1) <= k - nearer.sum(axis=1, keepdims=True))
        weights = (near & (similar > 1e-6)).astype(np.float32)
        seen = weights @ self._measured
        return np.where(seen > 0, weights @ self._known / np.maximum(seen, 1.0), self._means)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the questions, their scores and k."""
        return {"vectors": self.vectors, "scores": self._scores, "k": np.array(self.k)}
