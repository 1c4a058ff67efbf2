"""Failures and limits of a candidate's calls: settings of one candidate or a pool.

In a pool file, they are beside a candidate's prices; the `resilience:` block has defaults for all
candidates.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ...outside import MOST_OF_A_CALL, NO_LIMIT
from .places import check_place

Transient = Literal["rate_limited", "server_error", "timeout", "connection"]
"""The kinds of failures that may be temporary."""

Seconds = Annotated[float, Field(ge=1e-6, le=NO_LIMIT, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=1e-6, le=1e12, allow_inf_nan=False)]
"""Per minute; the least is one in two years."""
Calls = Annotated[int, Field(ge=1, le=NO_LIMIT)]

NEAREST = "nearest"


class Resilience(BaseModel):
    """Time-outs, retries, limits, circuit breaker and hedging of calls to one endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    timeout_seconds: Seconds = 60.0
    """Time limit of one attempt."""
    max_retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Retries after a transient failure (429, 5xx, time-out, lost connection)."""
    retry_on: tuple[Transient, ...] = ("rate_limited", "server_error", "timeout", "connection")
    """Which failures are retried. After a time-out or a lost connection, the provider may have
    written, and billed, a reply that was not received: with `[rate_limited, server_error]`, such a
    request is never repeated."""
    max_concurrency: Calls | None = None
    """The most attempts in flight at once; further calls wait in turn. None = no limit."""
    requests_per_minute: Rate | None = None
    """The endpoint's limit, with bursts of five seconds' worth; None = no limit."""
    tokens_per_minute: Rate | None = None
    """The same for input and output tokens, counted after each reply."""
    breaker_failures: Calls | None = None
    """After this many failed attempts in a row (5xx, time-out, lost connection), calls fail at once
    for `breaker_seconds`. None = no circuit breaker."""
    breaker_seconds: Seconds = 30.0
    """How long the breaker stays open, until probes are let through."""
    breaker_probes: Calls = 1
    """The most probes at once; the first that succeeds closes the breaker."""
    hedge_after_seconds: Seconds | None = None
    """After so many seconds without a reply, the request is sent a second time; the first reply
    counts, and both requests are paid. None = never."""
    limits_store: str | None = None
    """The scope of limits and breaker. None = all processes of this user on this machine, by
    a file in the folder for temporary files; `memory` = this process alone; the path of an SQLite
    file, relative to the pool file; `redis://HOST:PORT/DATABASE`; or `env:NAME`, an environment
    variable with one of these, for a URL with a password."""

    @field_validator("limits_store")
    @classmethod
    def _a_place(cls, value: str | None) -> str | None:
        if value is not None:
            check_place(value)
        return value

    @model_validator(mode="after")
    def _hedges_in_time(self) -> Resilience:
        if self.hedge_after_seconds and self.hedge_after_seconds >= self.timeout_seconds:
            raise ValueError(
                f"hedge_after_seconds ({self.hedge_after_seconds:g}) is less than timeout_seconds "
                f"({self.timeout_seconds:g}): later nothing would be left to hedge"
            )
        return self

    @property
    def socket_seconds(self) -> float:
        """The time limit of one attempt, as far as a socket can wait."""
        return min(self.timeout_seconds, MOST_OF_A_CALL)

    @property
    def limited(self) -> bool:
        """Whether there is any limit to keep to, or anything to count."""
        return bool(
            self.max_concurrency
            or self.requests_per_minute
            or self.tokens_per_minute
            or self.breaker_failures
        )


class PoolResilience(Resilience):
    """The `resilience:` block of a pool file: defaults for candidates without own values."""

    fallback: str | None = None
    """See `Candidate.fallback`."""
