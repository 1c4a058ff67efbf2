"""The items of training: a question with its gold answers, a pool and the knobs of the run."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

from router_r1_graph import CandidatePool, ConfigError, RouterContext
from router_r1_graph.evaluation.loop import Item
from router_r1_graph.evaluation.questions import Reader
from router_r1_graph.simulation import World, generate, known_world

from .config import DataConfig
from .pools import draw_pool, rename


def draw_items(
    data: DataConfig, count: int, seed: int, split: Literal["train", "test"] = "train"
) -> list[Item]:
    """Draw questions, each with a pool and a cost weight; the same seed gives the same items.

    Raises:
        ConfigError: there are too few questions, or one has no gold answer.
    """
    rng = random.Random(f"items/{seed}/{split}")
    pools = {name: CandidatePool.from_yaml(name) for name in {*data.pools} - {"drawn"}}
    items = []
    for asked in islice(_questions(data, count, seed, split), count):
        context = RouterContext(
            cost_weight=rng.choice(data.cost_weights), max_rounds=rng.choice(data.max_rounds)
        )
        pool = pools.get(rng.choice(data.pools))
        if pool is None:
            pool = draw_pool(rng)
        elif rng.random() < data.renamed:
            pool = rename(rng, pool)
        if asked.facts:
            pool = knowing(pool, asked.facts)
        items.append(Item(asked.id, asked.text, asked.gold, pool, context))
    if len(items) < count:
        raise ConfigError(f"data: {count} questions are wanted and there are {len(items)}")
    return items


class _Asked(NamedTuple):
    id: str
    text: str
    gold: tuple[str, ...]
    facts: str | None = None
    """What simulated candidates know, where it is not the embedded world."""


def _questions(
    data: DataConfig, count: int, seed: int, split: Literal["train", "test"]
) -> Iterator[_Asked]:
    if data.source == "world":
        yield from _of_worlds(data.worlds, count, seed, split)
        return
    sources = [*map(str, data.files)] if data.source == "files" else [*map(_of_hub, data.hub)]
    questions = Reader(sources, limit=data.per_source or None, seed=seed).read()
    random.Random(f"rows/{seed}").shuffle(questions)
    for q in questions:
        yield _Asked(q.id, q.question, q.gold)


def _of_worlds(
    worlds: int, count: int, seed: int, split: Literal["train", "test"]
) -> Iterable[_Asked]:
    if not worlds:
        questions = generate(World.embedded(), split=split, n=count, seed=seed)
        return [_Asked(q.id, q.text, q.gold) for q in questions]
    asked = []
    for number in range(worlds):
        facts = f"permuted:{_FIRST_WORLD + number}"
        share = count // worlds + (number < count % worlds)
        # With one seed, every world would ask the same plain questions.
        drawn = 1000 * seed + number
        questions = generate(known_world(facts), split=split, n=share, seed=drawn)
        asked += [_Asked(f"{facts}/{q.id}", q.text, q.gold, facts) for q in questions]
    random.Random(f"worlds/{seed}/{split}").shuffle(asked)
    return asked


#: Lower seeds are reserved for measurements on facts that were never trained on.
_FIRST_WORLD = 1000


def knowing(pool: CandidatePool, facts: str) -> CandidatePool:
    """Return a pool whose simulated candidates know these facts (their option `facts`)."""
    candidates = tuple(
        c.model_copy(update={"options": {**c.options, "facts": facts}})
        if c.provider == "simulated"
        else c
        for c in pool.candidates
    )
    return CandidatePool(name=pool.name, candidates=candidates)


def _of_hub(name: str) -> str:
    return f"hub:{name}" if ":" in name else f"hub:{name}:train"
