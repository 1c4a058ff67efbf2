"""From a spec on the command line to a controller: `keyword`, `constant:NAME`, `openai:MODEL`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl

from langchain_core.language_models import BaseChatModel
from pydantic import ValidationError

from ..candidates import CandidatePool, ControllerSettings, ModelSettings
from ..errors import ControllerError, MissingExtraError, did_you_mean
from ..invalid import explain, masked
from .chat_model import ChatModelController
from .controller import Controller
from .own import whole
from .policy.folder import SHIPPED
from .rules import (
    CascadeController,
    CheapestController,
    ConstantController,
    RandomController,
    RuleController,
    StickyController,
    VoteController,
)

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
    "steps:DIR": "fitted on traces of agents: who masters a step, at what price now",
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
            object with `decide(view)`; None = the pool's controller block, else `keyword`.
        pool: the pool it will choose from.

    Raises:
        ControllerError: it is none of these, or an unknown spec.
        ConfigError: the controller cannot be built.
    """
    if controller is None or isinstance(controller, str):
        return parse_controller(controller, pool)
    if isinstance(controller, BaseChatModel):
        return ChatModelController(controller)
    if (found := whole(controller)) is None:
        raise ControllerError(
            "controller: a spec such as 'keyword', a chat model, or an object with decide(view), "
            f"not {type(controller).__name__}"
        )
    return found


def parse_controller(spec: str | None, pool: CandidatePool) -> Controller:
    """Build the controller that a spec names.

    Args:
        spec: one of `SPECS`. `openai:MODEL` takes address, key, prices and protocol from the pool's
            `controller:` block where there is one, else OPENAI_BASE_URL and OPENAI_API_KEY. None =
            `pool` where the pool has a controller block, else `keyword`.
        pool: the pool it will choose from.

    Raises:
        ControllerError: the spec is unknown; the message lists the allowed ones.
        ConfigError: the controller cannot be built.

    Example:
        >>> parse_controller("random:7", CandidatePool.embedded()).name
        'random:7'
    """
    if spec is None:
        spec = "pool" if pool.controller else "keyword"
    kind, _, argument = spec.partition(":")
    build = _BUILDERS.get(kind)
    if build is None or (argument and kind in _PLAIN):
        kinds = [s.partition(":")[0].partition("[")[0] for s in SPECS]
        raise ControllerError(
            f"unknown controller {masked(spec)!r}{did_you_mean(kind, kinds)}; "
            f"allowed: {', '.join(SPECS)}"
        )
    return build(argument, pool)


def _constant(name: str, pool: CandidatePool) -> Controller:
    if not name:
        names = ", ".join(candidate.name for candidate in pool.candidates)
        raise ControllerError(f"constant needs a candidate: constant:NAME, one of {names}")
    return ConstantController(name, pool)


def _random(seed: str, pool: CandidatePool) -> Controller:
    try:
        return RandomController(int(seed or 0))
    except ValueError:
        raise ControllerError(f"random:{seed}: the seed is a whole number, not {seed!r}") from None


def _vote(count: str, pool: CandidatePool) -> Controller:
    most = len(pool.candidates)
    if not count:
        return VoteController()
    if count not in [str(number) for number in range(1, most + 1)]:
        raise ControllerError(
            f"vote:{count}: the voters are a whole number from 1 to {most} (the candidates of "
            f"{pool.name!r}), not {count!r}"
        )
    return VoteController(int(count))


def _sticky(spec: str, pool: CandidatePool) -> Controller:
    first = parse_controller(spec, pool) if spec else None
    if first is not None and not isinstance(first, RuleController):
        raise ControllerError(
            f"sticky:{masked(spec)}: the first step is decided by a rule or a fitted controller"
        )
    return StickyController(first)


def _keyword(_: str, pool: CandidatePool) -> Controller:
    from .embedded import KeywordController  # imports the simulation

    return KeywordController()


def _oracle(_: str, pool: CandidatePool) -> Controller:
    from .embedded import OracleController, world_of

    world_of(pool)
    return OracleController()


def _openai(model: str, pool: CandidatePool) -> Controller:
    if not model:
        raise ControllerError("openai needs a model: openai:MODEL, such as openai:gpt-4o-mini")
    settings = pool.controller or ControllerSettings(base_url=os.environ.get("OPENAI_BASE_URL"))
    if pool.controller is None and settings.base_url and os.environ.get("OPENAI_API_KEY"):
        settings = settings.model_copy(update={"api_key_env": "OPENAI_API_KEY"})
    settings = settings.model_copy(update={"provider": "openai", "model": model})
    return _chat_model(settings, f"openai:{model}")


