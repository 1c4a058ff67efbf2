"""Where results come from: what was run, when, on which commit; a file beside the results."""

from __future__ import annotations

import subprocess
from datetime import date
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError

_FILE = "origin.json"


class Origin(BaseModel):
    """How an evaluation was made.

    Attributes:
        metric: what the score is.
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
        """Read it; None = the results are older than such files.

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


def _commit() -> str:
    """Return the commit of the folder that this is run in, marked if files have changed since."""
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
