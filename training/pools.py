"""Pools that differ from question to question, so that a policy has to read descriptors.

Simulated candidates are drawn at random. Each does what its descriptor says, so a pool with other
names, prices, strengths and order is another problem with the same rules. Nothing is drawn from the
shipped pools. The candidates of a pool file reply as they always do; their names, prices, number
and order can be varied.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from router_r1_graph import Candidate, CandidatePool, ConfigError

from .data_config import VaryConfig
from .subjects import SUBJECTS

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
_SIZES = [
    "0.5b", "1b", "3b", "7b", "8b", "13b", "27b", "32b", "70b", "72b", "120b", "8x7b", "8x22b",
    "nano", "mini", "small", "lite", "fast", "medium", "large", "pro", "plus", "max", "ultra",
]
_VARIANTS = ["instruct", "instruct", "chat", "it", "preview", "latest", "v0.1", "v0.3", "2411"]
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


def draw_model_ids(rng: random.Random, count: int) -> list[str]:
    """Return different names in the form of models' ids, such as `vond/skiora-2.5-72b-instruct`.

    Some are of one family, and one may begin another.
    """
    families = [_family(rng) for _ in range(rng.randint((count + 1) // 2, count))]
    names: dict[str, None] = {}
    while len(names) < count:
        parts = [rng.choice(families), rng.choice(_SIZES), rng.choice(_VARIANTS)]
        names["-".join(parts[: rng.choice((1, 2, 2, 2, 3, 3))])] = None
    return list(names)


def _family(rng: random.Random) -> str:
    maker = f"{draw_name(rng).lower()}/" if rng.random() < 0.3 else ""
    versions = ("", str(rng.randint(1, 5)), f"{rng.randint(1, 4)}.{rng.randint(1, 9)}")
    return maker + "-".join(filter(None, (draw_name(rng).lower(), rng.choice(versions))))


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


def vary(rng: random.Random, pool: CandidatePool, shares: VaryConfig) -> CandidatePool:
    """Return a pool with some of a pool's candidates, under other names, prices, in another order.

    Each of the four is drawn by its share; without any, the pool itself comes back. Replies stay
    those of the candidates.
    """

    def drawn(share: float) -> bool:
        return share > 0 and rng.random() < share

    before = candidates = list(pool.candidates)
    if drawn(shares.names):
        draw = draw_model_ids if drawn(shares.model_ids) else draw_names
        drawn_names = draw(rng, len(candidates))
        names = {c.name: name for c, name in zip(candidates, drawn_names, strict=True)}
        candidates = [_renamed(c, names, pool) for c in candidates]
    if drawn(shares.prices):
        candidates = [_repriced(rng, c) for c in candidates]
    if drawn(shares.subset) and len(candidates) > 2:
        places = rng.sample(range(len(candidates)), rng.randint(2, len(candidates) - 1))
        candidates = [candidates[place] for place in sorted(places)]
    if drawn(shares.order):
        candidates = rng.sample(candidates, len(candidates))
    if candidates is before:
        return pool
    return pool.with_candidates(candidates)


def require_free_prices(pool: CandidatePool, shares: VaryConfig) -> None:
    """Check that the prices of a pool can be redrawn, if the config says so.

    Raises:
        ConfigError: every candidate has a real price.
    """
    if shares.prices and not any(has_free_price(c) for c in pool.candidates):
        raise ConfigError(
            f"data.vary.prices: {pool.where} has no recorded or simulated candidate with a price, "
            "and what others cost is real; record their replies (router-r1 evaluate --record, "
            "router-r1 pool from-records), or set it to 0"
        )


def has_free_price(candidate: Candidate) -> bool:
    """Return whether a candidate's price can be redrawn: it has one, and nobody really pays it."""
    return candidate.priced and candidate.provider in ("recorded", "simulated")


def _renamed(candidate: Candidate, names: Mapping[str, str], pool: CandidatePool) -> Candidate:
    """Return a candidate with another name, which is still the same for provider and store."""
    as_before: dict[str, Any] = {"model": candidate.model_name}
    if candidate.fallback and (other := pool.find(candidate.fallback)):
        as_before["fallback"] = names[other.name]
    if candidate.provider == "recorded":  # its replies may stand under either of its two names
        as_before["options"] = {"recorded_as": candidate.name, **candidate.options}
    return candidate.renamed(names[candidate.name], **as_before)


