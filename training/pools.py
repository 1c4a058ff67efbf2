"""Pools of simulated candidates drawn at random, so that a policy has to read descriptors.

A simulated candidate does what its descriptor says, so a pool with other names, prices, strengths
and order is another problem with the same rules. Nothing here is drawn from the shipped pools.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date

from router_r1_graph import Candidate, CandidatePool

DOMAINS = ("literature", "film", "music", "art", "science", "biography", "geography")

# fmt: off
_ONSETS = [
    "", "", "", "b", "bl", "br", "c", "ch", "cl", "d", "dr", "f", "fl", "g", "gl", "gr", "h", "j",
    "k", "l", "m", "n", "p", "ph", "pr", "qu", "r", "s", "sh", "sk", "st", "t", "th", "tr", "v",
    "w", "z",
]
_VOWELS = ["a", "a", "e", "e", "i", "i", "o", "o", "u", "u", "y", "ea", "io"]
_MIDDLES = [
    "", "", "n", "r", "l", "s", "m", "x", "nd", "th", "ll", "ss", "tt", "rn", "gn", "nt", "rr",
    "ng", "st", "lm", "rth", "ph", "c", "ndl", "ld",
]
_ENDS = [
    "", "", "n", "r", "l", "s", "m", "x", "nd", "th", "k", "t", "d", "ll", "tt", "ck", "rd", "wyn",
    "ne", "lia", "ria", "van", "ston", "ric", "gard",
]
# fmt: on


def draw_name(rng: random.Random) -> str:
    """Return an invented name of two or three syllables."""
    syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS)]
    for _ in range(rng.choice((1, 1, 1, 2))):
        between = rng.choice(_MIDDLES) if rng.random() < 0.5 else rng.choice(_ONSETS[3:])
        syllables.append(between + rng.choice(_VOWELS))
    return "".join([*syllables, rng.choice(_ENDS)]).capitalize()


def draw_name_like(rng: random.Random, other: str) -> str:
    """Return an invented name that contains a piece of another one, as related models often do."""
    length = min(rng.randint(2, 5), len(other))
    start = rng.randrange(len(other) - length + 1)
    before = draw_name(rng)[: rng.randint(1, 5)] if rng.random() < 0.8 else ""
    after = rng.choice(_VOWELS) + rng.choice(_ENDS) if rng.random() < 0.6 else ""
    return (before + other[start : start + length] + after).capitalize()


def draw_names(rng: random.Random, count: int) -> list[str]:
    """Return different names, some with pieces of others in them."""
    names: list[str] = []
    while len(names) < count:
        # Copying a name is easy until two go on differently after the same piece.
        alike = names and rng.random() < 0.5
        name = draw_name_like(rng, rng.choice(names)) if alike else draw_name(rng)
        # If one name begins another one, half of the longer could be copied.
        if len(name) > 2 and not any(name.startswith(n) or n.startswith(name) for n in names):
            names.append(name)
    return names


def rename(rng: random.Random, pool: CandidatePool) -> CandidatePool:
    """Return a pool whose candidates have other names and are otherwise the same."""
    names = draw_names(rng, len(pool.candidates))
    candidates = tuple(
        c.model_copy(update={"name": name, "model": c.model or c.name})
        for c, name in zip(pool.candidates, names, strict=True)
    )
    return CandidatePool(name=pool.name, candidates=candidates)


def draw_pool(rng: random.Random, *, size: int | None = None) -> CandidatePool:
    """Draw a pool in which at least one candidate knows each domain.

    Names, prices, strengths and order are at random.

    Args:
        rng: the source of randomness.
        size: how many candidates; None draws 4 to 8.
    """
    size = size or rng.choice((4, 5, 6, 7, 8, 8))
    generalists = min(rng.randint(1, 4), size // 2)
    domains = list(DOMAINS)
    rng.shuffle(domains)
    specialists = size - generalists
    shares: list[list[str]] = [[] for _ in range(specialists)]
    # The cheap specialists divide most domains among them; only generalists know the others.
    known = domains[: rng.choice((5, 6, 7, 7, 7))]
    for place, domain in enumerate(known):
        shares[place % specialists].append(domain)
    for share in shares:
        if not share or (len(share) < 4 and rng.random() < 0.25):
            share.append(rng.choice([d for d in DOMAINS if d not in share]))
    names = draw_names(rng, size)
    candidates = [_specialist(rng, names.pop(), share) for share in shares]
    strong = rng.randrange(generalists)
    candidates += [
        _generalist(rng, names.pop(), place == strong or rng.random() < 0.35)
        for place in range(generalists)
    ]
    rng.shuffle(candidates)
    return CandidatePool(name="drawn", candidates=tuple(candidates))


def _specialist(rng: random.Random, name: str, domains: Sequence[str]) -> Candidate:
    return _candidate(
        rng,
        name,
        price=_log_uniform(rng, 0.15, 1.5),
        benchmarks={d: round(rng.uniform(0.72, 0.98), 2) for d in domains},
        options={
            "hops": 1,
            "unknown": rng.choice(("abstain", "wrong")),
            "style": rng.choice(("terse", "terse", "sentence")),
            "elsewhere": round(rng.uniform(0.02, 0.1), 2),
        },
    )


def _generalist(rng: random.Random, name: str, strong: bool) -> Candidate:
    low, high = (0.92, 0.99) if strong else (0.5, 0.7)
    return _candidate(
        rng,
        name,
        price=_log_uniform(rng, 4, 20) if strong else _log_uniform(rng, 1, 6),
        benchmarks={d: round(rng.uniform(low, high), 2) for d in DOMAINS},
        options={
            "hops": rng.choice((2, 3, 4)) if strong else rng.choice((1, 2)),
            "unknown": rng.choice(("abstain", "wrong")),
            "style": rng.choice(("terse", "sentence", "sentence", "rambling")),
        },
    )


def _candidate(
    rng: random.Random,
    name: str,
    *,
    price: float,
    benchmarks: dict[str, float],
    options: dict[str, str | int | float],
) -> Candidate:
    share = rng.uniform(0.15, 0.35)  # the input tokens' share of the price
    return Candidate(
        name=name,
        provider="simulated",
        input_usd_per_mtok=float(f"{price * share:.2g}"),
        output_usd_per_mtok=float(f"{price * (1 - share):.2g}"),
        prices_checked=date(2026, 11, 24),
        latency_seconds=round(_log_uniform(rng, 0.2, 4), 1),
        max_tokens=256,
        strengths=tuple(benchmarks) if len(benchmarks) < 5 else (),
        benchmarks=benchmarks,
        options=dict(options),
    )


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.random())
