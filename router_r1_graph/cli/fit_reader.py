"""`router-r1 fit reader`: a controller that reads replies, learned from recorded ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..candidates import CandidatePool
from ..console import print_note
from ..errors import ConfigError, MissingExtraError
from ..words import counted, rounded

if TYPE_CHECKING:
    from ..controllers.learned.reader import ReaderKind

_COST_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)


def fit_reader(
    kind: ReaderKind,
    data: Path,
    out: Path,
    pool: CandidatePool | None,
    *,
    seed: int,
    split: str | None,
    fields: Mapping[str, str],
    candidates: Sequence[str] = (),
) -> None:
    """Fit a reader, write it, and print its curve of cost and exact match.

    Raises:
        ConfigError: the data cannot be used, or the folder not be written.
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from ..controllers.learned.reader import ReaderController
        from ..evaluation.recorded_replies import load_recorded

        recorded = load_recorded(data, pool, split=split, fields=fields, candidates=candidates)
        reader = ReaderController.fit(recorded, kind=kind, seed=seed)
    except ImportError as error:
        raise MissingExtraError(f"fit {kind}", "eval", error) from error
    try:
        reader.save(out)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    if reader.cost_source == "prices" and not reader.costs.any():
        print_note("warning: no costs and no prices: the cost weight has no effect")
    size = f"{counted(len(recorded.questions), 'question')} x "
    size += counted(len(recorded.pool.candidates), "candidate")
    print("asks in the order " + ", ".join(c.name for c in reader.known.candidates))
    print("cost weight  exact match  cost  calls   (5 folds; 1 = the cost of asking all)")
    for weight in _COST_WEIGHTS if reader.reads_cost_weight else (0.0,):
        point = reader.expected(weight)
        print(
            f"{weight:11}  {rounded(point.exact_match, 3):>11}  {rounded(point.cost, 2):>4}  "
            f"{rounded(point.calls, 1):>5}"
        )
    print(f"{kind}: {size} -> --controller reader:{out}")
