"""A JSON schema in the text of a prompt.

Clients that know no server's `json_schema` ask for `json_object` and write the schema into the
prompt. It is read from there, and used like any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, SystemMessage

_DECODER = json.JSONDecoder()
_BEGINS = re.compile(r'\{(?=\s{0,100}")')
"""The beginning of an object with a key; code in a prompt has many other braces."""
_MOST_FAILURES = 100
"""Objects are looked for behind so many beginnings that are none: each may take the whole text."""


def with_schema(options: Mapping[str, Any], messages: Sequence[BaseMessage]) -> dict[str, Any]:
    """Return the options of a call, with the prompt's schema if they ask for any JSON object.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> text = 'Who? As JSON: {"type": "object", "properties": {"who": {"type": "string"}}}'
        >>> asked = {"response_format": {"type": "json_object"}}
        >>> with_schema(asked, [HumanMessage(text)])["response_format"]["type"]
        'json_schema'
    """
    if (options.get("response_format") or {}).get("type") != "json_object":
        return dict(options)
    texts = [str(m.text) for m in messages[:-1] if isinstance(m, SystemMessage)]
    texts += [str(m.text) for m in messages[-1:]]
    for text in texts:
        for found in _objects(text):
            if isinstance(found.get("properties"), dict) and found["properties"]:
                schema = {"name": str(found.get("title") or "answer"), "schema": found}
                return {
                    **options,
                    "response_format": {"type": "json_schema", "json_schema": schema},
                }
    return dict(options)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the outermost JSON objects in a text that have a key."""
    end = failures = 0
    while failures < _MOST_FAILURES and (begun := _BEGINS.search(text, end)):
        try:
            found, end = _DECODER.raw_decode(text, begun.start())
        except (ValueError, RecursionError):
            end, failures = begun.end(), failures + 1
        else:
            yield found
