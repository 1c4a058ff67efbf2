"""The origin of results: command, date, commit and more, in a file beside the results."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from datetime import date
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..candidates import CandidatePool
from ..context import RouterContext
from ..errors import ConfigError
from ..trace import Trace
from .questions import EvaluationQuestion

_FILE = "origin.json"
_CONTROLLER = "the controller block"


class Origin(BaseModel):
    """How an evaluation was made.

    Attributes:
        metric: the kind of score.
        seed: of drawn questions, controllers and resamples.
        evaluated: the specs of the controllers that are no controls.
        controls: those of the controls.
        command: the command line; "" = made in Python.
        date: the day on which it began.
        commit: of the repository in which it was run; "" = in none.
        version: the release of this library.
        options: what a result does not have of the pool, see `digests`; None = not known.
    """

    model_config = ConfigDict(frozen=True)

    metric: str = "exact_match"
    seed: int = 0
    evaluated: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    command: str = ""
    date: str = Field(default_factory=lambda: date.today().isoformat())
    commit: str = Field(default_factory=lambda: _commit())
    version: str = Field(default_factory=lambda: version("router-r1-graph"))
    options: dict[str, dict[str, str]] | None = None

    def write(self, folder: Path) -> None:
        """Write it beside the results."""
        (folder / _FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """Read it; None = the results are from before such files.

        Raises:
            ConfigError: the file is broken.
        """
        path = folder / _FILE
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            why = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"{path}: cannot be read: {why}") from None

    def __str__(self) -> str:
        parts = [self.date, f"router-r1-graph {self.version}", f"seed {self.seed}"]
        if self.commit:
            parts.insert(1, f"commit {self.commit}")
        return ", ".join(parts)


def digests(pool: CandidatePool) -> dict[str, dict[str, str]]:
    """Return digests of the options of each candidate, and of all settings of the controller block.

    A result has neither. The address of an endpoint is left out on purpose: the same model may be
    served at another port after a restart.

    Returns:
        Name of a candidate -> name of an option -> digest; the controller block is `_CONTROLLER`.
    """
    told = {candidate.name: candidate.options for candidate in pool.candidates}
    if pool.controller:
        access = {"base_url", "api_key_env", "limits_store"}
        told[_CONTROLLER] = pool.controller.model_dump(mode="json", exclude=access)
    return {
        name: {option: _digest(value) for option, value in options.items()}
        for name, options in told.items()
    }


def _digest(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def other_options(origin: Origin, pool: CandidatePool) -> str:
    """Name the option in which a pool differs from that of earlier results; "" = in none."""
    theirs, ours = origin.options or {}, digests(pool)
    if "pool" not in origin.evaluated:  # the controller block was not used
        ours.pop(_CONTROLLER, None)
    for name in [name for name in ours if name in theirs]:
        for option in sorted({*ours[name], *theirs[name]}):
            if ours[name].get(option) != theirs[name].get(option):
                whose = name if name == _CONTROLLER else f"candidate {name}"
                return f"another pool ({pool.name!r}): {option} of {whose} was another"
    return ""


def other_pool(trace: Trace, ours: CandidatePool) -> str:
    """Name the field in which the pool of a result differs; "" = in none.

    Args:
        trace: the result.
        ours: the descriptors of the pool.
    """
    if ours == trace.pool or ours == (theirs := trace.pool.descriptors()):  # earlier ones say more
        return ""
    before, now = theirs.model_dump(mode="json"), ours.model_dump(mode="json")
    names = [[c["name"] for c in pool["candidates"]] for pool in (before, now)]
    what = f"candidates {', '.join(names[0])!r:.100}, not {', '.join(names[1])!r:.100}"
    if names[0] == names[1]:
        pairs = [("the pool", before, now)]
        pairs += [
            (f"candidate {one['name']}", one, two)
            for one, two in zip(before["candidates"], now["candidates"], strict=True)
        ]
        found = (
            f"{field} of {whose} is {one[field]!r:.100}, not {two[field]!r:.100}"
            for whose, one, two in pairs
            for field in two
            if field != "candidates" and one[field] != two[field]
        )
        what = next(found, "its settings")
    return f"another pool ({trace.pool.name!r}): {what}"


def difference(
    trace: Trace,
    asked: Mapping[str, EvaluationQuestion] | None,
    context: RouterContext | None,
) -> str:
    """Return how a result differs from the plan; "" = not at all.

    Args:
        trace: the result.
        asked: the questions by id; None = any.
        context: the knobs, without the cost weight; None = any.
    """
    if asked is not None:
        question = asked.get(trace.id)
        if question is None:
            return f"other questions, such as {trace.id!r}: {trace.question!r:.100}"
        if trace.question.split() != question.question.split():
            words = f"{trace.question!r:.100}, not {question.question!r:.100}"
            return f"other questions: {trace.id!r} is {words}"
        if trace.gold != question.gold:
            gold = f"{list(trace.gold)!r:.100}, not {list(question.gold)!r:.100}"
            return f"other gold answers: those of {trace.id!r} are {gold}"
    theirs, ours = trace.context.to_state(), (context or trace.context).to_state()
    for knob in ours:
        if knob != "cost_weight" and theirs[knob] != ours[knob]:
            return f"another {knob} ({theirs[knob]!r}, not {ours[knob]!r})"
    return ""


def _commit() -> str:
    """Return the commit of the folder that this is run in, marked if files have changed since."""
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
