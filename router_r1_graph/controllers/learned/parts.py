"""What predicts in a fitted controller, and its folder: JSON and npz, no code that loading runs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ControllerError
from .embedding import Embedding, fit_embedding, load_embedding
from .matrix import ScoreMatrix
from .methods import AUTO, METHODS, Setting
from .prediction import Predictor

VERSION = 2
_HEAD, _ARRAYS = "learned.json", "learned.npz"


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
        ImportError: what a setting needs is not installed.
    """
    names = dict.fromkeys(setting.embedding for setting in settings)
    words = {name: fit_embedding(name, matrix.questions, seed) for name in names}
    vectors = {name: embedding.vectors(matrix.questions) for name, embedding in words.items()}
    return [
        Part(s.method, words[s.embedding], s.fit(vectors[s.embedding], matrix.scores, seed))
        for s in settings
    ]


def write(
    folder: Path, head: Mapping[str, Any], parts: Sequence[Part], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write parts, with more fields and arrays; what several parts read is written once.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    embeddings = {part.embedding.name: part.embedding for part in parts}
    told = {
        "version": VERSION,
        **head,
        "parts": [{"method": part.method, "embedding": part.embedding.name} for part in parts],
        "words": {name: embedding.words() for name, embedding in embeddings.items()},
    }
    everything = dict(arrays)
    for name, embedding in embeddings.items():
        everything |= {f"embedding/{name}/{k}": v for k, v in embedding.arrays().items()}
    for number, part in enumerate(parts):
        everything |= {f"part/{number}/{k}": v for k, v in part.predictor.arrays().items()}
    (folder / _HEAD).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(folder / _ARRAYS, **everything)


@contextmanager
def reading(folder: Path) -> Iterator[tuple[dict[str, Any], list[Part], dict[str, np.ndarray]]]:
    """Give what `write` was given; what does not fit inside the block is a broken folder.

    Raises:
        ControllerError: the folder holds none, a broken one, or one of another version.
        ImportError: what it needs is not installed.
    """
    if not (folder / _HEAD).is_file():
        raise ControllerError(f"{folder}: no learned controller there (no {_HEAD})")
    head = _head(folder)
    try:
        with (folder / _ARRAYS).open("rb") as opened:  # np.load leaves a broken file open
            with np.load(opened, allow_pickle=False) as file:
                arrays = dict(file)
        embeddings = {
            name: load_embedding(name, words, _under(f"embedding/{name}/", arrays))
            for name, words in head["words"].items()
        }
        parts = [
            Part(
                part["method"],
                embeddings[part["embedding"]],
                METHODS[part["method"]].load(**_under(f"part/{number}/", arrays)),
            )
            for number, part in enumerate(head["parts"])
        ]
        yield head, parts, arrays
    except _BROKEN as error:
        raise _broken(folder, error) from None


_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,  # torch: weights of other shapes
    AttributeError,
    EOFError,
    zipfile.BadZipFile,
)


def _head(folder: Path) -> dict[str, Any]:
    """Return what a folder says that it holds, of a method and version that can be read."""
    try:
        head: dict[str, Any] = json.loads((folder / _HEAD).read_text(encoding="utf-8"))
        method, version = str(head["method"]), head["version"]
    except _BROKEN as error:
        raise _broken(folder, error) from None
    if method not in (*METHODS, AUTO):
        raise ControllerError(f"{folder}: that folder holds {method[:40]}: reader:{folder}")
    if version != VERSION:
        raise ControllerError(
            f"{folder / _HEAD}: version {version!r}; this release reads {VERSION}: fit it again"
        )
    return head


def _broken(folder: Path, error: Exception) -> ControllerError:
    why = f"{type(error).__name__}: {error}".partition("\n")[0]
    return ControllerError(f"{folder}: a broken learned controller: {why}")


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
