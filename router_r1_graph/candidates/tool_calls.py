"""Arguments of tool calls as models and servers really write them.

They come as an object, encoded twice, in a code fence, or cut.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import InvalidToolCall
from langchain_core.messages.tool import invalid_tool_call

from ..outside import writable

_LANGUAGE = re.compile(r"\A\w*")
_CUT = "cut: "
"""Before arguments that are no whole JSON: LangChain would complete them."""
DECODER = json.JSONDecoder(strict=False)
_DEEPEST = 48
"""The gate cuts the arguments of a call in a message, or in a server's reply, from 57 on."""
_LEFT_OVER = re.compile(r"(?:[\s}]|<[^<>]*>)*")
"""What a model writes after its arguments: a bracket too many, its own marks."""


def read_arguments(written: object) -> dict[str, Any] | None:
    """Return the arguments of a call as an object; None if they cannot be read, or are cut.

    Example:
        >>> read_arguments(json.dumps('{"query": "Who?"}'))
        {'query': 'Who?'}
        >>> read_arguments('{"query": "Wh') is None
        True
    """
    for _ in range(3):  # encoded once, and once more
        if isinstance(written, Mapping):
            return dict(written)
        if not isinstance(written, str):
            return None
        written = _read(unfenced(written))
        if isinstance(written, list) and len(written) == 1:
            written = written[0]
    return None


def too_deep(arguments: object) -> bool:
    """Return whether arguments are nested deeper than the gate lets through in any message.

    What a server's reply has lost by its own depth is still deeper.
    """
    level = [arguments]
    for _ in range(_DEEPEST):
        level = [part for one in level for part in _parts(one) if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _parts(value: object) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def invalid_call(call: Mapping[str, Any]) -> InvalidToolCall:
    """Return a call whose arguments are too deep, with an error, and the arguments as a text."""
    try:
        text = writable(json.dumps(call["args"]))
    except (RecursionError, TypeError, ValueError):
        text = ""
    error = f"its arguments are nested more than {_DEEPEST} deep"
    return invalid_tool_call(name=call["name"], args=_CUT + text, id=call["id"], error=error)


def _read(text: str) -> Any:
    """Return the JSON of a text, or the Python; None if it is neither, or not whole."""
    try:
        read, end = DECODER.raw_decode(text)
        return read if _LEFT_OVER.fullmatch(text, end) else None
    except (ValueError, RecursionError):
        pass
    return literal(text) if text.startswith("{") else None


def literal(text: str) -> Any:
    """Return the value of a Python literal (single quotes, a comma at the end), as JSON has it.

    None = it is none, or has no JSON.
    """
    try:
        return json.loads(json.dumps(ast.literal_eval(text)))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def unfenced(text: str) -> str:
    """Return a text without white space around it, and without the code fence that it stands in."""
    text = text.strip()
    if len(text) < 6 or not (text.startswith("```") and text.endswith("```")):
        return text
    return _LANGUAGE.sub("", text[3:-3]).strip()


def plain_arguments(written: object) -> str:
    """Return the arguments of a call as LangChain reads them: whole JSON of an object.

    What is not that is marked, so that LangChain reads it as an invalid call. None and "" are none.
    """
    if written is None or written == "":
        return ""
    arguments = read_arguments(written)
    if arguments is not None:
        return json.dumps(arguments)
    text = written if isinstance(written, str) else json.dumps(written, default=str)
    return text if text.startswith(_CUT) else _CUT + text


def as_written(arguments: object) -> object:
    """Return the arguments of an invalid call as the model wrote them, without our mark."""
    return arguments.removeprefix(_CUT) if isinstance(arguments, str) else arguments
