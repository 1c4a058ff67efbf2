"""A controller behind LangChain's interface for decisions: `RouterDecisionModel`.

LangChain's `ModelRouterMiddleware` asks such a model for the right one of an agent's models.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.decisions import BaseDecisionModel, ClassifierResponse
from langchain_core.decisions import Choice as ChoiceQuestion
from langchain_core.decisions.types import ChoiceAnswer
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage
from langchain_core.messages.utils import convert_to_messages
from langchain_core.runnables import RunnableConfig, ensure_config
from pydantic import Field, PrivateAttr, field_validator, model_validator

from ..candidates import CandidatePool, as_pool
from ..context import RouterContext, knobs
from ..controllers import Controller, as_controller
from ..controllers.choice import Choice
from ..errors import ConfigError, ControllerError, did_you_mean
from ..routing.first_turn import aroute_only, route_only
from ..routing.planned_calls import Routing

logger = logging.getLogger(__name__)

UTILITY_SCALE = 0.1
"""Utilities become probabilities by a softmax: this much more utility is e times as probable."""


class RouterDecisionModel(BaseDecisionModel):
    """A fitted controller, a policy, or any other controller as a LangChain decision model.

    It answers questions of the type `Choice`. Their labels are names or aliases of candidates of
    the pool; the criteria are not read, since the pool has the descriptors. The controller is shown
    the candidates that a question has labels for, and no others.

    The probabilities are a policy's own. A fitted controller's utilities become probabilities by a
    softmax (`UTILITY_SCALE`). If a controller reports no numbers, its choice has the probability
    1. The confidence is the probability of the choice. If a policy's turn asks none of the
    candidates, its choice is the one that it names, or else the most probable one; the log says so.

    Attributes:
        pool: the candidates; a `CandidatePool`, a pool file, or the name of a shipped pool.
        controller: as for `create_router_r1`: `irt:DIR`, `policy:demo`, an object.
        context: the settings, the cost weight among them: a `RouterContext`, or a dict of those
            to change.

    Raises:
        PoolError: the pool cannot be read.
        ConfigError: a field is unknown, a key of `context` names no setting, or a setting is out of
            range; on a call, a question is of another type, a label names no candidate, or the
            state is no text, no messages, and no data with anything in it.
        QuestionError: on a call, the state has no text.
        ControllerError: the controller cannot be built; on a call, it failed or chose none.

    Example:
        >>> from langchain_core.decisions import Choice
        >>> model = RouterDecisionModel(pool="embedded", controller="cheapest")
        >>> labels = {"Vantegro": None, "Quillora": None}
        >>> which = Choice(instructions="Which model?", criteria=labels)
        >>> asked = {"state": "Who wrote Hamlet?", "questions": {"model": which}}
        >>> model.invoke(asked).choices["model"].choice
        'Vantegro'
    """

    model: str = ""
    pool: CandidatePool = Field(default_factory=CandidatePool.embedded)
    controller: Any = None
    context: RouterContext = Field(default_factory=RouterContext)
    _controller: Controller = PrivateAttr()

    @field_validator("pool", mode="before")
    @classmethod
    def _read_pool(cls, value: Any) -> Any:
        return as_pool(value)

    @model_validator(mode="before")
    @classmethod
    def _know_fields(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields:
                where = "; pass it in context=" if name in knobs() else ""
                near = where or did_you_mean(name, cls.model_fields)
                raise ConfigError(f"RouterDecisionModel takes no {name!r}{near}")
        return values

    @model_validator(mode="after")
    def _build(self) -> RouterDecisionModel:
        self.context.check(self.pool)
        self._controller = as_controller(self.controller, self.pool)
        self.model = self.model or self._controller.name
        return self

    @property
    def _provider(self) -> str:
        return "router_r1"

    def _classify(self, state: Any, questions: Mapping[str, Any]) -> ClassifierResponse:
        options = self._options(state)
        routed = {
            names: route_only(pool, self._controller, **options)
            for names, pool in self._offered(questions).items()
        }
        return self._response(routed, questions)

    async def _aclassify(self, state: Any, questions: Mapping[str, Any]) -> ClassifierResponse:
        options = self._options(state)
        routed = {
            names: await aroute_only(pool, self._controller, **options)
            for names, pool in self._offered(questions).items()
        }
        return self._response(routed, questions)

    def _options(self, state: Any) -> dict[str, Any]:
        """Return the options of the questions."""
        question, messages, config = _asked(state)
        return {
            "question": question,
            "messages": messages,
            # Nobody summarises a decision, and the labels may leave out who would.
            "context": replace(self.context, keep="all"),
            "config": config,
        }

    def _offered(self, questions: Mapping[str, Any]) -> dict[frozenset[str], CandidatePool]:
        """Return the pools that the questions offer, by the names in them: mostly one."""
        self._check(questions)
        of_each = (frozenset(self._names(question).values()) for question in questions.values())
        return {names: self._pool_of(names) for names in of_each}

    def _pool_of(self, names: frozenset[str]) -> CandidatePool:
        return self.pool.with_candidates(c for c in self.pool.candidates if c.name in names)

    def _names(self, question: ChoiceQuestion) -> dict[str, str]:
        """Return the candidate of each label."""
        return {label: c.name for label in question.criteria if (c := self.pool.find(label))}

    def _check(self, questions: Mapping[str, Any]) -> None:
        """Check the questions before anything is asked."""
        names = [candidate.name for candidate in self.pool.candidates]
        for number, question in questions.items():
            if not isinstance(question, ChoiceQuestion):
                raise ConfigError(
                    f"question {number!r}: a router answers questions of the type Choice, not "
                    f"{type(question).__name__}"
                )
            for label in question.criteria:
                if self.pool.find(label) is None:
                    raise ConfigError(
                        f"question {number!r}: the label {label!r} is no candidate of "
                        f"{self.pool.where}{did_you_mean(label, names)}; labels are names or "
                        f"aliases: {', '.join(names)}"
                    )

    def _response(
        self, routed: Mapping[frozenset[str], Routing], questions: Mapping[str, Any]
    ) -> ClassifierResponse:
        answers = {}
        for number, question in questions.items():
            name_of = self._names(question)
            names = frozenset(name_of.values())
            answers[number] = _answer(routed[names], self._pool_of(names), name_of)
        return ClassifierResponse(model=self.model, answers=answers)


def _answer(routing: Routing, pool: CandidatePool, name_of: Mapping[str, str]) -> ChoiceAnswer:
    """Return a controller's choice as one of the labels."""
    label_of = {name: label for label, name in reversed(list(name_of.items()))}
    call = routing.first(pool)
    if call is None:
        why = routing.error or "it made no call that can be used"
        raise ControllerError(f"controller {routing.controller} chose no candidate: {why}")
    if call is routing.leaning:
        logger.info("%s chose %s: %s", routing.controller, call.candidate, call.refused)
    shares = _shares(call.choice) if call.choice else {}
    if not shares.get(call.candidate):
        shares = {call.candidate: 1.0}
    mass = {label: shares.get(name, 0.0) for label, name in name_of.items()}
    mass = {label: share / sum(mass.values()) for label, share in mass.items()}
    label = label_of[call.candidate]
    confidence = min(1.0, mass[label])
    return ChoiceAnswer(type="choice", choice=label, probabilities=mass, confidence=confidence)


