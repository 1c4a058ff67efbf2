"""Simulated candidates call tools: they put their answer into the tool's arguments.

A stand-in for a model with native tool calls. It calls a tool only if it has to, and the last one
of those that it may call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..tags import unescape
from .draw import fraction

_TOLD = re.compile(r"<information> answer: (.*?) </information>(.*)", re.DOTALL)


def told(message: str) -> str | None:
    """Return the answer that a message tells, in JSON if it asks for that; None = it tells none."""
    found = _TOLD.search(message)
    if not found:
        return None
    answer = unescape(found[1])
    return json.dumps({"answer": answer}) if "JSON object" in found[2] else answer


def call(tools: Sequence[Mapping[str, Any]], choice: str, text: str) -> dict[str, Any] | None:
    """Return the call that puts a text into a tool's arguments; None = no tool has to be called.

    Args:
        tools: in OpenAI's form.
        choice: `auto`, `none`, `any`, `required`, or the name of a tool.
        text: the known answer.
    """
    functions = [tool["function"] for tool in tools]
    named = [f for f in functions if choice in (f["name"], "any", "required")]
    if not named:
        return None
    schema = named[-1].get("parameters") or {}
    name, args = named[-1]["name"], _fill({"type": "object", **schema}, text, schema)
    if not isinstance(args, dict):  # arguments are an object, even if a schema says otherwise
        args = {}
    id_ = f"call_{int(fraction('call', name, text) * 1e9):09}"
    return {"type": "tool_call", "name": name, "args": args, "id": id_}


def _fill(schema: Mapping[str, Any] | bool, text: str, root: Mapping[str, Any]) -> Any:
    """Return a value of a JSON schema that says the text, as far as its type can."""
    if isinstance(schema, bool):  # anything
        return text
    if "$ref" in schema:
        *_, kind, name = ["", "", *str(schema["$ref"]).split("/")]
        return _fill(root.get(kind, {}).get(name, {}), text, {**root, kind: {}})
    for several in ("anyOf", "oneOf", "allOf"):
        if options := schema.get(several):
            return _fill(options[0], text, root)
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("enum"):
        folded = text.casefold()
        return next((c for c in choices if str(c).casefold() in folded), choices[0])
    kinds = schema.get("type", "string")
    match kinds[0] if isinstance(kinds, list) else kinds:
        case "object":
            properties: Mapping[str, Any] = schema.get("properties") or {}
            return {name: _fill(value, text, root) for name, value in properties.items()}
        case "array":
            return [_fill(schema.get("items") or {}, text, root)]
        case "integer":
            return int(_number(text))
        case "number":
            return _number(text)
        case "boolean":
            return text.casefold().startswith(("yes", "true"))
        case "null":
            return None
    return text


def _number(text: str) -> float:
    found = re.search(r"-?\d+(\.\d+)?", text)
    return float(found[0]) if found else 0.0
