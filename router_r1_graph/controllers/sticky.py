"""The rule for agents: one candidate for all steps, so that its prompt cache is used."""

from __future__ import annotations

from dataclasses import replace

from langchain_core.runnables import RunnableConfig

from ..candidates import Candidate
from ..candidates.reply import Reply
from ..errors import ControllerError
from ..invalid import show
from ..protocol import parse, render
from .controller import Controller, View
from .own import end_question, whole
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
            if self.first is None:
                return by_price[0]
            return self._chosen(view, self.first, self.first.decide(view))
        if not step.failed:
            return last
        return by_price[min(by_price.index(last) + 1, len(by_price) - 1)]

    def worst_case_usd(self, view: View) -> float:
        """Return the most that the first step's decision can cost; the others cost nothing."""
        first = self._decides(view)
        return first.worst_case_usd(view) if first else 0.0

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn."""
        if first := self._decides(view):
            return self._as_decided(view, first, first.decide(view, config))
        return super().decide(view, config)

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn without blocking."""
        if first := self._decides(view):
            return self._as_decided(view, first, await first.adecide(view, config))
        return await super().adecide(view, config)

    def _decides(self, view: View) -> Controller | None:
        """Return the controller that decides this turn; None = the rule does."""
        known = view.step is not None and view.pool.find(view.step.last) is not None
        return None if known or view.scratchpad or view.must_answer else self.first

    def _as_decided(self, view: View, first: Controller, reply: Reply) -> Reply:
        """Return the turn that asks the candidate of a decision, with the decision's bill."""
        turn = self.asking(self._chosen(view, first, reply), view)
        return replace(reply, text=render(turn), message=None, error=None)

    def _chosen(self, view: View, first: Controller, reply: Reply) -> Candidate:
        """Return the first candidate that a turn asks, or the cheapest one.

        Its controller decides nothing more, and is told so.
        """
        end_question(first, [reply.message] if reply.message else [])
        found = (view.pool.find(call.candidate) for call in parse(reply.text).calls)
        return next(filter(None, found), view.pool.by_price[0])
