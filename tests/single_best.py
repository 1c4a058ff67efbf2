"""The best single candidate, as the reference that a router's score is compared with."""

from __future__ import annotations

import warnings

import numpy as np


def best_single_score(scores: np.ndarray) -> float:
    """Return the best mean score of a single candidate, each over its own measured scores."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of an empty mean
        return float(np.nanmax(np.nanmean(scores, axis=0)))
