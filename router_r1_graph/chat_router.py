"""The router as a LangChain chat model: it works wherever a chat model is expected.

Controllers that stream their turns (a policy, or a chat model by tags) stream the answer as they
write it, unless the answer is to be cut. In all other cases, the finished answer is streamed word
by word. Streamed text cannot be withdrawn: if the run then takes another answer, because the turn
was cut short or is no answer after all, the stream ends in a `ControllerError`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StreamMode
from pydantic import ConfigDict, Field, PrivateAttr, create_model, field_validator, model_validator

from .budget import StopReason
from .candidates import CandidatePool
from .candidates.reply import ChatModel, writable
from .candidates.store import as_store
from .context import RouterContext, knobs
from .controllers import Controller, as_controller
from .controllers.policy.streaming import Increments
from .errors import ConfigError, ControllerError, did_you_mean
from .graph import create_router_r1
from .ledger import total
from .protocol import answer_so_far, cut

KNOBS = tuple(name for name in knobs() if name != "approve_above_usd")
"""The knobs of a chat model: all but the one that waits for a person, since it cannot wait."""

if TYPE_CHECKING:
    _WithKnobs = BaseChatModel
else:  # one field for each knob, with its default
    _WithKnobs = create_model(
        "_WithKnobs",
        __base__=BaseChatModel,
        __module__=__name__,
        **{
            name: (kind, Field(default=getattr(RouterContext, name), description=knob.help))
            for name, (kind, knob) in knobs().items()
            if name in KNOBS
        },
    )


class ChatRouterR1(_WithKnobs):
    """A chat model that asks other models: the compiled router behind LangChain's interface.

    The question is the last human message. Earlier messages go along, except for tool calls. The
    knobs are those of `RouterContext`; each may also be given for one
    call: `model.invoke(question, budget_usd=0.01)`, `model.bind(cost_weight=0.9)`.

    `usage_metadata` counts the tokens of the candidates and the controller together;
    `response_metadata` holds `cost_usd`, `calls`, `stop_reason`, `rounds` and the other totals of
    the ledger, and `candidates`: name -> its line of the ledger. Callbacks see the models inside
    too, under their own names: to add up usage, count either these or the router, not both.

    Attributes:
        pool: the candidates; a `CandidatePool`, a pool file, or the name of a shipped pool.
        controller: whatever `create_router_r1` takes; None = the pool's controller block where
            there is one, else `keyword`.
        models: chat models for the named candidates; see `create_router_r1`.
        replies: where replies are kept, so that the same call is paid once: a `ReplyStore`, or its
            file.
        stop: texts before which the answer is cut off.
        max_tokens: about how many tokens of the answer are returned at most. The knobs limit the
            cost of the run. May be given for one call too.
        streaming: whether `invoke` goes through the stream, as in other chat models of LangChain.

    Raises:
        PoolError: the pool cannot be read or asked.
        ControllerError: the controller cannot be built; on a call, it failed before anything was
            known; in a stream, the answer that had begun was not the one taken.
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
    replies: Any = Field(default=None, exclude=True)
    stop: list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    streaming: bool = False

    _graph: CompiledStateGraph[Any, RouterContext, Any, Any] = PrivateAttr()
    _made_of: tuple[object, ...] = PrivateAttr(default=())
    """What the graph was made of; a copy or an assignment may have changed these fields since."""

    @field_validator("pool", mode="before")
    @classmethod
    def _read_pool(cls, value: Any) -> Any:
        return CandidatePool.from_yaml(value) if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _build(self) -> ChatRouterR1:
        self._compiled()
        self._context({})
        return self

    def _compiled(self) -> CompiledStateGraph[Any, RouterContext, Any, Any]:
        """Return the graph over the pool, controller, models and store that the model has now."""
        made_of = (self.pool, self.controller, self.models, self.replies)
        if len(self._made_of) != 4 or any(
            a is not b for a, b in zip(made_of, self._made_of, strict=True)
        ):
            self.pool = self._read_pool(self.pool)  # an assigned one may be a name
            self.controller = as_controller(self.controller, self.pool)
            self.replies = as_store(self.replies)
            graph = create_router_r1(
                self.pool, self.controller, models=self.models, replies=self.replies
            )
            # No checkpoints: inside another graph too, a chat model remembers nothing.
            self._graph = graph.compile(checkpointer=False, name="router_r1")
            self._made_of = (self.pool, self.controller, self.models, self.replies)
        return self._graph

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
        self._compiled()
        who: Controller = self.controller
        candidates = [c.name for c in self.pool.candidates]
        ours = {name: getattr(self, name) for name in KNOBS}
        return {"pool": self.pool.name, "candidates": candidates, "controller": who.name, **ours}

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
        config, context = _below(CallbackManager, run_manager), self._context(kwargs)
        state = self._compiled().invoke({"messages": messages}, config, context=context)
        return self._result(state, stop, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config, context = _below(AsyncCallbackManager, run_manager), self._context(kwargs)
        state = await self._compiled().ainvoke({"messages": messages}, config, context=context)
        return self._result(state, stop, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        config, context = _below(CallbackManager, run_manager), self._context(kwargs)
        modes = self._modes(stop, **kwargs)
        parts = self._compiled().stream(
            {"messages": messages}, config, context=context, stream_mode=modes
        )
        answer = _AnswerStream()
        for mode, part in parts:
            for chunk in answer.heard(mode, part):
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        for chunk in answer.rest(self._result(answer.state, stop, **kwargs)):
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
        config, context = _below(AsyncCallbackManager, run_manager), self._context(kwargs)
        modes = self._modes(stop, **kwargs)
        parts = self._compiled().astream(
            {"messages": messages}, config, context=context, stream_mode=modes
        )
        answer = _AnswerStream()
        async for mode, part in parts:
            for chunk in answer.heard(mode, part):
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        for chunk in answer.rest(self._result(answer.state, stop, **kwargs)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _modes(
        self, stop: Sequence[str] | None, max_tokens: int | None = None, **_: Any
    ) -> list[StreamMode]:
        """Return the graph's stream modes to use: its tokens only where they are passed on."""
        is_cut = stop or self.stop or max_tokens or self.max_tokens
        streams = getattr(self.controller, "streams_turns", False)
        return ["values", "messages"] if streams and not is_cut else ["values"]

    def _result(
        self,
        state: Mapping[str, Any],
        stop: Sequence[str] | None,
        max_tokens: int | None = None,
        **_: Any,
    ) -> ChatResult:
        """Turn the output of the graph into LangChain's result."""
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
    manager: type[_Manager], run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None
) -> RunnableConfig:
    """Make inner runs children of the chat model's own run; LangChain does that for chains only."""
    if run is None:
        return {}
    inside = manager([], parent_run_id=run.run_id)
    inside.set_handlers(run.inheritable_handlers)
    inside.add_tags(run.inheritable_tags)
    inside.add_metadata(run.inheritable_metadata)
    return {"callbacks": inside}


@dataclass
class _AnswerStream:
    """A run's answer, taken from the graph's stream while it is written."""

    state: Mapping[str, Any] = field(default_factory=dict)
    """The latest state."""
    _told: Increments = field(default_factory=Increments)
    _turn: str = ""
    _id: str | None = None

    def heard(self, mode: str, part: Any) -> Iterator[ChatGenerationChunk]:
        """Take one part of the graph's stream; yield the new part of the answer."""
        if mode == "values":
            self.state = part
        elif text := self._told.rest(answer_so_far(self._heard(*part))):
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))

    def _heard(self, message: AnyMessage, metadata: Mapping[str, Any]) -> str:
        """Return the controller's turn as far as it is written."""
        # A candidate that is a router too has a controller of its own, below a route.
        ours = metadata["langgraph_node"] == "think" and "candidate" not in metadata
        if not (ours and isinstance(message, AIMessageChunk)):
            return ""
        if message.id != self._id:  # the next turn, or another attempt at this one
            self._id, self._turn = message.id, ""
        self._turn += str(message.text)
        return writable(self._turn)

    def rest(self, result: ChatResult) -> Iterator[ChatGenerationChunk]:
        """Yield the rest of the answer, word by word; the last chunk has the bill.

        Raises:
            ControllerError: the answer does not begin with the text that was streamed.
        """
        message = result.generations[0].message
        assert isinstance(message, AIMessage)
        told, answer = self._told.told, str(message.text)
        if not answer.startswith(told):
            raise ControllerError(
                "the answer that was being streamed is not the one taken (stop reason: "
                f"{message.response_metadata['stop_reason']}); ask again, or without a stream"
            )
        *first, last = words(answer[len(told) :]) or [""]
        for word in first:
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        chunk = AIMessageChunk(
            content=last,
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=chunk)
