"""The gate for a scratchpad that comes from outside: its bills, queries and decisions.

A trace keeps them inside LangChain's messages, which take anything. Whatever has passed this gate
can be added up, asked again, and judged by its probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from .observations import ObservedBill

_SUM_WITHIN = 1e-3
"""How far the sum of the probabilities may be from 1: other programs round them."""
_FIX = "mend the line; or remove its 'decisions', and no estimate uses the run"

_Chance = Annotated[float, Strict(), Field(ge=0, le=1)]


class _Decision(BaseModel):
    """A decision as a turn keeps it; keys of newer releases are ignored."""

    model_config = ConfigDict(allow_inf_nan=False)

    call: str
    query: str
    proposed: str
    asked: str
    probabilities: dict[str, _Chance]
    digest: str

    @model_validator(mode="after")
    def _can_be_weighed(self) -> _Decision:
        """Refuse probabilities that no draw can have had."""
        chances, total = self.probabilities, sum(self.probabilities.values())
        if never := [name for name, chance in chances.items() if not chance]:
            raise ValueError(
                f"the probability of {never[0]!r} is 0, and only candidates that could have been "
                f"asked are listed; {_FIX}"
            )
        if self.asked not in chances:
            raise ValueError(f"{self.asked!r} was asked, and has no probability; {_FIX}")
        if not math.isclose(total, 1, abs_tol=_SUM_WITHIN):
            raise ValueError(f"the probabilities add up to {total:.4g}, not to 1; {_FIX}")
        return self


class _Read(BaseModel):
    """The values that are read from a scratchpad: real texts, and numbers that can be added."""

    model_config = ConfigDict(allow_inf_nan=False)

    bills: list[ObservedBill]
    queries: list[str]
    decisions: list[_Decision]


def check_scratchpad(scratchpad: Iterable[AnyMessage]) -> None:
    """Refuse messages in which a bill, a query or a decision cannot be read.

    Raises:
        ValidationError: the first that cannot, by its number in the run.
    """
    messages = list(scratchpad)
    turns = [message for message in messages if isinstance(message, AIMessage)]
    about = [turn.response_metadata.get("router_r1") or {} for turn in turns]
    _Read.model_validate(
        {
            "bills": [
                {"stored": False, "saved_usd": 0.0, **message.artifact}  # as of earlier releases
                for message in messages
                if isinstance(message, ToolMessage) and message.artifact
            ],
            "queries": [call["args"].get("query") for turn in turns for call in turn.tool_calls],
            "decisions": [one for told in about for one in told.get("decisions") or ()],
        }
    )
