"""A candidate as the model of an agent's step: bound to its tools, retried, and billed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.messages.utils import convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config

from ..candidates import Candidate
from ..candidates.call import aask, ask
from ..candidates.reply import ChatModel, Reply, with_tools
from ..candidates.tool import CANDIDATE_TAG
from ..errors import ConfigError, RouterR1Error
from ..langsmith import runs


class CandidateFailedError(RouterR1Error):
    """A candidate gave no reply to a step, after all retries."""


class AskedCandidate(Runnable[LanguageModelInput, AIMessage]):
    """An agent's model. Every call adds a `Reply` to `replies`, even a failed one.

    It is no chat model itself, so that a trace has one model's run for each call.

    Raises:
        CandidateFailedError: on a call, the candidate failed; the message says why.
    """

    def __init__(
        self,
        candidate: Candidate,
        model: ChatModel,
        replies: list[Reply],
        seconds_left: float | None = None,
    ) -> None:
        self.candidate = candidate
        self.model = model
        self.replies = replies
        self.seconds_left = seconds_left

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
        return AskedCandidate(self.candidate, bound, self.replies, self.seconds_left)

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Ask the candidate."""
        reply = ask(
            self.model,
            _messages(input),
            self.candidate,
            seconds_left=self.seconds_left,
            config=self._config(config),
            **kwargs,
        )
        return self._message(reply)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Ask the candidate without blocking the event loop."""
        reply = await aask(
            self.model,
            _messages(input),
            self.candidate,
            seconds_left=self.seconds_left,
            config=self._config(config),
            **kwargs,
        )
        return self._message(reply)

    def _config(self, config: RunnableConfig | None) -> RunnableConfig:
        name = self.candidate.name
        return runs.inside(ensure_config(config), CANDIDATE_TAG, candidate=name)

    def _message(self, reply: Reply) -> AIMessage:
        self.replies.append(reply)
        if reply.message is None or not reply.ok:
            why = f"{reply.error.kind}: {reply.error.message}" if reply.error else "no message"
            raise CandidateFailedError(f"candidate {self.candidate.name} failed: {why}")
        told = {"candidate": self.candidate.name, "cost_usd": reply.cost_usd}
        metadata = {**reply.message.response_metadata, "router_r1": told}
        return reply.message.model_copy(update={"response_metadata": metadata})


def _messages(given: LanguageModelInput) -> list[AnyMessage]:
    if isinstance(given, PromptValue):
        return given.to_messages()  # type: ignore[return-value]
    messages = [("user", given)] if isinstance(given, str) else given
    return convert_to_messages(messages)  # type: ignore[return-value]
