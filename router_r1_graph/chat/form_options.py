"""The options of a call that ask for an answer in a form, as LangChain and OpenAI name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool

from ..errors import ConfigError, did_you_mean
from .answer_form import Form
from .schemas import check_schema, is_any_object

OPTIONS = ("tools", "tool_choice", "response_format", "parallel_tool_calls", "strict")
"""The options of a call to a chat model that set the form, as LangChain and OpenAI name them."""

_MOST_TOOLS = 1024
"""More than any provider takes in one call."""


def form_of(options: Mapping[str, Any]) -> Form | None:
    """Return the form that the options of a call ask for; None = a text.

    Args:
        options: those of `OPTIONS` are read. Tools may be functions, classes, LangChain tools or
            dicts; `tool_choice` has LangChain's or OpenAI's form; `response_format` has OpenAI's.

    Raises:
        ConfigError: a tool is no function, there are too many, or the choice or the format cannot
            be understood.
    """
    given = options.get("tool_choice")
    if (count := len(options.get("tools") or ())) > _MOST_TOOLS:
        raise ConfigError(f"tools: {count} tools; at most {_MOST_TOOLS}")
    tools = tuple(_function(tool) for tool in options.get("tools") or ())
    if isinstance(given, Mapping) and given.get("type") == "allowed_tools":
        few, given = _allowed(given)
        tools = tuple(tool for tool in tools if tool["function"]["name"] in few)
    choice = _choice(given)
    if choice == "none":
        tools, choice = (), "auto"
    names = [tool["function"]["name"] for tool in tools]
    if choice not in ("auto", "any", *names):
        near = did_you_mean(choice, names)
        known = ", ".join(names) or "none"
        raise ConfigError(f"tool_choice: no tool {choice!r}{near}; tools: {known}")
    if choice == "any" and not tools:
        raise ConfigError("tool_choice: there is no tool to call; pass tools too")
    schema, title = _schema(options.get("response_format"))
    if schema and is_any_object(schema):
        schema = {}  # a tool without arguments would be called with none
    if schema is None and not tools:
        return None
    while title in names:
        title += "_"
    parallel = options.get("parallel_tool_calls") is not False
    return Form(tools, choice, schema, title, parallel)


def _function(tool: Any) -> Mapping[str, Any]:
    if isinstance(tool, Mapping) and tool.get("type") == "custom" and "input_schema" not in tool:
        raise ConfigError(
            f"tools: {tool!r:.80} is no function; tools that are called with a free text cannot be "
            "used"
        )
    if isinstance(tool, Mapping) and "function" in tool and tool.get("type") is None:
        tool = {**tool, "type": "function"}
    try:
        converted = convert_to_openai_tool(tool)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # LangChain's errors speak of Python, and repeat the whole tool.
        why = "it needs the type 'function'" if isinstance(tool, Mapping) else error
        raise ConfigError(f"tools: {tool!r:.80} is no tool: {why}") from None
    function = converted.get("function")
    if not isinstance(function, Mapping) or not (name := function.get("name")):
        why = "tools that a provider runs itself cannot be used"
        if isinstance(tool, Mapping) and tool.get("type") == "function":
            why = "it needs a function with a name"
        raise ConfigError(f"tools: {tool!r:.80} is no function; {why}")
    if not isinstance(name, str):
        raise ConfigError(f"tools: the name of a function is a text, not {name!r:.60}")
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise ConfigError(f"tools: {name}.parameters is an object, not {parameters!r:.60}")
    check_schema(parameters, f"tools: {name}.parameters")
    return converted


def _allowed(given: Mapping[str, Any]) -> tuple[list[str], Any]:
    """Return the names of the tools that a tool choice allows, and its mode."""
    allowed = given.get("allowed_tools") or given  # of chat completions, or of responses
    try:
        few = [(tool.get("function") or tool)["name"] for tool in allowed.get("tools") or ()]
        return few, allowed.get("mode")
    except (AttributeError, TypeError, KeyError):
        raise ConfigError(
            f"tool_choice: allowed_tools has a mode and tools, which are a list of objects with "
            f"names, not {given!r:.80}"
        ) from None


def _choice(given: Any) -> str:
    """Return a tool choice as `auto`, `any`, `none`, or a name."""
    if isinstance(given, Mapping):
        function = given.get("function")
        named = function if isinstance(function, Mapping) else given
        given = named.get("name") or given.get("type")
    if given is None or given is False:
        return "auto"
    if given is True or given == "required":
        return "any"
    if isinstance(given, str):
        return given
    raise ConfigError(f"tool_choice: 'auto', 'any', 'none' or the name of a tool, not {given!r}")


def _schema(given: Any) -> tuple[Mapping[str, Any] | None, str]:
    """Return the schema that a `response_format` asks for, and the name of what it describes."""
    if given is None:
        return None, "answer"
    if not isinstance(given, Mapping):  # a class, as LangChain's clients take it
        function = _function(given)["function"]
        return function["parameters"], str(function["name"])
    match given.get("type"):
        case "text":
            return None, "answer"
        case "json_object":
            asked = given.get("schema") or {}  # llama.cpp's, Together's and others' form
            check_schema(asked, "response_format: schema")
            return asked, "answer"
        case "json_schema":
            told = given.get("json_schema") or given  # Together's form
            schema = told.get("schema") if isinstance(told, Mapping) else None
            if not isinstance(schema, Mapping) or not schema:
                raise ConfigError("response_format: json_schema.schema is missing")
            check_schema(schema, "response_format: json_schema.schema")
            name = str(told.get("name") or schema.get("title") or "answer")
            return schema, re.sub(r"[^a-zA-Z0-9_-]+", "_", name)[:64]
    raise ConfigError(
        f"response_format: type is 'text', 'json_object' or 'json_schema', not "
        f"{given.get('type')!r}"
    )
