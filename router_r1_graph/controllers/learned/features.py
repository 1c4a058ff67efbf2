"""features: a candidate is described by its mean scores on clusters of probe questions.

So a candidate that was missing at the fit can be added later, from its scores on some questions,
without fitting anything again.

Source: arXiv 2502.08773 (universal model routing), the cluster-based router with K-means.
"""

from __future__ import annotations

import warnings

import numpy as np

from .prediction import candidate_means


class Features:
    """Clusters of questions, and for each candidate its mean score in each of them.

    Args:
        centres: K x D.
        features: C x K: mean scores, pulled towards the candidate's mean by one extra question of
            that score (so a cluster without measurements has exactly that mean).
    """

    def __init__(self, centres: np.ndarray, features: np.ndarray) -> None:
        self.centres, self.features = centres, features

    @classmethod
    def fit(cls, vectors: np.ndarray, scores: np.ndarray, *, seed: int, clusters: int) -> Features:
        """Cluster the questions, then measure every candidate on the clusters."""
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        distinct = len(np.unique(vectors, axis=0))
        with warnings.catch_warnings():
            # Vectors that are all but equal make fewer clusters: the others stay empty.
            warnings.simplefilter("ignore", ConvergenceWarning)
            means = KMeans(min(clusters, distinct), n_init=4, random_state=seed).fit(vectors)
        self = cls(means.cluster_centers_.astype(np.float32), np.zeros((0, 0)))
        self.features = self.measure(vectors, scores)
        return self

    def clusters(self, vectors: np.ndarray) -> np.ndarray:
        """Return the number of the nearest centre for each vector."""
        # |v - c|^2 without |v|^2, which is the same for every centre.
        return np.argmin((self.centres**2).sum(axis=1) - 2 * vectors @ self.centres.T, axis=1)

    def measure(self, vectors: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the features of candidates, C x K, from their scores on some questions, Q x C."""
        member = np.eye(len(self.centres))[self.clusters(vectors)]  # Q x K
        measured = ~np.isnan(scores)
        means = candidate_means(scores)[:, None]
        total = np.where(measured, scores, 0.0).T @ member
        return (total + means) / (measured.T.astype(float) @ member + 1)

    def extended(self, vectors: np.ndarray, scores: np.ndarray) -> Features:
        """Return the same clusters with the features of more candidates appended."""
        return Features(self.centres, np.vstack([self.features, self.measure(vectors, scores)]))

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Return each candidate's feature for the question's cluster, N x C."""
        return self.features.T[self.clusters(vectors)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return centres and features."""
        return {"centres": self.centres, "features": self.features}
