"""The folder of a fitted controller, JSON and npz, and whether a pool is the one that it knows.

Nothing in a folder runs code when it is loaded: `learned.json` has the method, its version and the
candidates of the fit; `learned.npz` has its numbers.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...candidates import CandidatePool
from ...errors import ConfigError, ControllerError
from .matrix import ScoreMatrix

HEAD, ARRAYS = "learned.json", "learned.npz"

#: What a broken folder raises somewhere.
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


def write(
    folder: str | Path,
    method: str,
    version: int,
    head: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write the fitted parts.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = {"version": version, "method": method, **head}
    (folder / HEAD).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(folder / ARRAYS, **dict(arrays))


@contextmanager
def reading(
    folder: str | Path, what: str, methods: Collection[str], version: int
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Give head and arrays of a folder; an error in the block means that the folder is broken.

    Args:
        folder: the folder that `write` made.
        what: the thing that the caller reads, for the error.
        methods: the methods that it can read.
        version: the version that it can read.

    Raises:
        ControllerError: the folder holds none, a broken one, or one of another method or version.
        ImportError: a package that it needs is not installed.
    """
    folder = Path(folder)
    if not (folder / HEAD).is_file():
        raise ControllerError(f"{folder}: no fitted controller there (no {HEAD})")
    try:
        head: dict[str, Any] = json.loads((folder / HEAD).read_text(encoding="utf-8"))
        found, of_version = str(head["method"]), head["version"]
        if found not in methods:
            raise ControllerError(
                f"{folder}: that folder holds {found[:40]}, not {what}; see its {HEAD}"
            )
        if of_version != version:
            raise ControllerError(
                f"{folder / HEAD}: version {of_version!r}; this release reads {version}: "
                "fit it again"
            )
        with (folder / ARRAYS).open("rb") as opened:  # np.load leaves a broken file open
            with np.load(opened, allow_pickle=False) as file:
                arrays = dict(file)
        yield head, arrays
    except ControllerError:
        raise
    except _BROKEN as error:
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ControllerError(f"{folder}: a broken fitted controller: {why}") from None


def columns(
    known: Sequence[str], pool: CandidatePool, name: str, *, fewer: bool = False, advice: str = ""
) -> list[int]:
    """Return, for each candidate of a pool, its place among those of a fit.

    Args:
        known: the names of the fit.
        pool: the pool to choose from.
        name: the controller's, for the error.
        fewer: whether the pool may lack some.
        advice: what to do about a candidate that is not known; "" = fit again.

    Raises:
        ControllerError: the pool's candidates are not those of the fit.
    """
    places = {id(pool.find(one)): place for place, one in enumerate(known)}
    new = [c.name for c in pool.candidates if id(c) not in places]
    gone = [] if fewer else [one for one in known if pool.find(one) is None]
    if new or gone:
        parts = [
            f"{what}: {some(names)}" for what, names in (("new", new), ("gone", gone)) if names
        ]
        raise ControllerError(
            f"{name}: the candidates of {pool.where} are not those of the fit "
            f"({'; '.join(parts)}); {advice or 'fit again'}"
        )
    return [places[id(c)] for c in pool.candidates]


def require_measured(matrix: ScoreMatrix) -> None:
    """Check that every candidate has a score.

    Raises:
        ConfigError: a candidate has no score.
    """
    missing = np.isnan(matrix.scores).all(axis=0)
    if missing.any():
        names = [name for name, none in zip(matrix.names, missing, strict=True) if none]
        raise ConfigError(f"no score of {some(names)}: nothing to learn from")


def some(names: Sequence[str]) -> str:
    """Return names for a message, the first five of them."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
