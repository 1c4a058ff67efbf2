"""Candidates and pools: who can be asked, at what price, and how a YAML file says so.

A candidate is who can be asked: an LLM, or a tool, a retriever, a whole other graph. What the
controller is told about it (price, latency, strengths, example performance) is its descriptor, and
stands in the same record.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Container, Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from .errors import PoolError, did_you_mean
from .pool_file import beside, explain, read_mapping

#: What `provider:` may say besides `module:factory`; each is itself such a factory.
PROVIDERS: Mapping[str, str] = {
    "openai": "router_r1_graph.openai_chat:openai_chat_model",
    "recorded": "router_r1_graph.recorded:recorded_chat_model",
    "simulated": "router_r1_graph.simulation:simulated_chat_model",
    "tool": "router_r1_graph.adapters:adapted",
    "retriever": "router_r1_graph.adapters:adapted",
    "graph": "router_r1_graph.adapters:adapted",
}

#: What a call is taken to have of tokens, in and out, where one priced by the call is compared
#: with those priced by the token.
_TOKENS_OF_A_CALL = 500

#: What chat models call our fields; as options they would go round time-outs and budgets.
_OPTION_OF_FIELD = {
    "max_completion_tokens": "max_tokens",
    "timeout": "timeout_seconds",
    "request_timeout": "timeout_seconds",
    "model_name": "model",
    "openai_api_base": "base_url",
}

Option = str | int | float | bool | None | list[Any] | dict[str, Any]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ModelSettings(BaseModel):
    """How a chat model is reached, and what it costs.

    Prices are USD per million tokens; None means unknown (counted as 0, and shown as unknown).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = ""
    """The provider's name of the model; the candidate's name when left out."""
    provider: str = "openai"
    """`openai` (any OpenAI-compatible endpoint), `recorded`, `simulated`; `tool`, `retriever` or
    `graph` (see `adapters.py`); or `module:factory`, a callable that takes this record and returns
    a LangChain chat model."""
    base_url: str | None = None
    """The endpoint's address, up to `/v1`; None = OpenAI's."""
    api_key_env: str | None = None
    """The name of the environment variable that holds the key; never the key itself."""
    input_usd_per_mtok: Price | None = None
    output_usd_per_mtok: Price | None = None
    prices_checked: date | None = None
    """When the prices were last looked up."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """None = the provider's own."""
    max_tokens: Annotated[int, Field(ge=1)] = 512
    """Most completion tokens of one reply; the worst-case price of a call is computed from it."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Of one attempt."""
    max_retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Retries after a transient failure (429, 5xx, time-out, lost connection)."""
    options: dict[str, Option] = Field(default_factory=dict)
    """Passed to the provider as it is: more keyword arguments of the chat model."""

    @field_validator("provider")
    @classmethod
    def _known_provider(cls, value: str) -> str:
        if value in PROVIDERS or re.fullmatch(r"[\w.]+:[\w.]+", value):
            return value
        raise ValueError(
            f"unknown provider {value!r}{did_you_mean(value, PROVIDERS)}; allowed: "
            f"{', '.join(PROVIDERS)}, or module:factory"
        )

    @field_validator("base_url")
    @classmethod
    def _has_a_scheme(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/]", value):
            raise ValueError("must begin with http:// or https:// and name a host")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, value: str | None) -> str | None:
        # The value is not repeated in the message: it may be the key itself.
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            raise ValueError(
                "must be the NAME of an environment variable in capitals, such as OPENAI_API_KEY, "
                "never a key"
            )
        return value

    @field_validator("options")
    @classmethod
    def _no_key_in_options(cls, value: dict[str, Option]) -> dict[str, Option]:
        for name in value:
            if re.search(r"api_?key|secret|password", name, re.I):
                raise ValueError(f"{name}: a key does not belong in a file; use api_key_env")
            field = _OPTION_OF_FIELD.get(name, name)
            if field in cls.model_fields:
                raise ValueError(f"{name} is not an option; set {field} beside options")
        return value

    @property
    def key_variable(self) -> str | None:
        """The environment variable to read, or None when the endpoint wants no key.

        A custom `base_url` without `api_key_env` gets no key, so that OPENAI_API_KEY is never sent
        to somebody else's server.
        """
        if self.api_key_env or self.provider != "openai" or self.base_url:
            return self.api_key_env
        return "OPENAI_API_KEY"

    @property
    def key_state(self) -> str:
        """The key variable and whether it is set, in words; "-" when none is wanted."""
        variable = self.key_variable
        if variable is None:
            return "-"
        return f"{variable} {'set' if os.environ.get(variable) else 'NOT SET'}"

    @property
    def priced(self) -> bool:
        """Whether any list price is known."""
        return self.input_usd_per_mtok is not None or self.output_usd_per_mtok is not None

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return the list price in USD of one call with so many tokens."""
        return (
            input_tokens * (self.input_usd_per_mtok or 0.0)
            + output_tokens * (self.output_usd_per_mtok or 0.0)
        ) / 1e6

    def worst_case_usd(self, text: str) -> float:
        """Return the most in USD that one call with this text can cost.

        A tokenizer that falls back to bytes never makes more tokens than there are bytes; 64 more
        are allowed for the chat template.
        """
        return self.cost_usd(len(text.encode(errors="replace")) + 64, self.max_tokens)


