"""JSON schemas that a client sends: checked, and described as the arguments of a tool."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..candidates.tool_calls import as_written
from ..errors import ConfigError, did_you_mean

_VALUE = re.compile(r'\A\s*\{\s*"value"\s*:\s*')
"""What `as_object` has put around a value."""
_MOST_PARTS = 10_000
"""Properties, items and other schemas in one schema; OpenAI takes 5,000 properties."""
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def check_schema(schema: object, place: str) -> None:
    """Check the parts of a schema that define the form of a value.

    Args:
        schema: the schema.
        place: its place, for the error.

    Raises:
        ConfigError: a part of it is none; the message names it.
    """
    waiting = [(schema, place)]  # a schema may be deeper than Python recurses
    count = 0
    while waiting:
        part, where = waiting.pop()
        if (count := count + 1) > _MOST_PARTS:
            raise ConfigError(f"{place} has more than {_MOST_PARTS} parts")
        if isinstance(part, bool):  # anything, or nothing
            continue
        if not isinstance(part, Mapping):
            raise ConfigError(f"{where} is a JSON schema, not {part!r:.60}")
        waiting += _parts(part, where)


def _parts(schema: Mapping[str, Any], where: str) -> Iterator[tuple[object, str]]:
    """Yield the schemas in a schema; a key without a value is as if it was not there."""
    schema = {key: value for key, value in schema.items() if value is not None}
    kinds = schema.get("type", "object")
    for kind in (kinds or [kinds]) if isinstance(kinds, list) else [kinds]:
        if kind not in _TYPES:
            near = did_you_mean(kind, _TYPES) if isinstance(kind, str) else ""
            raise ConfigError(f"{where}.type is one of {', '.join(_TYPES)}, not {kind!r:.60}{near}")
    for name in ("properties", "$defs", "definitions"):
        inner = schema.get(name, {})
        if not isinstance(inner, Mapping):
            raise ConfigError(f"{where}.{name} is an object, not {inner!r:.60}")
        yield from ((part, f"{where}.{name}.{key}") for key, part in inner.items())
    for name in ("anyOf", "oneOf", "allOf", "enum"):
        several = schema.get(name, ())
        if name in schema and not (isinstance(several, list | tuple) and several):
            raise ConfigError(f"{where}.{name} is a list that is not empty, not {several!r:.60}")
        if name != "enum":
            yield from ((part, f"{where}.{name}") for part in several)
    items = schema.get("items", ())  # a list of them describes a tuple
    parts = items if isinstance(items, list | tuple) else [items]
    yield from ((part, f"{where}.items") for part in parts)


def as_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema as that of a tool's arguments, which are an object."""
    if _is_object(schema):
        return dict(schema)
    inner = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
    outer = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    return {"type": "object", "properties": {"value": inner}, "required": ["value"], **outer}


def as_json(args: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the arguments of a tool that `as_object` describes as the JSON of its schema."""
    value = args if _is_object(schema) else args.get("value", args)
    return json.dumps(value, ensure_ascii=False)


def half_json(args: Mapping[str, Any] | str | None, schema: Mapping[str, Any]) -> str:
    """Return the arguments of a call that was cut as the beginning of the JSON of a schema.

    Args:
        args: as the model wrote them, or as a client has completed them: then what closes them is
            taken off, so that nobody reads half a JSON as a whole one.
        schema: describes them, by `as_object`.
    """
    if isinstance(args, Mapping):
        return as_json(args, schema).rstrip('}]"')
    text = str(as_written(args or ""))
    return text if _is_object(schema) else _VALUE.sub("", text)


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object" or "properties" in schema


def is_any_object(schema: Mapping[str, Any]) -> bool:
    """Return whether an object of this schema may hold anything."""
    says = schema.keys() - {"type", "title", "$schema", "$id"}
    is_open = says <= {"additionalProperties"} and schema.get("additionalProperties", True) is True
    return schema.get("type") == "object" and is_open
