"""Candidates measured by probes: their scores, prices and latency.

Each candidate is asked each probe, as the router would ask it. A failing candidate is a value: it
is given up, and the others go on. No call is made that would exceed the limit in USD, by the
replies so far; calls in flight may exceed it.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from ..answers import bare_answer
from ..candidates import Candidate
from ..candidates.call import aask
from ..candidates.failures import ReplyError
from ..candidates.measure import fit_prices, significant
from ..candidates.pool_edit import Value
from ..candidates.providers import make_chat_model
from ..candidates.records import Record
from ..candidates.reply import Reply
from ..candidates.store import ReplyStore
from ..candidates.tool import prompt_of
from ..candidates.usage import estimate_tokens, reported_usd
from .loop import ask_many
from .probes import Probe
from .purse import Purse
from .scorers import Scorer

_TOKENS_OF_A_REPLY = 100
"""The assumed tokens of a reply, before the first one."""
_FAILURES = 5
"""The failures in a row after which a candidate is given up."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A reply to a probe, from 0 = wrong to 1 = right; `record` holds tokens, price and seconds."""

    domain: str
    score: float
    record: Record
    reported: bool
    """Whether the provider reported the price."""


@dataclass(eq=False)
class Measured:
    """The measurements of one candidate so far.

    Attributes:
        candidate: the candidate.
        probes: its probes, in order.
        probe_set: the name of the probes.
        scored: its replies; an empty one is a wrong answer.
        failures: calls that brought no reply; they do not count as wrong answers.
        error: the last of these failures.
        paid_usd: the cost of its calls; stored replies cost nothing.
        uncertain_usd: the most that attempts of an unknown price cost besides.
        ended: why it gets no further probes, if some are left.
    """

    candidate: Candidate
    probes: Sequence[Probe]
    probe_set: str
    scored: list[Scored] = field(default_factory=list)
    failures: int = 0
    error: ReplyError | None = None
    paid_usd: float = 0.0
    uncertain_usd: float = 0.0
    ended: Literal["", "budget", "failing"] = ""
    _asked: int = 0
    _in_flight: int = 0
    _failures_in_a_row: int = 0

    @property
    def domains(self) -> dict[str, list[float]]:
        """The scores of each domain that has any, in the order of the probes."""
        found: dict[str, list[float]] = {probe.domain: [] for probe in self.probes}
        for one in self.scored:
            found[one.domain].append(one.score)
        return {domain: scores for domain, scores in found.items() if scores}

    @property
    def usd_per_call(self) -> float:
        """The mean price of a reply, even if it was paid earlier; before the first, a guess."""
        if not self.scored:
            return self._guess_usd(self.probes[0])
        return statistics.fmean(one.record.cost_usd or 0.0 for one in self.scored)

    @property
    def untimed(self) -> str:
        """Why its seconds mean nothing; "" = they mean something."""
        if self.candidate.provider == "simulated" and not self.candidate.options.get("sleep"):
            return "it is simulated"
        limits = self.candidate.requests_per_minute, self.candidate.tokens_per_minute
        return "calls wait for its own limit a minute" if any(limits) else ""

    @property
    def seconds(self) -> float | None:
        """The median time of a reply; None = unknown."""
        if self.untimed or not self.scored:
            return None
        return statistics.median(one.record.seconds or 0.0 for one in self.scored)

    @property
    def prices(self) -> tuple[float | None, float | None]:
        """USD per million tokens, in and out, as the provider's own bills have it; else None."""
        bills = [one.record for one in self.scored if one.reported]
        return fit_prices(bills) if self.candidate.kind == "model" else (None, None)

    @property
    def unpriced(self) -> bool:
        """Whether its price is unknown."""
        return not self.candidate.priced and not any(one.reported for one in self.scored)

    def settings(self, today: date, metric: str) -> dict[str, Value]:
        """Return the candidate's settings for a pool file.

        Args:
            today: the day of the measurement.
            metric: how answers were compared with the gold answers.
        """
        scores: dict[str, Value] = {
            domain: round(statistics.fmean(scores), 3) for domain, scores in self.domains.items()
        }
        input_price, output_price = self.prices
        found: dict[str, Value] = {}
        if input_price is not None:
            found["input_usd_per_mtok"] = significant(input_price)
        if output_price is not None:
            found |= {"output_usd_per_mtok": significant(output_price), "prices_checked": today}
        if self.seconds is not None:
            found["latency_seconds"] = significant(self.seconds, 3)
        how = f"{len(self.scored)} of {len(self.probes)} {self.probe_set} by {metric}"
        measured: dict[str, Value] = {"date": today, "source": f"router-r1 pool measure, {how}"}
        return {**found, "benchmarks": scores, "measured": measured}

    def expected_usd(self, probe: Probe) -> float:
        """Return the possible cost of the next call: the highest price so far, or a guess."""
        if not self.scored:
            return self._guess_usd(probe)
        return max(one.record.cost_usd or 0.0 for one in self.scored)

    def _guess_usd(self, probe: Probe) -> float:
        tokens = min(_TOKENS_OF_A_REPLY, self.candidate.max_tokens)
        return self.candidate.cost_usd(estimate_tokens(probe.question), tokens)

    def _keep(self, probe: Probe, reply: Reply, scorer: Scorer) -> None:
        self.paid_usd += reply.cost_usd
        self.uncertain_usd += reply.uncertain_usd
        if reply.ok or (reply.error and reply.error.kind == "empty"):
            record = Record(
                question=probe.question,
                candidate=self.candidate.name,
                reply=reply.text,
                input_tokens=reply.input_tokens,
                output_tokens=reply.output_tokens,
                cost_usd=reply.cost_usd + reply.saved_usd,
                seconds=reply.seconds,
            )
            reported = reply.message is not None and reported_usd(reply.message) is not None
            score = scorer(bare_answer(reply.text), probe.gold)
            self.scored.append(Scored(probe.domain, score, record, reported))
            self._failures_in_a_row = 0
            return
        self.failures += 1
        self.error = reply.error
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _FAILURES:
            self.ended = "failing"


