"""The requested form of an answer: calls of the user's tools, JSON, or either.

The question is routed as usual. Then a model that can call tools, the formatter, reads the answer
and writes it in the requested form. JSON is requested as a call too, of one tool with the JSON as
its arguments: every provider knows tools, few know schemas.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import dropwhile
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage

from ..candidates.finish import CUT, Finish, finish_of
from ..candidates.returned import as_it_came, kept_of
from ..candidates.thoughts import apart
from ..candidates.tool_calls import read_arguments
from ..candidates.written_calls import written_calls
from ..controllers.chat_messages import alternating
from ..controllers.tool_turns import plain_name
from ..errors import ControllerError
from ..observations import instructions
from ..protocol import beginning, render_observation
from .schemas import as_json, as_object, half_json

_ANSWERED = "The question was put to other models, and this is the answer:"
_BY_CALL = "Give this answer by calling a tool. Add nothing that is not known."
_BY_CALL_IF_NEEDED = (
    "If this is enough, repeat it word by word. Call a tool only if the question needs it."
)
_LONGEST = 256 * 1024
"""Tokens that are read of a reply: no model writes so many, but a hostile server does."""
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
    """The name of the tool for the schema: the thing that the schema describes."""
    parallel: bool = True
    """Whether several tools may be called at once."""

    @cached_property
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
        """Return the conversation with the answer added below the question.

        It is there, and not at the end, since strict chat templates allow no user's message after a
        tool's result. The system messages become one message, at the beginning.

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

        A call that was cut is dropped, and so are those beside it. Then the answer is a text,
        and its finish reason says that it was cut. Half a JSON is handed on as it is, with that
        reason.

        Args:
            message: the formatter's reply.
            messages: the conversation.
            answer: the routed answer. Without a call it is the text, unchanged; but once tools have
                been called, or if there is none, only the formatter knows the text.

        Raises:
            ControllerError: it is whole, and not of the asked form.
        """
        whole = str(message.text)
        kept = beginning(whole, _LONGEST)
        text = apart(kept)[1].strip()
        finish = finish_of(message) if kept == whole else "length"
        called = self._bound_calls(message)
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

    def _bound_calls(self, message: AIMessage) -> list[Any]:
        """Return the calls of tools that are bound: a client knows no others."""
        calls: list[Any] = [{**c} for c in (*message.tool_calls, *message.invalid_tool_calls)]
        names = [tool["function"]["name"] for tool in self.bound]
        if self.schema and not self.tools:  # the only one, whatever the model calls it
            return [{**call, "name": self.title} for call in calls]
        for call in calls:
            call["name"] = call["name"] if call["name"] in names else plain_name(call["name"])
        return [call for call in calls if call["name"] in names]

    def _written(self, text: str) -> tuple[str, list[Any], bool]:
        """Return the calls, or the arguments of the one, that a model wrote as a text.

        The result also has the text before them, and whether it had begun a call.
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


def last_human(messages: Sequence[Any]) -> int:
    """Return the place of the last human message; that of the last message if there is none."""
    places = [n for n, message in enumerate(messages) if isinstance(message, HumanMessage)]
    return places[-1] if places else len(messages) - 1


def _call_id() -> str:
    return f"call_{secrets.token_hex(8)}"


def _json_in(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is, in a code block, or amid prose; None = it is none.

    It is read as arguments of a call are. One of several objects is none, and so is one of a list.
    """
    fence = re.search(r"^```\w*+(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inside = (fence[1] if fence else text).strip()
    start, end = inside.find("{"), inside.rfind("}") + 1
    if "[" in (inside[:1], inside[:start].rstrip()[-1:]) or "{" in inside[end:]:
        return None
    found = read_arguments(inside)
    return read_arguments(inside[start:end]) if found is None and 0 <= start < end else found
