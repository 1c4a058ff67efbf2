"""The formatter: the candidate or controller that writes a routed answer in the asked form."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig

from ..budget import StopReason
from ..candidates import Candidate, CandidatePool
from ..candidates.bill import bill
from ..candidates.call import aask, ask
from ..candidates.finish import CUT, finish_of
from ..candidates.images import images_in, without_images
from ..candidates.in_time import in_a_thread
from ..candidates.reply import ChatModel, Reply, with_tools
from ..candidates.settings import ModelSettings
from ..candidates.store import ReplyStore
from ..candidates.tool import candidate_tool
from ..context import RouterContext
from ..controllers import ChatModelController
from ..controllers.own import own_of
from ..errors import ConfigError, ControllerError
from ..langsmith import runs
from ..ledger import Ledger, charge_candidates, charge_controller, most_paid_usd, new_ledger, total
from .answer_form import Form, last_human
from .result import ROUTED, is_unanswered

CONTROLLER = "controller"
"""The name of a formatter that is the controller."""
_NO_STREAM = "nostream"
"""LangGraph's tag for a model whose tokens are no part of a stream of messages."""
_ROUTING_SHARE = 0.75
"""The share of a deadline that routing may take; the rest is the formatter's."""
_ANSWER_TOKENS = 1024
"""The length of an answer for which the budget reserves enough."""


@dataclass(frozen=True)
class Formatter:
    """A model that can call tools, with the settings that bill it."""

    model: ChatModel
    settings: ModelSettings
    store: ReplyStore | None = None

    @property
    def name(self) -> str:
        """The candidate's name, or `controller`."""
        return self.settings.name if isinstance(self.settings, Candidate) else CONTROLLER

    def bound(self, form: Form) -> ChatModel:
        """Return the model with the tools of a form.

        Raises:
            ConfigError: it cannot call tools.
        """
        if not form.bound:
            return self.model
        bound = with_tools(self.model, form.bound, tool_choice=form.bound_choice)
        if bound is None:
            raise ConfigError(
                f"formatter: {self.name} ({type(self.model).__name__}) cannot call tools; name a "
                "candidate that can, with formatter="
            )
        return bound

    def charge(self, ledger: Ledger, reply: Reply) -> Ledger:
        """Return the ledger with the formatter's call added."""
        if self.name == CONTROLLER:
            return charge_controller(ledger, reply)
        return charge_candidates(ledger, [bill(self.name, reply)[1]])


def candidate_named(name: str | None, pool: CandidatePool) -> Candidate | None:
    """Return the candidate that a formatter's name names; None = it names none of them.

    Raises:
        ConfigError: no candidate has that name.
    """
    if name is None or name == CONTROLLER:
        return None
    if (candidate := pool.find(name)) is None:
        raise ConfigError(f"formatter: {pool.unknown(name)}, or {CONTROLLER!r}")
    return candidate


def make_formatter(
    name: str | None,
    pool: CandidatePool,
    controller: object,
    models: Mapping[str, ChatModel] | None,
    store: ReplyStore | None,
) -> Formatter:
    """Return the formatter of this name.

    Args:
        name: a candidate, or `controller`; None = the controller where it is a chat model, else the
            cheapest candidate that is a model.
        pool: the candidates.
        controller: the controller.
        models: chat models that were given for candidates.
        store: where replies are kept.

    Raises:
        ConfigError: no candidate has that name, or the controller is no chat model.
    """
    candidate = candidate_named(name, pool)
    controller = own_of(controller)
    is_chat_model = isinstance(controller, ChatModelController)
    if name == CONTROLLER or (name is None and is_chat_model):
        if not isinstance(controller, ChatModelController):
            raise ConfigError(
                "formatter: the controller is no chat model, so it cannot give an answer a form; "
                "name a candidate"
            )
        # Nothing tells a given model apart from another: its replies are not stored.
        return Formatter(controller.model, controller.settings)
    if candidate is None:
        able = [c for c in pool.candidates if c.kind == "model" and c.provider != "recorded"]
        if not able:
            raise ConfigError("formatter: no candidate is a model that can give an answer a form")
        candidate = min(able, key=lambda c: c.price_usd_per_mtok)
    given = (model for n, model in (models or {}).items() if pool.find(n) is candidate)
    tool = candidate_tool(candidate, next(given, None), replies=store)
    return Formatter(tool.model, candidate, tool.store)


