"""The items of training: a question with its gold answers, a pool and the knobs of the run."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from router_r1_graph import CandidatePool, ConfigError, RouterContext
from router_r1_graph.evaluation.loop import Item
from router_r1_graph.evaluation.questions import EvaluationQuestion
from router_r1_graph.files import read_jsonl
from router_r1_graph.simulation import (
    EVERY_KIND,
    Question,
    World,
    decomposed_questions,
    generate,
    known_world,
)
from router_r1_graph.simulation.distractors import UNKNOWN_GOLD

from .data_config import SHIPPED, DataConfig
from .pools import DOMAINS, draw_pool, require_free_prices, vary
from .questions import read_questions, require_held_out

Split = Literal["train", "test"]


def draw_items(
    data: DataConfig, count: int, seed: int, split: Split = "train", *, same_pool: int = 1
) -> list[Item]:
    """Draw questions, each with a pool and a cost weight; the same seed gives the same items.

    Questions of files and data sets come again after the last one, in a new order: then a question
    has another pool and cost weight, and the same id. Held-out questions come once, and their pools
    are as their files say.

    Args:
        data: the source of the questions and pools.
        count: how many items; fewer come back if fewer questions are held out.
        seed: the seed of all draws.
        split: `test` = the held-out questions.
        same_pool: so many questions in a row, of one world, have the same pool.

    Raises:
        ConfigError: there are too few questions, one lacks a gold answer that it needs or is in
            both splits, or the pools cannot be varied as the config says.
    """
    rng = random.Random(f"items/{seed}/{split}")
    pools = {name: CandidatePool.from_yaml(name) for name in {*data.pools} - {"drawn"}}
    for pool in pools.values():
        require_free_prices(pool, data.vary)
    items: list[Item] = []
    row: dict[tuple[str, ...], tuple[CandidatePool, int]] = {}
    """The last pool that knows these domains, and how many more questions have it."""
    for asked in islice(_questions(data, count, seed, split), count):
        context = RouterContext(
            cost_weight=rng.choice(data.cost_weights), max_rounds=rng.choice(data.max_rounds)
        )
        domains = tuple(_domains(asked.facts))
        pool, left = row.get(domains, (None, 0))
        if pool is None or not left:
            left = same_pool
            found = pools.get(rng.choice(data.pools))
            if found is None:
                pool = draw_pool(
                    rng,
                    size=None if data.pool_sizes == _SIZES else rng.choice(data.pool_sizes),
                    domains=domains,
                    other_names=data.vary.subjects > 0 and rng.random() < data.vary.subjects,
                    model_ids=data.vary.model_ids > 0 and rng.random() < data.vary.model_ids,
                )
            else:
                pool = vary(rng, found, data.vary) if split == "train" else found
        row[domains] = pool, left - 1
        knowing_pool = knowing(pool, asked.facts) if asked.facts else pool
        items.append(
            TaughtItem(asked.id, asked.text, asked.gold, knowing_pool, context, lesson=asked.lesson)
        )
    return items


@dataclass(frozen=True)
class TaughtItem(Item):
    """An item with the question of a world behind it, for a teacher.

    Attributes:
        lesson: the question of a world; None = it is not known.
    """

    lesson: Question | None = None


_SIZES = DataConfig().pool_sizes
"""The default sizes, which `draw_pool` draws itself."""


class _Asked(NamedTuple):
    id: str
    text: str
    gold: tuple[str, ...]
    facts: str | None = None
    """The facts of simulated candidates, if they are not those of the embedded world."""
    lesson: Question | None = None


def _questions(data: DataConfig, count: int, seed: int, split: Split) -> Iterable[_Asked]:
    if data.source == "world":
        without = round(count * data.nothing_to_route)
        asked = [*_of_worlds(data, count - without, seed, split), *_nothing(without, seed, split)]
        if without:
            random.Random(f"nothing to route/{seed}/{split}").shuffle(asked)
        return asked
    questions = read_questions(data)
    if split == "train":
        return _again_and_again(questions.train, seed)
    if count:
        require_held_out(questions, data)
    return islice(_again_and_again(questions.held_out, seed), len(questions.held_out))


def _again_and_again(questions: Sequence[EvaluationQuestion], seed: int) -> Iterator[_Asked]:
    """Yield all questions in random order, then all of them in another one, without end."""
    for epoch in itertools.count():
        order = list(questions)
        random.Random(f"rows/{seed}/{epoch}").shuffle(order)
        yield from (_Asked(q.id, q.question, q.gold) for q in order)


def _nothing(count: int, seed: int, split: Split) -> Iterator[_Asked]:
    """Yield prompts that cannot be answered by facts; those to train on come again and again."""
    prompts = []
    for _, row in read_jsonl(SHIPPED / "nothing_to_route.jsonl"):
        assert not isinstance(row, ValueError)  # it comes with this program
        if row["split"] == split:
            gold = (*UNKNOWN_GOLD, *([row["reply"]] if row["reply"] else []))
            prompts.append(
                Question(row["id"], row["question"], gold, 0, "unanswerable", (), structure=None)
            )
    epochs = itertools.count() if split == "train" else [0]
    for epoch in epochs:
        order = random.Random(f"nothing/{seed}/{epoch}").sample(prompts, len(prompts))
        for q in order[:count]:
            yield _Asked(q.id, q.text, q.gold, None, q)
        count -= len(order)
        if count <= 0:
            return


def _of_worlds(data: DataConfig, count: int, seed: int, split: Split) -> Iterable[_Asked]:
    worlds = data.world_names()
    if not worlds:
        questions = _of_world(data, World.embedded(), count, seed, split)
        return [_Asked(q.id, q.text, q.gold, None, q) for q in questions]
    asked = []
    for number, facts in enumerate(worlds):
        share = count // len(worlds) + (number < count % len(worlds))
        # With one seed, every world would ask the same plain questions.
        drawn = 1000 * seed + number
        for q in _of_world(data, known_world(facts), share, drawn, split):
            asked.append(_Asked(f"{facts or 'embedded'}/{q.id}", q.text, q.gold, facts, q))
    random.Random(f"worlds/{seed}/{split}").shuffle(asked)
    return asked


def _of_world(
    data: DataConfig, world: World, count: int, seed: int, split: Split
) -> Iterable[Question]:
    """Return questions of one world; those of a file come again, unless they are held out."""
    if not world.asked:
        return _worded(data, world, count, seed, split)
    there = len(decomposed_questions(world, split))
    if not there and count and split == "train":
        raise ConfigError("data.facts: a file has no question to train on: all are held out")
    if split == "test" or not there:
        return generate(world, split=split, n=min(count, there), seed=seed)
    epochs = (generate(world, split=split, n=there, seed=seed + at) for at in itertools.count())
    return islice(itertools.chain.from_iterable(epochs), count)


def _worded(data: DataConfig, world: World, count: int, seed: int, split: Split) -> list[Question]:
    """Return questions about facts, each wording with its share of them, mixed."""
    whole, questions = sum(data.wordings.values()), []
    for place, (wording, share) in enumerate(data.wordings.items()):
        wanted = round(count * share / whole)
        if place == len(data.wordings) - 1:
            wanted = count - len(questions)
        free = wording == "free"
        questions += generate(
            world,
            split=split,
            n=wanted,
            seed=seed,
            hops=data.hops or None,
            wordings=split if free else "known",
            kinds=EVERY_KIND if free and data.every_kind else None,
        )
    if len(data.wordings) > 1:
        random.Random(f"wordings/{seed}/{split}").shuffle(questions)
    return questions


def _domains(facts: str | None) -> Sequence[str]:
    """Return the domains of a world; those of the embedded one in their usual order."""
    found = known_world(facts).domains
    return DOMAINS if set(found) == set(DOMAINS) else found


def knowing(pool: CandidatePool, facts: str) -> CandidatePool:
    """Return a pool whose simulated candidates know these facts (their option `facts`)."""
    return pool.with_candidates(
        c.model_copy(update={"options": {**c.options, "facts": facts}})
        if c.provider == "simulated"
        else c
        for c in pool.candidates
    )
