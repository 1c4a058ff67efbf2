"""What is asked in training: a question with its gold answers, a pool and the knobs of the run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from router_r1_graph import CandidatePool, ConfigError, RouterContext
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
    fixed = None if data.pool == "drawn" else CandidatePool.from_yaml(data.pool)
    items = []
    for name, question, gold in islice(_questions(data, count, seed, split), count):
        if not gold:
            raise ConfigError(f"{name}: the question {question!r:.80} has no gold answer")
        context = RouterContext(
            cost_weight=rng.choice(data.cost_weights), max_rounds=rng.choice(data.max_rounds)
        )
        items.append(Item(name, question, gold, fixed or draw_pool(rng), context))
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
    sources: list[Iterator[tuple[str, Mapping[str, Any]]]]
    if data.source == "files":
        sources = [_read_jsonl(path) for path in data.files]
    else:
        sources = [_read_hub(name) for name in data.hub]
    rows = [row for source in sources for row in islice(source, data.per_source or None)]
    random.Random(f"rows/{seed}").shuffle(rows)
    for name, row in rows:
        try:
            gold = row["golden_answers"]
            gold = [gold] if isinstance(gold, str) else gold
            yield f"{name}/{row.get('id', '')}", row["question"], tuple(map(str, gold))
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{name}: a row has no {error}; it needs question and golden_answers"
            ) from None


def _read_jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such data file")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield f"{path}:{number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError(f"{path}, line {number}: not JSON: {error}") from None


def _read_hub(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from datasets import load_dataset

    path, _, split = name.partition(":")
    repo, _, config = path.rpartition("/")
    for row in load_dataset(repo, config, split=split or "train"):
        yield name, row
