"""A pool: the candidates on offer, and its YAML file."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..errors import PoolError, did_you_mean
from ..files import has_file
from ..outside import plain_name
from .askable import require_askable
from .candidate import Candidate
from .pool_file import beside, explain, read_mapping
from .resilience.settings import NEAREST, PoolResilience
from .settings import AnswerStyle, ControllerSettings
from .written_down import STORED, WrittenDown

_Model = TypeVar("_Model")


class CandidatePool(WrittenDown):
    """The candidates on offer, in order, and optionally the controller that chooses among them.

    Raises:
        ValidationError: a value is not allowed, two candidates share a name, or a fallback is no
            other candidate of the pool.

    Example:
        >>> pool = CandidatePool.embedded()
        >>> pool.find(pool.candidates[0].name.upper()) == pool.candidates[0]
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = "pool"
    """The name of the pool in traces and reports."""
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    """The candidates; the fields of each are below."""
    controller: ControllerSettings | None = None
    """The LLM that decides; None = the default controller decides."""
    answer_style: AnswerStyle = "short"
    """The style of answers, unless a run sets it: `short`, the paper's, or `full`."""
    resilience: PoolResilience | None = None
    """Time-outs, retries, limits and fallback of the candidates that do not say otherwise."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_all(cls, data: Any) -> Any:
        """Give the candidates the values of the `resilience:` block that they do not set."""
        if not isinstance(data, Mapping) or not data.get("resilience"):
            return data
        try:
            block = PoolResilience.model_validate(data["resilience"])
        except ValidationError:
            return data  # its own field says what is wrong
        defaults = {name: getattr(block, name) for name in block.model_fields_set}
        candidates = data.get("candidates")
        if not isinstance(candidates, list | tuple):
            return data
        return {**data, "candidates": [_with_defaults(c, defaults) for c in candidates]}

    @field_validator("name")
    @classmethod
    def _a_plain_name(cls, value: str) -> str:
        return plain_name(value)

    @model_validator(mode="after")
    def _names_are_unique(self) -> CandidatePool:
        owner: dict[str, str] = {}
        for candidate in self.candidates:
            names = {n.casefold() for n in (candidate.name, candidate.slug, *candidate.aliases)}
            for name in sorted(names):
                if name in owner:
                    raise ValueError(
                        f"the name {name!r} (name, alias or tool name of {candidate.name!r}) "
                        f"belongs to {owner[name]!r} already"
                    )
                owner[name] = candidate.name
        return self

    @model_validator(mode="after")
    def _fallbacks_are_others(self, info: ValidationInfo) -> CandidatePool:
        for candidate in self.candidates if info.context != STORED else ():
            name = candidate.fallback
            if name in (None, NEAREST):
                continue
            if (other := self.find(name)) is None:
                why = f"{self.unknown(name)}, or {NEAREST}"
                raise ValueError(f"fallback of {candidate.name!r}: {why}")
            # The block of all may name one of them, which then has none itself.
            of_all = self.resilience and self.resilience.fallback == name
            if other is candidate and not of_all:
                raise ValueError(f"{candidate.name!r} cannot be its own fallback")
        return self

    _file: Path | None = PrivateAttr(default=None)

    @property
    def where(self) -> str:
        """Where the pool comes from, for messages: its file, else its name."""
        return str(self._file) if self._file else f"pool {self.name!r}"

    @cached_property
    def _by_name(self) -> dict[str, Candidate]:
        return {
            name.casefold(): candidate
            for candidate in self.candidates
            for name in (candidate.name, candidate.slug, *candidate.aliases)
        }

    @cached_property
    def nearest(self) -> dict[str, Candidate | None]:
        """The fallbacks that `resilience.fallback` has looked for, by the names of candidates."""
        return {}

    @classmethod
    def embedded(cls) -> CandidatePool:
        """Return the shipped pool of simulated candidates: no key, no network."""
        return cls.from_yaml("embedded")

    @classmethod
    def from_yaml(cls, path: str | Path) -> CandidatePool:
        """Read a pool file, or one of the shipped pools by name.

        Args:
            path: a YAML file, or the name of a shipped pool (`embedded`, `embedded_unseen`,
                `router_r1`).

        Raises:
            PoolError: the file is missing, is not YAML, or holds a value that is not allowed; the
                message names file, key, value and what is allowed. Or this is no path.
        """
        file, data = read_mapping(path)
        data.setdefault("name", file.stem)
        beside(file, data)
        try:
            pool = cls.model_validate(data)
        except ValidationError as error:
            raise PoolError(f"{file}: {explain(error, data, _MODELS)}") from None
        template = pool.controller and pool.controller.prompt_template
        if template and not has_file(template := file.parent / template):
            raise PoolError(f"{file}: controller.prompt_template: no such file {str(template)!r}")
        if pool.controller and template:
            controller = pool.controller.model_copy(update={"prompt_template": template})
            pool = pool.model_copy(update={"controller": controller})
        pool._file = file
        for settings in (*pool.candidates, *filter(None, [pool.controller])):
            settings.__dict__["folder"] = file.parent
        return pool

    @property
    def by_price(self) -> list[Candidate]:
        """The candidates from cheap to expensive; equal prices keep the pool's order."""
        return sorted(self.candidates, key=lambda c: c.price_usd_per_mtok)

    def describe_briefly(self) -> str:
        """Return the descriptors for a small policy: each subject's candidates, price level, score.

        The cheapest comes first in each line, for any order of the pool.

        Example:
            >>> print(CandidatePool.embedded().describe_briefly().splitlines()[0])
            science: Vantegro 2 9
        """
        subjects: dict[str, list[str]] = {}
        for candidate in self.by_price:
            level = f"{candidate.name} {candidate.price_level}"
            for subject, score in candidate.score_levels.items():
                subjects.setdefault(subject, []).append(f"{level} {score}")
            if not candidate.benchmarks:
                subjects.setdefault("all", []).append(level)
        if "all" in subjects:
            subjects["all"] = subjects.pop("all")  # comes last
        return "\n".join(f"{subject}: {', '.join(who)}" for subject, who in subjects.items())

    def descriptors(self) -> CandidatePool:
        """Return the pool without its candidates' connections: safe to store and to show."""
        access: dict[str, Any] = {
            **{"base_url": None, "api_key_env": None, "options": {}, "limits_store": None},
            "fallback": None,
        }
        candidates = tuple(c.model_copy(update=access) for c in self.candidates)
        for candidate in candidates:
            candidate.__dict__.pop("folder", None)
        gone = {"candidates": candidates, "controller": None, "resilience": None}
        pool = self._changed(gone)
        pool._file = None
        return pool

    def told(self, system_prompt: str) -> CandidatePool:
        """Return the pool with a system prompt for each candidate that has none of its own."""
        return self.with_candidates(
            c if c.system_prompt else c.model_copy(update={"system_prompt": system_prompt})
            for c in self.candidates
        )

    def with_candidates(self, candidates: Iterable[Candidate]) -> CandidatePool:
        """Return the pool with some of its candidates, or with others of its candidates' kind.

        A fallback that is none of them is dropped.
        """
        return self._changed({"candidates": tuple(candidates)})

    def _changed(self, update: dict[str, Any]) -> CandidatePool:
        """Return a pool with other candidates, and with nothing that was found among the old."""
        pool = self.model_copy(update=update)
        for found in ("_by_name", "nearest"):
            pool.__dict__.pop(found, None)
        return pool

    def taking_images(self) -> CandidatePool | None:
        """Return the pool of the candidates that take images; None = there are none."""
        able = tuple(candidate for candidate in self.candidates if candidate.image_inputs)
        if not able or len(able) == len(self.candidates):
            return self if able else None
        return self.with_candidates(able)

    def find(self, name: str) -> Candidate | None:
        """Return the candidate of this name, alias or tool name, ignoring case; else None."""
        return self._by_name.get(name.strip().casefold())

    def unknown(self, name: str) -> str:
        """Return the message that no candidate has this name, with the nearest name."""
        names = [candidate.name for candidate in self.candidates]
        nearest = did_you_mean(name[:100], names)
        return f"no candidate {name[:100]!r}{nearest}; candidates: {', '.join(names)}"

    def given_models(self, models: Mapping[str, _Model] | None) -> dict[str, _Model]:
        """Return the models that are given in place of candidates' own, by the candidates' names.

        Args:
            models: by names that `find` knows.

        Raises:
            PoolError: a name is no candidate's, or what it names is nothing that can be asked.
        """
        require_askable({} if models is None else models)
        given = {}
        for name, model in (models or {}).items():
            if (candidate := self.find(str(name))) is None:
                raise PoolError(f"models: {self.unknown(str(name))}")
            given[candidate.name] = model
        return given

    def require_keys(self, but: Container[str] = ()) -> None:
        """Check that every candidate's key variable is set, before anything is asked.

        Args:
            but: names of candidates that need no key.

        Raises:
            PoolError: names the candidate and the variable that is not set.
        """
        missing = [
            f"{c.name}: the environment variable {variable} is not set"
            for c in self.candidates
            for variable in (() if c.name in but else c.variables)
            if not os.environ.get(variable)
        ]
        if missing:
            raise PoolError(
                f"{self.where}: {'; '.join(missing)} (api_key_env or {{env: NAME}} names it)"
            )


def _with_defaults(candidate: Any, defaults: Mapping[str, Any]) -> Any:
    if isinstance(candidate, Mapping):
        return {**defaults, **candidate}
    if not isinstance(candidate, Candidate):
        return candidate
    given = {name: getattr(candidate, name) for name in candidate.model_fields_set}
    merged = type(candidate).model_validate({**defaults, **given})
    merged.__dict__["folder"] = candidate.folder
    return merged


_MODELS: Mapping[str, type[BaseModel]] = {
    "": CandidatePool,
    "candidates": Candidate,
    "controller": ControllerSettings,
    "resilience": PoolResilience,
}
