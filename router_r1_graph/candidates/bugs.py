"""Bugs in a user's own code: what is one, where it is, and its traceback in the log."""

from __future__ import annotations

import logging
import os
import re
import sysconfig
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from json import JSONDecodeError
from pathlib import Path
from types import CodeType

from langchain_core.tools import ToolException

from .error_kinds import ErrorKind
from .failures import ReplyError, attribute, chain, innermost
from .keys import scrub

logger = logging.getLogger(__name__)

_VAGUE: frozenset[ErrorKind] = frozenset({"malformed", "other"})
"""The kinds of exceptions that say nothing of a server or a model."""
_CLIENTS = re.compile(
    r"openai|anthropic|httpx|httpcore|h11|h2|requests|urllib3|aiohttp|websockets|grpc|google"
    r"|botocore|boto3|groq|mistralai|cohere|ollama|together|fireworks|huggingface_hub|litellm|mcp"
    r"|langchain_(?!core)\w+"
)
"""Packages whose exceptions are about a server, whatever their kind."""
_NOT_THEIRS = tuple(
    f"{folder}{os.sep}"
    for folder in (
        Path(__file__).parents[1],
        *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")),
    )
)
_SHARED = "_router_r1_shared"
"""On an exception that several questions get: whether its traceback is in the log."""
_DEFINED = "_router_r1_defined"
"""On an exception that no line of the user's raised: where the method that was called is."""


def is_bug(error: BaseException, kind: ErrorKind) -> bool:
    """Return whether an exception tells of a mistake in code, and of no server.

    Args:
        error: the exception.
        kind: as it was classified.
    """
    classes = {c for e in chain(innermost(error)) for c in type(e).__mro__}
    if any(_CLIENTS.fullmatch(c.__module__.partition(".")[0]) for c in classes):
        return False
    if ToolException in classes:  # a tool raises it to say that it cannot help
        return False
    if any(c.__name__ in ("MemoryError", "OutOfMemoryError") for c in classes):  # torch's, too
        return False
    return kind in _VAGUE or JSONDecodeError in classes


def place(error: BaseException) -> str:
    """Return the line of a user's code that raised, such as " (mine.py, line 3, in decide)".

    It is the last one outside of installed packages and of this one; "" = there is none. An
    exception that was made of another one may have the line of the other.
    """
    # One in a group may never have been raised itself.
    for raised in (*chain(innermost(error)), error):
        frames = traceback.walk_tb(raised.__traceback__)
        theirs = [(f.f_code, line) for f, line in frames if _is_theirs(f.f_code)]
        if theirs:
            code, line = theirs[-1]
            return f" ({Path(code.co_filename).name}, line {line}, in {code.co_name})"
    return attribute(error, _DEFINED) or ""


def blame(error: BaseException, defined: str) -> None:
    """Keep where the method is defined whose call raised, for `place`; "" = not known."""
    with suppress(Exception):
        setattr(error, _DEFINED, defined)


def share(error: BaseException) -> None:
    """Mark an exception that several questions get, so that it is logged once."""
    with suppress(Exception):
        setattr(error, _SHARED, False)


def _is_theirs(code: CodeType) -> bool:
    file = code.co_filename
    if file.startswith("<"):
        # "__": a dataclass's methods
        return not (code.co_name.startswith("__") or file.startswith("<frozen "))
    compiled = file.endswith((".pyx", ".pxd"))  # such as the event loop of uvloop
    return not (compiled or file.startswith(_NOT_THEIRS))


def _is_of_a_client(error: BaseException) -> bool:
    """Return whether a client of a server raised, called by the last line of the user's."""
    frames = [frame for frame, _ in traceback.walk_tb(innermost(error).__traceback__)]
    for frame in reversed(frames):
        if _CLIENTS.fullmatch(str(frame.f_globals.get("__name__")).partition(".")[0]):
            return True
        if _is_theirs(frame.f_code):
            break
    return False


def located(
    known: ReplyError, error: BaseException, who: str, secrets: Sequence[str] = ()
) -> ReplyError:
    """Return a model's error as a bug with its line if a user's own code raised, and log it.

    What says that a server may be down keeps its kind: then the call is repeated. So does what a
    client raises that the user's code calls: it may not be able to read the server's reply.

    Args:
        known: the error, as it was classified.
        error: the exception.
        who: the candidate or the controller.
        secrets: the keys that are known.
    """
    where = place(error)
    if not (where and is_bug(error, known.kind)):
        return known
    log(f"{who} has a bug", error, secrets)
    kind: ErrorKind = "bug" if known.kind in _VAGUE and not _is_of_a_client(error) else known.kind
    return replace(known, kind=kind, message=f"{known.message.rstrip()}{where}")


def log(what: str, error: BaseException, secrets: Sequence[str] = ()) -> None:
    """Log an exception with its traceback, without keys in it.

    Args:
        what: who raised it, and whether it is a bug.
        error: the exception.
        secrets: the keys that are known.
    """
    shared = attribute(error, _SHARED)
    if shared:
        return
    try:
        told = "".join(traceback.format_exception(error))
    except Exception:  # of the exception's own code
        lines = "".join(traceback.format_tb(error.__traceback__))
        told = f"Traceback (most recent call last):\n{lines}{type(error).__name__}"
        logger.error("%s\n%s", what, scrub(told, *secrets))
    else:
        if (clean := scrub(told, *secrets)) == told:
            logger.error(what, exc_info=error)  # whole, for those who collect exceptions
        else:
            logger.error("%s\n%s", what, clean)
    if shared is not None:
        setattr(error, _SHARED, True)
