"""The controller of each kind of spec, built from the spec's argument."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from pydantic import ValidationError

from ..candidates import CandidatePool, ControllerSettings, ModelSettings
from ..errors import ControllerError, MissingExtraError, did_you_mean
from ..invalid import explain
from .chat_model import ChatModelController
from .controller import Controller
from .rules import (
    CascadeController,
    CheapestController,
    ConstantController,
    RandomController,
    VoteController,
)


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
            raise MissingExtraError(f"controller {spec}", "eval", error) from error
        try:
            return load(kind, folder, pool)
        except ImportError as error:
            raise MissingExtraError(f"controller {spec}", "local", error) from error

    return build


def _policy(path: str, pool: CandidatePool) -> Controller:
    if not path:
        raise ControllerError("policy needs a folder: policy:PATH, such as policy:runs/demo/policy")
    try:
        from .policy.controller import PolicyController  # torch is an optional extra
    except ImportError as error:
        raise MissingExtraError(f"controller policy:{path}", "local", error) from error
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
        raise MissingExtraError(f"controller {name}", "remote", error) from error


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


BUILDERS: Mapping[str, Callable[[str, CandidatePool], Controller]] = {
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
    "vote": _vote,
}