async def measure(
    measured: Sequence[Measured],
    scorer: Scorer,
    *,
    budget_usd: float,
    concurrency: int = 2,
    replies: ReplyStore | None = None,
    estimated: Callable[[float], None] = lambda usd: None,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Ask every candidate its probes, until all are asked or the limit is reached.

    The replies so far are in `measured` at any time, also when this is cancelled.

    Args:
        measured: the candidates; filled.
        scorer: compares an answer with the gold answers.
        budget_usd: the most that all calls may cost.
        concurrency: calls at once to each candidate.
        replies: where replies are kept, so that the same call is paid once; None = nowhere.
        estimated: called with about the USD that all probes will cost, once each candidate has
            been asked one of them; not called if none has replied.
        done: called after each call.

    Raises:
        PoolError: a candidate's provider cannot be used.
    """
    purse = Purse(budget_usd)
    models = {one: make_chat_model(one.candidate) for one in measured}
    places = {one: asyncio.Semaphore(concurrency) for one in measured}

    async def call(one: Measured, probe: Probe) -> None:
        expected, reply = one.expected_usd(probe), Reply()
        if not await purse.hold(expected):
            one.ended = one.ended or "budget"
            return
        try:
            prompt = prompt_of(one.candidate, probe.question)
            reply = await aask(models[one], prompt, one.candidate, store=replies)
            one._keep(probe, reply, scorer)
        finally:
            purse.settle(expected, reply.cost_usd, reply.uncertain_usd)

    async def ask(item: tuple[Measured, Probe]) -> Sequence[None]:
        one, probe = item
        try:
            async with places[one]:
                if not one.ended:
                    await call(one, probe)
        finally:
            one._in_flight -= 1
        return [None]

    at_once = concurrency * len(measured)
    await ask_many(_items(measured, 1), ask, lambda *_: done(), at_once=at_once)
    if known := [one for one in measured if one.scored]:
        estimated(sum(one.usd_per_call * len(one.probes) for one in known))
    await ask_many(_items(measured), ask, lambda *_: done(), at_once=at_once)


def _items(
    measured: Sequence[Measured], most: int | None = None
) -> Iterator[tuple[Measured, Probe]]:
    """Yield the next probe and candidate: always the one with the fewest calls in flight.

    Args:
        measured: the candidates.
        most: how many probes each is asked at most; None = all.
    """
    while left := [
        one for one in measured if not one.ended and one._asked < len(one.probes[:most])
    ]:
        one = min(left, key=lambda one: one._in_flight)
        one._asked, one._in_flight = one._asked + 1, one._in_flight + 1
        yield one, one.probes[one._asked - 1]
