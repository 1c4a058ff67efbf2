"""From settings to a LangChain chat model, by the factory that `provider:` names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.runnables import Runnable
from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, PoolError, RouterR1Error, did_you_mean
from ..invalid import explain
from .apart import run_apart
from .candidate import Candidate
from .given import read_leniently
from .keys import keep_out_of_logs, scrub
from .reply import ChatModel
from .resilience.endpoint import endpoint_of
from .settings import PROVIDERS, ModelSettings

Options = TypeVar("Options", bound=BaseModel)


def make_chat_model(settings: ModelSettings) -> ChatModel:
    """Build the chat model of a candidate or a controller.

    Raises:
        PoolError: the provider cannot be imported, fails, or does not return a chat model.
    """
    who = settings.name if isinstance(settings, Candidate) else "controller"
    settings, secrets = settings.resolved(), settings.secrets
    keep_out_of_logs(*secrets)
    try:
        endpoint_of(settings)  # a store that cannot be used is said now, and not by the first call
        path = PROVIDERS.get(settings.provider, settings.provider)
        factory: Callable[[ModelSettings], Any] = import_name(path, settings.folder)
        with looking_in(path, settings.folder):  # a factory may import more
            model = run_apart(lambda: factory(settings))
    except PoolError:
        raise
    except Exception as error:  # any error: an option of the pool caused it
        # Ours are sentences; of any other the class says half of it.
        name = "" if isinstance(error, RouterR1Error) else f"{type(error).__name__}: "
        why = " ".join(scrub(f"{name}{_said(error)}", *secrets).split())[:500]
        raise PoolError(f"{who}: provider {settings.provider!r}: {why}") from error
    if not isinstance(model, Runnable):
        raise PoolError(
            f"{who}: provider {settings.provider!r} returned {type(model).__name__}, "
            "not a LangChain chat model"
        )
    return read_leniently(model, secrets)


def _said(error: Exception) -> str:
    """Return what an error says, without the values that pydantic repeats: one may be a secret."""
    if not isinstance(error, ValidationError):
        return str(error)
    wrong = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong)


def import_name(path: str, folder: Path | None = None) -> Any:
    """Import the object of `module:name`, from an installed module or one of the user's own files.

    It is searched for beside the file that names it, in the current folder, and on Python's path.

    Args:
        path: `module:name`; the name may have dots in it.
        folder: of the file that names it; None = no file does.

    Raises:
        ConfigError: it is not of that form, there is no such module, it cannot be imported, or it
            has no such name.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"{path!r} is not module:name")
    with looking_in(path, folder) as folders:
        try:
            found = importlib.import_module(module)
        except Exception as error:  # a user's own module may raise anything
            raise ConfigError(_why_not(module, folders, error)) from error
    for part in name.split("."):
        if not hasattr(found, part):
            names = [n for n in dir(found) if not n.startswith("_")]
            raise ConfigError(f"module {module!r} has no {name!r}{did_you_mean(part, names)}")
        found = getattr(found, part)
    return found


def code_of(settings: ModelSettings) -> str:
    """Return `module:name` of the user's own code that settings name; "" where they name none."""
    named = settings.provider if settings.provider not in PROVIDERS else ""
    if settings.provider in ("tool", "retriever", "graph"):
        named = str(settings.options.get("object", ""))
    return named


def find_code(path: str, folder: Path | None = None) -> str:
    """Return the file of `module:name`, without importing it.

    Args:
        path: `module:name`.
        folder: see `import_name`.

    Raises:
        ConfigError: there is no such module.
    """
    module = path.partition(":")[0]
    folders = [p for p in dict.fromkeys((folder and folder.resolve(), Path.cwd())) if p]
    places: Sequence[str] = [*map(str, folders), *sys.path]
    importlib.invalidate_caches()
    spec = None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, places) if places else None
        if spec is None:
            raise ConfigError(_why_not(module, folders, ModuleNotFoundError(name=module)))
        places = list(spec.submodule_search_locations or ())
    return str(spec.origin if spec else "")


def _why_not(module: str, folders: list[Path], error: Exception) -> str:
    """Return why a module cannot be imported: it is missing, or broken."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if not missing or not f"{module}.".startswith(f"{missing}."):
        why = " ".join(f"{type(error).__name__}: {error}".split())
        return f"module {module!r} cannot be imported: {why}"
    near = did_you_mean(module, [file.stem for p in folders for file in p.glob("*.py")])
    where = " or ".join(str(p) for p in folders)
    return f"no module {missing!r}{near}: it is looked for in {where}, and among installed packages"


@contextmanager
def looking_in(path: str, folder: Path | None) -> Iterator[list[Path]]:
    """Let Python look for a user's own modules first in a folder, and in the current one.

    Args:
        path: `module:name` of the import.
        folder: of the file that names it.
    """
    top = path.partition(":")[0].partition(".")[0]
    if top == __package__.partition(".")[0]:
        yield [Path.cwd()]
        return
    folders = [p for p in dict.fromkeys((folder and folder.resolve(), Path.cwd())) if p]
    importlib.invalidate_caches()  # a file that was written a moment ago
    places = [str(p) for p in folders]
    spec, loaded = PathFinder.find_spec(top, places), sys.modules.get(top)
    if spec and spec.origin and loaded and getattr(loaded, "__file__", None) != spec.origin:
        # One of that name was imported from elsewhere, such as for a pool in another folder.
        for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
            del sys.modules[name]
    before = list(sys.path)
    sys.path[:0] = places
    try:
        yield folders
    finally:
        sys.path[:] = before


def read_options(candidate: Candidate, model: type[Options]) -> Options:
    """Read the `options:` of a candidate whose provider is one of ours.

    Raises:
        PoolError: an option is unknown, missing, or has an impossible value.
    """
    wrong = [
        f"unknown option {option!r}{did_you_mean(option, model.model_fields)}; a "
        f"{candidate.provider} candidate has {', '.join(model.model_fields)}"
        for option in candidate.options
        if option not in model.model_fields
    ]
    known = {o: v for o, v in candidate.options.items() if o in model.model_fields}
    try:
        options = model.model_validate(known)
    except ValidationError as error:
        wrong.append(explain(error, at="options"))
    if wrong:
        raise PoolError(f"candidate {candidate.name!r}: {'; '.join(wrong)}")
    return options
