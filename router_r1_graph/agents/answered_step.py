"""One step of an agent while it is decided and answered, and its bill.

The key invariant: a call is charged when its reply comes, whatever other middlewares do with the
response. Until then, the most that it can cost is reserved in the run's account.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from langchain.agents.middleware.types import ExtendedModelResponse, ModelResponse
from langchain_core.messages import AIMessage
from langgraph.types import Command

from ..budget import StopReason
from ..candidates import Candidate
from ..candidates.bill import bill
from ..candidates.reply import ChatModel, Reply, read_reply
from ..controllers import View
from ..routing.planned_calls import Routing
from .account import RunAccount
from .agent_bill import AgentBill, DecidedStep
from .asked import AskedCandidate, CandidateFailedError, OverBudgetError
from .prefixes import prefix_of
from .sent import SentStep

logger = logging.getLogger(__name__)


@dataclass
class AnsweredStep:
    """One step while it is decided and answered: its bill so far."""

    models: Mapping[str, ChatModel]
    view: View
    so_far: AgentBill
    account: RunAccount
    sent: SentStep
    ending: StopReason | None = None
    chosen: str = ""
    unchosen: str = ""
    """Why the controller chose none; "" = it chose one."""
    order: list[Candidate] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    """Those of the candidate that is asked now."""
    failure: CandidateFailedError | None = None
    """The last failure of the candidate that is asked now."""
    error: CandidateFailedError | None = None
    instead: Any = None
    """The response that another middleware gave instead of the last failure."""

    def __post_init__(self) -> None:
        remaining = self.view.left
        if remaining.seconds is not None and remaining.seconds <= 0:
            self.ending = StopReason.DEADLINE
        elif not any(map(self._affordable, self.view.pool.candidates)):
            self.ending = StopReason.BUDGET_USD

    @property
    def ended(self) -> bool:
        """Whether no further candidate may be asked."""
        return self.ending is not None

    @property
    def seconds_left(self) -> float | None:
        """The time that the run has left; None = it has no deadline."""
        return self.account.left.seconds

    def _affordable(self, candidate: Candidate) -> bool:
        """Return whether a candidate can be paid: what is known of the call before it is made."""
        return self.account.worst_case_usd(candidate, self.sent.text, self.sent.images) is not None

    def admit(self, candidate: Candidate, text: str, images: int) -> str:
        """Reserve the most that a call can cost that sends so much; return the reservation.

        Raises:
            OverBudgetError: it may cost more than is left and not reserved.
        """
        held = self.account.reserve(candidate, text, images)
        if held is not None:
            return held
        self.failure = OverBudgetError(f"candidate {candidate.name} may cost more than is left")
        raise self.failure

    def release(self, held: str) -> None:
        """End a reservation, if `take` has not done so: the call came to no end."""
        self.account.release(held)

    def take(self, candidate: Candidate, reply: Reply, held: str = "") -> None:
        """Charge a call instead of what was reserved for it.

        Args:
            candidate: who was asked.
            reply: what came.
            held: the reservation; "" = none.

        Raises:
            CandidateFailedError: it failed.
        """
        billed = bill(candidate.name, reply)[1]
        agent = self.view.step
        if agent and reply.ok and not any(before.ok for before in self.replies):
            counted = replace(agent, input_tokens=billed["input_tokens"])
            # Never more than was paid: the loss is an estimate, and the provider's bill is not.
            if loss := min(counted.cache_loss_usd(candidate), billed["cost_usd"]):
                billed["cache_loss_usd"] = loss
        self.account.charge(billed, held)
        self.replies.append(reply)
        if reply.message is None or not reply.ok:
            why = f"{reply.error.kind}: {reply.error.message}" if reply.error else "no message"
            self.failure = CandidateFailedError(f"candidate {candidate.name} failed: {why}")
            raise self.failure

    def decided(self, routing: Routing) -> None:
        """Take the controller's decision, and charge it."""
        pool = self.view.pool
        self.account.add(routing.ledger)
        call = routing.first(pool)
        if call is None:
            self.unchosen = routing.error or "it made no call that can be used"
            logger.warning(
                "%s chose no candidate for a step of an agent: %s",
                routing.controller,
                self.unchosen,
            )
        cheapest = pool.by_price
        last = pool.find(self.view.step.last) if self.view.step else None
        rest = [*([last] if last else []), *cheapest]
        if call:
            found = pool.find(call.candidate)
            assert found is not None
            self.chosen = found.name
            self.unchosen = call.refused if call is routing.leaning else ""
            rest = cheapest
            if call.choice:
                values, sign = call.choice.values, 1 if call.choice.unit == "usd_per_mtok" else -1
                rest = sorted(cheapest, key=lambda c: sign * values.get(c.name, -sign * 1e9))
            rest = [found, *rest]
        self.order = list({c.name: c for c in rest if self._affordable(c)}.values())

    def candidates(self) -> Iterator[AskedCandidate]:
        """Yield the candidates to ask, in order."""
        for candidate in self.order:
            self.replies, self.failure = [], None
            yield AskedCandidate(candidate, self.models[candidate.name], self)

    def failed(self, error: CandidateFailedError) -> None:
        """Go on to the next candidate."""
        if not isinstance(error, OverBudgetError):
            self.error = error
            logger.warning("%s; the next candidate is asked", error)

    def done(self, candidate: Candidate, response: Any) -> ExtendedModelResponse | None:
        """Return the response with the bill; None if the next candidate is to be asked.

        This is so if the candidate failed, and another middleware made a message of that.
        """
        message = _message_of(response)
        answered = self._answered(candidate, message)
        if not answered and self.failure and not _is_a_models(message):
            self.failed(self.failure)
            self.instead = response
            return None
        return self._billed(response, answered)

    def _answered(self, asked: Candidate, message: AIMessage) -> str:
        """Return the candidate that wrote a message; "" if none of them did."""
        told = message.response_metadata.get("router_r1") or {}
        if told.get("candidate") == asked.name:
            return asked.name
        if not _is_a_models(message):
            return asked.name if any(reply.ok for reply in self.replies) else ""
        model = message.response_metadata.get("model_name") or ""
        named = [c for c in self.view.pool.candidates if model in (c.model, c.model_name)]
        if len(named) != 1:
            logger.warning(
                "another middleware had a step answered by the model %s, which is on no bill: it "
                "stands behind RouterMiddleware and replaces the model",
                model or "of its own",
            )
            return ""
        with suppress(CandidateFailedError):  # the other middleware has taken it as an answer
            self.take(named[0], read_reply(message, self.sent.messages, named[0], 0.0, 1))
        return named[0].name

    def _billed(self, response: Any, candidate: str) -> ExtendedModelResponse:
        read = next((r.input_tokens for r in reversed(self.replies) if r.ok), 0)
        step: DecidedStep = {
            "candidate": candidate,
            "chosen": self.chosen,
            "cost_usd": float(sum(reply.cost_usd for reply in self.replies)),
            "error": self.unchosen,
        }
        prefixes = {}
        if candidate:
            prefixes[candidate] = prefix_of(self.sent.messages, self.sent.tools, read, time.time())
        self.account.note([*self.so_far["steps"], step], prefixes)
        return _extended(response, self.account.update(self.so_far))

    def end(self) -> ExtendedModelResponse:
        """Return a last message that says why the agent ends here.

        Raises:
            CandidateFailedError: every candidate failed.
        """
        if self.error and self.instead is not None:
            return self._billed(self.instead, "")
        if self.error:
            raise self.error
        reason = self.ending or StopReason.BUDGET_USD
        message = AIMessage(
            f"(no answer: {reason.value})",
            response_metadata={"router_r1": {"stop_reason": reason.value}},
        )
        return _extended(message, self.account.update(self.so_far, stop_reason=reason.value))


def _message_of(response: Any) -> AIMessage:
    """Return the model's message of a response."""
    if isinstance(response, AIMessage):
        return response
    if isinstance(response, ExtendedModelResponse):
        response = response.model_response
    said = [message for message in response.result if isinstance(message, AIMessage)]
    return said[-1] if said else AIMessage("")


def _is_a_models(message: AIMessage) -> bool:
    """Return whether a model wrote a message, and no middleware."""
    return bool(message.usage_metadata or message.response_metadata.get("model_name"))


def _extended(response: Any, update: dict[str, Any]) -> ExtendedModelResponse:
    """Return a response with a change of the agent's state; an inner one's change stays."""
    if isinstance(response, AIMessage):
        response = ModelResponse(result=[response])
    if isinstance(response, ExtendedModelResponse):
        if response.command and isinstance(response.command.update, dict):
            update = {**response.command.update, **update}
        response = response.model_response
    return ExtendedModelResponse(model_response=response, command=Command(update=update))
