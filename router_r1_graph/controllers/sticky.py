"""The rule for agents: one candidate for all steps, so that its prompt cache is used."""

from __future__ import annotations

from ..candidates import Candidate
from ..errors import ControllerError
from ..invalid import show
from ..protocol import parse
from .controller import Controller, View
from .own import whole
from .rules import OneCallController


class StickyController(OneCallController):
    """Stays with one candidate for all steps of an agent, so that its prompt cache is used.

    Another controller decides the first step. After a step that failed, the candidate next in price
    takes over, and stays. There is no way back to a cheaper one. Outside of agents, there is only
    the first step.

    Args:
        first: decides the first step; None = the cheapest candidate.

    Raises:
        ControllerError: it is no controller.
    """

    name = "sticky"

    def __init__(self, first: Controller | None = None) -> None:
        self.first = None if first is None else whole(first)
        if first is not None and self.first is None:
            raise ControllerError(
                "sticky: a controller is wanted, such as CheapestController(), or all as a spec, "
                f"such as 'sticky:keyword', not {show(first)}"
            )
        self.name = f"sticky:{self.first.name}" if self.first else "sticky"
        self.reads_cost_weight = bool(getattr(first, "reads_cost_weight", False))

    def choose(self, view: View) -> Candidate:
        """Return the candidate of the last step, or the next in price if that step failed."""
        step, by_price = view.step, view.pool.by_price
        last = view.pool.find(step.last) if step else None
        if step is None or last is None:
            return self._first(view) or by_price[0]
        if not step.failed:
            return last
        return by_price[min(by_price.index(last) + 1, len(by_price) - 1)]

    def _first(self, view: View) -> Candidate | None:
        if self.first is None:
            return None
        reply = self.first.decide(view)
        found = (view.pool.find(call.candidate) for call in parse(reply.text).calls)
        return next(filter(None, found), None)
