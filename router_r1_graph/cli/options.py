"""What several commands take, and how they print."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Collection
from typing import Annotated, Any

import typer

from ..candidates import CandidatePool
from ..context import RouterContext, knobs
from ..controllers import default_spec, parse_controller

PoolOption = Annotated[
    str,
    typer.Option(
        "--pool", help="A pool file, or a shipped pool: embedded, embedded_unseen, router_r1."
    ),
]
ControllerOption = Annotated[
    str | None,
    typer.Option(
        "--controller",
        help="Who decides: keyword, cheapest, random[:SEED], constant:NAME, cascade, vote[:N], "
        "oracle, openai:MODEL, policy:PATH, 'completions:URL?policy=PATH&model=NAME' (a policy on "
        "vLLM or SGLang), knn:DIR and others that fit wrote, or pool (the pool's controller block, "
        "the default where there is one).",
        show_default="pool, else policy:demo, else keyword",
    ),
]


#: Knobs whose options have had a shorter name.
_SHORT = {"deadline_seconds": "--deadline", "max_calls_per_round": "--max-calls"}


def takes_knobs(
    *, but: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each knob of a run, in the place of its parameter `context`.

    Args:
        but: knobs that the command has no option for, or has one of its own.
    """
    ours = [name for name in knobs() if name not in but]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            context = RouterContext(**{name: given.pop(name) for name in ours})
            command(**given, context=context)

        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name == "context":
                parameters += [_option(name) for name in ours]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _option(name: str) -> inspect.Parameter:
    kind, knob = knobs()[name]
    flags = ["--" + name.replace("_", "-")]
    if name in _SHORT:
        flags.append(_SHORT[name])
    plain = str if name == "candidate_context" else kind  # `RouterContext` says what is allowed
    text = knob.help.replace("; None = no limit", "").replace(" None = no limit.", "")
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=getattr(RouterContext, name),
        annotation=Annotated[
            plain, typer.Option(*flags, help=text, rich_help_panel="Knobs of a run")
        ],
    )


def load_pool(name: str) -> CandidatePool:
    """Return the pool of --pool."""
    return CandidatePool.from_yaml(name)


def load_controller(spec: str | None, pool: CandidatePool) -> Any:
    """Return the controller of --controller; a note says why it is not the policy."""
    if spec is None:
        spec, note = default_spec(pool)
        if note:
            print(f"note: {note}", file=sys.stderr)
    return parse_controller(spec, pool)


def print_json(data: dict[str, Any]) -> None:
    """Print one object, as it is where standard output can say it, and escaped elsewhere.

    What could control a terminal is escaped in any case: it is the same JSON.
    """
    from ..console import CONTROL

    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(data, ensure_ascii=not utf8)
    print(CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