class ControllerSettings(ModelSettings):
    """The `controller:` block of a pool file."""

    max_tokens: Annotated[int, Field(ge=1)] = 1024
    protocol: Literal["tags", "tools"] = "tags"
    """`tags`, the paper's language, or native tool calls."""
    prompt_template: Path | None = None
    """A file, relative to the pool file; None = the library's."""


class Candidate(ModelSettings):
    """Who can be asked, with its descriptor: an LLM, a tool, a retriever, or another graph."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """What the controller calls it."""
    aliases: tuple[str, ...] = ()
    """Other names that the controller may write."""
    usd_per_call: Price | None = None
    """USD of one call that brings a reply, on top of its tokens: what a search costs. Of a graph
    the most that a call can cost, where its messages say what it did."""
    latency_seconds: Annotated[float, Field(ge=0)] | None = None
    """Typical seconds until a whole reply is there."""
    strengths: tuple[str, ...] = ()
    """What it is good at, in a few words each."""
    benchmarks: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    """Name of a benchmark or subject -> score."""

    @field_validator("name", "aliases")
    @classmethod
    def _can_be_written_in_a_tag(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for name in [value] if isinstance(value, str) else value:
            if not name.strip() or name != name.strip() or re.search(r"[:<>\n\r]", name):
                raise ValueError(
                    f"{name!r}: a name has no ':', '<', '>' or line break in it, and no space "
                    "around it (the controller writes it before a colon)"
                )
        return value

    @property
    def model_name(self) -> str:
        """The provider's name of the model."""
        return self.model or self.name

    @property
    def slug(self) -> str:
        """The name as a tool name: OpenAI allows `[a-zA-Z0-9_-]` and 64 characters.

        A name that loses letters or its end by that gets a hash of it, so that names stay apart.
        """
        slug = re.sub(r"[^a-zA-Z0-9_-]+", "_", self.name)
        if self.name.isascii() and len(slug) <= 64:
            return slug
        return f"{slug[:57]}_{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"

    @property
    def kind(self) -> Literal["model", "tool", "retriever", "graph"]:
        """What is asked."""
        match self.provider:
            case "tool" | "retriever" | "graph" as kind:
                return kind
        return "model"

    @property
    def priced(self) -> bool:
        """Whether any list price is known."""
        return self.usd_per_call is not None or super().priced

    @property
    def bounded(self) -> bool:
        """Whether the worst-case price of a call is one, so that a budget bounds it."""
        return self.usd_per_call is not None or self.output_usd_per_mtok is not None

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return the list price in USD of one call with so many tokens."""
        return (self.usd_per_call or 0.0) + super().cost_usd(input_tokens, output_tokens)

    @property
    def price_usd_per_mtok(self) -> float:
        """Input and output price added: one number to order candidates by.

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
            parts.append(f"${self.usd_per_call:g} per call")
        if super().priced:
            parts.append(
                f"${self.input_usd_per_mtok or 0:g} in, "
                f"${self.output_usd_per_mtok or 0:g} out per 1M tokens"
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

    @property
    def price_level(self) -> int:
        """The price as 0 to 9 on a logarithmic scale: 0 is $0.1 in and out together, 9 is $30."""
        price = max(self.price_usd_per_mtok, 1e-9)
        return min(9, max(0, round(math.log(price / 0.1) / math.log(30 / 0.1) * 9)))

    @property
    def brief_scores(self) -> Mapping[str, int]:
        """Scores from 0 to 9 by subject, for a small policy.

        Scores that hardly differ over many subjects are one, of the subject `all`.
        """
        scores = {name: min(9, int(score * 10)) for name, score in self.benchmarks.items()}
        if len(scores) > 4 and max(scores.values()) - min(scores.values()) <= 2:
            return {"all": round(sum(scores.values()) / len(scores))}
        return scores


class CandidatePool(BaseModel):
    """The candidates on offer, in order, and optionally the controller that chooses among them.

    Example:
        >>> pool = CandidatePool.embedded()
        >>> pool.find(pool.candidates[0].name.upper()) == pool.candidates[0]
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "pool"
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    controller: ControllerSettings | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> CandidatePool:
        owner: dict[str, str] = {}
        for candidate in self.candidates:
            names = {n.casefold() for n in (candidate.name, candidate.slug, *candidate.aliases)}
            for name in sorted(names):
                if name in owner:
                    raise ValueError(
                        f"the name {name!r} (name, alias or tool name of {candidate.name!r}) "
                        f"belongs to {owner[name]!r} already"
                    )
                owner[name] = candidate.name
        return self

    _file: Path | None = PrivateAttr(default=None)

    @property
    def where(self) -> str:
        """Where the pool comes from, for messages: its file, else its name."""
        return str(self._file) if self._file else f"pool {self.name!r}"

    @cached_property
    def _by_name(self) -> dict[str, Candidate]:
        return {
            name.casefold(): candidate
            for candidate in self.candidates
            for name in (candidate.name, candidate.slug, *candidate.aliases)
        }

    @classmethod
    def embedded(cls) -> CandidatePool:
        """Return the shipped pool of simulated candidates: no key, no network."""
        return cls.from_yaml("embedded")

    @classmethod
    def from_yaml(cls, path: str | Path) -> CandidatePool:
        """Read a pool file, or one of the shipped pools by name.

        Args:
            path: a YAML file, or the name of a shipped pool (`embedded`, `embedded_unseen`,
                `router_r1`).

        Raises:
            PoolError: the file is missing, is not YAML, or holds a value that is not allowed; the
                message names file, key, value and what is allowed.
        """
        file, data = read_mapping(path)
        data.setdefault("name", file.stem)
        beside(file, data)
        try:
            pool = cls.model_validate(data)
        except ValidationError as error:
            raise PoolError(f"{file}: {explain(error, data, _MODELS)}") from None
        template = pool.controller and pool.controller.prompt_template
        if template and not (template := file.parent / template).is_file():
            raise PoolError(f"{file}: controller.prompt_template: no such file {str(template)!r}")
        if pool.controller and template:
            controller = pool.controller.model_copy(update={"prompt_template": template})
            pool = pool.model_copy(update={"controller": controller})
        pool._file = file
        return pool

    def describe_briefly(self) -> str:
        """Return the descriptors for a small policy: by subject, who knows it, price level, score.

        The cheapest comes first in each line, whatever the order of the pool.

        Example:
            >>> print(CandidatePool.embedded().describe_briefly().splitlines()[0])
            science: Vantegro 2 9
        """
        subjects: dict[str, list[str]] = {}
        for candidate in sorted(self.candidates, key=lambda c: c.price_usd_per_mtok):
            level = f"{candidate.name} {candidate.price_level}"
            for subject, score in candidate.brief_scores.items():
                subjects.setdefault(subject, []).append(f"{level} {score}")
            if not candidate.benchmarks:
                subjects.setdefault("all", []).append(level)
        if "all" in subjects:
            subjects["all"] = subjects.pop("all")  # comes last
        return "\n".join(f"{subject}: {', '.join(who)}" for subject, who in subjects.items())

    def descriptors(self) -> CandidatePool:
        """Return the pool without the ways to reach anybody: safe to store and to show."""
        access: dict[str, Any] = {"base_url": None, "api_key_env": None, "options": {}}
        candidates = tuple(c.model_copy(update=access) for c in self.candidates)
        pool = self.model_copy(update={"candidates": candidates, "controller": None})
        pool._file = None
        return pool

    def find(self, name: str) -> Candidate | None:
        """Return the candidate of this name, alias or tool name, ignoring case; else None."""
        return self._by_name.get(name.strip().casefold())

    def unknown(self, name: str) -> str:
        """Say that no candidate has this name, and which is nearest."""
        names = [candidate.name for candidate in self.candidates]
        nearest = did_you_mean(name[:100], names)
        return f"no candidate {name[:100]!r}{nearest}; candidates: {', '.join(names)}"

    def require_keys(self, but: Container[str] = ()) -> None:
        """Check that every candidate's key variable is set, before anything is asked.

        Args:
            but: names of candidates that need no key.

        Raises:
            PoolError: names the candidate and the variable that is not set.
        """
        missing = [
            f"{c.name}: the environment variable {c.key_variable} is not set"
            for c in self.candidates
            if c.name not in but and c.key_variable and not os.environ.get(c.key_variable)
        ]
        if missing:
            raise PoolError(f"{self.where}: {'; '.join(missing)} (api_key_env names the variable)")


_MODELS: Mapping[str, type[BaseModel]] = {
    "": CandidatePool,
    "candidates": Candidate,
    "controller": ControllerSettings,
}
