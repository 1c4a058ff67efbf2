"""The one function that reads the pool, wherever a caller may give it."""

from __future__ import annotations

from pathlib import Path

from .pool import CandidatePool


def as_pool(pool: CandidatePool | str | Path) -> CandidatePool:
    """Return a pool as it is, or that of a file or a shipped pool's name.

    Raises:
        PoolError: see `CandidatePool.from_yaml`; or it is none of these.
    """
    return pool if isinstance(pool, CandidatePool) else CandidatePool.from_yaml(pool)