def _shares(choice: Choice) -> dict[str, float]:
    """Return a controller's numbers as probabilities; {} for prices, which are none."""
    if choice.unit == "usd_per_mtok":
        return {}
    if choice.unit == "probability":
        return dict(choice.values)
    best = max(choice.values.values())
    weights = {n: math.exp((value - best) / UTILITY_SCALE) for n, value in choice.values.items()}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def _asked(state: Any) -> tuple[str, Sequence[AnyMessage], RunnableConfig]:
    """Return the question and the conversation that a state holds, and the config of the run."""
    config = ensure_config()
    whole = isinstance(state, Mapping) and "messages" in state
    if whole:
        state = state["messages"]
    if isinstance(state, BaseMessage) or (whole and isinstance(state, Mapping | tuple)):
        state = [state]
    if isinstance(state, str):
        return state, (), config
    if _is_nothing(state) or (whole and not isinstance(state, Sequence)):
        where = "the state's messages are" if whole else "the state is"
        raise ConfigError(
            f"{where} {state!r:.50}; a router decides on a text, on messages "
            '("messages": [...] or the list alone), or on a dict or list of data'
        )
    if not (isinstance(state, Sequence) and (whole or all(map(_is_message, state)))):
        return json.dumps(state, default=str), (), config
    try:
        messages = convert_to_messages(state)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"the state's messages cannot be read: {error}") from None
    if any(isinstance(message, HumanMessage) for message in messages):
        return "", messages, config  # type: ignore[return-value]
    return "\n".join(str(message.text) for message in messages), (), config


def _is_nothing(state: Any) -> bool:
    """Return whether a state has nothing to decide on; an empty list has no messages."""
    if isinstance(state, Mapping | set | frozenset):
        return not state
    return state is None or isinstance(state, int | float | complex | bytes | bytearray)


def _is_message(part: Any) -> bool:
    """Return whether a part of a list is a message, or a dict or pair that stands for one."""
    if isinstance(part, Mapping):
        return "role" in part and "content" in part
    pair = isinstance(part, tuple) and len(part) == 2 and all(isinstance(p, str) for p in part)
    return pair or isinstance(part, BaseMessage)
