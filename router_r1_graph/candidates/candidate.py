"""A candidate: a model or source that can be asked, with the descriptor for the controller.

It may be an LLM, a tool, a retriever, or a whole other graph. The facts that the controller sees
about it (price, latency, strengths, example performance) are in the same record.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from ..outside import MOST_USD, Amount, plain_name
from ..words import plain
from .settings import ModelSettings

#: The tokens that a call is assumed to have, in and out, to compare a price per call with prices
#: per token.
_TOKENS_OF_A_CALL = 500


class Measurement(BaseModel):
    """When and by what a candidate was measured; `router-r1 pool measure` writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: datetime.date
    source: str = ""
    """The command, and which probes it asked."""


QUERY = "a question of its own, which can be answered without seeing this conversation"
"""The description of the one argument of a candidate's tool, for models that call tools."""


class Candidate(ModelSettings):
    """A candidate with its descriptor: an LLM, a tool, a retriever, or another graph."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """The name that the controller writes."""
    aliases: tuple[str, ...] = ()
    """Other names that the controller may write."""
    usd_per_call: Annotated[float, Field(ge=0, le=MOST_USD, allow_inf_nan=False)] | None = None
    """USD of one call that returns a reply, in addition to its tokens; the price of a search, for
    example. For a graph whose messages report a cost, set the most that a call can cost."""
    fallback: str | None = None
    """The candidate that is asked if this one cannot be reached: its name, or `nearest`, the one
    with the most similar descriptor. The fallback of the fallback is not asked. None = no
    fallback."""
    latency_seconds: Amount | None = None
    """Typical seconds until the whole reply has arrived."""
    system_prompt: str = ""
    """The system prompt before each query, such as "Answer with the name alone, in no sentence.".
    Not for tools and retrievers, which read only the query."""
    strengths: tuple[str, ...] = ()
    """Its strengths, in a few words each."""
    benchmarks: dict[str, Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    """Name of a benchmark or subject -> score."""
    measured: Measurement | None = None
    """When and how latency and scores were measured (`date`, `source`); None = not known."""

    _first_name: str = PrivateAttr("")

    @field_validator("name", "aliases")
    @classmethod
    def _can_be_written_in_a_tag(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for name in [value] if isinstance(value, str) else value:
            if not name.strip() or name != name.strip() or re.search(r"[:<>\n\r\t]", name):
                raise ValueError(
                    f"{name!r}: a name has no ':', '<', '>', tab or line break in it, and no space "
                    "around it (the controller writes it before a colon)"
                )
            plain_name(name)
        return value

    @property
    def stored_as(self) -> str:
        """The name under which a store keeps its replies: the first one, if it was renamed."""
        return self._first_name or self.name

    def renamed(self, name: str, **changed: Any) -> Candidate:
        """Return the candidate under another name, and with other values of these fields."""
        copy = self.model_copy(update={"name": name, **changed})
        copy._first_name = self.stored_as
        return copy

    @property
    def model_name(self) -> str:
        """The provider's name of the model."""
        return self.model or self.name

    @property
    def slug(self) -> str:
        """The name as a tool name: OpenAI allows `[a-zA-Z0-9_-]` and 64 characters.

        If letters or the end of the name are lost, a hash of the name is added, so that names stay
        distinct.
        """
        slug = re.sub(r"[^a-zA-Z0-9_-]+", "_", self.name)
        if self.name.isascii() and len(slug) <= 64:
            return slug
        return f"{slug[:57]}_{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"

    @property
    def kind(self) -> Literal["model", "tool", "retriever", "graph"]:
        """The kind of candidate."""
        match self.provider:
            case "tool" | "retriever" | "graph" as kind:
                return kind
            case "mcp":
                return "tool"
        return "model"

    @property
    def priced(self) -> bool:
        """Whether any list price is known."""
        return self.usd_per_call is not None or super().priced

    @property
    def bounded(self) -> bool:
        """Whether a call has a worst-case price, so that a budget can limit it."""
        return self.usd_per_call is not None or self.output_usd_per_mtok is not None

    def cost_usd(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        cached_input_tokens: int = 0,
        cache_write_tokens: int = 0,
    ) -> float:
        """Return the list price in USD of one call with these token counts."""
        return (self.usd_per_call or 0.0) + super().cost_usd(
            input_tokens,
            output_tokens,
            cached_input_tokens=cached_input_tokens,
            cache_write_tokens=cache_write_tokens,
        )

    def worst_case_usd(self, text: str, images: int = 0) -> float:
        """Return the most in USD that one call can cost, the system prompt included."""
        return super().worst_case_usd(self.system_prompt + text, images)

    @property
    def price_usd_per_mtok(self) -> float:
        """The input plus the output price: one number to order candidates by.

        A price per call counts as that of a call with 500 tokens in and 500 out.
        """
        per_call = (self.usd_per_call or 0.0) * 1e6 / _TOKENS_OF_A_CALL
        return (self.input_usd_per_mtok or 0.0) + (self.output_usd_per_mtok or 0.0) + per_call

    def describe(self) -> str:
        """Return the descriptor as one line for a prompt or a tool description."""
        parts: list[str] = [] if self.kind == "model" else [self.kind]
        if not self.priced:
            parts.append("price unknown")
        if self.usd_per_call is not None:
            parts.append(f"${plain(self.usd_per_call)} per call")
        if super().priced:
            parts.append(
                f"${plain(self.input_usd_per_mtok or 0)} in, "
                f"${plain(self.output_usd_per_mtok or 0)} out per 1M tokens"
            )
        if self.latency_seconds is not None:
            parts.append(f"about {self.latency_seconds:g} s")
        if self.strengths:
            parts.append("good at " + ", ".join(self.strengths))
        if self.benchmarks:
            parts.append(
                "scores "
                + ", ".join(f"{name} {score:g}" for name, score in self.benchmarks.items())
            )
        return "; ".join(parts)

    def describe_briefly(self) -> str:
        """Return the descriptor in few words, for a prompt that says what the numbers are.

        The price is the input plus the output price; a score between 0 and 1 is written in percent.
        Many scores that hardly differ are written as a range.

        Example:
            >>> ada = Candidate(name="Ada", output_usd_per_mtok=2, benchmarks={"maps": 0.9})
            >>> ada.describe_briefly()
            '$2, maps 90'
        """
        parts: list[str] = [] if self.kind == "model" else [self.kind]
        if not self.priced:
            parts.append("price unknown")
        if self.usd_per_call is not None:
            parts.append(f"${plain(self.usd_per_call, 2)} per call")
        if super().priced:
            parts.append(self.brief_price)
        if self.latency_seconds is not None:
            parts.append(f"{self.latency_seconds:g} s")
        scores = self.brief_scores
        if len(scores) > 1 and len({*scores.values()}) == 1:
            parts.append(f"{', '.join(scores)} {next(iter(scores.values()))}")
        else:
            parts += [f"{name} {score}" for name, score in scores.items()]
        parts += [f"good at {what}" for what in self.strengths if what not in scores]
        return ", ".join(parts)

    @property
    def brief_price(self) -> str:
        """The price of a million tokens in and one out, as `describe_briefly` has it: `$0.5`."""
        return f"${plain((self.input_usd_per_mtok or 0) + (self.output_usd_per_mtok or 0), 2)}"

    @property
    def brief_scores(self) -> Mapping[str, str]:
        """The scores as `describe_briefly` has them, by subject: `97`, or the range `91-94`."""
        scores = {name: 100 * x if x <= 1 else x for name, x in self.benchmarks.items()}
        low, high = min(scores.values(), default=0), max(scores.values(), default=0)
        if len(scores) > 3 and high - low <= 10:
            return dict.fromkeys(scores, f"{low:.0f}-{high:.0f}")
        return {name: f"{score:.0f}" for name, score in scores.items()}

    def describe_tool(self) -> str:
        """Return the tool description of the candidate, for models that call tools."""
        what = ", a language model" if self.kind == "model" else ""
        return f"Ask {self.name}{what} ({self.describe()})."

    @property
    def price_level(self) -> int:
        """The price as 0 to 9 on a logarithmic scale: 0 is $0.1 in and out together, 9 is $30."""
        price = max(self.price_usd_per_mtok, 1e-9)
        return min(9, max(0, round(math.log(price / 0.1) / math.log(30 / 0.1) * 9)))

    @property
    def score_levels(self) -> Mapping[str, int]:
        """Scores from 0 to 9 by subject, for a small policy.

        If the scores of many subjects hardly differ, they become one score, for the subject `all`.
        """
        scores = {name: min(9, int(score * 10)) for name, score in self.benchmarks.items()}
        if len(scores) > 4 and max(scores.values()) - min(scores.values()) <= 2:
            return {"all": round(sum(scores.values()) / len(scores))}
        return scores
