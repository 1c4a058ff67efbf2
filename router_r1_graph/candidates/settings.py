"""The connection and prices of a chat model: the settings that candidates and controllers share."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator

from ..errors import did_you_mean
from ..outside import NO_LIMIT, plain_name
from .excess import Excess, most_written
from .keys import from_environment, secret_in, secret_in_address, variables_in
from .resilience.settings import Resilience, Seconds

#: The values of `provider:` besides `module:factory`; each maps to such a factory.
PROVIDERS: Mapping[str, str] = {
    "openai": "router_r1_graph.candidates.openai:openai_chat_model",
    "langchain": "router_r1_graph.candidates.langchain:langchain_chat_model",
    "recorded": "router_r1_graph.candidates.replay:recorded_chat_model",
    "simulated": "router_r1_graph.simulation:simulated_chat_model",
    "tool": "router_r1_graph.candidates.adapters:adapted",
    "retriever": "router_r1_graph.candidates.adapters:adapted",
    "graph": "router_r1_graph.candidates.adapters:adapted",
    "mcp": "router_r1_graph.candidates.mcp:mcp_tool",
}


#: The chat models' names for our fields; as options they would bypass time-outs and budgets.
_OPTION_OF_FIELD = {
    "max_completion_tokens": "max_tokens",
    "timeout": "timeout_seconds",
    "request_timeout": "timeout_seconds",
    "model_name": "model",
    "openai_api_base": "base_url",
}


TOKENS_OF_AN_IMAGE = 2000
"""The assumed tokens of an image in a worst-case price; most providers count up to 1,600."""

Option = str | int | float | bool | None | list[Any] | dict[str, Any]


AnswerStyle = Literal["short", "full"]
"""How an answer is written: in as few words as possible, or as the user wants it."""

Price = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
TokenLimit = Annotated[int, Field(ge=1, le=NO_LIMIT)]


class ModelSettings(Resilience):
    """The connection and prices of a chat model.

    Prices are USD per million tokens; None means unknown (counted as 0, and shown as unknown).
    """

    model: str = ""
    """The provider's name of the model; by default the candidate's name."""
    provider: str = "openai"
    """`openai` (any OpenAI-compatible endpoint), `langchain` (any provider that LangChain knows, by
    `model: provider:name`), `recorded` or `simulated`; `tool`, `retriever`, `graph` or `mcp` (a
    tool of an MCP server); or `module:factory`, a callable that takes this record and returns a
    LangChain chat model."""
    base_url: str | None = None
    """The endpoint's address, up to `/v1`; None = OpenAI's."""
    api_key_env: str | None = None
    """The name of the environment variable that holds the key; never the key itself."""
    input_usd_per_mtok: Price | None = None
    """USD per million input tokens; None = unknown."""
    output_usd_per_mtok: Price | None = None
    """USD per million output tokens, reasoning included; None = unknown."""
    cached_input_usd_per_mtok: Price | None = None
    """USD per million input tokens that the provider reads from its cache; None = as any input."""
    cache_write_usd_per_mtok: Price | None = None
    """USD per million input tokens that it writes into its cache; None = as any input."""
    cache_ttl_seconds: Seconds | None = None
    """How long its prompt cache keeps a prefix after the last use; None = no cache is expected."""
    prices_checked: date | None = None
    """When the prices were last looked up."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """Sampling temperature; None = the provider's default."""
    max_tokens: TokenLimit = 512
    """The most completion tokens of a reply; the worst case of a call is computed from it."""
    token_limit_parameter: Literal["auto", "max_tokens", "max_completion_tokens"] | None = "auto"
    """The name under which `max_tokens` is sent to an OpenAI-compatible endpoint; null = it is not
    sent. `auto` = OpenAI's new name at OpenAI, else the old one. If the model refuses one name, the
    other is sent."""
    image_inputs: bool = False
    """Whether it accepts images: the images of a question are passed on to it."""
    options: dict[str, Option] = Field(default_factory=dict)
    """More keyword arguments for the chat model, passed to the provider unchanged. `{env: NAME}`
    anywhere in them = the value of an environment variable, which is kept as secret as a key. For
    an OpenAI-compatible endpoint, null = a parameter that is never sent, such as `stop: null`."""

    @cached_property
    def excess(self) -> Excess:
        """How much its calls have exceeded their worst cases so far; copies share it."""
        return Excess()

    def model_post_init(self, _: Any) -> None:
        """Begin with a fair provider, before any copy is made."""
        self.__dict__["excess"] = Excess()

    @cached_property
    def folder(self) -> Path | None:
        """The folder of the pool file, where a user's own modules may lie; None = no file.

        Set when a file is read. Not a field: the folder must not make settings unequal.
        """
        return None

    @field_validator("model")
    @classmethod
    def _a_plain_name(cls, value: str) -> str:
        return plain_name(value)

    @field_validator("provider")
    @classmethod
    def _known_provider(cls, value: str) -> str:
        if value in PROVIDERS or re.fullmatch(r"[\w.]+:[\w.]+", value):
            return value
        near = did_you_mean(value, PROVIDERS)
        model = value if ":" in value else f"{value}:NAME"
        other = "" if near else f"; others by provider: langchain, model: {model!r}"
        raise ValueError(
            f"unknown provider {value!r}{near}; allowed: {', '.join(PROVIDERS)}, or module:factory"
            f"{other}"
        )

    @field_validator("base_url")
    @classmethod
    def _has_a_scheme(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/]", value):
            raise ValueError("must begin with http:// or https:// and name a host")
        if value is not None and (secret := secret_in_address(value)):
            raise ValueError(secret)
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
            if re.fullmatch(r"(\w+_)?api_?key", name, re.I):
                raise ValueError(f"{name}: a key does not belong in a file; use api_key_env")
            field = _OPTION_OF_FIELD.get(name, name)
            if field in cls.model_fields:
                raise ValueError(f"{name} is not an option; set {field} beside options")
        if secret := secret_in(value):
            raise ValueError(secret)
        return value

    @property
    def key_variable(self) -> str | None:
        """The environment variable to read, or None when the endpoint needs no key.

        A custom `base_url` without `api_key_env` gets no key, so that OPENAI_API_KEY is never sent
        to somebody else's server.
        """
        if self.api_key_env or self.provider != "openai" or self.base_url:
            return self.api_key_env
        return "OPENAI_API_KEY"

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables to read: that of the key, and those that options name."""
        own = [self.key_variable] if self.key_variable else []
        return tuple(dict.fromkeys([*own, *variables_in(self.options)]))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of these variables, which must not be shown anywhere."""
        held = (os.environ.get(name, "") for name in self.variables)
        return (*filter(None, held), *self.resolved_secrets)

    @cached_property
    def resolved_secrets(self) -> tuple[str, ...]:
        """The secrets in the options of resolved settings. Not a field, like `folder`."""
        return ()

    def resolved(self) -> Self:
        """Return the settings with the values of the variables that options name.

        Use the result only to reach an endpoint, since settings are shown and stored.
        """
        if not any(variables_in(self.options)):
            return self
        settings = self.model_copy(update={"options": from_environment(self.options)})
        settings.__dict__["resolved_secrets"] = self.secrets
        return settings

    @property
    def key_state(self) -> str:
        """The variables and whether they are set, in words; "-" when none is needed."""
        states = (f"{n} {'set' if os.environ.get(n) else 'NOT SET'}" for n in self.variables)
        return ", ".join(states) or "-"

    @property
    def priced(self) -> bool:
        """Whether any list price is known."""
        return self.input_usd_per_mtok is not None or self.output_usd_per_mtok is not None

    def cost_usd(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        cached_input_tokens: int = 0,
        cache_write_tokens: int = 0,
    ) -> float:
        """Return the list price in USD of one call with these token counts.

        Args:
            input_tokens: all of the prompt.
            output_tokens: all that was written, reasoning included.
            cached_input_tokens: those of the prompt that were read out of the provider's cache.
            cache_write_tokens: those of the prompt that were written into it.
        """
        whole, read, written = self._input_prices
        # A part is never more than the whole, even if an endpoint says so.
        cached_input_tokens = min(cached_input_tokens, input_tokens)
        cache_write_tokens = min(cache_write_tokens, input_tokens - cached_input_tokens)
        return (
            (input_tokens - cached_input_tokens - cache_write_tokens) * whole
            + cached_input_tokens * read
            + cache_write_tokens * written
            + output_tokens * (self.output_usd_per_mtok or 0.0)
        ) / 1e6

    def cached_usd(self, input_tokens: int, output_tokens: int, warm_tokens: int) -> float:
        """Return the list price of a call whose first `warm_tokens` are in the prompt cache.

        A candidate without `cache_ttl_seconds` has no cache that is counted on.
        """
        warm = min(warm_tokens, input_tokens) if self.cache_ttl_seconds else 0
        written = input_tokens - warm if self.cache_ttl_seconds else 0
        return self.cost_usd(
            input_tokens, output_tokens, cached_input_tokens=warm, cache_write_tokens=written
        )

    def highest_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return the most that a call with these token counts can cost, cached or not."""
        whole, read, written = self._input_prices
        return self.cost_usd(
            input_tokens,
            output_tokens,
            cached_input_tokens=input_tokens if read >= max(whole, written) else 0,
            cache_write_tokens=input_tokens if written >= max(whole, read) else 0,
        )

    def worst_case_usd(self, text: str, images: int = 0) -> float:
        """Return the most in USD that one call with this text and so many images can cost.

        A tokenizer that falls back to bytes never makes more tokens than there are bytes; 64 more
        are allowed for the chat template. The tokens of an image are not known before it is sent:
        `TOKENS_OF_AN_IMAGE` are assumed. A call that was more expensive raises the next worst case.
        """
        return self.excess.worst_usd(self.fair_usd(text, images))

    def fair_usd(self, text: str, images: int = 0) -> float:
        """Return the worst case at a provider that keeps to its prices and to `max_tokens`."""
        tokens = len(text.encode(errors="replace")) + 64 + images * TOKENS_OF_AN_IMAGE
        return self.highest_usd(tokens, most_written(self.options, self.max_tokens))

    @property
    def _input_prices(self) -> tuple[float, float, float]:
        """USD per million input tokens: of any, of those read from a cache, of those written."""
        whole = self.input_usd_per_mtok or 0.0
        read, written = self.cached_input_usd_per_mtok, self.cache_write_usd_per_mtok
        return whole, whole if read is None else read, whole if written is None else written


class ControllerSettings(ModelSettings):
    """The `controller:` block of a pool file."""

    max_tokens: TokenLimit = 1024
    protocol: Literal["tags", "tools"] = "tags"
    """`tags` = the paper's tag language; `tools` = native tool calls."""
    prompt_template: Path | None = None
    """A prompt template, relative to the pool file; None = the library's."""
