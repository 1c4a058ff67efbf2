"""A call that is paid once: looked up, waited for if it is in progress, else made and stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from langchain_core.messages import AnyMessage

from .apart import running_loop
from .failures import ReplyError
from .flights import Flight
from .reply import Reply, read_reply
from .retry_after import LONGEST_RETRY_AFTER_SECONDS
from .settings import ModelSettings
from .steps import Await, Steps, Wait
from .store import ReplyStore
from .stored import StoredReply, store_reply

_MOST_FAILURES = 2
"""The number of others that may fail one after another before a call stops waiting for them."""
_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.02, 0.5
"""Seconds between two looks at another process."""
_LONGEST_WAIT_SECONDS = 2.0
"""Seconds after which a waiting caller checks whether the call is still being made: its event loop
may have been closed."""
_FILE_SECONDS = 5.0
"""If the file is blocked for longer, the call is made, or its reply used, without it."""


@dataclass(frozen=True)
class Once:
    """One call with a key, and how it is made.

    Attributes:
        store: the store of its reply.
        key: see `stored.key_of`.
        messages: the prompt.
        settings: the candidate or controller that is asked.
        make: takes the seconds left (None = no bound), and makes the call.
        blocking: whether this thread sleeps while it waits.
    """

    store: ReplyStore
    key: str
    messages: Sequence[AnyMessage]
    settings: ModelSettings
    make: Callable[[float | None], Steps]
    blocking: bool

    def steps(self, seconds_left: float | None) -> Steps:
        """Return the reply, stored or new.

        Args:
            seconds_left: bound on all waits and attempts together; None for no bound.
        """
        start, failures = time.perf_counter(), 0
        while True:
            if reply := self.store.find(self.key):
                return self._again(reply)
            left = None if seconds_left is None else seconds_left - (time.perf_counter() - start)
            if left is not None and left <= 0:
                error = ReplyError("timeout", "no time was left to ask")
                return Reply(seconds=time.perf_counter() - start, attempts=0, error=error)
            if failures == _MOST_FAILURES or (self.blocking and running_loop()):
                # Nobody is waited for: the endpoint fails everybody, or this thread is the one that
                # would have to go on for the other call to end.
                return (yield from self._made(left))
            flight, own = self.store.flights.join(self.key, self._longest(left))
            if own:
                return (yield from self._flown(flight, left))
            longest = min(_LONGEST_WAIT_SECONDS, flight.seconds_left)
            longest = longest if left is None else min(left, longest)
            if reply := (yield Await(flight.future, longest)):
                return self._again(reply)
            failures += flight.failed

    def _flown(self, flight: Flight, left: float | None) -> Steps:
        """Make the call for all waiting callers, once no other process makes it."""
        start, look = time.perf_counter(), _FIRST_LOOK_SECONDS
        try:
            while True:
                waited = _FILE_SECONDS if left is None else min(_FILE_SECONDS, left)
                said = yield Await(self.store.claim(self.key, self._longest(left)), waited)
                spent = time.perf_counter() - start
                if isinstance(said, StoredReply):
                    flight.reply = said
                    return self._again(said)
                if left is not None and spent >= left:
                    error = ReplyError("timeout", "another process asked, and no reply came")
                    return Reply(seconds=spent, attempts=0, error=error)
                if said is not False:
                    break
                yield Wait(look if left is None else min(look, left - spent))
                look = min(1.5 * look, _LONGEST_LOOK_SECONDS)
            if left is not None:
                left -= time.perf_counter() - start
            return (yield from self._made(left, flight))
        finally:
            # Also when the task is cancelled, the loop closed or the thread interrupted.
            if flight.reply is None:
                self.store.release(self.key)  # before anybody here can claim it anew
            self.store.flights.land(self.key, flight)

    def _made(self, left: float | None, flight: Flight | None = None) -> Steps:
        """Make the call, and keep its reply if it can be used, or is paid and of no use.

        One of no use that reports no usage may be no model's (a gateway that is down says
        so in HTML, with status 200), and the next one may be better.
        """
        reply = yield from self.make(left)
        worth = (reply.ok or reply.unread) and not reply.cached
        kept = store_reply(reply, self.messages, self.settings, time.time()) if worth else None
        if flight:
            flight.reply, flight.failed = kept, kept is None
        if kept:
            yield Await(self.store.keep(self.key, kept), _FILE_SECONDS)
        return reply

    def _again(self, kept: StoredReply) -> Reply:
        """Return a stored reply: free of charge, otherwise as it was."""
        reply = read_reply(kept.as_message(), self.messages, self.settings, kept.seconds, 0)
        self.store.count_hit(self.key, reply.cost_usd)
        return replace(reply, cost_usd=0.0, saved_usd=reply.cost_usd, stored=True)

    def _longest(self, left: float | None) -> float:
        """Return the most seconds that the call can take."""
        attempt = self.settings.timeout_seconds + LONGEST_RETRY_AFTER_SECONDS
        longest = attempt * (self.settings.max_retries + 1)
        return longest if left is None else min(longest, left)