@dataclass(frozen=True)
class Formatting:
    """One answer that is to be given in a form."""

    form: Form
    formatter: Formatter
    messages: Sequence[Any]
    given: RouterContext
    """The knobs of the whole call, this included."""
    started_at: float = field(default_factory=time.monotonic)

    @cached_property
    def model(self) -> ChatModel:
        """The formatter's model, with the tools bound."""
        return self.formatter.bound(self.form)

    @property
    def context(self) -> RouterContext:
        """The knobs for routing: USD and seconds are reserved for the formatter's call.

        Raises:
            ConfigError: the budget cannot pay it.
        """
        given = self.given
        if given.budget_usd is not None:
            kept = self._worst_case_usd("a" * _ANSWER_TOKENS * 4)
            if kept > given.budget_usd:
                raise ConfigError(
                    f"budget_usd: {given.budget_usd:g} cannot pay {self.formatter.name} for giving "
                    f"the answer its form (up to {kept:.2g} USD)"
                )
            given = replace(given, budget_usd=given.budget_usd - kept)
        if given.deadline_seconds is not None:
            given = replace(given, deadline_seconds=given.deadline_seconds * _ROUTING_SHARE)
        return given

    @cached_property
    def routed(self) -> Mapping[str, Any] | None:
        """The state of the run, if the question has been routed before its tools were called."""
        for message in self.messages[last_human(self.messages) + 1 :]:
            told = message.response_metadata
            if isinstance(message, AIMessage) and isinstance(told.get(ROUTED), str):
                return {
                    "answer": told[ROUTED],
                    "messages": [AIMessage(told[ROUTED])],
                    "stop_reason": str(told.get("stop_reason", StopReason.ANSWERED)),
                    "round": 0,
                    "error": "",
                    "ledger": new_ledger(),
                }
        return None

    def give(self, state: Mapping[str, Any], config: RunnableConfig) -> Mapping[str, Any]:
        """Return the state with the answer in its form, and the call for it in the ledger.

        Where no candidate replied, there is nothing to give a form, and the state stays as it is.

        Args:
            state: that of the run.
            config: the parent run's.

        Raises:
            ControllerError: the formatter fails, or does not give the form.
        """
        if is_unanswered(state):
            return state
        messages, options = self._call(state, config)
        return self._given(state, ask(self.model, messages, self.formatter.settings, **options))

    async def agive(self, state: Mapping[str, Any], config: RunnableConfig) -> Mapping[str, Any]:
        """Do as `give` does, without blocking the event loop."""
        if is_unanswered(state):
            return state
        # In threads: tools, schemas and replies may have megabytes.
        (messages, options), model = await in_a_thread(
            lambda: (self._call(state, config), self.model)
        )
        reply = await aask(model, messages, self.formatter.settings, **options)
        return await in_a_thread(lambda: self._given(state, reply))

    def _call(
        self, state: Mapping[str, Any], config: RunnableConfig
    ) -> tuple[list[AnyMessage], dict[str, Any]]:
        answer = str(state["messages"][-1].text)
        budget, deadline = self.given.budget_usd, self.given.deadline_seconds
        if budget is not None:
            totals = total(state["ledger"])
            left, paid = budget - most_paid_usd(totals), totals["cost_usd"]
            if self._worst_case_usd(answer) > left:
                raise ControllerError(
                    f"budget_usd: {left:.2g} USD are left, too little to pay {self.formatter.name} "
                    f"for giving an answer of {len(answer)} characters its form",
                    cost_usd=paid,
                )
        spent = time.monotonic() - self.started_at
        options: dict[str, Any] = {
            "seconds_left": None if deadline is None else deadline - spent,
            "config": runs.inside(config, "form", candidate=self.formatter.name),
            "store": self.formatter.store,
        }
        options["config"]["tags"].append(_NO_STREAM)
        return self._prompt(answer), options

    def _prompt(self, answer: str) -> list[AnyMessage]:
        messages = self.form.prompt(self.messages, answer)
        if self.formatter.settings.image_inputs:
            return messages
        return [without_images(message) for message in messages]

    def _given(self, state: Mapping[str, Any], reply: Reply) -> Mapping[str, Any]:
        name, answer = self.formatter.name, state["messages"][-1]
        # `read` judges an empty one, and one that a filter has emptied.
        empty = reply.error is not None and (
            reply.error.kind == "empty" or (reply.message and finish_of(reply.message) in CUT)
        )
        ledger = self.formatter.charge(state["ledger"], reply)
        paid = total(ledger)["cost_usd"]
        if reply.message is None or not (reply.ok or empty):
            why = f"{reply.error.kind}: {reply.error.message}" if reply.error else "no message"
            raise ControllerError(f"formatter {name} failed: {why}", cost_usd=paid)
        try:
            message = self.form.read(reply.message, self.messages, answer)
        except ControllerError as error:
            raise ControllerError(f"formatter {name}: {error}", cost_usd=paid) from None
        if message.tool_calls or self.form.schema is not None:
            message.response_metadata[ROUTED] = str(answer.text)
        return {**state, "messages": [message], "ledger": ledger}

    def _worst_case_usd(self, answer: str) -> float:
        messages = self._prompt(answer)
        prompt = "".join(str(message.text) for message in messages)
        images = sum(len(images_in(message)) for message in messages)
        return self.formatter.settings.worst_case_usd(f"{self.form.bound}{prompt}", images)
