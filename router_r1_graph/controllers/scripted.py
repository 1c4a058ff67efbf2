"""Controllers that are plain code: the base of every rule, and a scripted one for tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from ..protocol import Turn, render
from ..reply import Reply
from ..state import View


class RuleController(ABC):
    """A controller that is a pure, free function of what it sees.

    Subclass it and write `turn`; the rest follows.
    """

    name = "rule"
    reads_cost_weight = False
    """Whether the cost weight changes what it does; asked by evaluations, to ask nothing twice."""

    @abstractmethod
    def turn(self, view: View) -> Turn | str:
        """Return the next turn, as a `Turn` or as text in tags."""

    def worst_case_usd(self, view: View) -> float:
        """Return 0: a rule costs nothing."""
        return 0.0

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn."""
        turn = self.turn(view)
        return Reply(text=turn if isinstance(turn, str) else render(turn))

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn; a rule does not wait for anything."""
        return self.decide(view, config)


class ScriptedController(RuleController):
    """Says what it is told to: for tests of applications that embed the router, and for replays.

    Args:
        script: the turns in order (text in tags, or `Turn`), of which the last is repeated; or a
            function of the `View`.

    Example:
        >>> from router_r1_graph import CandidatePool, RouterContext
        >>> from router_r1_graph.state import Left
        >>> controller = ScriptedController(["<answer> 42 </answer>"])
        >>> view = View("6 x 7?", CandidatePool.embedded(), RouterContext(), Left(4))
        >>> controller.decide(view).text
        '<answer> 42 </answer>'
    """

    name = "scripted"

    def __init__(self, script: Sequence[str | Turn] | Callable[[View], str | Turn]) -> None:
        self._script = script

    def turn(self, view: View) -> Turn | str:
        """Return the turn of this round."""
        if callable(self._script):
            return self._script(view)
        if not self._script:
            return ""
        done = sum(isinstance(m, AIMessage) for m in view.scratchpad)
        return self._script[min(done, len(self._script) - 1)]
