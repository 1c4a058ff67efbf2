"""Probes: short questions with gold answers, by domain, that candidates are measured by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from ..candidates.pool_file import SHIPPED_POOLS
from ..errors import ConfigError
from .questions import EvaluationQuestion, Reader

SHIPPED_PROBES = SHIPPED_POOLS / "probes.jsonl"
MOST_DOMAINS = 40
"""The most domains: a descriptor names each of them."""
_DOMAIN_SLICES = ("domain", "category", "task", "dataset")
"""The fields that may hold the domain of a question; the first one that exists counts."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One question, its gold answers, and the domain whose score it counts for."""

    question: str
    gold: tuple[str, ...]
    domain: str


def read_probes(source: str | Path, *, limit: int | None = None, seed: int = 0) -> list[Probe]:
    """Return the probes of a file of questions, the domains in turn.

    Args:
        source: a file or data set that `router-r1 evaluate` reads; the domain of a question is its
            `domain`, `category`, `task` or `dataset`, or the name of the file.
        limit: how many to draw; None = all.
        seed: the seed of the draw.

    Raises:
        ConfigError: the source cannot be read, or has more than 40 domains.

    Example:
        >>> [probe.domain for probe in read_probes(SHIPPED_PROBES)[:3]]
        ['arithmetic', 'code', 'geography']
    """
    questions = Reader([str(source)], limit=limit, seed=seed).read()
    probes = [Probe(q.question, q.gold, _domain(q)) for q in questions]
    if (count := len({probe.domain for probe in probes})) > MOST_DOMAINS:
        raise ConfigError(
            f"{source}: {count} domains, and a descriptor has room for {MOST_DOMAINS}; give each "
            "question a coarser `domain`"
        )
    return in_turn(probes)


def in_turn(probes: Iterable[Probe]) -> list[Probe]:
    """Return the probes in turn, so that any first part has as many of each domain."""
    domains: dict[str, list[Probe]] = {}
    for probe in probes:
        domains.setdefault(probe.domain, []).append(probe)
    rounds: Iterable[Sequence[Probe | None]] = zip_longest(*domains.values())
    return [probe for probe in chain.from_iterable(rounds) if probe is not None]


def _domain(question: EvaluationQuestion) -> str:
    for name in _DOMAIN_SLICES:
        if value := " ".join(question.slices.get(name, "").split()):
            return Path(value).stem if name == "dataset" else value
    return "all"
