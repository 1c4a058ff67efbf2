"""Reading a pool file, and saying in one line what is wrong with it, without showing a key."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from .. import invalid
from ..errors import PoolError, did_you_mean
from ..invalid import masked, show
from .resilience.places import is_file

SHIPPED_POOLS = Path(__file__).parents[1] / "pools"

#: Provider -> its option that is a path.
_PATH_OPTION = {"simulated": "facts", "recorded": "records"}


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice: the last one would win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {str(key.value)[:40]!r} stands twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep)


def read_mapping(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """Read a YAML file, or one of the shipped pools by name; return its path and what it holds.

    Raises:
        PoolError: there is no such file, or it holds no mapping.
    """
    file = Path(path)
    shipped = SHIPPED_POOLS / f"{path}.yaml"
    if not file.exists() and shipped.exists():
        file = shipped
    if not file.is_file():
        names = sorted(p.stem for p in SHIPPED_POOLS.glob("*.yaml"))
        raise PoolError(
            f"{path}: no such pool file{did_you_mean(str(path), names)}; shipped pools: "
            f"{', '.join(names)}"
        )
    try:
        data = parse(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or no such date
        raise PoolError(f"{file}: not a YAML file: {_where_and_why(error)}") from None
    if data is None:
        raise PoolError(f"{file}: empty; a pool is a mapping with the key 'candidates'")
    if not isinstance(data, dict):
        raise PoolError(f"{file}: a pool is a mapping with the key 'candidates', not {show(data)}")
    return file, data


def parse(text: str) -> Any:
    """Return what a YAML text holds.

    Raises:
        yaml.YAMLError: it is no YAML, or a key stands twice.
        ValueError: a date in it does not exist.
    """
    return yaml.load(text, _Loader)


def _where_and_why(error: Exception) -> str:
    """Return a YAML error as one line, without the text around it: that may hold a key."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error)
    mark = error.problem_mark
    why = masked(str(error.problem))
    return f"line {mark.line + 1}, column {mark.column + 1}: {why}"


def beside(file: Path, data: dict[str, Any]) -> None:
    """Make the paths of files in a pool file ones beside it."""
    candidates = data.get("candidates")
    records = candidates if isinstance(candidates, list) else []
    for block in [data.get("resilience"), data.get("controller"), *records]:
        place = block.get("limits_store") if isinstance(block, dict) else None
        if isinstance(block, dict) and isinstance(place, str) and is_file(place):
            block["limits_store"] = os.path.join(os.path.abspath(file.parent), place)
    for record in records:
        options = record.get("options") if isinstance(record, dict) else None
        if not isinstance(options, dict):
            continue
        name = _PATH_OPTION.get(str(record.get("provider")))
        if name and isinstance(options.get(name), str):
            # YAML anchors share one mapping among candidates, so it is not changed in place.
            record["options"] = {**options, name: str(file.parent / options[name])}


def explain(
    error: ValidationError, data: dict[str, Any], models: Mapping[str, type[BaseModel]]
) -> str:
    """Turn pydantic's errors into one line: of each the key, the value, and what is allowed.

    Args:
        error: what pydantic says.
        data: what the file holds.
        models: top-level key -> the model of what stands below it; "" for the top level itself.
    """

    def name(place: tuple[int | str, ...]) -> str:
        candidates = data.get("candidates")
        if place[:1] != ("candidates",) or len(place) < 2 or not isinstance(candidates, list):
            return ""
        record = candidates[int(place[1])]
        named = isinstance(record, Mapping) and isinstance(record.get("name"), str)
        return f" (of {show(record['name'])})" if named else ""

    def allowed(place: tuple[int | str, ...]) -> Collection[str]:
        return models[str(place[0]) if len(place) > 1 else ""].model_fields

    return invalid.explain(error, allowed, name, whole="pool")
