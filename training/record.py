"""The config as a run remembers it, and the changes with which it goes on."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from router_r1_graph import ConfigError
from router_r1_graph.files import write_whole

from .config import RunConfig, Stage
from .config_file import refusal

FILE = "config.yaml"
"""In the folder of a run: its resolved config, with versions and commit."""
_FIXED = ("seed", "data", "graph", "reward")
_FIXED_OF_MODEL = ("pretrained", "scratch", "template", "stop", "observations", "lora_rank")
_SHOWN = 60


def changes(config: RunConfig) -> list[str]:
    """Return the settings that differ from those at the begin of the run in this folder.

    Questions, pools, rewards, model and seed hold for a whole run: with others, it would end with a
    policy that no config makes.

    Raises:
        ConfigError: one of these differs, the stages that have begun are not the first ones any
            more, or the run is of another version of this package.
    """
    if not any((config.out / stage).is_dir() for stage in get_args(Stage)):
        return []  # nothing has begun
    file = config.out / FILE
    try:
        record = yaml.safe_load(file.read_text(encoding="utf-8"))
        before = RunConfig.model_validate(record["config"])
    except FileNotFoundError:
        return []
    except ValidationError as error:
        why = f"is of another version ({refusal(file, error, RunConfig)})"
        raise _another(config, why, "") from None
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise _another(config, f"left a record that cannot be read ({file}: {error})", "") from None
    begun = [stage for stage in before.stages if (config.out / stage).is_dir()]
    first = list(config.stages[: len(begun)])
    if first != begun[: len(first)]:
        raise _another(config, f"did {', '.join(begun)} first, and stages begins with {first[0]}")
    changed = []
    old, new = before.model_dump(mode="json"), config.model_dump(mode="json")
    for key, was, now in _differences(old, new):
        section, _, name = key.partition(".")
        text = f"{key}: {was!r:.{_SHOWN}} -> {now!r:.{_SHOWN}}"
        if section in _FIXED or (section == "model" and name.split(".")[0] in _FIXED_OF_MODEL):
            raise _another(config, f"began with another {key} ({text})")
        if key not in ("out", "stages"):
            done = (config.out / section / "done.json").exists()
            changed.append(f"{text} (too late: {section} is done)" if done else text)
    return changed


def _another(config: RunConfig, why: str, mend: str = "set it back, or ") -> ConfigError:
    return ConfigError(
        f"out {config.out}: the run there {why}; {mend}begin another run: out=runs/other"
    )


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for name in [*old, *(name for name in new if name not in old)]:
        was, now, key = old.get(name), new.get(name), f"{place}{name}"
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _differences(was, now, f"{key}.")
        elif was != now:
            yield key, was, now


def remember(config: RunConfig) -> None:
    """Save the resolved config with versions and commit beside the outputs."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    ).stdout.strip()
    names = ("torch", "transformers", "trl", "langgraph", "langchain-core", "router-r1-graph")
    record = {
        "config": config.model_dump(mode="json"),
        "commit": commit or "unknown",
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }
    write_whole(config.out / FILE, yaml.safe_dump(record, sort_keys=False))
