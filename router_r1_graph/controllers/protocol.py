"""The controller seam: what the think node asks."""

from __future__ import annotations

from string import Template
from typing import Protocol

from langchain_core.runnables import RunnableConfig

from ..protocol import render_prompt
from ..reply import Reply
from ..state import View


class Controller(Protocol):
    """Decides on one turn: which candidates to ask what, or the answer.

    The reply's text is in the tag language (`router_r1_graph.protocol`); whatever it holds, the run
    goes on or ends with a stop reason. A failure is a reply with an error; an exception is taken as
    one too.
    """

    @property
    def name(self) -> str:
        """What this controller is called in traces and reports."""
        ...

    def worst_case_usd(self, view: View) -> float:
        """Return the most that the next turn can cost; 0 for a rule."""
        ...

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn."""
        ...

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn without blocking the event loop."""
        ...


def render_view(template: Template, view: View) -> str:
    """Return the prompt of a question: the template filled with what the controller may know."""
    candidates = view.pool.candidates
    return render_prompt(
        template,
        question=view.question,
        candidates={c.name: c.describe() for c in candidates},
        brief_candidates=view.pool.describe_briefly(),
        cost_weight=view.context.cost_weight,
        budget=view.budget.describe(),
    )
