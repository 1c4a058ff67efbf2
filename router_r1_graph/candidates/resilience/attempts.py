"""The attempts of one call: retried, hedged, admitted one by one, and billed together."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_result,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from ...outside import MOST_OF_A_CALL
from ..bugs import located
from ..failures import ReplyError
from ..reply import Reply
from ..retry_after import LONGEST_RETRY_AFTER_SECONDS, forbids_retry, told_to_wait
from ..sending import Sending
from ..settings import ModelSettings
from ..steps import Await, Begin, Invoke, Steps, Wait, either
from ..uncertain import perhaps_billed
from .counts import count
from .endpoint import FREE, Endpoint, Permit, endpoint_of, outcome_of

Read = Callable[[Any, float, int], Reply]
"""Reads the result of an attempt (a message or an exception), its seconds, and its number."""

_BACKOFF = wait_exponential(multiplier=0.25, max=8) + wait_random(0, 0.25)


@dataclass
class Attempts:
    """One call: its cost so far, and the attempts that are left.

    Attributes:
        settings: of the candidate or controller, with the limits of its calls.
        read: reads the result of an attempt.
        left: seconds for all attempts and waits together; infinity = no bound.
        most_usd: returns the most that one attempt can cost.
    """

    settings: ModelSettings
    read: Read
    left: float
    most_usd: Callable[[], float]

    def __post_init__(self) -> None:
        self.start = time.perf_counter()
        self.endpoint: Endpoint | None = endpoint_of(self.settings)
        self.who = str(getattr(self.settings, "name", "controller"))
        self.reply = Reply(attempts=0, error=ReplyError("timeout", "no time was left to ask"))
        self.failure: BaseException | None = None
        """The exception of the last attempt; it may say when the next may come."""
        self.sent = 0
        self.asked = False
        """Whether the last attempt was made."""
        self.over = False
        """Whether the attempts were used up."""

    def steps(self) -> Steps:
        """Make the call; a failed attempt is repeated if that can help."""
        yield from self._attempt()
        if not self._may_be_tried_again():
            return self._done()
        pauses: list[float] = []
        retrying = Retrying(
            sleep=pauses.append,  # not here: the caller of the steps does
            retry=retry_if_result(lambda _: self._may_be_tried_again()),
            wait=self._pause,
            stop=self._is_over,
            retry_error_callback=self._give_up,
        )
        for attempt in retrying:
            if pauses:  # else this is the first attempt, which is made
                count(self.who, "retries")
                yield Wait(pauses.pop())
                yield from self._attempt()
            attempt.retry_state.set_result(None)
        return self._done()

    def _done(self) -> Reply:
        if self.asked and not self.over:
            return self.reply
        return replace(self.reply, seconds=time.perf_counter() - self.start)

    @property
    def seconds_left(self) -> float:
        """The seconds that are left for further attempts."""
        return self.left - (time.perf_counter() - self.start)

    def _may_be_tried_again(self) -> bool:
        error = self.reply.error
        if error is None or error.kind not in self.settings.retry_on or not self.asked:
            return False
        return self.failure is None or not forbids_retry(self.failure)

    def _pause(self, state: RetryCallState) -> float:
        told = None if self.failure is None else told_to_wait(self.failure)
        return _BACKOFF(state) if told is None else told

    def _is_over(self, state: RetryCallState) -> bool:
        pause = state.upcoming_sleep
        if pause >= self.seconds_left or pause > LONGEST_RETRY_AFTER_SECONDS:
            return True
        return stop_after_attempt(self.settings.max_retries + 1)(state)

    def _give_up(self, _: RetryCallState) -> None:
        self.over = True

    def _attempt(self) -> Generator[Invoke | Begin | Wait | Await, Any, None]:
        """Ask once, or twice at the same time; only requests that were sent count as attempts."""
        permit, self.asked = FREE, False
        if self.seconds_left <= 0:
            return
        if self.endpoint:
            given = yield from self.endpoint.enter(self.who, self.seconds_left)
            if isinstance(given, ReplyError):
                self.reply = replace(self.reply, error=given, text="", message=None)
                return
            permit = given
            if permit.waited:
                count(self.who, "wait_seconds", permit.waited)
                waited = self.reply.waited_seconds + permit.waited
                self.reply = replace(self.reply, waited_seconds=waited)
        self.asked = True
        try:
            if self.settings.hedge_after_seconds is None:
                timeout = self._timeout()
                self._book(permit, timeout, (yield Invoke(timeout)))
            else:
                yield from self._hedged(permit, self.settings.hedge_after_seconds)
        finally:
            permit.settle("unknown")

    def _timeout(self) -> float:
        self.sent += 1
        return min(self.settings.timeout_seconds, max(0.001, self.seconds_left))

    def _hedged(
        self, permit: Permit, patience: float
    ) -> Generator[Invoke | Begin | Wait | Await, Any, None]:
        """Ask, and after a while a second time; the first usable reply counts."""
        timeout, sending, its_sending = self._timeout(), Sending(), Sending()
        first: Future[tuple[Any]] = yield Begin(timeout, sending)
        second: Future[tuple[Any]] | None = None
        other = FREE
        try:
            if came := (yield Await(first, min(patience, timeout))):
                self._book(permit, timeout, came[0])
                return
            given = (yield from self.endpoint.enter_at_once()) if self.endpoint else Permit(None)
            if isinstance(given, ReplyError):
                self._book(permit, timeout, (yield Await(first))[0])
                return
            other, hedged_for = given, self._timeout()
            second = yield Begin(hedged_for, its_sending)
            count(self.who, "hedges")
            self.reply = replace(self.reply, hedges=self.reply.hedges + 1)
            yield Await(either(first, second))
            both = [(first, permit, timeout, sending), (second, other, hedged_for, its_sending)]
            if not first.done():
                both.reverse()
            (faster, its, seconds, _), (slower, slow, slow_seconds, slow_sending) = both
            reply = self._book(its, seconds, faster.result()[0])
            if not reply.ok or slower.done():
                came = yield Await(slower)
                self._book(slow, slow_seconds, came[0], beside=reply if reply.ok else None)
            else:
                self._book_abandoned(slow, reply, unsent=slow_sending.give_up())
        finally:
            for future in (first, second):
                if future is not None:
                    future.cancel()
            other.settle("unknown")

    def _book(
        self, permit: Permit, timeout: float, outcome: Any, beside: Reply | None = None
    ) -> Reply:
        """Add an attempt to the bill, and settle its permit; return its result.

        Args:
            permit: the attempt's.
            timeout: its time-out.
            outcome: its message or exception.
            beside: the reply that counts instead; None = this one counts.
        """
        seconds = time.perf_counter() - self.start
        one = self._located(self.read(outcome, seconds, self.sent), outcome)
        whole_time = timeout >= self.settings.timeout_seconds
        permit.settle(outcome_of(one.error, whole_time=whole_time), _tokens(one))
        if beside is None:
            self.failure = outcome if isinstance(outcome, BaseException) else None
        uncertain = perhaps_billed(one, outcome)
        if uncertain:
            one = replace(one, uncertain_usd=min(self.most_usd(), MOST_OF_A_CALL))
        self._bill(one, shown=beside or one, uncertain=uncertain)
        return one

    def _located(self, one: Reply, outcome: Any) -> Reply:
        """Return a failed attempt with the line of a user's own tool or model that has a bug."""
        if one.error is None or not isinstance(outcome, BaseException):
            return one
        name = getattr(self.settings, "name", None)
        who = f"candidate {name}" if name else self.who
        return replace(one, error=located(one.error, outcome, who, self.settings.secrets))

    def _book_abandoned(self, permit: Permit, winner: Reply, *, unsent: bool) -> None:
        """Bill a request that is abandoned because its twin was answered: as much as the answer.

        Its provider most likely goes on writing as much, and the router never learns how much. If
        it was not sent, and never will be, it costs nothing.
        """
        permit.settle("unknown", 0 if unsent else _tokens(winner))
        if unsent:
            return
        self._bill(winner, shown=self.reply, uncertain=True)

    def _bill(self, one: Reply, *, shown: Reply, uncertain: bool) -> None:
        """Add one attempt's cost to the bill; `shown` may be another attempt."""
        sums = self.reply
        self.reply = replace(
            shown,
            input_tokens=sums.input_tokens + one.input_tokens,
            output_tokens=sums.output_tokens + one.output_tokens,
            reasoning_tokens=sums.reasoning_tokens + one.reasoning_tokens,
            cached_input_tokens=sums.cached_input_tokens + one.cached_input_tokens,
            cost_usd=sums.cost_usd + one.cost_usd,
            attempts=self.sent - one.cached,  # nobody was asked
            uncertain_attempts=sums.uncertain_attempts + uncertain,
            uncertain_usd=sums.uncertain_usd + one.uncertain_usd,
            waited_seconds=sums.waited_seconds,
            hedges=sums.hedges,
        )


def _tokens(reply: Reply) -> int:
    return reply.input_tokens + reply.output_tokens