#: The most that a redrawn price is above its own, and the most that it is below.
_PRICE_RANGE = 8.0


def _repriced(rng: random.Random, candidate: Candidate) -> Candidate:
    """Return a candidate with other prices; the costs of calls follow from them."""
    if not has_free_price(candidate):
        return candidate
    factor = _log_uniform(rng, 1 / _PRICE_RANGE, _PRICE_RANGE)
    update: dict[str, Any] = {"prices_checked": None}
    for name in (
        *("input_usd_per_mtok", "output_usd_per_mtok", "usd_per_call"),
        *("cached_input_usd_per_mtok", "cache_write_usd_per_mtok"),
    ):
        if (price := getattr(candidate, name)) is not None:
            update[name] = float(f"{price * factor:.2g}")
    if candidate.provider == "recorded":
        update["options"] = {**candidate.options, "cost": "list"}
    return candidate.model_copy(update=update)


def draw_pool(
    rng: random.Random,
    *,
    size: int | None = None,
    domains: Sequence[str] = DOMAINS,
    other_names: bool = False,
    model_ids: bool = False,
) -> CandidatePool:
    """Draw a pool in which at least one candidate knows each domain.

    Names, prices, strengths and order are at random.

    Args:
        rng: the source of randomness.
        size: how many candidates; None draws 4 to 8.
        domains: the domains of the world that they know.
        other_names: whether descriptors call domains by other names, and may leave scores out.
        model_ids: whether the candidates have names like `vond/skiora-2.5-72b-instruct`.
    """
    size = size or rng.choice((4, 5, 6, 7, 8, 8))
    generalists = min(rng.randint(1, 4), size // 2)
    shuffled = list(domains)
    rng.shuffle(shuffled)
    specialists = size - generalists
    shares: list[list[str]] = [[] for _ in range(specialists)]
    # The cheap specialists divide most domains among them; only generalists know the others.
    known = shuffled[: max(1, len(shuffled) - rng.choice((2, 1, 0, 0, 0)))]
    for place, domain in enumerate(known):
        shares[place % specialists].append(domain)
    for share in shares:
        others = [d for d in domains if d not in share]
        if others and (not share or (len(share) < 4 and rng.random() < 0.25)):
            share.append(rng.choice(others))
    names = draw_model_ids(rng, size) if model_ids else draw_names(rng, size)
    candidates = [_specialist(rng, names.pop(), share) for share in shares]
    strong = rng.randrange(generalists)
    candidates += [
        _generalist(rng, names.pop(), place == strong or rng.random() < 0.35, domains)
        for place in range(generalists)
    ]
    rng.shuffle(candidates)
    if other_names:
        candidates = [_described_otherwise(rng, candidate) for candidate in candidates]
    return CandidatePool(name="drawn", candidates=tuple(candidates))


def _described_otherwise(rng: random.Random, candidate: Candidate) -> Candidate:
    """Return a candidate that knows the same, with a descriptor in other words."""
    skills = candidate.benchmarks
    called = {d: rng.choice((d, *SUBJECTS.get(d, ()))) for d in skills}
    benchmarks = {called[d]: score for d, score in skills.items()}
    strengths = tuple(benchmarks) if candidate.strengths else ()
    if strengths and rng.random() < 0.2:
        benchmarks = {}
    options = {**candidate.options, "skills": dict(skills)}
    update = {"benchmarks": benchmarks, "strengths": strengths, "options": options}
    return candidate.model_copy(update=update)


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


def _generalist(rng: random.Random, name: str, strong: bool, domains: Sequence[str]) -> Candidate:
    low, high = (0.92, 0.99) if strong else (0.5, 0.7)
    return _candidate(
        rng,
        name,
        price=_log_uniform(rng, 4, 20) if strong else _log_uniform(rng, 1, 6),
        benchmarks={d: round(rng.uniform(low, high), 2) for d in domains},
        options={
            "hops": rng.choice((2, 3, 4)) if strong else rng.choice((1, 2)),
            "unknown": rng.choice(("abstain", "wrong")),
            "style": rng.choice(("terse", "sentence", "sentence", "sentence", "rambling")),
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
