"""The origin of results: command, date, commit and more, in a file beside the results."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..context import RouterContext
from ..errors import ConfigError
from ..trace import Trace
from .questions import EvaluationQuestion

_FILE = "origin.json"


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
