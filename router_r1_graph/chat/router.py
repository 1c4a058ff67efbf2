"""The router as a LangChain chat model: it works wherever a chat model is expected.

Controllers that stream their turns (a policy, or a chat model by tags) stream the answer as they
write it, unless the answer is to be cut. In all other cases, the finished answer is streamed word
by word. Streamed text cannot be withdrawn: if the run then takes another answer, because the turn
was cut short or is no answer after all, the stream ends in a `ControllerError`. An answer that is
asked for in a form (tool calls, JSON) is streamed when it has that form.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langgraph.types import StreamMode
from pydantic import Field

from .._streams import aeach_apart, apart, each_apart, unheard
from ..budget import StopReason
from ..candidates.in_time import in_a_thread
from ..context import RouterContext
from ..errors import ControllerError
from ..langsmith import runs
from ..ledger import total
from .answer_stream import AnswerStream
from .built import KNOBS as KNOBS
from .built import BuiltRouter
from .form_options import OPTIONS, form_of
from .formatter import Formatting
from .result import free, result_of


class ChatRouterR1(BuiltRouter):
    """A chat model that asks other models: the compiled router behind LangChain's interface.

    The question is the last human message. Earlier messages are passed on, except for tool calls.
    The settings are those of `RouterContext`; each may also be given for one call:
    `model.invoke(question, budget_usd=0.01)`, `model.bind(cost_weight=0.9)`.

    `usage_metadata` counts the tokens of the candidates and the controller together;
    `response_metadata` holds `cost_usd`, `calls`, `stop_reason`, `rounds` and the other totals of
    the ledger, and `candidates`: name -> its line of the ledger. Callbacks see the models inside
    too, under their own names: to add up usage, count either these or the router, not both.

    With `bind_tools`, `with_structured_output`, or OpenAI's `response_format`, the question is
    routed as usual. Then the formatter writes the answer as a tool call or as JSON, and its call is
    on the bill too. The caller runs the tools, as `create_agent` does. When it passes their
    results, the question is not routed again: the formatter goes on.

    Attributes:
        pool: the candidates; a `CandidatePool`, a pool file, or the name of a shipped pool.
        controller: as for `create_router_r1`; None = the pool's controller block if
            there is one, else `keyword`.
        models: chat models for the named candidates; see `create_router_r1`.
        replies: where replies are kept, so that the same call is paid once: a `ReplyStore`, or its
            file.
        formatter: gives an answer in the asked form: a candidate that can call tools, or
            `controller`; None = the controller if it is a chat model, else the cheapest candidate
            that is a model.
        stop: texts before which the answer is cut off.
        max_tokens: about how many tokens of the answer are returned at most. The settings limit the
            cost of the run. May be given for one call too.
        streaming: whether `invoke` goes through the stream, as in other chat models of LangChain.

    Raises:
        PoolError: the pool cannot be read or asked.
        ControllerError: the controller cannot be built; on a call, it failed before any reply
            came; in a stream, the streamed text was not the beginning of the final answer.
        ConfigError: a field is unknown, or a setting is out of range; on a call, a form cannot be
            understood or given.
        QuestionError: on a call, there is no human message with a text.

    Example:
        >>> model = ChatRouterR1(pool="embedded", controller="keyword", max_rounds=3)
        >>> message = model.invoke("Who wrote Hamlet?")
        >>> message.text, message.response_metadata["stop_reason"]
        ('William Shakespeare', 'answered')
    """

    stop: list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    streaming: bool = False

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with tools that it may ask to be called.

        Args:
            tools: functions, classes, LangChain tools, or dicts in OpenAI's form.
            tool_choice: `auto` (as None), `any` (or `required`), `none`, or the name of a tool.
            **kwargs: further options of each call, such as `parallel_tool_calls` and settings.

        Raises:
            ConfigError: a tool or the choice cannot be used, or the formatter cannot call tools.
        """
        options: dict[str, Any] = {"tools": list(tools), "tool_choice": tool_choice}
        if form := form_of({**kwargs, **options}):
            options["tools"] = list(form.tools)
            self._formatter().bound(form)
        return self.bind(**{k: v for k, v in options.items() if v is not None}, **kwargs)

    def _formatting(
        self, messages: list[BaseMessage], given: Mapping[str, Any]
    ) -> Formatting | None:
        """Return how the answer gets its form; None = it is a plain text."""
        form = form_of(given)
        if form is None or not messages:  # without a question there is no answer
            return None
        return Formatting(form, self._formatter(), messages, self._context(given))

    async def _aformatting(
        self, messages: list[BaseMessage], given: Mapping[str, Any]
    ) -> tuple[Formatting | None, RouterContext]:
        """Return the same, and the knobs for routing; tools and schemas are read in a thread."""

        def read() -> tuple[Formatting | None, RouterContext]:
            formatting = self._formatting(messages, given)
            return formatting, formatting.context if formatting else self._context(given)

        return await in_a_thread(read) if any(map(given.get, OPTIONS)) else read()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = unheard(runs.below(CallbackManager, run_manager))
        formatting = self._formatting(messages, kwargs)
        context = formatting.context if formatting else self._context(kwargs)
        if (state := formatting.routed if formatting else None) is None:
            with apart():
                state = self._compiled().invoke({"messages": messages}, config, context=context)
        state = self._checked(state)
        with apart():
            state = formatting.give(state, config) if formatting else state
        return self._result(state, stop, kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = unheard(runs.below(AsyncCallbackManager, run_manager))
        formatting, context = await self._aformatting(messages, kwargs)
        if (state := formatting.routed if formatting else None) is None:
            asked = {"messages": messages}
            with apart():
                state = await self._compiled().ainvoke(asked, config, context=context)
        state = self._checked(state)
        with apart():
            state = await formatting.agive(state, config) if formatting else state
        return self._result(state, stop, kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        answer = AnswerStream()
        if self._formatting(messages, kwargs):
            result = self._generate(messages, stop, run_manager, **kwargs)
        else:
            config = unheard(runs.below(CallbackManager, run_manager))
            context = self._context(kwargs)
            modes = self._modes(stop, **kwargs)
            parts = self._compiled().stream(
                {"messages": messages}, config, context=context, stream_mode=modes
            )
            for mode, part in each_apart(parts):
                for chunk in answer.heard(mode, part):
                    if run_manager:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
            result = self._result(self._checked(answer.state), stop, kwargs)
        for chunk in answer.rest(result):
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
        answer = AnswerStream()
        formatting, context = await self._aformatting(messages, kwargs)
        if formatting:
            result = await self._agenerate(messages, stop, run_manager, **kwargs)
        else:
            config = unheard(runs.below(AsyncCallbackManager, run_manager))
            modes = self._modes(stop, **kwargs)
            parts = self._compiled().astream(
                {"messages": messages}, config, context=context, stream_mode=modes
            )
            async for mode, part in aeach_apart(parts):
                for chunk in answer.heard(mode, part):
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
            result = self._result(self._checked(answer.state), stop, kwargs)
        for chunk in answer.rest(result):
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

    def _checked(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the output of the graph.

        Raises:
            ControllerError: the controller failed before anything was known.
        """
        if state["stop_reason"] == StopReason.CONTROLLER_ERROR and not state["answer"]:
            why = f"controller {self.controller.name} failed: {state['error']}"
            raise ControllerError(why, cost_usd=total(state["ledger"])["cost_usd"])
        return state

    def _result(
        self, state: Mapping[str, Any], stop: Sequence[str] | None, given: Mapping[str, Any]
    ) -> ChatResult:
        """Turn the output of the graph into LangChain's result; a text is cut as asked."""
        return result_of(state, stop or self.stop or (), given.get("max_tokens") or self.max_tokens)

    def _convert_cached_generations(self, cache_val: list[Generation]) -> list[ChatGeneration]:
        """Return an LLM cache's result, free of charge: LangChain zeroes only its own fields."""
        return [free(generation) for generation in super()._convert_cached_generations(cache_val)]
