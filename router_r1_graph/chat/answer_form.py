"""The form in which an answer is asked: as calls of the user's tools, as JSON, or as either.

The question is routed as ever. Then a model that can call tools, the formatter, is shown the answer
and gives it in the asked form. JSON is asked for as a call too, of one tool whose arguments are the
JSON: every provider knows tools, few know schemas.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from ..candidates.finish import CUT, Finish, finish_of
from ..candidates.returned import as_it_came, kept_of
from ..candidates.thoughts import apart
from ..candidates.tool_calls import written_calls
from ..controllers.chat_messages import alternating
from ..errors import ConfigError, ControllerError, did_you_mean
from ..observations import instructions
from ..protocol import render_observation
from .schemas import as_json, as_object, check_schema, half_json, is_any_object

OPTIONS = ("tools", "tool_choice", "response_format", "parallel_tool_calls", "strict")
"""The options of a call to a chat model that say the form, as LangChain and OpenAI name them."""

_ANSWERED = "The question was put to other models, and this is the answer:"
_BY_CALL = "Give this answer by calling a tool. Add nothing that is not known."
_BY_CALL_IF_NEEDED = (
    "If this is enough, repeat it word by word. Call a tool only if the question needs it."
)
_AS_JSON = "Give this answer as one JSON object, and write nothing else."


@dataclass(frozen=True)
class Form:
    """The form of an answer."""

    tools: tuple[Mapping[str, Any], ...] = ()
    """Functions that may be called, in OpenAI's form."""
    choice: str = "auto"
    """`auto`, `any` (some tool has to be called), or the name of the tool to call."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema of a text; {} = any JSON object; None = the text is free."""
    title: str = "answer"
    """What the schema describes, as the name of a tool."""
    parallel: bool = True
    """Whether several tools may be called at once."""

    @property
    def bound(self) -> list[dict[str, Any]]:
        """The tools that the formatter is given: the user's, and one whose arguments are JSON."""
        bound = [dict(tool) for tool in self.tools]
        if self.schema:
            about = {
                "name": self.title,
                "description": str(self.schema.get("description") or "Gives the final answer."),
                "parameters": as_object(self.schema),
            }
            bound.append({"type": "function", "function": about})
        return bound

    @property
    def bound_choice(self) -> str:
        """The `tool_choice` of the formatter's call: `auto`, `any`, or a name."""
        if not self.schema or self.choice not in ("auto", "any"):
            return self.choice
        return "any" if self.tools else self.title

    def prompt(self, messages: Sequence[AnyMessage], answer: str) -> list[AnyMessage]:
        """Return the conversation with the answer told below the question.

        It is told there, and not at the end, since strict chat templates allow no user's message
        after a tool's result. What the system says is one message, and stands first.

        Args:
            messages: the conversation; its last human message is the question.
            answer: the answer to it; "" = there is none yet.
        """
        how = [_ANSWERED, render_observation("answer", answer)] if answer else []
        if answer and self.bound:
            how += [_BY_CALL_IF_NEEDED if self.bound_choice == "auto" else _BY_CALL]
        how += [_AS_JSON] if self.schema == {} else []
        told = "\n".join(how)
        place = last_human(messages)
        question = messages[place]
        said: Any = question.content
        if told and isinstance(said, str):
            said = f"{said}\n\n{told}"
        elif told:
            said = [*said, {"type": "text", "text": f"\n\n{told}"}]
        told_too = question.model_copy(update={"content": said})
        worked = [as_it_came(m) if isinstance(m, AIMessage) else m for m in messages[place + 1 :]]
        system = [SystemMessage(text)] if (text := instructions(messages)) else []
        shown = [*messages[:place], told_too, *worked]
        fitted = alternating(m for m in shown if not isinstance(m, SystemMessage))
        while fitted and isinstance(fitted[-1], AIMessage):  # strict templates want the last word
            fitted.pop()
        # What an assistant says before anybody asks is left out, as it is for controllers.
        return [*system, *dropwhile(lambda m: not isinstance(m, HumanMessage), fitted)]

    def read(
        self, message: AIMessage, messages: Sequence[AnyMessage], answer: AIMessage
    ) -> AIMessage:
        """Return the answer in its form: a message with tool calls, or with a text alone.

        A call that was cut is none, and neither are those beside it: the answer is a text then, and
        its finish reason says so. Half a JSON is handed on as it is, with that reason.

        Args:
            message: what the formatter wrote.
            messages: the conversation.
            answer: the routed answer. Without a call it is the text, unchanged; but once tools have
                been called, or if there is none, only the formatter knows the text.

        Raises:
            ControllerError: it is whole, and not of the asked form.
        """
        text = apart(str(message.text))[1].strip()
        finish = finish_of(message)
        called: list[Any] = [*message.tool_calls, *message.invalid_tool_calls]
        begun = said = False
        if not called:
            text, called, begun = self._written(text)
            said = bool(text)
        final = [c for c in called if self.schema and c["name"] == self.title]
        calls = [c for c in called if c not in final][: None if self.parallel else 1]
        # The last call of a cut turn may be half a call that a client has completed.
        halves = [c for c in called if c["type"] == "invalid_tool_call"]
        halves += called[-1:] if finish in CUT else []
        if calls and not any(c in halves for c in calls):
            return AIMessage("", additional_kwargs=kept_of(message), tool_calls=calls)
        if final and final[0] not in halves:
            return AIMessage(as_json(final[0]["args"], self.schema or {}))
        # Servers say `tool_calls` of half a call, too.
        cut: Finish = finish if finish in CUT else "length"
        forced = self.choice != "auto"
        if self.schema is not None and not calls and (final or finish in CUT):
            half = half_json(final[0]["args"], self.schema) if final and not said else text
            return AIMessage(half, response_metadata={"finish_reason": cut})
        is_cut = bool(calls) or (finish in CUT and (begun or forced))
        if is_cut or (self.schema is None and not forced):
            asked = messages[last_human(messages) :]
            known = str(answer.text)
            knows_more = not known or any(isinstance(m, ToolMessage) for m in asked)
            finish = cut if is_cut else finish if knows_more else finish_of(answer)
            told = {"finish_reason": finish} if finish in CUT else {}
            return AIMessage(text or known if knows_more else known, response_metadata=told)
        if self.schema == {} and (found := _json_in(text)) is not None:
            return AIMessage(json.dumps(found, ensure_ascii=False))
        had_to = "wrote no JSON object" if self.schema == {} else "called no tool"
        raise ControllerError(f"it {had_to}, though it had to, and wrote {text[:80]!r}")

    def _written(self, text: str) -> tuple[str, list[Any], bool]:
        """Return the calls, or the arguments of the one, that a model wrote as a text.

        Before them stands the text without them, and behind whether it had begun a call.
        """
        names = [tool["function"]["name"] for tool in self.bound]
        before, written = written_calls(text, names)
        calls = [(call.name, dict(call.arguments)) for call in written if call.name in names]
        name = self.bound_choice
        if name == "any":
            name = names[0] if len(names) == 1 else ""
        if not calls and name != "auto" and (found := _json_in(text) if name else None) is not None:
            calls = [(name, found)]
        made = [{"type": "tool_call", "name": n, "args": a, "id": _call_id()} for n, a in calls]
        return before.strip(), made, bool(written)


