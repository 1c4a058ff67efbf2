"""A candidate as the model of an agent's step: bound to its tools, retried, and billed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.messages.utils import convert_to_messages, count_tokens_approximately
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config

from ..candidates import Candidate
from ..candidates.call import aask, ask, unbound
from ..candidates.refusals import TOKEN_LIMITS
from ..candidates.reply import ChatModel, Reply, with_tools
from ..candidates.tool import CANDIDATE_TAG
from ..candidates.worst_case import text_of_options
from ..errors import ConfigError, RouterR1Error
from ..langsmith import runs
from .sent import images_sent, text_sent

_Came = TypeVar("_Came")

_LIMITS = (*TOKEN_LIMITS, "max_output_tokens", "num_predict")
"""The names of the limit of a reply's tokens, at all providers."""
_TOLD = frozenset({"profile", "model_name", "_llm_type", "_get_ls_params", "get_num_tokens"})
"""What other middlewares read of a model: they ask nobody for it."""


class CandidateFailedError(RouterR1Error):
    """A candidate gave no reply to a step, after all retries."""


class OverBudgetError(CandidateFailedError):
    """A candidate was not asked, since its call may cost more than the budget has left."""


class StepBudget(Protocol):
    """Who pays for the calls of a step."""

    @property
    def seconds_left(self) -> float | None:
        """The time that is left; None = no limit."""
        ...

    def admit(self, candidate: Candidate, text: str, images: int) -> str:
        """Reserve the most that a call can cost that sends so much; return the reservation.

        Raises:
            OverBudgetError: it may cost more than is left and not reserved.
        """
        ...

    def release(self, held: str) -> None:
        """End a reservation, if `take` has not done so: the call came to no end."""
        ...

    def take(self, candidate: Candidate, reply: Reply, held: str) -> None:
        """Charge a call instead of what was reserved; raise CandidateFailedError if it failed."""
        ...


class AskedCandidate(Runnable[LanguageModelInput, AIMessage]):
    """An agent's model. Its budget admits each call before it is sent, and is charged for it.

    It is no chat model itself, so that a trace has one model's run for each call.

    Raises:
        CandidateFailedError: on a call, the candidate failed; the message says why.
        OverBudgetError: on a call, it may cost too much, and was not sent.
    """

    def __init__(self, candidate: Candidate, model: ChatModel, budget: StepBudget) -> None:
        self.candidate = candidate
        self.model = model
        self.budget = budget

    def __getattr__(self, name: str) -> Any:
        """Return what other middlewares read of a model."""
        if name not in _TOLD:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.model, name)

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> AskedCandidate:
        """Return the candidate with an agent's tools.

        Raises:
            ConfigError: its model cannot call tools.
        """
        options = {name: value for name, value in options.items() if value is not None}
        bound = with_tools(self.model, tools, **options)
        if bound is None:
            raise ConfigError(
                f"candidate {self.candidate.name} ({type(self.model).__name__}) cannot call tools; "
                "leave it out of an agent's pool"
            )
        return AskedCandidate(self.candidate, bound, self.budget)

    def with_structured_output(self, schema: Any, **options: Any) -> Runnable[Any, Any]:
        """Return the candidate with a schema of its reply, as LangChain's chat models do.

        Raises:
            ConfigError: its model cannot call tools.
        """
        return BaseChatModel.with_structured_output(self, schema, **options)  # type: ignore[arg-type]

    def get_num_tokens_from_messages(
        self, messages: Sequence[AnyMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return how many tokens the messages have, estimated if the model cannot tell."""
        try:
            tokens: int = self.model.get_num_tokens_from_messages(messages, tools)  # type: ignore[attr-defined]
        except (AttributeError, NotImplementedError, OSError):  # its vocabulary is elsewhere
            tokens = count_tokens_approximately(messages, tools=list(tools) if tools else None)
        return tokens

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Ask the candidate."""
        with self._admitted(ask, input, config, kwargs) as (call, held):
            return self._message(call(), held)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Ask the candidate without blocking the event loop."""
        with self._admitted(aask, input, config, kwargs) as (call, held):
            return self._message(await call(), held)

    @contextmanager
    def _admitted(
        self,
        way: Callable[..., _Came],
        input: LanguageModelInput,
        config: RunnableConfig | None,
        kwargs: dict[str, Any],
    ) -> Iterator[tuple[Callable[[], _Came], str]]:
        """Give the call, to be made by `ask` or `aask`, and what is reserved for it meanwhile."""
        messages = _messages(input)
        _, options = unbound(self.model, kwargs)
        limits = [options[name] for name in _LIMITS if isinstance(options.get(name), int)]
        candidate = self.candidate
        if limits:
            candidate = candidate.model_copy(update={"max_tokens": max(limits)})
        text = text_sent(messages) + text_of_options(options)
        held = self.budget.admit(candidate, text, images_sent(messages))
        try:
            call = partial(
                way,
                self.model,
                messages,
                candidate,
                seconds_left=self.budget.seconds_left,
                config=self._config(config),
                **kwargs,
            )
            yield call, held
        finally:
            self.budget.release(held)

    def _config(self, config: RunnableConfig | None) -> RunnableConfig:
        name = self.candidate.name
        return runs.inside(ensure_config(config), CANDIDATE_TAG, candidate=name)

    def _message(self, reply: Reply, held: str) -> AIMessage:
        self.budget.take(self.candidate, reply, held)
        assert reply.message is not None
        told = {"candidate": self.candidate.name, "cost_usd": reply.cost_usd}
        metadata = {**reply.message.response_metadata, "router_r1": told}
        return reply.message.model_copy(update={"response_metadata": metadata})


def _messages(given: LanguageModelInput) -> list[AnyMessage]:
    if isinstance(given, PromptValue):
        return given.to_messages()  # type: ignore[return-value]
    messages = [("user", given)] if isinstance(given, str) else given
    return convert_to_messages(messages)  # type: ignore[return-value]
