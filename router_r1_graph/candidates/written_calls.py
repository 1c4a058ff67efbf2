"""Calls of tools that a model writes as text."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from . import harmony
from .tool_calls import DECODER, literal, read_arguments, unfenced

#: How models mark a call in their text (Hermes, Qwen, LFM2 and DeepSeek; Mistral; Llama; Cohere;
#: InternLM; Jamba, Anthropic, Nemotron and OLMo; MiniMax and xAI; Phi).
_MARK = re.compile(
    r"<tool_call>|\[TOOL_CALLS\]|<\|(?:python_tag|python_start|START_ACTION|action_start)\|>"
    r"|<function=|<[|\uff5c]tool[\u2581_]call|functools\[|<TOOLCALL>"
    r"|<(?:[\w|\uff5c]+:?)?(?:(?:function|tool)_calls?|(?:invoke|function_call) name=[^<>]{0,200})>"
)
_ANY_MARK = re.compile(r"</?[|\w\uff5c\u2581:]+>|\[/?[A-Z_]+\]")
_NAMES = ("name", "tool", "function", "action", "tool_name")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "action_input", "tool_input")
#: Calls in tags, and what they are called with: Qwen, Anthropic and MiniMax, GLM. Numbers bound
#: what is read twice, so that no text of a server stalls anybody.
_TAGGED = re.compile(
    r"<(?:[\w|\uff5c]+:?)?(?:function=|(?:invoke|function_call) name=)"
    r"[\"']?(?P<name>[^<>\"'\s]{1,200})[\"']?\s*>"
    r"|<tool_call>\s*(?P<line>[^\s<>{}]{1,200})\s*(?=<arg_key>)"
)
_PARAMETER = re.compile(
    r"<(?:[\w|\uff5c]+:?)?parameter(?:=| name=)[\"']?(?P<name>[^<>\"']{1,200})[^<>]{0,200}>"
    r"|<arg_key>(?P<key>[^<]{0,200})</arg_key>\s*<arg_value>"
)
_PARAMETER_ENDS = re.compile(r"</(?:[\w|\uff5c]+:?)?parameter>")
_VALUE_ENDS = re.compile(r"</arg_value>")
_MOST_FAILURES = 100
"""JSON is looked for behind so many braces that begin none: each takes a look at the whole text."""
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
_PYTHON = re.compile(r"\A\[?\s*[^\W\d][\w.]*\(.*\)\s*\]?\Z", re.S)
_AT_A_LINE = re.compile(r"^[ \t]*(?=\{|\[\s*\{)", re.M)


@dataclass(frozen=True)
class WrittenCall:
    """A call that a model wrote as text; arguments that cannot be read are {}."""

    name: str
    arguments: Mapping[str, Any]


def written_calls(text: str, names: Collection[str]) -> tuple[str, list[WrittenCall]]:
    """Return the calls in a text, and what stands before them; no calls and the text for none.

    Args:
        text: what a model wrote.
        names: of the tools that it has.

    Example:
        >>> written_calls('<tool_call>{"name": "A", "arguments": {"query": "Who?"}}', ["A"])[1]
        [WrittenCall(name='A', arguments={'query': 'Who?'})]
    """
    before, named = harmony.calls(text)
    if named:
        return before, [WrittenCall(name, _object_in(given)) for name, given in named]
    if mark := _MARK.search(text):
        before, rest = text[: mark.start()], text[mark.start() :]
        # A call that cannot be read is one too: it is not the answer.
        return before, _marked_calls(rest, names) or [WrittenCall("", {})]
    before, calls = _react_calls(text, names)
    if calls:
        return before, calls
    bare = unfenced(text)
    calls = _json_calls(bare, ()) if bare[:1] in ("{", "[") else []
    if _all_known(calls := calls or _python_calls(bare), names):
        return "", calls
    first, parts = _calls_in_prose(text)
    if all(_all_known(part, names) for part in parts):
        return text[:first], [call for part in parts for call in part]
    return text, []


def _all_known(calls: Collection[WrittenCall], names: Collection[str]) -> bool:
    """Return whether there are calls, all of known tools, and each with arguments."""
    known = {name.casefold() for name in names}
    return bool(calls) and all(c.name.casefold() in known and c.arguments for c in calls)


def _marked_calls(text: str, names: Collection[str]) -> list[WrittenCall]:
    """Return the calls behind a mark, in whatever language they are."""
    parts = [part.strip() for part in _ANY_MARK.split(text)]
    return (
        _tagged_calls(text)
        or [call for part in parts for call in _python_calls(part)]
        or _json_calls(text, names)
        or [call for part in parts for call in _literal_calls(part)]
    )


def _calls_in_prose(text: str) -> tuple[int, list[list[WrittenCall]]]:
    """Return where the first code fence or JSON object in a text is, and the calls in each.

    An object begins a line. With none, the place is the end.
    """
    first, parts, at, failures = len(text), list[list[WrittenCall]](), 0, 0
    for n, piece in enumerate(text.split("```")):
        if n % 2:
            code = unfenced(f"```{piece}```")
            parts.append(_json_calls(code, ()) or _python_calls(code))
            first = min(first, at - 3)
        end = 0
        for found in () if n % 2 else _AT_A_LINE.finditer(piece):
            if failures >= _MOST_FAILURES:
                break
            if found.end() < end:  # within the last one
                continue
            try:
                end = DECODER.raw_decode(piece, found.end())[1]
            except (ValueError, RecursionError):
                failures += 1
            else:
                parts.append(_json_calls(piece[found.end() : end], ()))
                first = min(first, at + found.start())
        at += len(piece) + 3
    return first, parts


def _tagged_calls(text: str) -> list[WrittenCall]:
    """Return the calls in tags that name their parameters."""
    calls = []
    found = [*_TAGGED.finditer(text)]
    for call, following in zip_longest(found, found[1:]):
        end = following.start() if following else len(text)
        given = dict(_parameters(text, call.end(), end))
        if given:
            calls.append(WrittenCall(call["name"] or call["line"], given))
    return calls


def _parameters(text: str, start: int, end: int) -> Iterator[tuple[str, str]]:
    """Yield the names and the values of parameters in tags, up to one that is not closed."""
    while opening := _PARAMETER.search(text, start, end):
        name, key = opening["name"], opening["key"]
        closes = _VALUE_ENDS if name is None else _PARAMETER_ENDS
        if (closing := closes.search(text, opening.end(), end)) is None:
            return
        yield (name or key or "").strip(), text[opening.end() : closing.start()].strip()
        start = closing.end()


def _react_calls(text: str, names: Collection[str]) -> tuple[str, list[WrittenCall]]:
    """Return the calls in ReAct's steps, up to an invented observation, and what stands before."""
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
    """Return what stands before a final answer in ReAct's words, and the answer.

    Without such words, "" and the text.
    """
    *before, answer = _FINAL.split(text)
    return "".join(before).strip(), answer.strip() if before else text


