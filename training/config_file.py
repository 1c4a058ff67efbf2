"""The file of a config: YAML with `key=value` of the command line, and its errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from router_r1_graph import ConfigError
from router_r1_graph.errors import did_you_mean


def read_settings(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a config file and apply `key.sub=value` overrides, whose values are YAML.

    The `config.yaml` that a run leaves is a config, too.

    Raises:
        ConfigError: the file cannot be read or is no YAML, or an override cannot be applied.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: a folder; name the config file in it")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a YAML file in UTF-8: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(f"{path}: it cannot be read: {error}") from None
    data = _yaml(text, f"{path}: not a YAML file")
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: a config is keys with values, such as 'out: runs/mine', not "
            f"{_shape(data)} ({data!r:.60})"
        )
    if isinstance(data.get("config"), dict) and "versions" in data:  # what a run left
        data = data["config"]
    for override in overrides:
        _apply(override, data)
    return data


def _apply(override: str, data: dict[str, Any]) -> None:
    key, equals, value = override.partition("=")
    *parents, last = key.split(".")
    if not equals or not all((*parents, last)):
        raise ConfigError(f"{override!r}: an override is key=value, such as grpo.steps=10")
    section: Any = data
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise ConfigError(f"{override!r}: {parent} is not a section")
    section[last] = _yaml(value, f"{override!r}: the value is not YAML")


def _yaml(text: str, wrong: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a date that is none; the others say where, in several lines.
        raise ConfigError(f"{wrong}: {' '.join(str(error).split())}") from None


def refusal(path: Path, error: ValidationError, config: type[BaseModel]) -> ConfigError:
    """Return an error that names the mistakes in a config, and the allowed values.

    Args:
        path: the file.
        error: pydantic's error.
        config: the class of the config.
    """
    first = error.errors(include_url=False)[0]
    place = first["loc"]
    where = ".".join(map(str, place)) or "config"
    if first["type"] == "extra_forbidden":
        allowed = _keys(config, place[:-1])
        hint = _elsewhere(config, place) or did_you_mean(str(place[-1]), allowed)
        return ConfigError(f"{path}: unknown key {where}{hint}; allowed: {', '.join(allowed)}")
    given = first["input"]
    if first["type"] == "missing":
        return ConfigError(f"{path}: {where} is missing; it has to be set")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "tuple_type":
        message = f"a list is wanted, such as [{given}]"
    elif first["type"] in ("model_type", "dict_type"):
        message = f"a section is wanted, keys with values, not {_shape(given)}"
    value = f" (value: {given!r:.80})" if place else ""
    return ConfigError(f"{path}: {where}: {message}{value}")


def _shape(value: object) -> str:
    return "a list" if isinstance(value, list) else "a single value"


def _keys(config: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Return the keys that are allowed at a place of a config."""
    section: Any = config
    for part in place:
        if isinstance(part, str):
            section = section.model_fields[part].annotation
        else:  # an entry of a list
            section = next(kind for kind in get_args(section) if issubclass(kind, BaseModel))
    return list(section.model_fields)


def _elsewhere(config: type[BaseModel], place: Sequence[str | int]) -> str:
    """Return the section of a key that is in the wrong one; "" if no section knows it."""
    key = str(place[-1])
    sections = {
        f"{name}.": set(field.annotation.model_fields)
        for name, field in config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    known = {"": set(config.model_fields), **sections}
    found = [f"{section}{key}" for section, keys in known.items() if key in keys]
    return f" (did you mean {' or '.join(found)}?)" if found else ""
