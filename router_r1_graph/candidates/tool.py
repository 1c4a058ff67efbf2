"""A candidate as a LangChain tool, usable as it is in `ToolNode` and `create_agent`."""

# No `from __future__ import annotations`: LangChain reads the types of a tool's methods at every
# call, and would have to evaluate them anew.

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from langchain_core.messages import AnyMessage, SystemMessage
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.tools import BaseTool, InjectedToolArg
from pydantic import BaseModel, Field

from ..errors import ConfigError, PoolError
from ..invalid import show
from ..langsmith import runs
from .adapters import as_chat_model
from .askable import require_askable
from .bill import Bill, bill
from .call import aask, ask
from .candidate import QUERY, Candidate
from .given_pool import as_pool
from .images import with_images
from .pool import CandidatePool
from .providers import make_chat_model
from .reply import ChatModel, Reply, text_alone
from .store import ReplyStore, as_store
from .usage import NO_TOKENS

_Came = TypeVar("_Came")

CANDIDATE_TAG = "router_r1:candidate"
"""The tag of a candidate's runs in callbacks and traces."""


class CandidateInput(BaseModel):
    """The arguments of a candidate's tool."""

    query: str = Field(description=QUERY)
    background: Annotated[str, InjectedToolArg, Field(description="seen besides the query")] = ""
    images: Annotated[
        list[dict[str, Any]], InjectedToolArg, Field(description="image parts of the question")
    ] = Field(default_factory=list)
    seconds_left: Annotated[
        float | None, InjectedToolArg, Field(description="bound on all attempts together")
    ] = None


class CandidateTool(BaseTool):
    """Asks one candidate. The content is its reply; the artifact is the bill.

    The query is the human message, with the images of the question if the candidate takes them; a
    background, if there is one, is the system message.

    The artifact is a plain dict: candidate, ok, error (kind, message) or None, input_tokens,
    output_tokens, reasoning_tokens, cost_usd, seconds, attempts, cached, stored, saved_usd. A
    failed call returns such an artifact too, with the error as content; the tool does not raise.
    """

    name: str = ""
    description: str = ""
    args_schema: Any = CandidateInput
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    candidate: Candidate
    model: Any
    store: Any = Field(default=None, exclude=True)
    """A `ReplyStore`; None = every call is made."""

    def unchecked(self) -> Self:
        """Return the same tool for arguments of the right types, such as the router's own.

        LangChain reads all types of a schema twice at every call, to check the arguments and to
        leave the injected ones out of traces. Without a schema, it looks at those of `_run`, once.
        """
        return self.model_copy(update={"args_schema": None})

    def _run(
        self,
        query: str,
        config: RunnableConfig,
        background: Annotated[str, InjectedToolArg] = "",
        images: Annotated[Sequence[dict[str, Any]], InjectedToolArg] = (),
        seconds_left: Annotated[float | None, InjectedToolArg] = None,
    ) -> tuple[str, Bill]:
        reply = self._asked(ask, query, config, background, images, seconds_left)
        return self._billed(reply, background)

    # With plain types: LangChain reads them at every call, and what is nested takes long.
    async def _arun(
        self,
        query: str,
        config: RunnableConfig,
        background: str = "",
        images: Any = (),
        seconds_left: Any = None,
    ) -> Any:
        reply = await self._asked(aask, query, config, background, images, seconds_left)
        return self._billed(reply, background)

    def _asked(
        self,
        way: Callable[..., _Came],
        query: str,
        config: RunnableConfig,
        background: str,
        images: Sequence[dict[str, Any]],
        seconds_left: float | None,
    ) -> _Came:
        """Make the call by `ask` or `aask`."""
        return way(
            self.model,
            prompt_of(self.candidate, query, background=background, images=images),
            self.candidate,
            seconds_left=seconds_left,
            config=config,
            store=self.store,
        )

    def _billed(self, reply: Reply, background: str) -> tuple[str, Bill]:
        if notable := _notable(reply):
            runs.label(ensure_config(), CANDIDATE_TAG, **notable)
        if reply.stored:  # there is no model's run
            runs.label(ensure_config(), CANDIDATE_TAG, stored=True, saved_usd=reply.saved_usd)
        elif reply.message and reply.message.response_metadata.get(NO_TOKENS):
            # No model's run has the cost, so it goes to the tool's own run, whose config is
            # current.
            usage = {"total_cost": reply.cost_usd}
            runs.label(ensure_config(), CANDIDATE_TAG, usage_metadata=usage)
        text, billed = bill(self.candidate.name, text_alone(reply))
        if background:
            billed["background"] = background
        return text, billed


