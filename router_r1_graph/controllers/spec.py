"""From a spec on the command line to a controller: `keyword`, `constant:NAME`, `openai:MODEL`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from ..candidates import CandidatePool, ControllerSettings
from ..errors import ControllerError, MissingExtraError, did_you_mean
from .baselines import (
    CheapestController,
    ConstantController,
    KeywordController,
    OracleController,
    RandomController,
    world_of,
)
from .chat_model import ChatModelController
from .protocol import Controller

SPECS: Mapping[str, str] = {
    "keyword": "splits the embedded world's questions; strengths first, then price",
    "cheapest": "the candidate with the lowest prices",
    "random[:SEED]": "a candidate drawn for each question",
    "constant:NAME": "always the same candidate",
    "oracle": "the best reachable answer at its least cost (simulated pools only)",
    "policy:PATH": "a trained checkpoint: a folder, or a model of the Hugging Face hub",
    "openai:MODEL": "a chat model, reached as the pool's controller block or OPENAI_API_KEY says",
    "pool": "the chat model of the pool's controller block",
}


def parse_controller(spec: str | None, pool: CandidatePool) -> Controller:
    """Build the controller that a spec names.

    Args:
        spec: one of `SPECS`. `openai:MODEL` takes address, key, prices and protocol from the pool's
            `controller:` block where there is one, else OPENAI_BASE_URL and OPENAI_API_KEY. None =
            `pool` where the pool has a controller block, else `keyword`.
        pool: the pool it will choose from.

    Raises:
        ControllerError: the spec names nothing; the message lists what it may say.
        ConfigError: the controller cannot be built.

    Example:
        >>> parse_controller("random:7", CandidatePool.embedded()).name
        'random:7'
    """
    spec = spec or ("pool" if pool.controller else "keyword")
    kind, _, argument = spec.partition(":")
    build = _BUILDERS.get(kind)
    if build is None or (argument and kind in ("keyword", "cheapest", "oracle", "pool")):
        kinds = [s.partition(":")[0].partition("[")[0] for s in SPECS]
        raise ControllerError(
            f"unknown controller {spec!r}{did_you_mean(kind, kinds)}; allowed: {', '.join(SPECS)}"
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


def _oracle(_: str, pool: CandidatePool) -> Controller:
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


def _policy(path: str, pool: CandidatePool) -> Controller:
    if not path:
        raise ControllerError("policy needs a folder: policy:PATH, such as policy:runs/demo/policy")
    try:
        from .policy import PolicyController  # torch is an optional extra
    except ImportError as error:
        raise MissingExtraError(f"controller policy:{path}", "local") from error
    return PolicyController.from_pretrained(path)


def _pool(_: str, pool: CandidatePool) -> Controller:
    if pool.controller is None:
        raise ControllerError(f"pool {pool.name!r} has no controller: block; name a controller")
    if not pool.controller.model and pool.controller.provider == "openai":
        raise ControllerError(f"pool {pool.name!r}: the controller: block names no model")
    return _chat_model(pool.controller, f"{pool.controller.provider}:{pool.controller.model}")


def _chat_model(settings: ControllerSettings, name: str) -> Controller:
    variable = settings.key_variable
    if variable and not os.environ.get(variable):
        raise ControllerError(f"controller {name}: the environment variable {variable} is not set")
    return ChatModelController(settings=settings, name=name)


_BUILDERS: Mapping[str, Callable[[str, CandidatePool], Controller]] = {
    "keyword": lambda _, pool: KeywordController(),
    "cheapest": lambda _, pool: CheapestController(),
    "oracle": _oracle,
    "random": _random,
    "constant": _constant,
    "openai": _openai,
    "policy": _policy,
    "pool": _pool,
}
