"""A turn with the calls that it plans, and how its controller chose them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from typing import Any

from langchain_core.messages import AIMessage

from .. import protocol
from ..budget import Left, StopReason
from ..candidates import CandidatePool
from ..candidates.reply import Reply
from ..controllers import Controller, View
from ..controllers.choice import Choice, Effect, Explains, Leans, Reason, Reasons, Weighs
from ..controllers.naming import until_named
from ..controllers.own import end_question, own_of
from ..errors import ControllerError
from ..ledger import Ledger, charge_controller, new_ledger, total
from ..nodes.admission import admit
from ..trace import Trace


@dataclass(frozen=True)
class PlannedCall:
    """A call that a turn wants to make.

    Attributes:
        candidate: the candidate's name; as it was written where the pool has no such candidate.
        query: the query that it would get.
        refused: why a run would not make the call; "" where it would.
        worst_case_usd: the most that the call can cost; None = unknown, or refused.
        choice: a number for each candidate of the pool; None if the controller reports none.
        effects: the effect of each part of each descriptor on the candidate's probability; ()
            unless it was asked for.
    """

    candidate: str
    query: str
    refused: str = ""
    worst_case_usd: float | None = None
    choice: Choice | None = None
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True)
class Routing:
    """One turn of a controller, and how it chose.

    Attributes:
        question: the question.
        controller: the controller's name.
        text: the turn as it was written.
        thoughts: its thoughts.
        calls: the calls that it wants to make, in the order written.
        answer: its answer; None where it gives none.
        mistakes: why other parts of the turn cannot be used.
        stop_reason: why a run would end with this turn; None where it would go on.
        error: why the controller failed; "" where it did not.
        leaning: where the turn calls no candidate of the pool: the one that it began to name, or
            else the most probable one for a policy in this process. `refused` says so. None if
            there is none.
        descriptors: the candidates' descriptors as the controller reads them; empty if it does
            not report them.
        reasons: the evidence for an answer out of the replies; () unless it was asked for.
        ledger: the bill of the turn.
    """

    question: str
    controller: str
    text: str = ""
    thoughts: tuple[str, ...] = ()
    calls: tuple[PlannedCall, ...] = ()
    answer: str | None = None
    mistakes: tuple[str, ...] = ()
    stop_reason: StopReason | None = None
    error: str = ""
    leaning: PlannedCall | None = None
    descriptors: dict[str, str] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    ledger: Ledger = field(default_factory=new_ledger)

    def first(self, pool: CandidatePool) -> PlannedCall | None:
        """Return the call whose candidate counts as the choice: the first to one of the pool."""
        return next((call for call in self.calls if pool.find(call.candidate)), self.leaning)

    def summary(self) -> dict[str, Any]:
        """Return it as the one JSON object that `router-r1 ask --route-only --json` prints."""
        return {**asdict(self), "ledger": dict(total(self.ledger))}


def explain_run(trace: Trace, controller: Controller) -> Iterator[Routing]:
    """Yield the turns of a finished run, explained by the controller that wrote them.

    Those of a policy are the turns that made calls; that of a controller that reads replies is its
    answer.

    Raises:
        ControllerError: the controller cannot explain its choices.
    """
    check_explains(controller)
    reads = isinstance(own_of(controller), Reasons)
    context = trace.context
    left = Left(context.max_rounds, context.budget_usd, context.deadline_seconds)
    for place, message in enumerate(trace.scratchpad):
        if not isinstance(message, AIMessage):
            continue
        asks = bool(message.tool_calls or message.invalid_tool_calls)
        if asks != reads:
            before = trace.scratchpad[:place]
            view = View(trace.question, trace.pool, context, left, scratchpad=before)
            reply = Reply(text=str(message.text), message=message)
            yield _read(view, controller, reply, message, {}, explain=True)


def check_explains(controller: Controller) -> None:
    """Raise ControllerError if a controller cannot explain the effect of each descriptor."""
    if not isinstance(own_of(controller), Explains | Reasons):
        raise ControllerError(
            f"explain: {controller.name} tells no probabilities, so there is nothing to explain; a "
            "policy in this process does (policy:PATH), and a reader tells its weights (reader:DIR)"
        )


def read_first_turn(view: View, controller: Controller, reply: Reply, explain: bool) -> Routing:
    """Read a first turn, as the think node does."""
    end_question(controller, [reply.message] if reply.message else [])
    ledger = charge_controller(new_ledger(), reply)
    if not reply.ok:
        why = f"{reply.error.kind}: {reply.error.message}" if reply.error else ""
        failed = StopReason.CONTROLLER_ERROR
        return Routing(view.question, controller.name, stop_reason=failed, error=why, ledger=ledger)
    plan = admit(protocol.parse(reply.text), view, reply, 0, ends_at=None, decides=False)
    prices = {_number(call["id"]): call["worst_case_usd"] for call in plan.routed}
    read = _read(view, controller, reply, plan.message, prices, explain=explain)
    answered = StopReason.ANSWERED if read.answer is not None and not read.calls else None
    reason = StopReason.ROUND_LIMIT if view.must_answer else answered
    leaning = None if read.first(view.pool) else _leaning(view, controller, reply)
    return replace(read, stop_reason=reason, ledger=ledger, leaning=leaning)


def _leaning(view: View, controller: Controller, reply: Reply) -> PlannedCall | None:
    """Return whom a turn without a call to a candidate of the pool would ask."""
    own = own_of(controller)
    choice = own.lean(view, reply) if isinstance(own, Leans) else None
    _, _, name = until_named(reply.text)
    if candidate := view.pool.find(name):
        why = "its turn has no call that can be used, but names this candidate"
    elif choice:
        candidate = view.pool.find(choice.best)
        why = "its turn asks no candidate of the pool; this is the most probable one"
    if candidate is None:
        return None
    return PlannedCall(candidate.name, "", why, choice=choice)


def _read(
    view: View,
    controller: Controller,
    reply: Reply,
    admitted: AIMessage,
    prices: dict[int, float | None],
    *,
    explain: bool,
) -> Routing:
    """Return a turn with its controller's explanation of it.

    Args:
        view: the view that the controller had.
        controller: the controller.
        reply: the turn.
        admitted: the same turn with its refused calls.
        prices: what each call can cost, by its number.
        explain: whether the descriptors are explained, too.
    """
    turn = protocol.parse(reply.text)
    own = own_of(controller)
    choices = own.weigh(view, reply) if isinstance(own, Weighs) and turn.calls else ()
    descriptors: dict[str, str] = {}
    effects: tuple[tuple[Effect, ...], ...] = ()
    if explain and isinstance(own, Explains):
        descriptors, effects = dict(own.reading(view.pool)), own.explain(view, reply)
    reasons = own.reasons(view, reply) if explain and isinstance(own, Reasons) else ()
    refused = {_number(c["id"]): c["error"] or "" for c in admitted.invalid_tool_calls}
    # Of a turn with very many mistakes, the calls behind them were not read.
    read = turn.calls[: len(admitted.tool_calls) + len(admitted.invalid_tool_calls)]
    calls = []
    for number, (call, choice, told) in enumerate(
        zip_longest(read, choices[: len(read)], effects[: len(read)])
    ):
        candidate = view.pool.find(call.candidate)
        calls.append(
            PlannedCall(
                candidate.name if candidate else call.candidate,
                call.query,
                refused.pop(number, ""),
                prices.get(number),
                choice,
                told or (),
            )
        )
    return Routing(
        view.question,
        controller.name,
        reply.text,
        turn.thoughts,
        tuple(calls),
        turn.answer,
        tuple(refused.values()),
        descriptors=descriptors,
        reasons=reasons,
    )


def _number(call_id: str | None) -> int:
    """Return which part of its turn a call is, from 0: the end of its id."""
    return int((call_id or "_-1").rpartition("_")[2])
