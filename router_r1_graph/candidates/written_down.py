"""Settings that were written down, in a trace for example: maybe when their ranges were wider."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self

from pydantic import (
    BaseModel,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

STORED = "stored"
"""The validation context of a pool that was written down, in a trace for example. None of its
candidates is asked, and their fallbacks may not be in it."""
_LIMITS = {"greater_than_equal": "ge", "less_than_equal": "le"}


class WrittenDown(BaseModel):
    """Read with the context `STORED`, a number out of today's range is the nearest in it."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_todays_ranges(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            if info.context != STORED:
                raise
            return handler(_within(data, error))


def _within(data: Any, error: ValidationError) -> Any:
    data = deepcopy(data)
    for one in error.errors(include_url=False):
        if limit := _LIMITS.get(one["type"]):
            *above, name = one["loc"]
            place = data
            for part in above:
                place = place[part]
            place[name] = one["ctx"][limit]
    return data
