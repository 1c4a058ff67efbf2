"""Reads a pool file, and explains its mistakes in one line, without showing a key."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from .. import invalid
from ..errors import PoolError, did_you_mean
from ..files import has_file
from ..invalid import masked, show
from ..outside import writable
from .resilience.places import is_file

SHIPPED_POOLS = Path(__file__).parents[1] / "pools"

#: Provider -> its option that is a path.
_PATH_OPTION = {"simulated": "facts", "recorded": "records"}


_DEEPEST, _MOST_VALUES = 64, 100_000
#: What PyYAML raises where a tag such as `!!bool` stands before something else.
_UNREADABLE = (ValueError, LookupError, AttributeError, TypeError, OverflowError)


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that is there twice: the last one would win."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _UNREADABLE as error:
            kind = str(node.tag).rpartition(":")[2]
            why = f"this is no {kind}" + (f": {error}" if isinstance(error, ValueError) else "")
            raise yaml.constructor.ConstructorError(None, None, why, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            known = isinstance(key.value, str) and key.value in seen
            if key.tag != "tag:yaml.org,2002:merge" and known:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {str(key.value)[:40]!r} is there twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Return a text, and refuse one that no file or checkpoint can hold."""
    text = loader.construct_scalar(node)
    if not isinstance(text, str) or writable(text) != text:
        why = "this text holds half a character or a zero byte"
        raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)
    return text


_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def read_mapping(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """Read a YAML file, or one of the shipped pools by name; return its path and its content.

    Raises:
        PoolError: there is no such file, or it holds no mapping; or this is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise PoolError(
            "pool: a pool file, the name of a shipped pool or a CandidatePool(candidates=[...]) is "
            f"wanted, not {show(path)}"
        )
    file = Path(path)
    shipped = SHIPPED_POOLS / f"{path}.yaml"
    if not has_file(file) and has_file(shipped):
        return shipped, deepcopy(_shipped(shipped))
    if not has_file(file):
        names = sorted(p.stem for p in SHIPPED_POOLS.glob("*.yaml"))
        near = did_you_mean(
            file.name, [*names, *sorted(p.name for p in file.parent.glob("*.y*ml"))]
        )
        raise PoolError(f"{path}: no such pool file{near}; shipped pools: {', '.join(names)}")
    try:
        data = parse_yaml(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8
        raise PoolError(f"{file}: not a YAML file: {_where_and_why(error)}") from None
    if data is None:
        raise PoolError(f"{file}: empty; a pool is a mapping with the key 'candidates'")
    if not isinstance(data, dict):
        raise PoolError(f"{file}: a pool is a mapping with the key 'candidates', not {show(data)}")
    return file, data


@cache
def _shipped(file: Path) -> dict[str, Any]:
    """Return the content of a shipped pool, which is read once: a part of the package."""
    content: dict[str, Any] = parse_yaml(file.read_text(encoding="utf-8"))
    return content


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML text.

    Raises:
        yaml.YAMLError: it is no YAML, a key is there twice, or it is nested too deeply.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _require_plain(node, {}, ())
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("lists or mappings are nested too deeply") from None
    finally:
        loader.dispose()


def _require_plain(node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Return the number of values in a node, with each alias written out.

    Raises:
        yaml.YAMLError: there are too many, one in another, or all together.
    """
    if id(node) in above or len(above) > _DEEPEST:
        why = f"more than {_DEEPEST} lists or mappings are nested in one another"
        raise yaml.composer.ComposerError(None, None, why, node.start_mark)
    if id(node) not in sizes:
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
        size = 1 + sum(_require_plain(one, sizes, (*above, id(node))) for one in inner)
        if size > _MOST_VALUES:
            why = f"with its aliases, this holds more than {_MOST_VALUES} values"
            raise yaml.composer.ComposerError(None, None, why, node.start_mark)
        sizes[id(node)] = size
    return sizes[id(node)]


def _where_and_why(error: Exception) -> str:
    """Return a YAML error as one line, without the text around it: that may hold a key."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    why = masked(str(error.problem))
    return f"line {mark.line + 1}, column {mark.column + 1}: {why}"


def beside(file: Path, data: dict[str, Any]) -> None:
    """Make the paths of files in a pool file relative to its folder."""
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
        data: the content of the file.
        models: top-level key -> the model of its value; "" for the top level itself.
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
