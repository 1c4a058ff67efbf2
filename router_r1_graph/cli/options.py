"""What several commands take, and how they print."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # LangGraph takes half a second: imported by the commands, not for --help
    from ..candidates import CandidatePool

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


def load_pool(name: str) -> CandidatePool:
    """Return the pool of --pool."""
    from ..candidates import CandidatePool

    return CandidatePool.from_yaml(name)


def load_controller(spec: str | None, pool: CandidatePool) -> Any:
    """Return the controller of --controller; a note says why it is not the policy."""
    from ..controllers import default_spec, parse_controller

    if spec is None:
        spec, note = default_spec(pool)
        if note:
            print(f"note: {note}", file=sys.stderr)
    return parse_controller(spec, pool)


def print_json(data: dict[str, Any]) -> None:
    """Print one object, as it is where standard output can say it, and escaped elsewhere.

    What could control a terminal is escaped in any case: it is the same JSON.
    """
    from ..transcript import CONTROL

    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(data, ensure_ascii=not utf8)
    print(CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
