"""The section `data` of a config: questions, the held-out ones, pools, cost weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from .sections import Count, Section, Share

Value = str | int | float | bool
SHIPPED = Path(__file__).parent / "data"
"""Questions that come with this program."""


class VaryConfig(Section):
    """How often the candidates of a pool file are varied, so that descriptors have to be read.

    Each is a share of the questions that are trained on. Held-out questions have the pool as its
    file says, and `drawn` pools differ in names, prices, number and order anyway.
    """

    names: Share = 0.0
    """Newly drawn names, which cannot be memorised."""
    model_ids: Share = 0.0
    """Of the newly drawn names: those like `vond/skiora-2.5-72b-instruct`, as models are called."""
    prices: Share = 0.0
    """Newly drawn prices of recorded and simulated candidates, from an eighth to eight times their
    own. Costs follow. The prices of real endpoints are never redrawn."""
    subset: Share = 0.0
    """Some of the candidates only, at least two."""
    order: Share = 0.0
    """Another order."""
    subjects: Share = 0.0
    """Of drawn pools: domains under other names, and strengths without scores."""


#: Lower seeds are reserved for measurements on facts that were never trained on.
_FIRST_WORLD = 1000


class DataConfig(Section):
    """Questions, pools and cost weights."""

    source: Literal["world", "files", "hub"] = "world"
    """The source of questions: simulated worlds, `files`, or data sets of the Hugging Face
    `hub`."""
    files: tuple[Path, ...] = ()
    """JSONL with question and golden_answers (FlashRAG's schema), for source `files`."""
    hub: tuple[str, ...] = ()
    """NAME/CONFIG:SPLIT of data sets, such as RUC-NLPIR/FlashRAG_datasets/nq:train."""
    per_source: Annotated[int, Field(ge=0)] = 0
    """Questions to train on, drawn from each file or data set; 0 = all."""
    where: dict[str, Value] = Field(default_factory=dict)
    """Only rows with these values are trained on, such as {split: train}."""
    fields: dict[Literal["question", "gold", "id"], str] = Field(default_factory=dict)
    """The files' names for question, gold and id, where they are unusual."""
    eval_files: tuple[Path, ...] = ()
    """Files of held-out questions."""
    eval_hub: tuple[str, ...] = ()
    """Data sets of held-out questions."""
    eval_where: dict[str, Value] = Field(default_factory=dict)
    """Only rows with these values are held out: of the files and data sets above, else of those
    that are trained on."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The share of the questions that is held out if no `eval_files`, `eval_hub` or `eval_where` is
    set: by a hash of the text, so the same questions in every run."""
    pools: Annotated[tuple[str, ...], Field(min_length=1)] = ("drawn",)
    """Pool files, one drawn for each question; `drawn` = newly drawn simulated candidates."""
    vary: VaryConfig = VaryConfig()
    worlds: Annotated[int, Field(ge=0)] = 0
    """The number of worlds that the questions are about, for source `world`. Each is the embedded
    world with its objects permuted, so that answers cannot be memorised. 0 = the embedded world
    itself."""
    facts: tuple[str, ...] = ()
    """Files that the questions are about in equal parts, for source `world`: CSV files of facts,
    and JSONL files of questions with their sub-questions. `embedded` = the embedded world,
    `permuted:SEED` = that one with its objects permuted, `decomposed` = questions about everything
    else, which come with this program. () = the embedded world alone, or `worlds` permuted ones."""
    nothing_to_route: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """For source `world`: the share of prompts that cannot be answered by facts, such as
    arithmetic, small talk, code and other languages."""
    wordings: dict[Literal["known", "free"], Share] = Field(default_factory=lambda: {"known": 1.0})
    """Of worlds of facts: the shares of questions in the grammar's forms and in free wording."""
    every_kind: bool = False
    """Whether free wordings ask questions of every kind: with details and false premises, without
    an answer, two at once."""
    hops: tuple[Annotated[int, Field(ge=1, le=4)], ...] = ()
    """The numbers of hops of questions about facts, in equal parts; () = 1 to 4."""
    pool_sizes: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (
        *(4, 5, 6, 7, 8, 8),
    )
    """The numbers of candidates of drawn pools."""
    cost_weights: Annotated[tuple[Share, ...], Field(min_length=1)] = (
        *(0, 0.1, 0.2, 0.25, 0.3, 0.4),
        *(0.5, 0.6, 0.7, 0.75, 0.8, 0.9),
    )
    """The cost weights; one of them is drawn for each question."""
    max_rounds: Annotated[tuple[Count, ...], Field(min_length=1)] = (4,)
    """One of them is drawn for each question, like the cost weight."""

    _need_gold: bool = PrivateAttr(default=True)

    @property
    def need_gold(self) -> bool:
        """Whether a row without gold answers is broken."""
        return self._need_gold

    def without_gold(self) -> DataConfig:
        """Return the same for a run whose reward needs no gold answers."""
        copy = self.model_copy()
        copy._need_gold = False
        return copy

    def world_names(self) -> list[str | None]:
        """Return the name of each world as an option (`options: facts:`).

        None = the embedded world; the list is empty if it is the only one.
        """
        if self.facts:
            known = {"embedded": None, "decomposed": str(SHIPPED / "decomposed.jsonl")}
            return [known.get(name, name) for name in self.facts]
        return [f"permuted:{_FIRST_WORLD + number}" for number in range(self.worlds)]

    @property
    def split_by_hash(self) -> bool:
        """Whether a hash says which questions are held out."""
        return not (self.eval_files or self.eval_hub or self.eval_where)

    @model_validator(mode="before")
    @classmethod
    def _under_its_old_name(cls, given: Any) -> Any:
        """`vary.names` was `renamed`."""
        if not isinstance(given, dict) or "renamed" not in given:
            return given
        others = {name: value for name, value in given.items() if name != "renamed"}
        return {**others, "vary": {"names": given["renamed"], **others.get("vary", {})}}

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.source == "files" and not self.files:
            raise ValueError("data.source is files, and data.files names none")
        if self.source == "hub" and not self.hub:
            raise ValueError("data.source is hub, and data.hub names no data set")
        if self.source == "world" and not self.split_by_hash:
            raise ValueError(
                "eval_files, eval_hub and eval_where are for questions of files and data sets, and "
                "source is world; set source to files or hub"
            )
        if self.source != "world" and self.worlds:
            raise ValueError("data.worlds is for source world")
        if self.facts and (self.worlds or self.source != "world"):
            raise ValueError("data.facts is for source world, and takes the place of data.worlds")
        if self.source != "world" and "drawn" in self.pools:
            raise ValueError("drawn pools know the embedded world only; set data.pools to files")
        if self.eval_where and not (self.where or self.eval_files or self.eval_hub):
            raise ValueError(
                "eval_where says which rows are held out, and nothing says which are trained on; "
                "set where, such as {split: train}"
            )
        return self
