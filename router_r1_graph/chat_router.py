"""The router as one more LangChain chat model: it goes wherever a chat model goes.

The answer is known when the last turn has been read, so a stream is the finished answer in pieces.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from .candidates import CandidatePool
from .context import CandidateContext, RouterContext
from .controllers import Controller, parse_controller
from .errors import ConfigError, ControllerError, did_you_mean
from .graph import create_router_r1
from .ledger import total
from .protocol import cut
from .reply import ChatModel
from .state import StopReason

KNOBS = tuple(f.name for f in fields(RouterContext) if f.name != "approve_above_usd")
"""The knobs of a chat model: all but the one that waits for a person, which it cannot."""


class ChatRouterR1(BaseChatModel):
    """A chat model that asks other models: the compiled router behind LangChain's interface.

    The question is the last human message; what was said before it goes along, system messages and
    tool calls left out. The knobs are those of `RouterContext`; each may also be given for one
    call: `model.invoke(question, budget_usd=0.01)`, `model.bind(cost_weight=0.9)`.

    `usage_metadata` counts the tokens of the candidates and the controller together;
    `response_metadata` holds `cost_usd`, `calls`, `stop_reason`, `rounds` and the other totals of
    the ledger, and `candidates`: name -> its line of the ledger. Callbacks see the models inside
    too, under their own names: whoever adds up usage counts either these or the router.

    Attributes:
        pool: the candidates; a `CandidatePool`, a pool file, or the name of a shipped pool.
        controller: a `Controller` or a spec for `parse_controller`; None = the pool's controller
            block where there is one, else `keyword`.
        models: chat models for the named candidates; see `create_router_r1`.
        stop: texts before which the answer is cut off.
        max_tokens: of the answer, about so many tokens are handed back; what the run costs is bound
            by the knobs. May be given for one call too.
        streaming: whether `invoke` goes through the stream, as in other chat models of LangChain.

    Raises:
        PoolError: the pool cannot be read or asked.
        ControllerError: the controller cannot be built; on a call, it failed before anything was
            known.
        ConfigError: a knob is out of range.
        QuestionError: on a call, no human message says anything.

    Example:
        >>> model = ChatRouterR1(pool="embedded", controller="keyword", max_rounds=3)
        >>> message = model.invoke("Who wrote Hamlet?")
        >>> message.text, message.response_metadata["stop_reason"]
        ('William Shakespeare', 'answered')
    """

    model_config = ConfigDict(extra="forbid")

    pool: CandidatePool = Field(default_factory=CandidatePool.embedded)
    controller: Any = None
    models: Mapping[str, ChatModel] | None = Field(default=None, exclude=True)
    stop: list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    streaming: bool = False

    cost_weight: float = RouterContext.cost_weight
    max_rounds: int = RouterContext.max_rounds
    max_calls_per_round: int = RouterContext.max_calls_per_round
    budget_usd: float | None = RouterContext.budget_usd
    deadline_seconds: float | None = RouterContext.deadline_seconds
    max_information_tokens: int = RouterContext.max_information_tokens
    candidate_context: CandidateContext = RouterContext.candidate_context
    memory_tokens: int = RouterContext.memory_tokens
    keep: str = RouterContext.keep
    temperature: float | None = RouterContext.temperature
    seed: int = RouterContext.seed

    _graph: CompiledStateGraph[Any, RouterContext, Any, Any] = PrivateAttr()

    @field_validator("pool", mode="before")
    @classmethod
    def _read_pool(cls, value: object) -> object:
        return CandidatePool.from_yaml(value) if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _build(self) -> ChatRouterR1:
        if self.controller is None or isinstance(self.controller, str):
            self.controller = parse_controller(self.controller, self.pool)
        if not callable(getattr(self.controller, "adecide", None)):
            raise ControllerError(
                "controller: a spec such as 'keyword', or an object with decide and adecide (a "
                f"chat model: ChatModelController(model)), not {type(self.controller).__name__}"
            )
        self._context({})
        # Inside another graph too, a chat model remembers nothing: no checkpoints.
        graph = create_router_r1(self.pool, self.controller, models=self.models)
        self._graph = graph.compile(checkpointer=False, name="router_r1")
        return self

    def _context(self, given: Mapping[str, Any]) -> RouterContext:
        """Return the knobs of a call: the given ones over the model's own."""
        for name in given:
            if name not in (*KNOBS, "max_tokens", "stream"):  # "stream": LangChain's own
                raise ConfigError(
                    f"ChatRouterR1 takes no {name!r}{did_you_mean(name, KNOBS)}; allowed: "
                    + ", ".join(KNOBS)
                )
        own = RouterContext(**{name: getattr(self, name) for name in KNOBS})
        context = replace(own, **{name: given[name] for name in KNOBS if name in given})
        context.check(self.pool)
        return context

    @property
    def _llm_type(self) -> str:
        return "router-r1"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        who: Controller = self.controller
        candidates = [c.name for c in self.pool.candidates]
        knobs = {name: getattr(self, name) for name in KNOBS}
        return {"pool": self.pool.name, "candidates": candidates, "controller": who.name, **knobs}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop, **kwargs)
        params["ls_provider"] = "router_r1"
        params.setdefault("ls_model_name", self.controller.name)
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config: RunnableConfig = {}
        if run_manager:
            manager = CallbackManager([], parent_run_id=run_manager.run_id)
            config["callbacks"] = _below(manager, run_manager)
        context = self._context(kwargs)
        state = self._graph.invoke({"messages": messages}, config, context=context)
        return self._result(state, stop, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config: RunnableConfig = {}
        if run_manager:
            manager = AsyncCallbackManager([], parent_run_id=run_manager.run_id)
            config["callbacks"] = _below(manager, run_manager)
        context = self._context(kwargs)
        state = await self._graph.ainvoke({"messages": messages}, config, context=context)
        return self._result(state, stop, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(self._generate(messages, stop, run_manager, **kwargs)):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(await self._agenerate(messages, stop, run_manager, **kwargs)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _result(
        self,
        state: Mapping[str, Any],
        stop: Sequence[str] | None,
        max_tokens: int | None = None,
        **_: Any,
    ) -> ChatResult:
        """Turn what the graph hands back into LangChain's result."""
        if state["stop_reason"] == StopReason.CONTROLLER_ERROR and not state["answer"]:
            raise ControllerError(f"controller {self.controller.name} failed: {state['error']}")
        whole = text = str(state["messages"][-1].text)
        for mark in stop or self.stop or ():
            whole = text = text.partition(mark)[0]
        if limit := max_tokens or self.max_tokens:
            text = cut(text, limit)
        totals = total(state["ledger"])
        usage = UsageMetadata(
            input_tokens=totals["input_tokens"],
            output_tokens=totals["output_tokens"],
            total_tokens=totals["input_tokens"] + totals["output_tokens"],
        )
        metadata = {
            "model_name": "router-r1",
            "finish_reason": "stop" if text == whole else "length",
            "stop_reason": state["stop_reason"],
            "rounds": state["round"],
            **totals,
            "candidates": state["ledger"]["candidates"],
        }
        message = AIMessage(text, usage_metadata=usage, response_metadata=metadata)
        return ChatResult(generations=[ChatGeneration(message=message)])


def words(text: str) -> list[str]:
    """Cut a text into words, each with the space after it."""
    return re.findall(r"\s*\S+\s*", text)


_Manager = TypeVar("_Manager", CallbackManager, AsyncCallbackManager)


def _below(
    manager: _Manager, run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun
) -> _Manager:
    """Hang what runs inside below the chat model's own run; LangChain does it for chains only."""
    manager.set_handlers(run.inheritable_handlers)
    manager.add_tags(run.inheritable_tags)
    manager.add_metadata(run.inheritable_metadata)
    return manager


def _chunks(result: ChatResult) -> list[ChatGenerationChunk]:
    """Cut a result into words; the last chunk has the bill."""
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    pieces = words(str(message.text)) or [""]
    chunks = [AIMessageChunk(content=piece) for piece in pieces]
    chunks[-1] = AIMessageChunk(
        content=pieces[-1],
        usage_metadata=message.usage_metadata,
        response_metadata=message.response_metadata,
        chunk_position="last",
    )
    return [ChatGenerationChunk(message=chunk) for chunk in chunks]
