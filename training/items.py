"""What is asked in training: a question with its gold answers, a pool and the knobs of the run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from router_r1_graph import CandidatePool, ConfigError, RouterContext
from router_r1_graph.evaluation import Reader
from router_r1_graph.simulation import World, generate

from .config import DataConfig
from .pools import draw_pool


@dataclass(frozen=True)
class Item:
    """One question to roll out."""

    id: str
    question: str
    gold: tuple[str, ...]
    pool: CandidatePool
    context: RouterContext


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
    for name, question, gold in islice(_questions(data, count, seed, split), count):
        context = RouterContext(
            cost_weight=rng.choice(data.cost_weights), max_rounds=rng.choice(data.max_rounds)
        )
        pool = pools.get(rng.choice(data.pools)) or draw_pool(rng)
        items.append(Item(name, question, gold, pool, context))
    if len(items) < count:
        raise ConfigError(f"data: {count} questions are wanted and there are {len(items)}")
    return items


def _questions(
    data: DataConfig, count: int, seed: int, split: Literal["train", "test"]
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    if data.source == "world":
        for q in generate(World.embedded(), split=split, n=count, seed=seed):
            yield q.id, q.text, q.gold
        return
    sources = [*map(str, data.files)] if data.source == "files" else [*map(_of_hub, data.hub)]
    questions = Reader(sources, limit=data.per_source or None, seed=seed).read()
    random.Random(f"rows/{seed}").shuffle(questions)
    for q in questions:
        yield q.id, q.question, q.gold


def _of_hub(name: str) -> str:
    return f"hub:{name}" if ":" in name else f"hub:{name}:train"