def _fitted(
    kind: str, written_by: str = "router-r1 fit"
) -> Callable[[str, CandidatePool], Controller]:
    def build(folder: str, pool: CandidatePool) -> Controller:
        if not folder:
            raise ControllerError(f"{kind} needs a folder: {kind}:DIR, as {written_by} wrote")
        spec = f"{kind}:{folder}"
        try:
            from .learned.load import load  # numpy and scikit-learn are an optional extra
        except ImportError as error:
            raise MissingExtraError(f"controller {spec}", "eval") from error
        try:
            return load(kind, folder, pool)
        except ImportError as error:
            raise MissingExtraError(f"controller {spec}", "local") from error

    return build


def _policy(path: str, pool: CandidatePool) -> Controller:
    if not path:
        raise ControllerError("policy needs a folder: policy:PATH, such as policy:runs/demo/policy")
    try:
        from .policy.controller import PolicyController  # torch is an optional extra
    except ImportError as error:
        raise MissingExtraError(f"controller policy:{path}", "local") from error
    return PolicyController.from_pretrained(path)


def _completions(argument: str, pool: CandidatePool) -> Controller:
    url, _, query = argument.partition("?")
    options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in _COMPLETIONS_OPTIONS:
            raise ControllerError(
                f"completions: unknown option {name!r}{did_you_mean(name, _COMPLETIONS_OPTIONS)}; "
                f"allowed: {', '.join(_COMPLETIONS_OPTIONS)}"
            )
    path = options.pop("policy", "")
    if not (url and path):
        raise ControllerError(
            "completions needs an address and the policy that is served there, such as "
            "'completions:http://localhost:8000/v1?policy=runs/demo/policy&model=NAME'"
        )
    try:
        settings = ModelSettings(base_url=url, **options)
    except ValidationError as error:
        raise ControllerError(f"completions: {explain(error)}") from None
    name = f"completions:{settings.model or path}"
    _require_key(settings, name)
    from .policy.completions import CompletionsController

    try:
        return CompletionsController.from_pretrained(path, settings, name=name)
    except ImportError as error:
        raise MissingExtraError(f"controller {name}", "remote") from error


#: `model` is the server's name for the policy; without it, requests name `policy`.
_COMPLETIONS_OPTIONS = (
    "policy",
    "model",
    "api_key_env",
    "input_usd_per_mtok",
    "output_usd_per_mtok",
    "cached_input_usd_per_mtok",
    "cache_write_usd_per_mtok",
    "temperature",
    "timeout_seconds",
    "max_retries",
)


def _pool(_: str, pool: CandidatePool) -> Controller:
    if pool.controller is None:
        raise ControllerError(f"pool {pool.name!r} has no controller: block; name a controller")
    if not pool.controller.model and pool.controller.provider == "openai":
        raise ControllerError(f"pool {pool.name!r}: the controller: block names no model")
    return _chat_model(pool.controller, f"{pool.controller.provider}:{pool.controller.model}")


def _chat_model(settings: ControllerSettings, name: str) -> Controller:
    _require_key(settings, name)
    return ChatModelController(settings=settings, name=name)


def _require_key(settings: ModelSettings, name: str) -> None:
    for variable in settings.variables:
        if not os.environ.get(variable):
            raise ControllerError(
                f"controller {name}: the environment variable {variable} is not set"
            )


#: Kinds that take no argument.
_PLAIN = ("keyword", "cheapest", "cascade", "oracle", "pool")
_BUILDERS: Mapping[str, Callable[[str, CandidatePool], Controller]] = {
    "keyword": _keyword,
    "cheapest": lambda _, pool: CheapestController(),
    "cascade": lambda _, pool: CascadeController(),
    "oracle": _oracle,
    "random": _random,
    "constant": _constant,
    "openai": _openai,
    "auto": _fitted("auto"),
    "knn": _fitted("knn"),
    "linear": _fitted("linear"),
    "mf": _fitted("mf"),
    "irt": _fitted("irt"),
    "features": _fitted("features"),
    "encoder": _fitted("encoder"),
    "reader": _fitted("reader"),
    "policy": _policy,
    "completions": _completions,
    "pool": _pool,
    "steps": _fitted("steps", "router-r1 evaluate agents"),
    "sticky": _sticky,
    "vote": _vote,
}
