"""One step of an agent while it is decided and answered, and its bill."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain.agents.middleware.types import ExtendedModelResponse, ModelResponse
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.types import Command
from typing_extensions import TypedDict

from ..budget import StopReason
from ..candidates import Candidate, CandidatePool
from ..candidates.bill import bill
from ..candidates.reply import ChatModel, Reply
from ..controllers import View
from ..ledger import Ledger, added, charge_candidates
from ..planned_calls import Routing
from .asked import AskedCandidate, CandidateFailedError
from .prefixes import Prefix, prefix_of

logger = logging.getLogger(__name__)


class DecidedStep(TypedDict):
    """One step of an agent: the candidate that answered it, and the price.

    `chosen` is the controller's choice; "" if it made none that can be used. In this case, and if
    the chosen one failed or was too expensive, another candidate answered. `error` says why the
    controller made no choice, such as a bug of its own; "" = it made one.
    """

    candidate: str
    chosen: str
    cost_usd: float
    error: str


class AgentBill(TypedDict):
    """The bill of one run of an agent, in its state as `router_r1`: plain dicts."""

    ledger: Ledger
    steps: list[DecidedStep]
    stop_reason: str
    """`answered`, `budget_usd` or `deadline`; "" while it runs."""
    started_at: float
    context: dict[str, Any]
    """The settings, as `RouterContext.to_state` returns them."""


@dataclass
class AnsweredStep:
    """One step while it is decided and answered: its bill so far."""

    models: Mapping[str, ChatModel]
    view: View
    so_far: AgentBill
    prefixes: dict[str, Prefix]
    messages: list[AnyMessage]
    tools: str
    text: str
    images: int
    ending: StopReason | None = None
    chosen: str = ""
    unchosen: str = ""
    """Why the controller chose none; "" = it chose one."""
    order: list[Candidate] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    error: CandidateFailedError | None = None

    def __post_init__(self) -> None:
        self.ledger = self.so_far["ledger"]
        self.started = time.monotonic()
        remaining = self.view.left
        if remaining.seconds is not None and remaining.seconds <= 0:
            self.ending = StopReason.DEADLINE
        elif not any(map(self._affordable, self.view.pool.candidates)):
            self.ending = StopReason.BUDGET_USD

    @property
    def ended(self) -> bool:
        """Whether no further candidate may be asked."""
        return self.ending is not None

    def _affordable(self, candidate: Candidate) -> bool:
        usd = self.view.left.usd
        if usd is None:
            return True
        return candidate.bounded and candidate.worst_case_usd(self.text, self.images) <= usd

    def take(self, routing: Routing) -> None:
        """Take the controller's decision, and charge it."""
        pool = self.view.pool
        self.ledger = added(self.ledger, routing.ledger)
        call = next((c for c in routing.calls if pool.find(c.candidate)), None)
        if call is None:
            self.unchosen = routing.error or "it made no call that can be used"
            logger.warning(
                "%s chose no candidate for a step of an agent: %s",
                routing.controller,
                self.unchosen,
            )
        cheapest = by_price(pool)
        last = pool.find(self.view.step.last) if self.view.step else None
        rest = [*([last] if last else []), *cheapest]
        if call:
            found = pool.find(call.candidate)
            assert found is not None
            self.chosen = found.name
            rest = cheapest
            if call.choice:
                values, sign = call.choice.values, 1 if call.choice.unit == "usd_per_mtok" else -1
                rest = sorted(cheapest, key=lambda c: sign * values.get(c.name, -sign * 1e9))
            rest = [found, *rest]
        self.order = list({c.name: c for c in rest if self._affordable(c)}.values())

    def candidates(self) -> Sequence[AskedCandidate]:
        """Return the candidates to ask, in order."""
        spent = time.monotonic() - self.started
        seconds = self.view.left.seconds
        limit = None if seconds is None else seconds - spent
        return [
            AskedCandidate(candidate, self.models[candidate.name], self.replies, limit)
            for candidate in self.order
        ]

    def failed(self, asked: AskedCandidate, error: CandidateFailedError) -> None:
        """Charge a candidate that failed."""
        self._charge(asked.candidate)
        self.error = error
        logger.warning("%s; the next candidate is asked", error)

    def _charge(self, candidate: Candidate) -> float:
        bills = [bill(candidate.name, reply)[1] for reply in self.replies]
        agent = self.view.step
        if agent and bills and bills[-1]["ok"]:
            counted = replace(agent, input_tokens=bills[-1]["input_tokens"])
            # Never more than was paid: the loss is an estimate, and the provider's bill is not.
            if loss := min(counted.cache_loss_usd(candidate), bills[-1]["cost_usd"]):
                bills[-1]["cache_loss_usd"] = loss
        for one in bills:  # one after the other, not at once
            self.ledger = charge_candidates(self.ledger, [one])
        self.replies.clear()
        return float(sum(one["cost_usd"] for one in bills))

    def done(self, asked: AskedCandidate, response: Any) -> ExtendedModelResponse:
        """Return the response with the bill."""
        candidate = asked.candidate
        read = next((r.input_tokens for r in reversed(self.replies) if r.ok), 0)
        usd = self._charge(candidate)
        prefix = prefix_of(self.messages, self.tools, read, time.time())
        step: DecidedStep = {
            "candidate": candidate.name,
            "chosen": self.chosen,
            "cost_usd": usd,
            "error": self.unchosen,
        }
        update = {
            "router_r1": {
                **self.so_far,
                "ledger": self.ledger,
                "steps": [*self.so_far["steps"], step],
            },
            "router_r1_prefixes": {**self.prefixes, candidate.name: prefix},
        }
        return _extended(response, update)

    def end(self) -> ExtendedModelResponse:
        """Return a last message that says why the agent ends here.

        Raises:
            CandidateFailedError: every candidate failed.
        """
        if self.error:
            raise self.error
        reason = self.ending or StopReason.BUDGET_USD
        message = AIMessage(
            f"(no answer: {reason.value})",
            response_metadata={"router_r1": {"stop_reason": reason.value}},
        )
        done = {**self.so_far, "ledger": self.ledger, "stop_reason": reason.value}
        return _extended(message, {"router_r1": done})


def _extended(response: Any, update: dict[str, Any]) -> ExtendedModelResponse:
    """Return a response with a change of the agent's state; an inner one's change stays."""
    if isinstance(response, AIMessage):
        response = ModelResponse(result=[response])
    if isinstance(response, ExtendedModelResponse):
        if response.command and isinstance(response.command.update, dict):
            update = {**response.command.update, **update}
        response = response.model_response
    return ExtendedModelResponse(model_response=response, command=Command(update=update))


def by_price(pool: CandidatePool) -> list[Candidate]:
    """Return a pool's candidates, the cheapest first."""
    return sorted(pool.candidates, key=lambda c: c.price_usd_per_mtok)