def _notable(reply: Reply) -> dict[str, Any]:
    """Return a trace's data on the attempts of a call, if there was more than one."""
    shown: dict[str, Any] = {
        "retries": max(0, reply.attempts - 1 - reply.hedges),
        "hedges": reply.hedges,
        "waited_seconds": round(reply.waited_seconds, 3),
        "uncertain_attempts": reply.uncertain_attempts,
        "uncertain_usd": reply.uncertain_usd,
        "circuit_open": reply.error is not None and reply.error.kind == "circuit_open",
    }
    return {name: value for name, value in shown.items() if value}


def prompt_of(
    candidate: Candidate,
    query: str,
    *,
    background: str = "",
    images: Sequence[dict[str, Any]] = (),
) -> list[AnyMessage]:
    """Return the prompt of a candidate: its system prompt and the background, then the query."""
    own = candidate.system_prompt if candidate.kind not in ("tool", "retriever") else ""
    told = "\n".join(filter(None, (own, background)))
    return [*([SystemMessage(told)] if told else []), with_images(query, images)]


def candidate_tool(
    candidate: Candidate,
    model: ChatModel | None = None,
    *,
    replies: ReplyStore | str | Path | None = None,
) -> CandidateTool:
    """Return the tool that asks this candidate.

    Args:
        candidate: the candidate to ask: an object, such as one of `pool.candidates`.
        model: a chat model, tool, retriever or graph to use instead of the one that the candidate's
            provider makes.
        replies: where replies are kept, to be paid once: a store, or its file. Those of a `model`
            that is given are not: nothing tells it apart from another.

    Raises:
        PoolError: it is no candidate, its provider cannot be used, or `model` cannot be asked.
        ConfigError: the file of replies cannot be used.
    """
    if not isinstance(candidate, Candidate):
        raise PoolError(
            f"candidate: a Candidate is wanted, such as pool.find('NAME'), not {show(candidate)}"
        )
    if model is not None:
        require_askable({candidate.name: model})
    return CandidateTool(
        name=candidate.slug,
        description=candidate.describe_tool(),
        candidate=candidate,
        model=make_chat_model(candidate) if model is None else as_chat_model(model),
        store=as_store(replies) if model is None else None,
        tags=[CANDIDATE_TAG],
        metadata={"candidate": candidate.name},
    )


def pool_tools(
    pool: CandidatePool | str | Path,
    models: Mapping[str, ChatModel] | None = None,
    *,
    replies: ReplyStore | str | Path | None = None,
) -> list[CandidateTool]:
    """Return one tool for each candidate of the pool, in order.

    Args:
        pool: the candidates: a `CandidatePool`, a pool file, or a shipped pool's name.
        models: chat models, tools, retrievers or graphs to use for the named candidates instead
            of those that their providers make; these candidates need no key.
        replies: see `candidate_tool`.

    Raises:
        ConfigError: the file of replies cannot be used.
        PoolError: a pool file or a provider cannot be used, a key variable is not set, or `models`
            names no candidate.
    """
    pool = as_pool(pool)
    given = pool.given_models(models)
    pool.require_keys(but=given)
    store = as_store(replies)
    try:
        return [
            candidate_tool(candidate, given.get(candidate.name), replies=store)
            for candidate in pool.candidates
        ]
    except ConfigError as error:  # of a provider, which does not know the file
        raise PoolError(f"{pool.where}: {error}") from None
