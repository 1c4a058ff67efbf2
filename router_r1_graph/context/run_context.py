"""The knobs of one run; `given` reads them wherever a caller may give them.

Each knob is defined once, here. The command line, `ChatRouterR1`, the served request and the docs
are generated from these fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

from pydantic_core.core_schema import with_info_wrap_validator_function

from ..candidates import CandidatePool
from ..candidates.settings import AnswerStyle
from ..candidates.written_down import STORED
from ..errors import ConfigError, did_you_mean
from ..outside import MOST_OF_A_BUDGET, NO_LIMIT
from .knob import Knob, in_range, knows_what_it_names, named_by, require

CandidateContext = Literal["query", "question", "memory"]
"""What a candidate sees: its query; the question too; or earlier replies as well."""


@knows_what_it_names(lambda under: knobs_in(under, "context: router_r1"))
@dataclass(frozen=True)
class RouterContext:
    """The settings of one run. Pass it as `context=`, or pass a dict: both mean the same.

    The settings that it names override those that the graph was built with; the others stay. One
    that `dataclasses.replace` makes names all. The page Configuration describes each setting.

    Raises:
        ConfigError: a name is no setting, or a setting is out of range.
    """

    cost_weight: Annotated[
        float,
        Knob(
            "The paper's alpha: 0 = only the answer counts, 1 = only the cost.",
            high=1,
            cap="at least",
        ),
    ] = 0.5
    max_rounds: Annotated[
        int,
        Knob("Most rounds of calls; then the controller has to answer. 0 = at once.", high=1000),
    ] = 4
    max_calls_per_round: Annotated[
        int, Knob("Most calls in one round; further ones are refused.", low=1, high=1000)
    ] = 4
    budget_usd: Annotated[
        float | None,
        Knob(
            "Most USD that the run may cost, controller included; None = no limit.",
            high=MOST_OF_A_BUDGET,
        ),
    ] = None
    deadline_seconds: Annotated[
        float | None,
        Knob(
            "Most seconds that the run may take by the wall clock, from its start. Time spent "
            "waiting for a person (an interrupt) counts. None = no limit.",
            high=NO_LIMIT,
        ),
    ] = None
    answer_style: Annotated[
        AnswerStyle | None,
        Knob(
            "How the answer is written: short, in as few words as possible (the paper's), or full, "
            "as the user wants it. None = as the pool says, which is short by default.",
            cap="free",
        ),
    ] = None
    max_information_tokens: Annotated[
        int, Knob("Most tokens of each reply that the controller sees.", low=1, high=1_000_000)
    ] = 600
    max_conversation_tokens: Annotated[
        int,
        Knob(
            "Most tokens of the conversation before the question that the controller sees; the "
            "latest messages are taken first. 0 = the question alone.",
            high=10_000_000,
        ),
    ] = 2000
    candidate_context: Annotated[
        CandidateContext,
        Knob(
            "What a candidate sees. query: its query. question: the question as well. memory: also "
            "the earlier replies that share most words with the query and the candidate's "
            "strengths. Tools and retrievers see the query alone.",
            cap="fixed",
        ),
    ] = "query"
    memory_tokens: Annotated[
        int,
        Knob(
            "Most tokens of earlier replies that a candidate sees with candidate_context memory.",
            low=1,
            high=1_000_000,
        ),
    ] = 300
    keep: Annotated[
        str,
        Knob(
            "Which replies of a round the controller sees. all: each of them. vote: the majority "
            "reply to each query. summary:CANDIDATE: a summary that this candidate writes, billed "
            "as a call.",
            cap="fixed",
        ),
    ] = "all"
    approve_above_usd: Annotated[
        float | None,
        Knob(
            "A call that may cost more than this, or has no price, waits for a person's approval "
            "(a LangGraph interrupt, which needs a checkpointer). None = no call waits.",
            high=MOST_OF_A_BUDGET,
        ),
    ] = None
    explore: Annotated[
        float,
        Knob(
            "The share of calls, from 0 to 1, that go to a candidate drawn at random (among those "
            "that the budget allows) instead of the controller's choice. The trace keeps the "
            "probabilities, so that other controllers can be judged by it.",
            high=1,
        ),
    ] = 0.0
    temperature: Annotated[
        float | None,
        Knob("Sampling temperature of the controller; None = its own.", high=2, cap="free"),
    ] = None
    seed: Annotated[
        int,
        Knob(
            "Seed of all that a controller draws at random: choices, tokens.",
            low=-(2**63),  # no checkpoint holds more
            high=2**63 - 1,
            cap="free",
        ),
    ] = 0

    def __new__(cls, *args: Any, **given: Any) -> Self:
        """Remember what is named where a subclass has an `__init__` of its own, as dataclasses do.

        Raises:
            ConfigError: a name is no setting.
        """
        made = super().__new__(cls)
        if cls.__init__ is not RouterContext.__init__:
            object.__setattr__(made, "_named", named_by(cls.__init__, args, given))
        return made

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let Pydantic read a context as a graph does: with the same errors, and what it names."""
        own = dict(handler(source))  # says how it is written, and its JSON schema
        return with_info_wrap_validator_function(
            lambda given, _, info: (
                given
                if isinstance(given, cls)
                else cls(**in_range(knobs_in(given), knobs() if info.context == STORED else {}))
            ),
            own,
            ref=own.pop("ref", None),  # so that a second field of the kind is read so too
        )

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ConfigError: a setting is out of range; the message names it.
        """
        for name, (kind, knob, optional) in _checks().items():
            value = getattr(self, name)
            if kind is not str and not (value is None and optional):
                knob.check(name, kind, value)
        if self.answer_style is not None:
            require("answer_style is short or full", self.answer_style, get_args(AnswerStyle))
        policies = get_args(CandidateContext)
        says = f"candidate_context is one of {', '.join(policies)}"
        require(says, self.candidate_context, policies)
        if self.keep not in ("all", "vote") and not self.summarizer:
            near = did_you_mean(str(self.keep).partition(":")[0], ("all", "vote", "summary"))
            raise ConfigError(f"keep is all, vote, or summary:CANDIDATE, not {self.keep!r}{near}")

    def needs_approval(self, usd: float | None) -> bool:
        """Return whether a call of at most this price waits for a person; None = unknown."""
        limit = self.approve_above_usd
        return limit is not None and (usd is None or usd > limit)

    def check(self, pool: CandidatePool) -> None:
        """Check the settings that depend on the pool.

        Raises:
            ConfigError: `keep` names no candidate of the pool.
        """
        if self.summarizer and pool.find(self.summarizer) is None:
            raise ConfigError(f"keep: {pool.unknown(self.summarizer)}")

    @property
    def summarizer(self) -> str:
        """The name of the candidate that summarises each round; "" for none."""
        policy, _, name = str(self.keep).partition(":")
        return name.strip() if policy == "summary" else ""

    @property
    def given(self) -> dict[str, Any]:
        """The settings that its maker named.

        One that was read from a file or a state, or made by `dataclasses.replace`, names all. A
        subclass names those to which it gives other defaults.
        """
        held, named = vars(self), vars(self).get("_named", _defaults())
        if type(self) is RouterContext:
            return {name: held[name] for name in named}
        own = vars(type(self))
        return {name: held[name] for name in _defaults() if name in named or name in own}

    def over(self, known: RouterContext) -> RouterContext:
        """Return the settings that this one names, and for the others the known ones."""
        given = self.given
        if not given:
            return known
        if len(given) == len(_defaults()) or not known.given:
            return self
        return _restored(*{**known.to_state(), **given}.values())

    def to_state(self) -> dict[str, Any]:
        """Return the settings as a plain dict, as a run keeps them in its state."""
        held = vars(self)
        return {name: held[name] for name in _defaults()}

    @staticmethod
    def from_state(stored: Mapping[str, Any]) -> RouterContext:
        """Return the settings that a run keeps in its state; unknown ones are ignored.

        A number out of today's range is the nearest in it: an earlier release may have kept it.

        Raises:
            ConfigError: a setting cannot be read.
        """
        if stored.keys() == _defaults().keys():
            return _restored(*map(stored.get, _defaults()))
        return _restored(*(stored.get(name, default) for name, default in _defaults().items()))


def knobs_in(given: object, what: str = "context") -> dict[str, Any]:
    """Return the knobs that a context, a dict of them, or None (no knob) names.

    Args:
        given: what a caller gives.
        what: what it is called in the error.

    Raises:
        ConfigError: it is something else.
    """
    if given is None:
        return {}
    if isinstance(given, RouterContext):
        return given.given
    if isinstance(given, Mapping):
        return {name if isinstance(name, str) else repr(name): v for name, v in given.items()}
    raise ConfigError(
        f"{what} is a RouterContext or a dict of settings, not {type(given).__name__}"
    )


@lru_cache
def knobs() -> dict[str, tuple[Any, Knob]]:
    """Return every knob by name, with its type and its `Knob`."""
    hints = get_type_hints(RouterContext, include_extras=True)
    found = {}
    for field in fields(RouterContext):
        kind, knob = get_args(hints[field.name])[:2]
        found[field.name] = (kind, knob)
    return found


@lru_cache
def _defaults() -> dict[str, Any]:
    return {field.name: field.default for field in fields(RouterContext)}


@lru_cache
def _checks() -> dict[str, tuple[type, Knob, bool]]:
    """Return each knob's plain type (int, float or str), its `Knob`, and whether it may be None."""
    found: dict[str, tuple[type, Knob, bool]] = {}
    for name, (kind, knob) in knobs().items():
        parts = get_args(kind) or (kind,)
        plain = next((t for t in (int, float) if t in parts), str)
        found[name] = (plain, knob, type(None) in parts)
    return found


@lru_cache(maxsize=256)
def _restored(*values: Any) -> RouterContext:
    return RouterContext(**in_range(dict(zip(_defaults(), values, strict=True)), knobs()))