def form_of(options: Mapping[str, Any]) -> Form | None:
    """Return the form that the options of a call ask for; None = a text.

    Args:
        options: of which `OPTIONS` are read. Tools may be functions, classes, LangChain tools or
            dicts; `tool_choice` has LangChain's or OpenAI's form; `response_format` has OpenAI's.

    Raises:
        ConfigError: a tool is no function, or the choice or the format cannot be understood.
    """
    given = options.get("tool_choice")
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


def last_human(messages: Sequence[Any]) -> int:
    """Return the place of the last human message; that of the last message if there is none."""
    places = [n for n, message in enumerate(messages) if isinstance(message, HumanMessage)]
    return places[-1] if places else len(messages) - 1


def _function(tool: Any) -> Mapping[str, Any]:
    if isinstance(tool, Mapping) and tool.get("type") == "custom" and "input_schema" not in tool:
        raise ConfigError(
            f"tools: {tool!r:.80} is no function; tools that are called with a free text cannot be "
            "used"
        )
    try:
        converted = convert_to_openai_tool(tool)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"tools: {tool!r:.80} is no tool: {error}") from None
    function = converted.get("function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise ConfigError(
            f"tools: {tool!r:.80} is no function; tools that a provider runs itself cannot be used"
        )
    check_schema(function.get("parameters") or {}, f"tools: {function['name']}.parameters")
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


def _call_id() -> str:
    return f"call_{secrets.token_hex(8)}"


def _json_in(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is, in a code block or not; None if it is none."""
    fenced = re.search(r"^```\w*\s*(.*?)\s*^```", text, re.DOTALL | re.MULTILINE)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
