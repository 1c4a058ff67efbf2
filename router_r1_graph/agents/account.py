"""The account of one run of an agent: what it has paid, and what is reserved for calls under way.

Another middleware may ask several times at once. So each change is made under a lock, in an object
that is the same in all steps of a run, and a call's price takes the place of its reservation in one
go. Whatever becomes of a response, its call is on the bill, and calls at once share one budget.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from ..budget import Left, left
from ..candidates import Candidate
from ..context import RouterContext
from ..ledger import Ledger, added, charge_candidates
from .agent_bill import AgentBill, DecidedStep, PaidSoFar
from .prefixes import Prefix

_CHANGING = threading.Lock()
_LOOK_SECONDS = 0.01
"""How long to wait between two looks at the calls that are under way."""


class RunAccount:
    """The account of a run, for one attempt at a step.

    Args:
        paid: what the run has paid so far; changed in place.
        context: the limits of the run.
        started_at: when it began, as `time.time` returns it.
    """

    def __init__(self, paid: PaidSoFar, context: RouterContext, started_at: float) -> None:
        self._paid = paid
        self._context = context
        self._started_at = started_at
        self._under_way: set[str] = set()  # the reservations of this step's calls

    @property
    def left(self) -> Left:
        """What the run has left: what is reserved for calls under way is not."""
        rest = left(self._paid["ledger"], 0, self._context, self._started_at)
        if rest.usd is None:
            return rest
        return replace(rest, usd=rest.usd - sum(self._paid["held"].values()))

    def worst_case_usd(self, candidate: Candidate, text: str, images: int) -> float | None:
        """Return the most that a call can cost, 0 without a budget; None if it is too much."""
        usd = self.left.usd
        if usd is None:
            return 0.0
        if not candidate.bounded:
            return None
        most = candidate.worst_case_usd(text, images)
        return most if most <= usd else None

    def reserve(self, candidate: Candidate, text: str, images: int) -> str | None:
        """Reserve the most that a call can cost that sends so much; None if it is too much.

        Returns:
            The reservation; `charge` or `release` ends it.
        """
        held = uuid4().hex
        with _CHANGING:
            most = self.worst_case_usd(candidate, text, images)
            if most is None:
                return None
            self._paid["held"] = {**self._paid["held"], held: most}
            self._under_way.add(held)
        return held

    def release(self, held: str) -> None:
        """End a reservation, if `charge` has not done so."""
        with _CHANGING:
            self._release(held)

    def _release(self, held: str) -> None:
        self._paid["held"] = {key: usd for key, usd in self._paid["held"].items() if key != held}
        self._under_way.discard(held)

    def charge(self, billed: Mapping[str, Any], held: str) -> None:
        """Charge a call, as `bill` returns it, instead of what was reserved for it.

        Args:
            billed: the call.
            held: the reservation; "" = none.
        """
        with _CHANGING:
            self._paid["ledger"] = charge_candidates(self._paid["ledger"], [billed])
            self._release(held)

    def add(self, ledger: Ledger) -> None:
        """Charge a ledger: the controller's turns."""
        with _CHANGING:
            self._paid["ledger"] = added(self._paid["ledger"], ledger)

    def note(self, steps: Sequence[DecidedStep], prefixes: Mapping[str, Prefix]) -> None:
        """Note the steps that are answered, and what candidates have read, by their names."""
        with _CHANGING:
            self._paid["steps"] = list(steps)
            self._paid["prefixes"] = {**self._paid["prefixes"], **prefixes}

    def update(self, so_far: AgentBill, **bill: Any) -> dict[str, Any]:
        """Return the change of the agent's state: all that is paid, by earlier attempts too.

        Args:
            so_far: the bill before this step.
            **bill: fields of the bill that change besides.
        """
        with _CHANGING:
            steps = max(self._paid["steps"], so_far["steps"], key=len)
            return {
                "router_r1": {**so_far, "ledger": self._paid["ledger"], "steps": steps, **bill},
                "router_r1_prefixes": self._paid["prefixes"],
                "router_r1_paid": self._paid,
            }

    def settle(self) -> None:
        """Wait until no call of this step is under way.

        One of several calls at once has failed, and another middleware did not wait for the rest.
        They are paid all the same, so they come on the bill before anything else is asked.
        """
        while self._under_way:
            time.sleep(_LOOK_SECONDS)

    async def asettle(self) -> None:
        """Do what `settle` does without blocking the event loop."""
        # They are in this loop or in threads: an event of one of them would not do.
        while self._under_way:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
