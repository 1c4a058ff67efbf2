"""The compiled router in the fields of a chat model: building, copies, pickles, cache keys."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from langchain_core.language_models import BaseChatModel, LangSmithParams
from langgraph.graph.state import CompiledStateGraph
from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SkipValidation,
    create_model,
    field_validator,
    model_validator,
)

from ..candidates import CandidatePool, as_pool
from ..candidates.reply import ChatModel
from ..candidates.store import as_store
from ..candidates.usage import estimate_tokens
from ..context import RouterContext, knobs
from ..controllers import Controller, as_controller
from ..errors import ConfigError, did_you_mean
from ..graph import create_router_r1
from .form_options import OPTIONS
from .formatter import Formatter, candidate_named, make_formatter

KNOBS = tuple(name for name in knobs() if name != "approve_above_usd")
"""The knobs of a chat model: all but the one that waits for a person, since it cannot wait."""


def _unknown(name: str) -> ConfigError:
    """Return the error about an argument that is no field of the chat model."""
    if name in knobs():
        return ConfigError(f"ChatRouterR1 takes no {name!r}: no person can approve a call here")
    near = did_you_mean(name, KNOBS)
    return ConfigError(f"ChatRouterR1 takes no {name!r}{near}; allowed: {', '.join(KNOBS)}")


if TYPE_CHECKING:
    _WithKnobs = BaseChatModel
else:  # one field for each knob, with its default
    _WithKnobs = create_model(
        "_WithKnobs",
        __base__=BaseChatModel,
        __module__=__name__,
        **{
            name: (
                SkipValidation[kind],  # `RouterContext` checks it, as everywhere
                Field(default=getattr(RouterContext, name), description=knob.help),
            )
            for name, (kind, knob) in knobs().items()
            if name in KNOBS
        },
    )


class BuiltRouter(_WithKnobs):
    """A chat model with a compiled router in it; `ChatRouterR1` documents the fields."""

    model_config = ConfigDict(extra="forbid")

    pool: CandidatePool = Field(default_factory=CandidatePool.embedded)
    controller: Any = None
    models: Mapping[str, ChatModel] | None = Field(default=None, exclude=True)
    replies: Any = Field(default=None, exclude=True)
    formatter: str | None = None
    _graph: CompiledStateGraph[Any, RouterContext, Any, Any] = PrivateAttr()
    _made_of: tuple[object, ...] = PrivateAttr(default=())
    """The values that the graph was built from; the fields may have changed since."""
    _specs: dict[str, Any] = PrivateAttr(default_factory=dict)
    """The values of fields before objects were built from them; a pickle keeps these."""
    _mark: str = PrivateAttr(default="")
    """Tells objects that were given apart from any others, in the key of an LLM cache."""

    @field_validator("pool", mode="before")
    @classmethod
    def _read_pool(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else as_pool(value)  # as `model_dump` writes it

    @model_validator(mode="before")
    @classmethod
    def _know_fields(cls, values: Any) -> Any:
        cls._require_fields(values if isinstance(values, dict) else ())
        return values

    @classmethod
    def _require_fields(cls, names: Iterable[str]) -> None:
        for name in names:
            if name not in cls.model_fields:
                raise _unknown(name)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values of some fields.

        Raises:
            ConfigError: there is no such field.
        """
        self._require_fields(update or ())
        return super().model_copy(update=update, deep=deep)

    @model_validator(mode="after")
    def _build(self) -> Self:
        self._compiled()
        self._context({})
        candidate_named(self.formatter, self.pool)
        return self

    def _compiled(self) -> CompiledStateGraph[Any, RouterContext, Any, Any]:
        """Return the graph over the pool, controller, models and store that the model has now."""
        made_of = (self.pool, self.controller, self.models, self.replies)
        if len(self._made_of) != 4 or any(
            a is not b for a, b in zip(made_of, self._made_of, strict=True)
        ):
            self.pool = self._read_pool(self.pool)  # an assigned one may be a name
            self._build_objects()
            graph = create_router_r1(
                self.pool, self.controller, models=self.models, replies=self.replies
            )
            # No checkpoints: inside another graph too, a chat model remembers nothing.
            self._graph = graph.compile(checkpointer=False, name="router_r1")
            self._made_of = (self.pool, self.controller, self.models, self.replies)
        return self._graph

    def _build_objects(self) -> None:
        """Build the controller and the store, where they are not objects yet."""
        given: dict[str, Any] = {"controller": self.controller, "replies": self.replies}
        _, controller, _, replies = self._made_of or (None,) * 4
        built = {"controller": controller, "replies": replies}
        for name, value in given.items():
            if value is None or isinstance(value, str | Path):
                self._specs[name] = value
            elif value is not built[name]:
                self._specs.pop(name, None)
        objects = self.models or "controller" not in self._specs
        self._mark = uuid.uuid4().hex if objects else ""
        self.controller = as_controller(self.controller, self.pool)
        self.replies = as_store(self.replies)

    def __getstate__(self) -> dict[Any, Any]:
        """Return what a pickle keeps: the fields. The graph is built again from them."""
        state = super().__getstate__()
        private = {"_made_of": (), "_specs": {}, "_mark": ""}
        fields = {**state["__dict__"], **self._specs}
        return {**state, "__dict__": fields, "__pydantic_private__": private}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that asks the same objects: models, a controller, a store of replies."""
        shared = {"pool", "controller", "models", "replies"}
        fields = type(self).model_fields.keys() - shared  # not what is cached beside them
        own = {name: deepcopy(getattr(self, name), memo) for name in fields}
        return self.model_copy(update=own)

    def _context(self, given: Mapping[str, Any]) -> RouterContext:
        """Return the knobs of a call: the given ones over the model's own."""
        for name in given:
            # "stream" is LangChain's own; a form's options are read by `form_of`.
            if name not in (*KNOBS, *OPTIONS, "max_tokens", "stream"):
                raise _unknown(name)
        own = RouterContext(**{name: getattr(self, name) for name in KNOBS})
        context = replace(own, **{name: given[name] for name in KNOBS if name in given})
        context.check(self.pool)
        return context

    def get_num_tokens(self, text: str) -> int:
        """Estimate how many tokens a text has: 4 bytes each, since each model has its own."""
        return estimate_tokens(text)

    @property
    def _llm_type(self) -> str:
        return "router-r1"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        self._compiled()
        who: Controller = self.controller
        candidates = [c.name for c in self.pool.candidates]
        names = (*KNOBS, "formatter", "stop", "max_tokens")
        ours = {name: getattr(self, name) for name in names}
        # An LLM cache goes by these: pools of the same names are not the same pool.
        settings = self.pool.model_dump_json() + self._mark
        made_of = hashlib.sha256(settings.encode(errors="replace")).hexdigest()[:16]
        return {
            "pool": self.pool.name,
            "candidates": candidates,
            "controller": who.name,
            **ours,
            "made_of": made_of,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop, **kwargs)
        self._compiled()
        params["ls_provider"] = "router_r1"
        params.setdefault("ls_model_name", self.controller.name)
        return params

    def _formatter(self) -> Formatter:
        self._compiled()
        return make_formatter(self.formatter, self.pool, self.controller, self.models, self.replies)
