"""The options that several commands share, and their output."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..candidates import CandidatePool
from ..console import make_console, print_note
from ..context import RouterContext, knobs
from ..errors import ConfigError
from ..outside import CONTROL
from ..words import counted, usd

if TYPE_CHECKING:
    from ..controllers import Controller

PoolOption = Annotated[
    str,
    typer.Option(
        "--pool", help="A pool file, or a shipped pool: embedded, embedded_unseen, router_r1."
    ),
]
MetricOption = Annotated[
    str,
    typer.Option(
        help="How answers are scored: exact_match, f1, contains, choice, number, or "
        "module:function."
    ),
]


def _seed(value: int | None) -> int | None:
    """Return a seed that every generator takes: numpy's and scikit-learn's, Python's, torch's."""
    if value is not None and not 0 <= value < 2**32:
        raise typer.BadParameter(f"{value} is not in the range 0 to {2**32 - 1}")
    return value


SeedOption = Annotated[
    int, typer.Option(callback=_seed, help="The seed of all that is drawn at random.")
]
RecordOption = Annotated[
    Path | None,
    typer.Option(help="Append every reply to this JSONL file, for router-r1 pool from-records."),
]
_SPECS = (
    "The controller: keyword, cheapest, random[:SEED], constant:NAME, cascade, vote[:N], "
    "sticky[:SPEC], oracle, openai:MODEL, policy:PATH, completions:URL (with ?policy=PATH, in "
    "quotes: a policy on vLLM or SGLang), knn:DIR and others that fit wrote, or pool (the "
    "pool's controller block, the default where there is one)."
)
ControllerOption = Annotated[
    str | None,
    typer.Option("--controller", help=_SPECS, show_default="pool, else policy:demo, else keyword"),
]
ServedControllerOption = Annotated[
    str | None, typer.Option("--controller", help=_SPECS, show_default="pool, else keyword")
]


#: Knobs whose options have had a shorter name, which still works.
_SHORT = {"deadline_seconds": "--deadline", "max_calls_per_round": "--max-calls"}


def takes_knobs(
    *, but: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each knob of a run, in place of its parameter `context`.

    Args:
        but: knobs that the command has no option for, or has one of its own.
    """
    ours = [name for name in knobs() if name not in but]
    short = [name for name in ours if name in _SHORT]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            shorter = {name: given.pop(f"{name}_") for name in short}
            named = {name: given.pop(name) for name in ours}
            named |= {name: value for name, value in shorter.items() if value is not None}
            command(**given, context=RouterContext(**named))

        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name == "context":
                parameters += [_option(name) for name in ours]
                parameters += [_short_option(name) for name in short]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        return shown_as(command, run, parameters)

    return decorate


def shown_as(
    command: Callable[..., None],
    run: Callable[..., None],
    parameters: list[inspect.Parameter],
) -> Callable[..., None]:
    """Let a function look like the command that it runs, with other parameters."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _option(name: str) -> inspect.Parameter:
    kind, knob = knobs()[name]
    # `RouterContext` says what is allowed.
    plain = {"candidate_context": str, "answer_style": str | None}.get(name, kind)
    text = knob.help.replace("; None = no limit", "").replace(" None = no limit.", "")
    text = text.replace("; None = ", "; not given = ").replace(" None = ", " Not given = ")
    check = _seed if name == "seed" else None
    option = typer.Option(
        flag(name), help=text, rich_help_panel="Settings of a run", callback=check
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=getattr(RouterContext, name),
        annotation=Annotated[plain, option],
    )


def _short_option(name: str) -> inspect.Parameter:
    """Return the shorter name as an option of its own: both together are too wide for --help."""
    kind, _ = knobs()[name]
    return inspect.Parameter(
        f"{name}_",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, typer.Option(_SHORT[name], hidden=True)],
    )


def given_knobs(ctx: typer.Context, context: RouterContext) -> dict[str, Any]:
    """Return the knobs that are on the command line, by either of their names."""
    sources = {
        name: {ctx.get_parameter_source(option) for option in (name, f"{name}_")}
        for name in knobs()
    }
    return {
        name: getattr(context, name)
        for name, found in sources.items()
        if any(source and source.name != "DEFAULT" for source in found)
    }


def flag(name: str) -> str:
    """Return the option of a parameter."""
    return "--" + name.replace("_", "-")


@contextmanager
def about(option: str) -> Iterator[None]:
    """Name the option that gave a wrong configuration.

    Raises:
        ConfigError: the original error, with the option before it.
    """
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from error


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Print in a terminal the reason for a wait: torch alone takes seconds to import.

    On standard error, and gone when it is over; without escape sequences it is a line.
    """
    console = make_console(stderr=True)
    if console.is_interactive:
        with console.status(f"loading {what} ...", spinner="dots"):
            yield
        return
    if sys.stderr.isatty():
        print(f"loading {what} ...", file=sys.stderr)
    yield


def load_pool(name: str) -> CandidatePool:
    """Return the pool of --pool."""
    return CandidatePool.from_yaml(name)


def load_controller(spec: str | None, pool: CandidatePool, context: RouterContext) -> Controller:
    """Return the controller of --controller.

    Notes say why it is not the policy, or that routing was found not to pay.
    """
    from ..controllers import default_spec, parse_controller

    if spec is None:
        spec, note = default_spec(pool)
        if note:
            print_note(f"note: {note}")
    controller = parse_controller(spec, pool)
    warn_unsure(controller, context.cost_weight)
    return controller


def note_simulated(pool: CandidatePool) -> None:
    """Print on standard error that a pool is simulated, and how to ask real models."""
    if any(candidate.provider != "simulated" for candidate in pool.candidates):
        return
    from ..simulation import known_world

    files = {candidate.options.get("facts") for candidate in pool.candidates}
    facts = {fact for file in files for fact in known_world(str(file) if file else None).facts}
    print_note(
        f"note: the candidates of {pool.name!r} are simulated and know "
        f"{counted(len(facts), 'fact')}; your own LLMs: --pool FILE (router-r1 pool check FILE)"
    )


def warn_unsure(controller: Controller, cost_weight: float) -> None:
    """Print a warning on standard error if a fitted controller was found not to pay."""
    from ..controllers.rules import RuleController

    if isinstance(controller, RuleController) and (why := controller.caution(cost_weight)):
        print_note(f"warning: {controller.name}: {why}")


def warn_budget(pool: CandidatePool, context: RouterContext) -> None:
    """Print on standard error which candidates a budget cannot limit, or keeps from `explore`."""
    if (budget := context.budget_usd) is None:
        return
    if unpriced := [c.name for c in pool.candidates if not c.bounded]:
        print_note(f"warning: no price for {', '.join(unpriced)}: the budget cannot limit them")
    dear = [c.name for c in pool.candidates if c.bounded and c.worst_case_usd("") > budget]
    if context.explore and dear:
        print_note(
            f"warning: one call to {' or '.join(dear)} may cost more than the budget of "
            f"{usd(budget)}: no call is explored there"
        )


def mask_variable(option: str, name: str) -> str:
    """Return why a key cannot be read from a variable; a name that may be a key is not repeated."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        return (
            f"{option}: *** is not the NAME of an environment variable in capitals, such as "
            "ROUTER_KEY; the key itself is never given"
        )
    return f"{option}: the environment variable {name} is not set"


def print_json(data: dict[str, Any]) -> None:
    """Print one object, unchanged if standard output can encode it, otherwise escaped.

    Characters that could control a terminal are escaped in any case: it is the same JSON.
    """
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(data, ensure_ascii=not utf8)
    print(CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
