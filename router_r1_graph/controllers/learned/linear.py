"""linear: ridge regression from a question's vector to every candidate's score.

There are two regressions, each with a strength of its own. One predicts the question's score over
all candidates (is it easy?), the other one each candidate's difference from that (the interaction
of question and candidate). Only the latter decides between candidates; its signal is much weaker.
Strengths are chosen by leave-one-out cross-validation (`RidgeCV`).
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import RidgeCV

from .prediction import candidate_means

_ALPHAS = np.logspace(-1, 4, 11)
_MIN_QUESTIONS = 5  # of a candidate; with fewer there is no slope to be learned


class Linear:
    """One linear form for each candidate.

    Args:
        weights: D x C.
        bias: length C.
    """

    def __init__(self, weights: np.ndarray, bias: np.ndarray) -> None:
        self.weights, self.bias = weights, bias

    @classmethod
    def fit(cls, vectors: np.ndarray, scores: np.ndarray, *, seed: int) -> Linear:
        """Fit it to scores Q x C, NaN = not measured; nothing is drawn."""
        means = candidate_means(scores)
        # By candidate first, so that a question which only good ones were asked is not called easy.
        beyond = scores - means
        ease = np.nan_to_num(candidate_means(beyond.T))
        shared, level = _ridge(vectors, ease[:, None])
        weights, bias = np.repeat(shared, len(means), axis=1), means + level
        own = beyond - ease[:, None]
        masks, group = np.unique(~np.isnan(own), axis=1, return_inverse=True)
        for number, measured in enumerate(masks.T):  # one regression for all measured alike
            columns = np.flatnonzero(group == number)
            slope, level = _ridge(vectors[measured], own[np.ix_(measured, columns)])
            weights[:, columns] += slope
            bias[columns] += level
        return cls(weights.astype(np.float32), bias.astype(np.float32))

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Return the predicted scores, N x C."""
        return np.clip(vectors @ self.weights + self.bias, 0, 1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return weights and bias."""
        return {"weights": self.weights, "bias": self.bias}


def _ridge(vectors: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes D x T and levels T for targets N x T."""
    size = (vectors.shape[1], targets.shape[1])
    if len(vectors) < _MIN_QUESTIONS:
        return np.zeros(size), np.zeros(size[1])
    ridge = RidgeCV(_ALPHAS).fit(vectors, targets)
    return ridge.coef_.reshape(size[::-1]).T, np.broadcast_to(ridge.intercept_, size[1])
