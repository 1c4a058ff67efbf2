"""A controller of your own: an object with `decide(view)`, and how its bugs are reported."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig

from ..candidates import bugs
from ..candidates.apart import run_apart
from ..candidates.failures import ReplyError, classify
from ..candidates.in_time import in_a_thread
from ..candidates.reply import Reply
from ..errors import ContextLengthError, RouterR1Error
from ..protocol import Turn, render
from .controller import Controller, KeepsTurns, View

_DECIDE = ("decide", "adecide")
_OURS = f"{__name__.partition('.')[0]}."


class OwnController:
    """Makes a whole controller of an object of a user's; missing members are filled in.

    Without `adecide`, `decide` runs in a thread. Without `decide`, `adecide` runs in an event loop
    of its own. Without `name`, the name of the class is used. Without `worst_case_usd`, it costs
    nothing.

    Args:
        own: the object; what decides returns a `Reply`, a `Turn`, or text in tags.
    """

    def __init__(self, own: Any) -> None:
        self.own = own
        self.name = str(getattr(own, "name", None) or type(own).__name__)
        self._config = {
            name: _takes_config(method) for name in _DECIDE if (method := _method(own, name))
        }

    @property
    def reads_cost_weight(self) -> bool:
        """Whether the cost weight changes its decisions; read by evaluations."""
        return bool(getattr(self.own, "reads_cost_weight", True))

    @property
    def streams_turns(self) -> bool:
        """Whether the streamed tokens are the turn itself, in tags."""
        return bool(getattr(self.own, "streams_turns", False))

    def worst_case_usd(self, view: View) -> float:
        """Return the most that the next turn can cost.

        Raises:
            TypeError: the object says no number from 0.
        """
        own = _method(self.own, "worst_case_usd")
        usd = own(view) if own else 0.0
        with suppress(TypeError, ValueError):
            if float(usd) >= 0:
                return float(usd)
        raise TypeError(f"worst_case_usd returns a number of USD, not {usd!r}{_defined(own)}")

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn."""
        if "decide" not in self._config:
            reply: Reply = run_apart(lambda: self.adecide(view, config))
            return reply
        own = self.own.decide
        return as_reply(own(view, *([config] if self._config["decide"] else [])), own)

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn without blocking the event loop."""
        if "adecide" not in self._config:
            return await in_a_thread(lambda: self.decide(view, config))
        own = self.own.adecide
        return as_reply(await own(view, *([config] if self._config["adecide"] else [])), own)


def whole(controller: Any) -> Controller | None:
    """Return an object as a controller; None if it cannot be one.

    One of this package is returned itself, since what it decides is a reply. So is a subclass that
    leaves `decide` and `adecide` to it.
    """
    methods = [_method(controller, name) for name in _DECIDE]
    if not any(methods):
        return None
    if all(map(_is_ours, methods)):
        return controller  # type: ignore[no-any-return]
    return OwnController(controller)


def own_of(controller: object) -> object:
    """Return the object that decides, which may have more members than a controller needs."""
    return controller.own if isinstance(controller, OwnController) else controller


def end_question(controller: object, scratchpad: Sequence[AnyMessage]) -> None:
    """Tell a controller that keeps something between turns that a question has no further one."""
    own = own_of(controller)
    if isinstance(own, KeepsTurns):
        own.question_ended(scratchpad)


def as_reply(turn: object, decide: Callable[..., Any]) -> Reply:
    """Return a controller's decision as a reply.

    Raises:
        TypeError: it is no reply, turn or text; the message says where `decide` is defined.
    """
    if isinstance(turn, Reply):
        return turn
    if isinstance(turn, Turn):
        return Reply(text=render(turn))
    if isinstance(turn, str):
        return Reply(text=turn)
    name = getattr(decide, "__name__", "decide")
    wrong = type(turn).__name__
    raise TypeError(
        f"{name} returns a Reply, a Turn, or text in tags, not {wrong}{_defined(decide)}"
    )


def _defined(method: Any) -> str:
    """Return where a user's method is defined, such as " (mine.py, line 3)"; "" = not known."""
    code = None if _is_ours(method) else getattr(method, "__code__", None)
    return f" ({Path(code.co_filename).name}, line {code.co_firstlineno})" if code else ""


def _is_ours(method: Any) -> bool:
    """Return whether a method is this package's own, inherited by a user's class or not."""
    return (getattr(method, "__module__", None) or "").startswith(_OURS)


def _method(own: Any, name: str) -> Any:
    """Return a method of an object; None = it has none of that name."""
    method = getattr(own, name, None)
    return method if callable(method) else None


def failure(error: BaseException, controller: str) -> ReplyError:
    """Turn an exception of a controller's own code into an error, and log it with its traceback.

    Exceptions that a model's client raises inside `candidates.call.ask` never get here.

    Args:
        error: the exception.
        controller: the controller's name.
    """
    if isinstance(error, ContextLengthError):
        return ReplyError("context_length", str(error))
    where = bugs.place(error)
    if isinstance(error, RouterR1Error):  # says what is wrong
        return ReplyError("other", f"{error}{where}")
    known = classify(error)
    is_bug = bugs.is_bug(error, known.kind)
    what = "has a bug" if is_bug else "raised"
    bugs.log(f"controller {controller} {what}", error)
    return ReplyError("bug" if is_bug else known.kind, f"{known.message}{where}")


def _takes_config(method: Any) -> bool:
    """Return whether a method takes more than the view."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # of an extension type
        return False
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in plain for p in parameters) > 1 or any(
        p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters
    )
