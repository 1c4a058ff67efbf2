"""Reads tool calls in all the forms that models and servers write.

Arguments come as an object, encoded twice, in a code fence, or cut. A model may write a call as
text.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

_FENCE = re.compile(r"\A\s*```\w*\s*(.*?)\s*```\s*\Z", re.S)
_CUT = "cut: "
"""The mark before arguments that are incomplete JSON: LangChain would complete them."""
#: How models mark a call in their text (Hermes and Qwen, Mistral, Llama, DeepSeek, Kimi; Jamba and
#: Anthropic; MiniMax; Phi; gpt-oss).
_MARK = re.compile(
    r"<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>|<function=|<[|\uff5c]tool[\u2581_]call"
    r"|<(?:[\w|\uff5c]+:?)?(?:(?:function|tool)_calls?|invoke name=[^>]*)>"
    r"|functools\[|<\|channel\|>commentary to="
)
_NAMES = ("name", "tool", "function", "action")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "action_input")
#: Calls in tags, and what they are called with: Qwen, Anthropic and MiniMax, GLM.
_TAGGED = re.compile(
    r"<(?:[\w|\uff5c]+:?)?(?:function=|invoke name=)[\"']?(?P<name>[^>\"'\s]+)[\"']?\s*>"
    r"|<tool_call>\s*(?P<line>[^\s<>{}]+)\s*(?=<arg_key>)"
)
_PARAMETER = re.compile(
    r"<(?:[\w|\uff5c]+:?)?parameter(?:=| name=)[\"']?(?P<name>[^>\"'<]+)[^>]*>(?P<value>.*?)"
    r"</(?:[\w|\uff5c]+:?)?parameter>"
    r"|<arg_key>(?P<key>[^<]*)</arg_key>\s*<arg_value>(?P<of_key>.*?)</arg_value>",
    re.S,
)
#: ReAct's steps, one a line, plain or in Markdown. An observation is the model's own invention.
_LINE, _COLON = r"^[ \t>*_#]*", r"(?: \d+)?[*_ \t]*:[*_ \t]*"
_ACTION = re.compile(rf"{_LINE}action{_COLON}(?P<line>[^\n]*)", re.I | re.M)
_STEP = rf"{_LINE}(?:action|action[ _]input|thought|final answer){_COLON}"
_INPUT = re.compile(
    rf"[\s>*_#]*action[ _]input{_COLON}(?P<given>.*?)(?={_STEP}|\Z)", re.I | re.M | re.S
)
_OBSERVATION = re.compile(rf"{_LINE}observation{_COLON}", re.I | re.M)
_FINAL = re.compile(rf"{_LINE}final answer{_COLON}", re.I | re.M)
_INLINE = re.compile(r"(?P<name>[^\[(]+)[\[(](?P<given>.*)[\])]")
_QUERY = re.compile(r"\Aquery\s*[:=]\s*")
_PYTHON = re.compile(r"\A\[?\s*[^\W\d]\w*\(.*\)\s*\]?\Z", re.S)
_DECODER = json.JSONDecoder(strict=False)
_LEFT_OVER = re.compile(r"(?:[\s}]|<[^<>]*>)*")
"""Text after the arguments that models write: a bracket too many, marks of their own."""


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
        if fenced := _FENCE.match(written):
            written = fenced[1]
        written = _read(written.strip())
        if isinstance(written, list) and len(written) == 1:
            written = written[0]
    return None


def _read(text: str) -> Any:
    """Return the JSON of a text, or the Python; None if it is neither, or not whole."""
    try:
        read, end = _DECODER.raw_decode(text)
        return read if _LEFT_OVER.fullmatch(text, end) else None
    except (ValueError, RecursionError):
        pass
    try:  # single quotes, a comma at the end
        return ast.literal_eval(text) if text.startswith("{") else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def plain_arguments(written: object) -> str:
    """Return the arguments of a call as LangChain reads them: whole JSON of an object.

    Anything else is marked, so that LangChain reads it as an invalid call. None and "" become "".
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


@dataclass(frozen=True)
class WrittenCall:
    """A call that a model wrote as text; arguments that cannot be read are {}."""

    name: str
    arguments: Mapping[str, Any]


def written_calls(text: str, names: Collection[str]) -> tuple[str, list[WrittenCall]]:
    """Return the text before the calls in a text, and the calls; the whole text and [] for none.

    Args:
        text: the model's text.
        names: of the tools that it has.

    Example:
        >>> written_calls('<tool_call>{"name": "A", "arguments": {"query": "Who?"}}', ["A"])[1]
        [WrittenCall(name='A', arguments={'query': 'Who?'})]
    """
    if mark := _MARK.search(text):
        before, rest = text[: mark.start()], text[mark.start() :]
        # A call that cannot be read is one too: it is not the answer.
        return before, _tagged_calls(rest) or _json_calls(rest, names) or [WrittenCall("", {})]
    before, calls = _react_calls(text, names)
    if calls:
        return before, calls
    fenced = _FENCE.match(text)
    bare = (fenced[1] if fenced else text).strip()
    calls = _json_calls(bare, ()) if bare[:1] in ("{", "[") else []
    if calls := calls or _python_calls(bare):
        known = {name.casefold() for name in names}
        if all(call.name.casefold() in known and call.arguments for call in calls):
            return "", calls
    return text, []


