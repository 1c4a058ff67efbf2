"""The regressions of a reader: which span in the replies so far is most likely right.

There is one logistic regression for each number of replies read, since the weight of a feature
depends on the other replies. Shapes: K candidates in the order in which they are asked, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...answers import exact_match
from .recorded import RecordedReplies
from .spans import ReadSpans, read

_WRONG = 25
"""The number of a question's wrong spans that a fit sees; they have the weight of all."""
NO_SPAN = -np.inf
"""The log-odds where no reply holds a span."""
_SHRINKAGE = 0.1
"""`C` of scikit-learn's `LogisticRegression`."""


@dataclass(frozen=True)
class Best:
    """The span that is most likely right.

    Attributes:
        row: its row in the reading.
        log_odds: of its being right, by the regression.
        features: length F.
    """

    row: int
    log_odds: float
    features: np.ndarray


@dataclass(frozen=True)
class Regressions:
    """A logistic regression for each number of replies.

    Attributes:
        weights: K x F.
        intercepts: length K.
    """

    weights: np.ndarray
    intercepts: np.ndarray

    def best(self, reading: ReadSpans, replies: int) -> Best | None:
        """Return the best span when the first replies are known; None where there is no span."""
        rows, features = reading.features(replies)
        if not len(rows):
            return None
        odds = features @ self.weights[replies - 1] + self.intercepts[replies - 1]
        top = int(odds.argmax())
        return Best(int(rows[top]), float(odds[top]), features[top])

    def judge(self, judged: Sequence[JudgedSpans]) -> tuple[np.ndarray, np.ndarray]:
        """Return how sure they are after each reply, and whether they are right, K x N each."""
        found = np.full((2, len(self.weights), len(judged)), NO_SPAN)
        found[1] = 0.0
        for i, one in enumerate(judged):
            for k in range(len(self.weights)):
                if best := self.best(one.reading, k + 1):
                    found[:, k, i] = best.log_odds, one.right[best.row]
        return found[0], found[1]


@dataclass(frozen=True)
class JudgedSpans:
    """The spans in the replies to one recorded question, and which of them are right.

    Attributes:
        reading: S spans.
        right: length S, 1 where exact match accepts the span, else 0.
    """

    reading: ReadSpans
    right: np.ndarray


def judge(recorded: RecordedReplies) -> list[JudgedSpans]:
    """Read the replies to each question, the candidates in the order of the pool."""
    judged = []
    rows = zip(recorded.questions, recorded.replies, recorded.gold, strict=True)
    for question, replies, gold in rows:
        reading = read(question, replies)
        right = np.array([exact_match(text, gold) for text in reading.texts])
        judged.append(JudgedSpans(reading, right))
    return judged


class Examples:
    """The data for the regressions: right spans, and some wrong ones, after each reply.

    Args:
        judged: N questions; the candidates are in the order in which they are asked.
        seed: draws the wrong spans.
    """

    def __init__(self, judged: Sequence[JudgedSpans], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.replies = judged[0].reading.in_reply.shape[1]
        self._rows = [
            [_drawn(one, replies, rng) for one in judged] for replies in range(1, self.replies + 1)
        ]

    def fit(self, questions: Sequence[int] | np.ndarray) -> Regressions:
        """Fit regressions to some of the questions, by their numbers."""
        fitted = [_regression([rows[i] for i in questions]) for rows in self._rows]
        return Regressions(np.stack([w for w, _ in fitted]), np.array([b for _, b in fitted]))


_Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Features, whether they are of a right span, and how many spans each represents."""


def _drawn(judged: JudgedSpans, replies: int, rng: np.random.Generator) -> _Rows:
    rows, features = judged.reading.features(replies)
    right = judged.right[rows].astype(bool)
    wrong = np.flatnonzero(~right)
    drawn = rng.choice(wrong, min(_WRONG, len(wrong)), replace=False)
    good = np.flatnonzero(right)
    counts = [1.0] * len(good) + [len(wrong) / max(1, len(drawn))] * len(drawn)
    taken = np.concatenate([good, drawn]).astype(int)
    return features[taken], right[taken], np.array(counts)


def _regression(rows: Sequence[_Rows]) -> tuple[np.ndarray, float]:
    """Return the weights and the intercept of one regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, right, counts = (np.concatenate(part) for part in zip(*rows, strict=True))
    if len(set(right.tolist())) < 2:  # nobody is ever right, or ever wrong
        return np.zeros(features.shape[1]), 0.0
    scale = StandardScaler()
    model = LogisticRegression(C=_SHRINKAGE, max_iter=300)
    model.fit(scale.fit_transform(features), right, sample_weight=counts)
    weights = model.coef_[0] / scale.scale_
    return weights, float(model.intercept_[0] - weights @ scale.mean_)
