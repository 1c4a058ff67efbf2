"""One logged run, with another controller led along it.

The controller sees the logged controller's view at every turn, and says what it would do. While
both do the same, with the same queries, the replies are known. A decision is one call
(`router_r1_graph.decisions`), and its ratio of probabilities weighs the run. A controller that
would stop earlier, or answers otherwise, is scored by its own answer.

The unknown is counted, not guessed: a candidate that the log could not have asked, another query,
and going on after the end of the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from langchain_core.messages import AIMessage, ToolMessage

from .. import protocol
from ..budget import Left
from ..call_records import call_records
from ..context import RouterContext
from ..controllers import Controller, View
from ..controllers.own import end_question, own_of
from ..decisions import Decision, Draws, of_message
from ..errors import ControllerError
from ..observations import kept
from ..protocol import Call
from ..trace import Trace

_RAREST = 1e-6
"""Below this logged probability, no log is long enough: the candidate counts as never asked."""


@dataclass
class Followed:
    """One run with the controller that is judged led along it."""

    trace: Trace
    weights: list[float] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    chosen: list[dict[str, float]] = field(default_factory=list)
    square: float = 1.0
    fourth: float = 1.0
    lost: float = 0.0
    """The weight of the part that the log cannot tell; `elsewhere` is the part it never reached."""
    elsewhere: float = 0.0
    answer: str = ""
    cost_usd: float = 0.0

    @property
    def weight(self) -> float:
        """The weight of the run so far."""
        return self.weights[-1] if self.weights else 1.0

    def lose(self) -> None:
        """Count the rest of the run as a part that the log cannot tell."""
        self.lost += self.weight
        self.elsewhere += self.weight
        self.weights.append(0.0)
        self.asked.append("")
        self.chosen.append({})
        self.square = self.fourth = 0.0


def follow(trace: Trace, controller: Controller, cost_weight: float | None = None) -> Followed:
    """Lead a controller along a run, until it would end the run or the log cannot tell."""
    run = Followed(trace)
    context = replace(trace.context, explore=0.0, approve_above_usd=None)
    if cost_weight is not None:
        context = replace(context, cost_weight=cost_weight)
    own = 0.0
    turns = [i for i, m in enumerate(trace.scratchpad) if isinstance(m, AIMessage)]
    for round_, place in enumerate([*turns, len(trace.scratchpad)]):
        before = trace.scratchpad[:place]
        logged = trace.scratchpad[place] if place < len(trace.scratchpad) else None
        decisions = of_message(logged) if logged else []
        calls = [call.cost_usd + call.saved_usd for call in call_records(before)]
        run.cost_usd = sum(calls) + own
        ends = logged is None or (place == turns[-1] and not decisions)
        over = ends and trace.stop_reason != "answered"
        left = _left(context, 0 if over else context.max_rounds - round_, run.cost_usd)
        view = View(trace.question, trace.pool, context, left, scratchpad=before)
        reply = controller.decide(view)
        end_question(controller, [*before, *([reply.message] if reply.message else [])])
        own += reply.cost_usd + reply.saved_usd
        run.cost_usd = sum(calls) + own
        if reply.error:
            raise ControllerError(f"{controller.name} failed: {reply.error.message}")
        turn = protocol.parse(reply.text)
        if view.must_answer or (turn.answer is not None and not turn.calls):
            observed = (kept(m, whole=True) for m in reversed(before) if isinstance(m, ToolMessage))
            run.answer = turn.answer or next(filter(None, observed), "")  # as the answer node does
            return run
        if not _same_queries(turn.calls, decisions):
            run.lose()
            return run
        for call, decision in zip(turn.calls, decisions, strict=True):
            _weigh(run, decision, _chances(controller, view, call))
        if not run.weight:
            return run
    return run


def _left(context: RouterContext, rounds: int, spent_usd: float) -> Left:
    budget = context.budget_usd
    usd = None if budget is None else budget - spent_usd
    return Left(max(0, rounds), usd, context.deadline_seconds)


def _same_queries(calls: Sequence[Call], decisions: Sequence[Decision]) -> bool:
    return bool(calls) and [c.query for c in calls] == [d.query for d in decisions]


def _chances(controller: Controller, view: View, call: Call) -> Mapping[str, float]:
    """Return with which probability the controller asks each candidate in a call's place."""
    own = own_of(controller)
    if isinstance(own, Draws):
        return own.probabilities(view, call)
    candidate = view.pool.find(call.candidate)
    return {candidate.name if candidate else call.candidate: 1.0}


def _weigh(run: Followed, decision: Decision, chances: Mapping[str, float]) -> None:
    """Go on behind one decision."""
    logged, before = decision.probabilities, run.weight
    known = {name: p for name, p in chances.items() if p > 0 and logged.get(name, 0) >= _RAREST}
    run.lost += before * max(0.0, 1 - sum(known.values()))
    ratios = {name: p / logged[name] for name, p in known.items()}
    run.square = before**2 * sum(p * ratios[n] for n, p in known.items())
    run.fourth = before**4 * sum(p * ratios[n] ** 3 for n, p in known.items())
    run.chosen.append(known)
    run.asked.append(decision.asked)
    run.weights.append(before * ratios.get(decision.asked, 0.0))