def _tagged_calls(text: str) -> list[WrittenCall]:
    """Return the calls in tags that name their parameters."""
    calls = []
    found = [*_TAGGED.finditer(text)]
    for call, following in zip_longest(found, found[1:]):
        end = following.start() if following else len(text)
        given = {
            (p["name"] or p["key"] or "").strip(): (p["value"] or p["of_key"] or "").strip()
            for p in _PARAMETER.finditer(text, call.end(), end)
        }
        if given:
            calls.append(WrittenCall(call["name"] or call["line"], given))
    return calls


def _react_calls(text: str, names: Collection[str]) -> tuple[str, list[WrittenCall]]:
    """Return the calls in ReAct's steps, up to an invented observation, and the text before."""
    known = {name.casefold() for name in names}
    text = _OBSERVATION.split(text, maxsplit=1)[0]
    calls: list[WrittenCall] = []
    actions = [*_ACTION.finditer(text)]
    for action, following in zip_longest(actions, actions[1:]):
        line = action["line"].strip(" \t\r*_`\"'")
        inline = _INLINE.fullmatch(line)
        name = inline["name"].strip() if inline else line
        if given := _INPUT.match(text, action.end()):
            calls.append(WrittenCall(line, _given(given["given"])))
        elif name.casefold() in known:  # Ada[Who?], Ada(query="Who?"), or cut before its input
            inside = _given(inline["given"] if inline else "")
            named = [call for call in _python_calls(line) if call.arguments]
            calls += named or [WrittenCall(name, inside)]
        elif not line or line.startswith(("{", "json")):
            block = text[action.start("line") : following.start() if following else len(text)]
            calls += _json_calls(block, ())
    return (text[: actions[0].start()] if calls else text), calls


def final_answer(text: str) -> tuple[str, str]:
    """Return the text before a final answer in ReAct's words, and the answer.

    Without such words, "" and the text.
    """
    *before, answer = _FINAL.split(text)
    return "".join(before).strip(), answer.strip() if before else text


def _given(text: str) -> Mapping[str, Any]:
    """Return the input of an action: an object, or a text, which is the query."""
    text = text.strip()
    if fenced := _FENCE.match(text):
        text = fenced[1]
    if text.startswith("{"):
        with suppress(ValueError):
            found: Mapping[str, Any] = _DECODER.raw_decode(text)[0]
            return found
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return dict(ast.literal_eval(text))
        return {}
    text = _QUERY.sub("", text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        text = text[1:-1]
    return {"query": text} if text else {}


def _python_calls(text: str) -> list[WrittenCall]:
    """Return the calls of a text that is Python: one, or a list of them (Llama, Gemma)."""
    if not _PYTHON.match(text):
        return []
    try:
        tree = ast.parse(text, mode="eval").body
        calls = tree.elts if isinstance(tree, ast.List) else [tree]
        return [
            WrittenCall(
                call.func.id,  # type: ignore[attr-defined]
                {str(k.arg): ast.literal_eval(k.value) for k in call.keywords},  # type: ignore[attr-defined]
            )
            for call in calls
        ]
    except (SyntaxError, ValueError, AttributeError, MemoryError, RecursionError):
        return []


def _json_calls(text: str, names: Collection[str]) -> list[WrittenCall]:
    """Return the calls in JSON; where an object names no tool, the last name before it counts."""
    calls: list[WrittenCall] = []
    at = text.find("{")
    while at >= 0:
        try:
            data, end = _DECODER.raw_decode(text, at)
        except ValueError:
            data, end = {}, at + 1
        if call := _json_call(data) or _named_before(text[max(0, at - 100) : at], data, names):
            calls.append(call)
        elif isinstance(data.get("tool_calls"), list):
            end = at + 1  # they are inside
        at = text.find("{", end)
    return calls


def _json_call(data: Mapping[str, Any]) -> WrittenCall | None:
    if isinstance(inner := data.get("function"), Mapping):
        data = inner
    name = next((data[key] for key in _NAMES if isinstance(data.get(key), str)), None)
    given = next((data[key] for key in _ARGUMENTS if key in data), None)
    if not name or given is None:
        return None
    if "action_input" in data and isinstance(given, str):
        return WrittenCall(name, _given(given))
    return WrittenCall(name, read_arguments(given) or {})


def _named_before(
    before: str, data: Mapping[str, Any], names: Collection[str]
) -> WrittenCall | None:
    places = {name: before.rfind(name) for name in names}
    name = max(places, key=lambda one: (places[one], len(one)), default="")
    return WrittenCall(name, data) if data and name and places[name] >= 0 else None
