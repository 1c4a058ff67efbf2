"""A scripted controller, for tests and replays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langchain_core.messages import AIMessage

from ..protocol import Turn
from .controller import View
from .rules import RuleController


class ScriptedController(RuleController):
    """Returns scripted turns: for tests of applications that embed the router, and for replays.

    Args:
        script: the turns in order (text in tags, or `Turn`), the last one repeated; or a function
            of the `View`.

    Example:
        >>> from router_r1_graph import CandidatePool, Left, RouterContext, View
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
