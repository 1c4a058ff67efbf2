"""A controller of your own: any object with `decide(view)`, and how its bugs are reported."""

from __future__ import annotations

import inspect
import logging
import sysconfig
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig

from ..candidates.failures import ReplyError, classify
from ..candidates.in_time import in_a_thread
from ..candidates.keys import scrub
from ..candidates.reply import Reply
from ..errors import ContextLengthError, RouterR1Error
from ..protocol import Turn, render
from .controller import Controller, View

logger = logging.getLogger(__name__)

_ALL = ("name", "worst_case_usd", "decide", "adecide")
_OURS = str(Path(__file__).parents[1])
_LOGGED = "_router_r1_logged"
"""On an exception: its traceback is in the log."""
_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


class OwnController:
    """Makes a whole controller of an object with `decide(view)`; missing members are filled in.

    Without `adecide`, `decide` runs in a thread. Without `name`, the name of the class is used.
    Without `worst_case_usd`, it costs nothing.

    Args:
        own: the object; `decide` returns a `Reply`, a `Turn`, or text in tags.
    """

    def __init__(self, own: Any) -> None:
        self.own = own
        self.name = str(getattr(own, "name", None) or type(own).__name__)
        self._config = {
            method: _takes_config(getattr(own, method))
            for method in ("decide", "adecide")
            if hasattr(own, method)
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
        """Return the most that the next turn can cost."""
        own = getattr(self.own, "worst_case_usd", None)
        return float(own(view)) if own else 0.0

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn."""
        own = self.own.decide
        return as_reply(own(view, *([config] if self._config["decide"] else [])), own)

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Write one turn without blocking the event loop."""
        if "adecide" not in self._config:
            return await in_a_thread(lambda: self.decide(view, config))
        own = self.own.adecide
        return as_reply(await own(view, *([config] if self._config["adecide"] else [])), own)


def whole(controller: Any) -> Controller | None:
    """Return an object as a controller: itself if it has all members; None if it cannot be one."""
    if not callable(getattr(controller, "decide", None)):
        return None
    if all(hasattr(controller, name) for name in _ALL) and _takes_config(controller.decide):
        return controller  # type: ignore[no-any-return]
    return OwnController(controller)


def own_of(controller: Controller) -> object:
    """Return the object that decides; it may have more members than a controller needs."""
    return controller.own if isinstance(controller, OwnController) else controller


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
    code = getattr(decide, "__code__", None)
    where = f" ({Path(code.co_filename).name}, line {code.co_firstlineno})" if code else ""
    raise TypeError(
        f"decide returns a Reply, a Turn, or text in tags, not {type(turn).__name__}{where}"
    )


def failure(error: BaseException, controller: str) -> ReplyError:
    """Turn an exception of a controller's own code into an error, and log it with its traceback.

    Exceptions that a model's client raises inside `candidates.call.ask` never get here.

    Args:
        error: the exception.
        controller: the controller's name.
    """
    if isinstance(error, ContextLengthError):
        return ReplyError("context_length", str(error))
    if isinstance(error, RouterR1Error):  # says what is wrong, and where
        return ReplyError("other", str(error))
    known = classify(error)
    builtin = type(error).__module__ == "builtins" and not isinstance(error, OSError)
    if not getattr(error, _LOGGED, False):  # one batch's failure is that of all its questions
        what = "has a bug" if builtin else "raised"
        logger.error("controller %s %s", controller, what, exc_info=error)
        with suppress(AttributeError):
            setattr(error, _LOGGED, True)
    if not builtin:
        return known
    return ReplyError("bug", f"{scrub(known.message)}{_place(error)}")


def _place(error: BaseException) -> str:
    """Return the line that raised: the last one outside of installed code and ours; "" for none."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((_OURS, *_INSTALLED))]
    if not theirs:
        return ""
    frame = theirs[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})"


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
