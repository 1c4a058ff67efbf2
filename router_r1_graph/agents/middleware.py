"""The router inside an agent: `RouterMiddleware` decides which candidate answers each step."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import ensure_config

from ..budget import Left, StopReason
from ..candidates import CandidatePool, as_pool
from ..candidates.images import text_asked
from ..candidates.providers import make_chat_model
from ..candidates.reply import ChatModel
from ..candidates.usage import estimate_tokens
from ..context import Knobs, RouterContext, as_context
from ..controllers import Controller, View, as_controller
from ..controllers.controller import Decides
from ..controllers.step import AgentStep, step_text
from ..errors import PoolError
from ..langsmith import runs
from ..ledger import new_ledger, total
from ..observations import conversation, instructions
from ..routing.first_turn import adecide_only, decide_only
from .account import RunAccount
from .agent_bill import AgentBill, PaidSoFar, paid_from
from .agent_state import RoutedAgentState
from .answered_step import AnsweredStep
from .asked import CandidateFailedError
from .prefixes import Prefix, warm_tokens
from .sent import SentStep


class RouterMiddleware(AgentMiddleware):  # type: ignore[misc]
    """Chooses the candidate that answers each step of LangChain's `create_agent`.

    The candidate gets the agent's messages as they are and its tools. The agent's own model is not
    asked. The controller's question is the user's question with the results of the last tools;
    `View.step` has the rest, prompt caches included. The candidate of its first call answers the
    step. If a candidate fails, or may cost more than the budget has left, the others are tried in
    the controller's order, or from cheap to expensive if it gives none.

    The agent's state gets `router_r1` (an `AgentBill`). The `response_metadata` of each `AIMessage`
    has its candidate and its price. In LangSmith, each model's run has its cost, and the agent's
    run the totals.

    The limits `budget_usd` and `deadline_seconds` apply to one run of the agent. When one is
    reached, the agent ends with a message that says so. `max_rounds` does not limit an agent, and
    `approve_above_usd` lets no step wait: use LangChain's `ModelCallLimitMiddleware` and
    `HumanInTheLoopMiddleware`.

    Args:
        pool: the candidates: models alone, which can call tools if the agent has any.
        controller: as for `create_router_r1`.
        models: chat models to use for the named candidates; they need no key.
        context: the settings: a `RouterContext`, or a dict of those to change. The context of a
            run of the agent overrides them, where it is a `RouterContext` or has some under the one
            key or field `router_r1`.

    Raises:
        PoolError: the pool cannot be used, or has candidates that are no models.
        ConfigError: a key of the context names no setting, or a setting is out of range.
        ControllerError: the controller cannot be built.

    Example:
        >>> from langchain.agents import create_agent
        >>> from router_r1_graph import CandidatePool, RouterMiddleware
        >>> pool = CandidatePool.embedded()
        >>> router = RouterMiddleware(pool, "cheapest")
        >>> agent = create_agent(router.default_model, middleware=[router])
        >>> result = agent.invoke({"messages": [("user", "Who wrote Hamlet?")]})
        >>> result["router_r1"]["steps"][0]["candidate"]
        'Vantegro'
    """

    state_schema = RoutedAgentState
    tools: Sequence[Any] = ()

    def __init__(
        self,
        pool: CandidatePool | str | Path,
        controller: Controller | Decides | ChatModel | str | None = None,
        *,
        models: Mapping[str, ChatModel] | None = None,
        context: Knobs | None = None,
    ) -> None:
        super().__init__()
        self.pool = as_pool(pool)
        self.context = as_context(context)
        self.context.check(self.pool)
        for candidate in self.pool.candidates:
            if candidate.kind != "model":
                raise PoolError(
                    f"{self.pool.where}: {candidate.name} is a {candidate.kind}; only models "
                    "answer the steps of an agent: give the others to it as tools (pool_tools)"
                )
        given = self.pool.given_models(models)
        self.pool.require_keys(but=given)
        self.models = {
            c.name: given[c.name] if c.name in given else make_chat_model(c)
            for c in self.pool.candidates
        }
        self.controller = as_controller(controller, self.pool)

    @property
    def default_model(self) -> Any:
        """The cheapest candidate's chat model, as the model that `create_agent` demands."""
        return self.models[self.pool.by_price[0].name]

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any]:
        """Begin a bill, and keep the settings of the run in it."""
        ledger = new_ledger()
        started_at = time.time()
        earlier: AgentBill | None = state.get("router_r1")
        if earlier and earlier["started_at"] == started_at:  # it tells the bills of runs apart
            started_at = math.nextafter(started_at, math.inf)
        return {
            "router_r1": {
                "ledger": ledger,
                "steps": [],
                "stop_reason": "",
                "started_at": started_at,
                "context": self._knobs(runtime).to_state(),
            },
            "router_r1_paid": paid_from(ledger),
        }

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any]:
        """Do what `before_agent` does."""
        return self.before_agent(state, runtime)

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Let the controller choose, and the candidate answer."""
        step = self._step(request)
        if step.ended:
            return step.end()
        step.decided(decide_only(step.view, self.controller, self._config()))
        for asked in step.candidates():
            try:
                response = handler(request.override(model=asked))
            except CandidateFailedError as error:
                step.failed(error)
            else:
                if done := step.done(asked.candidate, response):
                    return done
            step.account.settle()
        return step.end()

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Do what `wrap_model_call` does without blocking the event loop."""
        step = self._step(request)
        if step.ended:
            return step.end()
        step.decided(await adecide_only(step.view, self.controller, self._config()))
        for asked in step.candidates():
            try:
                response = await handler(request.override(model=asked))
            except CandidateFailedError as error:
                step.failed(error)
            else:
                if done := step.done(asked.candidate, response):
                    return done
            await step.account.asettle()
        return step.end()

    def after_agent(self, state: Any, runtime: Any) -> dict[str, Any]:
        """Close the bill, and show it in LangSmith."""
        done: AgentBill = state["router_r1"]
        # What another middleware has thrown away with its response was paid all the same.
        ledger = state.get("router_r1_paid", done)["ledger"]
        reason = done["stop_reason"] or StopReason.ANSWERED.value
        if _is_answered(state["messages"]):
            reason = StopReason.ANSWERED.value
        done = {**done, "ledger": ledger, "stop_reason": reason}
        runs.label_router(
            ensure_config(),
            lambda: {
                "controller": self.controller.name,
                "pool": self.pool.name,
                "cost_weight": self._knobs(runtime, done).cost_weight,
                "stop_reason": done["stop_reason"],
                "steps": len(done["steps"]),
                "candidates": [step["candidate"] for step in done["steps"]],
                **total(done["ledger"]),
            },
        )
        return {"router_r1": done}

    async def aafter_agent(self, state: Any, runtime: Any) -> dict[str, Any]:
        """Close the bill, and show it in LangSmith."""
        return self.after_agent(state, runtime)

    def _knobs(self, runtime: Any, so_far: AgentBill | None = None) -> RouterContext:
        """Return the knobs of a run: its own, overridden by those that it is resumed with."""
        stored = so_far.get("context") if so_far else None
        known = RouterContext.from_state(stored) if stored else self.context
        context = as_context(runtime.context if runtime else None, known, parents=True)
        if context is not known:
            context.check(self.pool)
        return context

    def _config(self) -> Any:
        return runs.inside(ensure_config(), "think", controller=self.controller.name)

    def _step(self, request: Any) -> AnsweredStep:
        """Return the step to decide."""
        state, sent = request.state, SentStep.of(request)
        messages, pool = sent.messages, self.pool
        if sent.images:
            if (able := pool.taking_images()) is None:
                raise PoolError(
                    f"there are images, and no candidate of the pool {pool.name!r} takes any"
                )
            pool = able
        now = time.time()
        so_far: AgentBill = (
            state.get("router_r1") or self.before_agent(state, request.runtime)["router_r1"]
        )
        # A resumed run has none yet. The attempts of another middleware at a step share its state.
        paid: PaidSoFar = state.setdefault("router_r1_paid", paid_from(so_far["ledger"]))
        prefixes: dict[str, Prefix] = state.get("router_r1_prefixes") or {}
        asked = [place for place, m in enumerate(messages) if isinstance(m, HumanMessage)]
        place = asked[-1] if asked else -1
        question = text_asked(messages[place]) if messages else ""
        since = tuple(messages[place + 1 :]) if asked else ()
        steps = so_far["steps"]
        warm = warm_tokens(prefixes, pool, messages, sent.tools, now)
        agent = AgentStep(
            number=len(steps),
            messages=since,
            input_tokens=max(estimate_tokens(sent.text), *warm.values(), 0),
            last=steps[-1]["candidate"] if steps else "",
            warm_tokens=warm,
        )
        context = self._knobs(request.runtime, so_far)
        account = RunAccount(paid, context, so_far["started_at"])
        remaining = account.left
        view = View(
            step_text(question, since, context.max_information_tokens, agent.last),
            pool,
            context,
            # The last round is for an answer, and a step of an agent is none.
            Left(max(1, remaining.rounds), remaining.usd, remaining.seconds),
            conversation(messages[: place + 1], question, context.max_conversation_tokens),
            instructions=instructions(messages),
            step=agent,
        )
        return AnsweredStep(self.models, view, so_far, account, sent)


def _is_answered(messages: Sequence[AnyMessage]) -> bool:
    """Return whether a candidate wrote the last message of the model.

    The budget may have ended a later attempt at the step, which another middleware threw away.
    """
    said = next((m for m in reversed(messages) if isinstance(m, AIMessage)), None)
    return said is not None and "candidate" in (said.response_metadata.get("router_r1") or {})
