"""From a spec on the command line to a controller: `keyword`, `constant:NAME`, `openai:MODEL`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel

from ..candidates import CandidatePool, as_pool
from ..candidates.bugs import place
from ..candidates.failures import classify
from ..errors import ControllerError, did_you_mean
from ..invalid import masked, show
from .builders import BUILDERS
from .chat_model import ChatModelController
from .controller import Controller
from .own import whole
from .policy.folder import SHIPPED
from .rules import RuleController
from .sticky import StickyController

SPECS: Mapping[str, str] = {
    "keyword": "splits the embedded world's questions; strengths first, then price",
    "cheapest": "the candidate with the lowest prices",
    "random[:SEED]": "a candidate drawn for each question",
    "constant:NAME": "always the same candidate",
    "cascade": "the cheapest first, the next more expensive one if a reply fails or is doubtful",
    "sticky[:SPEC]": "in agents: SPEC's first choice or the cheapest, after a failed step the next",
    "vote[:N]": "the answer that most give, of all candidates or of the N cheapest",
    "oracle": "the best reachable answer at its least cost (simulated pools only)",
    "auto:DIR": "fitted (`router-r1 fit`): the best method at each cost weight, where it pays",
    "knn:DIR": "fitted: the mean score on the nearest questions",
    "linear:DIR": "fitted: ridge regression on the question's vector",
    "mf:DIR": "fitted: matrix factorisation, the question's vector x the candidate's",
    "irt:DIR": "fitted: item response theory, abilities against a question's difficulty",
    "features:DIR": "fitted: scores on clusters of probe questions; candidates can be added",
    "encoder:DIR": "fitted: one pass of a small network over question and candidates",
    "reader:DIR": "fitted: reads reply after reply, stops when it is sure for the cost weight",
    "steps:DIR": "fitted on traces of agents: which candidate masters a step, at its price now",
    "policy:PATH": "a trained checkpoint: a folder, a model of the Hugging Face hub",
    "completions:URL?policy=PATH": "a trained checkpoint that vLLM or SGLang serves",
    "openai:MODEL": "a chat model, reached as the pool's controller block or OPENAI_API_KEY says",
    "pool": "the chat model of the pool's controller block",
}


def default_spec(pool: CandidatePool) -> tuple[str, str]:
    """Return the default controller, and a note to show about it; "" = no note.

    It is the pool's controller block if there is one. For simulated pools it is the policy that
    comes with the package, if torch is installed; this policy was trained on simulated pools only.
    Otherwise it is `keyword`.
    """
    if pool.controller is not None:
        return "pool", ""
    simulated = all(candidate.provider == "simulated" for candidate in pool.candidates)
    if not simulated or not (SHIPPED / "demo").is_dir():
        return "keyword", ""
    if all(find_spec(name) for name in ("torch", "transformers")):
        return "policy:demo", ""
    return "keyword", (
        "the learned policy needs torch (pip install 'router-r1-graph[local]'); using the rule "
        "keyword instead"
    )


def as_controller(controller: Any, pool: CandidatePool) -> Controller:
    """Return the given object as a controller.

    Args:
        controller: a spec (see `parse_controller`), a LangChain chat model, a `Controller`, or any
            object with `decide(view)` or `adecide(view)`; None = the pool's controller block, else
            `keyword`.
        pool: the pool it will choose from.

    Raises:
        ControllerError: it is none of these, or an unknown spec; or a property of it raises.
        ConfigError: the controller cannot be built.
    """
    if controller is None or isinstance(controller, str):
        return parse_controller(controller, pool)
    if isinstance(controller, BaseChatModel):
        return ChatModelController(controller)
    try:
        found = whole(controller)
    except Exception as error:  # of a property's own code
        why = f"{classify(error).message}{place(error)}"
        raise ControllerError(f"controller {type(controller).__name__}: {why}") from error
    if found is None:
        raise ControllerError(
            "controller: a spec such as 'keyword', a chat model, or an object with decide(view) or "
            f"adecide(view), not {type(controller).__name__}"
        )
    return found


def parse_controller(spec: str | None, pool: CandidatePool | str | Path) -> Controller:
    """Build the controller that a spec names.

    Args:
        spec: one of `SPECS`. `openai:MODEL` takes address, key, prices and protocol from the pool's
            `controller:` block where there is one, else OPENAI_BASE_URL and OPENAI_API_KEY. None =
            `pool` where the pool has a controller block, else `keyword`.
        pool: the pool it will choose from, or its file, or a shipped pool's name.

    Raises:
        ControllerError: the spec is unknown; the message lists the allowed ones.
        ConfigError: the controller cannot be built, or the pool cannot be used.

    Example:
        >>> parse_controller("random:7", CandidatePool.embedded()).name
        'random:7'
    """
    pool = as_pool(pool)
    if spec is None:
        spec = "pool" if pool.controller else "keyword"
    if not isinstance(spec, str):
        raise ControllerError(f"controller: a spec such as 'keyword' is wanted, not {show(spec)}")
    kind, _, argument = spec.partition(":")
    build = _BUILDERS.get(kind)
    if build is None or (argument and kind in _PLAIN):
        kinds = [s.partition(":")[0].partition("[")[0] for s in SPECS]
        raise ControllerError(
            f"unknown controller {masked(spec)!r}{did_you_mean(kind, kinds)}; "
            f"allowed: {', '.join(SPECS)}"
        )
    return build(argument, pool)


def _sticky(spec: str, pool: CandidatePool) -> Controller:
    first = parse_controller(spec, pool) if spec else None
    if first is not None and not isinstance(first, RuleController):
        raise ControllerError(
            f"sticky:{masked(spec)}: the first step is decided by a rule or a fitted controller"
        )
    return StickyController(first)


_BUILDERS = {**BUILDERS, "sticky": _sticky}  # a spec around a spec
#: Kinds that take no argument.
_PLAIN = ("keyword", "cheapest", "cascade", "oracle", "pool")
