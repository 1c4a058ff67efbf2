"""What may be given to be asked in the place of a candidate's own model."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import PoolError
from ..invalid import show


def require_askable(models: object) -> None:
    """Check the models that are given, by name, in the place of candidates' own.

    Raises:
        PoolError: it is no dict, or one of them has none of the methods by which it is asked.
    """
    if not isinstance(models, Mapping):
        raise PoolError(f"models: a dict by candidates' names is wanted, not {show(models)}")
    for name, model in models.items():
        if not any(hasattr(model, way) for way in ("invoke", "compile")):  # a graph's builder
            raise PoolError(
                f"models: {name}: a chat model, tool, retriever or graph is wanted, "
                f"not {show(model)}"
            )
