"""A controller of your own: an object with `decide(view)`, and how its bugs are reported."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp

from ..candidates import bugs
from ..candidates.apart import run_apart
from ..candidates.failures import ReplyError, classify
from ..candidates.in_time import in_a_thread
from ..candidates.reply import Reply
from ..errors import ContextLengthError, RouterR1Error
from ..outside import text_of
from ..protocol import Call, Turn, render
from .controller import Controller, KeepsTurns, View

_DECIDE = ("decide", "adecide")
_OURS = f"{__name__.partition('.')[0]}."
_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
RAISED = (Exception, asyncio.CancelledError, GeneratorExit)
"""What the synchronous code of a controller raises; the others end the program."""


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
        self.name = str(_member(own, "name") or type(own).__name__)
        self._config = {
            name: _config_parameter(method) for name in _DECIDE if (method := _method(own, name))
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
        with _placed(own):
            usd = own(view) if own else 0.0
            with suppress(TypeError, ValueError):
                if float(usd) >= 0:
                    return float(usd)
            raise TypeError(f"worst_case_usd returns a number of USD, not {usd!r:.100}")

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn."""
        if "decide" not in self._config:
            reply: Reply = run_apart(lambda: self.adecide(view, config))
            return reply
        own = self.own.decide
        with _placed(own):
            return as_reply(_call(own, view, self._config["decide"], config), own)

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn without blocking the event loop."""
        if "adecide" not in self._config:
            return await in_a_thread(lambda: self.decide(view, config))
        own = self.own.adecide
        with _placed(own):
            came = _call(own, view, self._config["adecide"], config)
            return as_reply(await came if inspect.isawaitable(came) else came, own)


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


def end_question(controller: Controller, scratchpad: Sequence[AnyMessage]) -> None:
    """Tell a controller that keeps something between turns that a question has no further one.

    A bug there is logged, and ends nothing: what the question cost is paid.
    """
    own = own_of(controller)
    try:
        if isinstance(own, KeepsTurns):
            own.question_ended(scratchpad)
    except GraphBubbleUp:  # an interrupt, not a failure
        raise
    except RAISED as error:
        bugs.log(f"controller {controller.name} has a bug", error)


def as_reply(turn: object, decide: Callable[..., Any]) -> Reply:
    """Return a controller's decision as a reply.

    Raises:
        TypeError: it is no reply, turn or text, or a turn with a field of another type.
    """
    name = getattr(decide, "__name__", "decide")
    if isinstance(turn, Reply):
        return turn
    if isinstance(turn, Turn):
        if wrong := _wrong_field(turn):
            raise TypeError(f"{name} returns a Turn whose {wrong}")
        return Reply(text=render(turn))
    if isinstance(turn, str):
        return Reply(text=turn)
    wrong = type(turn).__name__
    if inspect.iscoroutine(turn):
        turn.close()  # else Python warns that nobody awaits it
        wrong += "; an `async def` is called adecide" if name == "decide" else ""
    raise TypeError(f"{name} returns a Reply, a Turn, or text in tags, not {wrong}")


def _wrong_field(turn: Turn) -> str:
    """Return what is wrong with a field of a turn that is written out; "" = nothing."""
    answer: object = turn.answer
    if not isinstance(answer, str | None):
        return f"answer is a text or None, not {type(answer).__name__}"
    for field, what, kind in (("thoughts", "texts", str), ("calls", "Calls", Call)):
        items = getattr(turn, field)
        if not isinstance(items, tuple | list):
            return f"{field} are a tuple of {what}, not {type(items).__name__}"
        for item in items:
            if not isinstance(item, kind):
                return f"{field} are {what}, not {type(item).__name__}"
            texts = (item.candidate, item.query) if isinstance(item, Call) else ()
            if not all(isinstance(text, str) for text in texts):
                return f"calls have texts as candidate and query, not {texts!r:.100}"
    return ""


@contextmanager
def _placed(method: Any) -> Iterator[None]:
    """Let an exception that no line of the user's raised say where their method is defined."""
    try:
        yield
    except BaseException as error:
        bugs.blame(error, _defined(method))
        raise


def _defined(method: Any) -> str:
    """Return where a user's method is defined, such as " (mine.py, line 3)"; "" = not known."""
    while isinstance(method, partial):
        method = method.func
    code = None if _is_ours(method) else getattr(method, "__code__", None)
    return f" ({Path(code.co_filename).name}, line {code.co_firstlineno})" if code else ""


def _is_ours(method: Any) -> bool:
    """Return whether a method is this package's own, inherited by a user's class or not."""
    return (getattr(method, "__module__", None) or "").startswith(_OURS)


def _method(own: Any, name: str) -> Any:
    """Return a method of an object; None = it has none of that name."""
    method = _member(own, name)
    return method if callable(method) else None


def _member(own: Any, name: str) -> Any:
    """Return a member of an object; None = it has none of that name.

    Raises:
        Exception: of a property's own code.
    """
    try:
        return getattr(own, name)
    except AttributeError:
        if isinstance(inspect.getattr_static(own, name, None), property | cached_property):
            raise
        return None


def failure(error: BaseException, controller: str) -> ReplyError:
    """Turn an exception of a controller's own code into an error, and log it with its traceback.

    Exceptions that a model's client raises inside `candidates.call.ask` never get here.

    Args:
        error: the exception.
        controller: the controller's name.
    """
    if isinstance(error, ContextLengthError):
        return ReplyError("context_length", text_of(error))
    where = bugs.place(error)
    if isinstance(error, RouterR1Error):  # says what is wrong
        return ReplyError("other", f"{text_of(error)}{where}")
    known = classify(error)
    is_bug = bugs.is_bug(error, known.kind)
    what = "has a bug" if is_bug else "raised"
    bugs.log(f"controller {controller} {what}", error)
    return ReplyError("bug" if is_bug else known.kind, f"{known.message}{where}")


def _config_parameter(method: Any) -> inspect.Parameter | None:
    """Return the parameter of a method that takes the config of the run; None = there is none.

    It is the one that is called `config` or annotated as a `RunnableConfig`, else a second one
    without a default. One with a default is the user's own.
    """
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):  # of an extension type
        return None
    takes_all = bool(parameters) and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
    others = parameters if takes_all else parameters[1:]
    for one in others:
        if one.name == "config" or "RunnableConfig" in str(one.annotation):
            return one if one.kind is not one.VAR_KEYWORD else None
    second = next(iter(others), None)
    if second and second.default is second.empty and second.kind not in _BY_NAME:
        return second
    return None


def _call(
    method: Any, view: View, takes: inspect.Parameter | None, config: RunnableConfig | None
) -> Any:
    """Call a method with the view, and with the config where it takes it."""
    if takes is None:
        return method(view)
    if takes.kind is takes.POSITIONAL_OR_KEYWORD or takes.kind is takes.KEYWORD_ONLY:
        return method(view, **{takes.name: config})
    return method(view, config)