def _given(text: str) -> Mapping[str, Any]:
    """Return the input of an action: an object, or a text, which is the query."""
    text = unfenced(text)
    if text.startswith("{"):
        return _object_in(text)
    text = _QUERY.sub("", text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        text = text[1:-1]
    return {"query": text} if text else {}


def _object_in(text: str) -> Mapping[str, Any]:
    """Return the object that a text is or begins with; {} = it cannot be read."""
    if (whole := read_arguments(text)) is not None:
        return whole
    with suppress(ValueError, RecursionError):
        found: Mapping[str, Any] = DECODER.raw_decode(text, text.index("{"))[0]
        return found
    return {}


def _python_calls(text: str) -> list[WrittenCall]:
    """Return the calls of a text that is Python: lines of them, or a list (Llama, Gemma, OLMo)."""
    if not _PYTHON.match(text):
        return []
    try:
        return [call for line in ast.parse(text).body for call in _calls_of(line)]
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []


def _calls_of(code: ast.AST) -> Iterator[WrittenCall]:
    """Yield the calls in Python; a ValueError says that something else is there, too."""
    if isinstance(code, ast.Expr):
        yield from _calls_of(code.value)
    elif isinstance(code, ast.List):
        for one in code.elts:
            yield from _calls_of(one)
    elif not isinstance(code, ast.Call):
        raise ValueError("no call")
    elif isinstance(code.func, ast.Name) and code.func.id == "print" and not code.keywords:
        for one in code.args:
            yield from _calls_of(one)
    else:
        names = ast.unparse(code.func).removesuffix(".call").split(".")  # of a module, a builtin
        given = {str(k.arg): ast.literal_eval(k.value) for k in code.keywords}
        yield WrittenCall(names[-1], given)


def _literal_calls(text: str) -> list[WrittenCall]:
    """Return the calls of a text that is a Python literal: JSON in single quotes (Hermes)."""
    found = literal(text)
    calls = [_json_call(one) for one in (found if isinstance(found, list) else [found]) if one]
    return [call for call in calls if call]


def _json_calls(text: str, names: Collection[str]) -> list[WrittenCall]:
    """Return the calls in JSON; where an object names no tool, the last name before it counts."""
    calls: list[WrittenCall] = []
    at, failures = text.find("{"), 0
    while at >= 0 and failures < _MOST_FAILURES:
        try:
            data, end = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            data, end, failures = {}, at + 1, failures + 1
        if call := _json_call(data) or _named_before(text[max(0, at - 100) : at], data, names):
            calls.append(call)
        elif isinstance(data.get("tool_calls"), list):
            end = at + 1  # they are inside
        at = text.find("{", end)
    return calls


def _json_call(data: object) -> WrittenCall | None:
    if not isinstance(data, Mapping):
        return None
    if isinstance(inner := data.get("function"), Mapping):
        data = inner
    name = next((data[key] for key in _NAMES if isinstance(data.get(key), str)), None)
    given = next((data[key] for key in _ARGUMENTS if key in data), None)
    if not name or given is None:
        return None
    if {"action_input", "tool_input"} & data.keys() and isinstance(given, str):
        return WrittenCall(name, _given(given))
    return WrittenCall(name, read_arguments(given) or {})


def _named_before(
    before: str, data: Mapping[str, Any], names: Collection[str]
) -> WrittenCall | None:
    places = {name: before.rfind(name) for name in names}
    name = max(places, key=lambda one: (places[one], len(one)), default="")
    return WrittenCall(name, data) if data and name and places[name] >= 0 else None
