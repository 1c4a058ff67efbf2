"""The candidate that is asked instead of one that cannot be reached."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..candidate import Candidate
from ..error_kinds import ErrorKind
from ..pool import CandidatePool
from .settings import NEAREST

UNREACHABLE: frozenset[ErrorKind] = frozenset(
    {
        *("rate_limited", "server_error", "timeout", "connection", "circuit_open"),
        *("auth", "not_found", "malformed", "bug"),
    }
)
"""Failures of the endpoint. A refusal or an empty reply is the model's own, and the controller's to
judge."""


def fallback_of(candidate: Candidate, pool: CandidatePool) -> Candidate | None:
    """Return the candidate to ask if another cannot be reached; None = there is none.

    A fallback of the fallback is not asked: a call has one, so that its worst case is two prices,
    and two candidates may be each other's.

    Args:
        candidate: the candidate.
        pool: those that may be asked.
    """
    if candidate.fallback != NEAREST:
        other = pool.find(candidate.fallback) if candidate.fallback else None
        return None if other is candidate else other
    if candidate.name not in pool.nearest:
        others = [
            c for c in pool.candidates if c.kind == candidate.kind and c.name != candidate.name
        ]
        found = min(others, key=lambda other: distance(candidate, other), default=None)
        pool.nearest[candidate.name] = found
    return pool.nearest[candidate.name]


def distance(one: Candidate, other: Candidate) -> float:
    """Return how far two descriptors are from each other; 0 = they say the same.

    It is the mean difference of the scores that both have (from 0 to 1 each; without any common
    one, 0.5), a tenth of the ratio of their prices in powers of two, and a half for the share of
    strengths that only one has. Another model of the same server is farther than anything else,
    since the server itself may be down.
    """
    common = one.benchmarks.keys() & other.benchmarks.keys()
    gaps = [abs(_score(one.benchmarks[n]) - _score(other.benchmarks[n])) for n in common]
    score = sum(gaps) / len(gaps) if gaps else 0.5
    prices = [max(c.price_usd_per_mtok, 1e-3) for c in (one, other)]
    price = abs(math.log2(prices[0] / prices[1])) / 10
    strengths = [{s.casefold() for s in c.strengths} for c in (one, other)]
    union = strengths[0] | strengths[1]
    apart = len(strengths[0] ^ strengths[1]) / len(union) if union else 0.0
    asked_over_http = one.provider == "openai"
    same_server = asked_over_http and (one.provider, one.base_url) == (
        other.provider,
        other.base_url,
    )
    return score + price + apart / 2 + 100 * same_server


def _score(score: float) -> float:
    return score / 100 if score > 1 else score


def is_unreachable(bill: Mapping[str, Any]) -> bool:
    """Return whether a call failed in a way that another candidate may make good."""
    return not bill["ok"] and (bill["error"] or {}).get("kind") in UNREACHABLE
