"""The controller interface: the methods that the think node calls, and the view that it passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from string import Template
from typing import Any, Protocol, runtime_checkable

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig

from ..budget import Left
from ..call_records import CallRecord, call_records
from ..candidates import Candidate, CandidatePool
from ..candidates.images import images_in
from ..candidates.reply import Reply
from ..candidates.settings import AnswerStyle
from ..candidates.store import ReplyStore
from ..context import RouterContext
from ..protocol import Turn, render_prompt
from .step import AgentStep


@dataclass(frozen=True)
class View:
    """The input of a controller's decision."""

    question: str
    """The text of the question, without images."""
    pool: CandidatePool
    """The candidates that may be asked."""
    context: RouterContext
    """The settings of the run."""
    left: Left
    """The budget that is left now."""
    conversation: tuple[AnyMessage, ...] = ()
    """The messages of the parent graph before the question."""
    scratchpad: tuple[AnyMessage, ...] = ()
    """This question's turns (`AIMessage`) and observations (`ToolMessage`) so far."""
    instructions: str = ""
    """The text of the conversation's system messages, for the model that writes the answer."""
    images: tuple[dict[str, Any], ...] = ()
    """The image parts of the question."""
    store: ReplyStore | None = None
    """The store in which a paid controller may keep its turns; None = there is none."""
    step: AgentStep | None = None
    """The step of an agent that is to be decided; None = a question of its own. The candidate of
    the first call then answers the step; its query does not matter."""

    @cached_property
    def all_images(self) -> tuple[dict[str, Any], ...]:
        """The images of the conversation and of the question, in order, as candidates see them."""
        before = (image for message in self.conversation for image in images_in(message))
        return (*before, *self.images)

    def of_those_who_see(self) -> View:
        """Return the view with only the candidates that take images, if the question has images.

        Without such a candidate, the pool stays as it is.
        """
        able = self.pool.taking_images() if self.all_images else None
        return replace(self, pool=able) if able else self

    @cached_property
    def replies(self) -> tuple[CallRecord, ...]:
        """The calls made so far, each with its reply or error, in order."""
        return tuple(call_records(self.scratchpad, summaries=False))

    @property
    def budget(self) -> Left:
        """The budget in the prompt: the whole one, so that the prompt does not change during a run.

        The remaining budget follows each round's observations.
        """
        if not self.scratchpad:
            return self.left
        context = self.context
        return Left(context.max_rounds, context.budget_usd, context.deadline_seconds)

    @property
    def answer_style(self) -> AnswerStyle:
        """How the answer is to be written: as the run says, else as the pool does."""
        return self.context.answer_style or self.pool.answer_style

    @property
    def must_answer(self) -> bool:
        """Whether the controller has to answer now: no further call will be made."""
        return self.left.rounds == 0


class _Decide(Protocol):
    @property
    def decide(self) -> Callable[..., Reply | Turn | str]:
        """Takes a `View`, and returns the next turn."""
        ...


class _Adecide(Protocol):
    @property
    def adecide(self) -> Callable[..., Awaitable[Reply | Turn | str]]:
        """Does what `decide` does, without blocking the event loop."""
        ...


Decides = _Decide | _Adecide
"""Any object with `decide(view)` or `adecide(view)`: all that a controller of your own needs."""


class Controller(Protocol):
    """Decides on one turn: queries to candidates, or the answer.

    `create_router_r1` accepts any object with `decide(view)` or `adecide(view)` as a controller,
    and fills in the rest. These may also return a `Turn` or text in tags.

    The reply's text is in the tag language (`router_r1_graph.protocol`). With any text, the run
    continues or ends with a stop reason. A failure is a reply with an error. An exception counts as
    a failure too, and is logged.
    """

    @property
    def name(self) -> str:
        """The name of this controller in traces and reports."""
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


@runtime_checkable
class KeepsTurns(Protocol):
    """A controller that keeps something of a turn for the next one of the question."""

    def question_ended(self, scratchpad: Sequence[AnyMessage]) -> None:
        """Drop what is kept: the question has no further turn.

        Args:
            scratchpad: its turns and observations.
        """
        ...


def render_view(template: Template, view: View) -> str:
    """Return the prompt of a question: the template filled with the controller's view."""
    candidates = view.pool.candidates
    return render_prompt(
        template,
        question=view.question,
        candidates={c.name: c.describe_briefly() for c in candidates},
        brief_candidates=view.pool.describe_briefly(),
        cost_weight=view.context.cost_weight,
        budget=view.budget.describe(),
        answer_style=view.answer_style,
    )


def read_descriptor(template: Template, candidate: Candidate) -> str:
    """Return a candidate's descriptor as a prompt shows it; "" if the template shows none."""
    shown = template.get_identifiers()
    if "candidates" in shown:
        return candidate.describe_briefly()
    if "brief_candidates" not in shown:
        return ""
    scores = [f"{name} {score}" for name, score in candidate.score_levels.items()]
    return ", ".join([f"price level {candidate.price_level}", *scores])
