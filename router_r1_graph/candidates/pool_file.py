"""Reading a pool file, and saying in one line what is wrong with it, without showing a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import PoolError, did_you_mean

SHIPPED_POOLS = Path(__file__).parents[1] / "pools"

#: Provider -> its option that is a path.
_PATH_OPTION = {"simulated": "facts", "recorded": "records"}
_SECRET = re.compile(r"key|secret|token$|password|credential", re.I)
_LIKE_A_KEY = re.compile(r"\bsk-\S*|Bearer .*", re.I)


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
        data = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or no such date
        raise PoolError(f"{file}: not a YAML file: {_where_and_why(error)}") from None
    if not isinstance(data, dict):
        raise PoolError(f"{file}: a pool is a mapping with the key 'candidates', not {_show(data)}")
    return file, data


def _where_and_why(error: Exception) -> str:
    """Return a YAML error as one line, without the text around it: that may hold a key."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error)
    mark = error.problem_mark
    why = _LIKE_A_KEY.sub("***", str(error.problem))
    return f"line {mark.line + 1}, column {mark.column + 1}: {why}"


def beside(file: Path, data: dict[str, Any]) -> None:
    """Make the paths in the options of candidates ones beside the pool file."""
    candidates = data.get("candidates")
    for record in candidates if isinstance(candidates, list) else []:
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
    """Turn the first of pydantic's errors into one line: key, value, what is allowed.

    Args:
        error: what pydantic says.
        data: what the file holds.
        models: top-level key -> the model of what stands below it; "" for the top level itself.
    """
    errors = error.errors(include_url=False)
    # To `min_length` a candidate that cannot be read is a missing one: no second error for it.
    errors = [e for e in errors if e["loc"] != ("candidates",)] or errors
    first = errors[0]
    location = first["loc"]
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    if len(location) >= 2 and location[0] == "candidates" and isinstance(location[1], int):
        record = data["candidates"][location[1]]
        if isinstance(record, Mapping) and isinstance(record.get("name"), str):
            key += f" (of {_show(record['name'])})"
    secret = isinstance(first["input"], str) and any(_SECRET.search(str(p)) for p in location)
    value = "***" if secret else _show(first["input"])
    if first["type"] == "extra_forbidden":
        model = models[str(location[0]) if len(location) > 1 else ""]
        wrong, allowed = str(location[-1]), list(model.model_fields)
        nearest = did_you_mean(wrong, allowed)
        return f"unknown key {key} = {value}{nearest}; allowed: {', '.join(allowed)}"
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if not location or first["type"] == "missing" else f" (value: {value})"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{key or 'pool'}: {message}{shown}{more}"


def _show(value: object) -> str:
    """Return a value for a message; of a list or mapping, which may hold keys, only its size."""
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"
    return "***" if _LIKE_A_KEY.search(str(value)) else f"{value!r:.80}"
