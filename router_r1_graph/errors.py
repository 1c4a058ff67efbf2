"""The errors that this library raises: one tree, split by the person who must act.

    RouterR1Error
    +-- ConfigError            the author of the configuration: a pool file, a spec, an option
    |   +-- PoolError          a pool file, or a candidate in it
    |   +-- ControllerError    a controller spec, or a controller that cannot be built
    |   +-- MissingExtraError  an optional dependency that is not installed
    +-- QuestionError          the author of the question: there is none, or it cannot be asked
    +-- TraceError             a trace file that is broken or of another version
    +-- MatrixError            a score matrix, or its file, that cannot be used

Two kinds of failures are values in the run, never exceptions: a controller's mistakes (malformed
text, an unknown candidate), and a candidate's failures (HTTP errors, time-outs). A bug of
ours crashes.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from .outside import visible

LONGEST_NAME = 100
"""Characters of a name that is compared with others; no name of ours has more."""


class RouterR1Error(RuntimeError):
    """Base of every error this library raises on purpose.

    It is a RuntimeError, because the LangGraph server passes on only the messages of Python's own
    errors to its clients; and no ValueError, because pydantic would take that for its own.

    A message may quote a file or a server, so it is one line, without control characters.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(" ".join(visible(str(message)).splitlines()))


class ConfigError(RouterR1Error):
    """A configuration that cannot be used. The CLI exits with code 2."""


class PoolError(ConfigError):
    """A pool file, or a candidate in it, that cannot be used."""


class ControllerError(ConfigError):
    """A controller spec that names nothing, or a controller that cannot be built, or that failed.

    Args:
        message: what is wrong.
        cost_usd: what the run had cost until then.
    """

    def __init__(self, message: str = "", *, cost_usd: float = 0.0) -> None:
        super().__init__(message)
        self.cost_usd = cost_usd


class ContextLengthError(ControllerError):
    """The context of a turn is longer than the controller can read."""


class MissingExtraError(ConfigError):
    """An optional dependency is needed, and not installed or not to be imported.

    Args:
        what: the part of the library that needs it.
        extra: the name of the extra.
        error: the exception of the import. The message repeats any but a missing module: a
            wrong version may be installed, and installing the extra again may not change that.
    """

    def __init__(self, what: str, extra: str, error: ImportError | None = None) -> None:
        install = f"pip install 'router-r1-graph[{extra}]'"
        if error is None or isinstance(error, ModuleNotFoundError):
            super().__init__(f"{what} needs the optional extra {extra!r}: {install}")
        else:
            super().__init__(
                f"{what} needs the optional extra {extra!r}, of which a package is installed that "
                f"cannot be imported: {error}; another version of it may help: {install}"
            )


class QuestionError(RouterR1Error):
    """There is no question to ask."""


class TraceError(RouterR1Error):
    """A trace file is broken or was written by another version."""


class MatrixError(RouterR1Error):
    """A score matrix, or its file, cannot be used."""


def did_you_mean(wrong: str, allowed: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest allowed name, or "" when none is near.

    Both may come from a client, and two long names take long to compare: they are near no other.
    """
    if len(wrong) > LONGEST_NAME:
        return ""
    folded = {name.casefold(): name for name in allowed if len(name) <= LONGEST_NAME}
    near = get_close_matches(wrong.casefold(), folded, n=1, cutoff=0.6)
    return f" (did you mean {folded[near[0]]!r}?)" if near else ""
