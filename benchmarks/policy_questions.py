"""What a policy is asked: for each run, questions of the test split, each in a pool.

Several rows of the table read the same run. Nothing here is ever trained on: the questions are of
the test split, worded with test wordings where they are in free wording; drawn pools have seeds of
their own, and permuted facts a number below those of training.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from router_r1_graph import CandidatePool, ConfigError, RouterContext
from router_r1_graph.simulation import (
    Plan,
    Question,
    World,
    best_plan,
    decomposed_questions,
    generate,
    known_world,
    true_answer,
)
from training.items import Item, knowing
from training.pools import draw_pool

ROOT = Path(__file__).parent.parent
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 0.9)
DECOMPOSED = ("morehopqa_150.jsonl", "fanoutqa_dev.jsonl")
_OTHER_FACTS = "permuted:7"


class NotRunError(Exception):
    """A row cannot be measured here; says what it lacks."""


@dataclass(frozen=True)
class Setting:
    """What all runs have in common.

    Attributes:
        count: questions of a run, or as many as a file has.
        seed: of all that is drawn.
        real: the folder of the decomposed files.
        nothing: a JSONL file of questions that nobody in the pool can help with.
    """

    count: int = 500
    seed: int = 0
    real: Path = ROOT.parent / "shared" / "data" / "qa"
    nothing: Path = ROOT / "training" / "data" / "nothing_to_route.jsonl"


@dataclass(frozen=True)
class Asked:
    """An item, and what the oracle knows about it; None where no world holds the answer."""

    item: Item
    question: Question | None = None
    world: World | None = None

    def plan(self) -> Plan:
        """Return the cheapest calls that lead to the right answer within the limits of the run.

        They follow from what the question asks (its structure), not from how it is worded.
        """
        assert self.question
        assert self.question.structure
        assert self.world
        return best_plan(
            self.question.structure,
            self.question.gold,
            self.item.pool.candidates,
            self.world,
            max_rounds=self.item.context.max_rounds,
            max_calls=self.item.context.max_calls_per_round,
        )


def _asked(
    questions: Sequence[Question],
    world: World,
    pool_of: Callable[[Question], CandidatePool],
    cost_weight: float = 0.5,
) -> list[Asked]:
    context = RouterContext(cost_weight=cost_weight)
    return [Asked(Item(q.id, q.text, q.gold, pool_of(q), context), q, world) for q in questions]


@cache
def embedded() -> CandidatePool:
    """Return the embedded pool: one object, so that its graph is compiled once."""
    return CandidatePool.embedded()


@cache
def _known(setting: Setting) -> list[Question]:
    return generate(World.embedded(), split="test", n=setting.count, seed=setting.seed)


def known(setting: Setting, cost_weight: float = 0.5) -> list[Asked]:
    """Return questions in the grammar's wordings, in the embedded pool."""
    pool = embedded()
    return _asked(_known(setting), World.embedded(), lambda _: pool, cost_weight)


def test(setting: Setting) -> list[Asked]:
    """Return questions in test wordings; most are those of `known`, by their meaning."""
    world, pool = World.embedded(), embedded()
    questions = generate(world, split="test", n=setting.count, seed=setting.seed, wordings="test")
    return _asked(questions, world, lambda _: pool)


def unseen(setting: Setting) -> list[Asked]:
    """Return questions that each have a newly drawn pool."""

    def pool_of(question: Question) -> CandidatePool:
        return draw_pool(random.Random(f"policy/unseen/{setting.seed}/{question.id}"))

    return _asked(_known(setting), World.embedded(), pool_of)


def shuffled(setting: Setting) -> list[Asked]:
    """Return questions that each have the embedded pool in an order of their own."""
    candidates = embedded().candidates

    def pool_of(question: Question) -> CandidatePool:
        rng = random.Random(f"policy/shuffled/{setting.seed}/{question.id}")
        order = tuple(rng.sample(candidates, len(candidates)))
        return CandidatePool(name="shuffled", candidates=order)

    return _asked(_known(setting), World.embedded(), pool_of)


def swapped(setting: Setting) -> list[Asked]:
    """Return questions in the embedded pool, each name with another one's descriptor."""
    candidates = embedded().candidates
    half = len(candidates) // 2  # so that expensive ones have the names of cheap ones
    names = [c.name for c in (*candidates[half:], *candidates[:half])]
    renamed = tuple(
        c.model_copy(update={"name": name}) for c, name in zip(candidates, names, strict=True)
    )
    pool = CandidatePool(name="swapped", candidates=renamed)
    return _asked(_known(setting), World.embedded(), lambda _: pool)


def facts(setting: Setting) -> list[Asked]:
    """Return the known questions where other facts hold: objects permuted within each relation.

    Those that have no answer there are left out: about one in seven.
    """
    world = known_world(_OTHER_FACTS)
    pool = knowing(embedded(), _OTHER_FACTS)
    answers = [(q, true_answer(world, q.structure)) for q in _known(setting) if q.structure]
    questions = [replace(q, gold=(answer,)) for q, answer in answers if answer]
    return _asked(questions, world, lambda _: pool)


def decomposed(setting: Setting) -> list[Asked]:
    """Return real questions with their sub-questions, each in a newly drawn pool.

    Raises:
        NotRunError: a file is not there.
    """
    asked: list[Asked] = []
    for name in DECOMPOSED:
        path = setting.real / name
        if not path.is_file():
            raise NotRunError(f"{path} is not there")
        world = known_world(str(path))
        there = len(decomposed_questions(world))
        drawn = generate(world, split="all", n=min(setting.count, there), seed=setting.seed)

        def pool_of(question: Question, world: World = world, path: Path = path) -> CandidatePool:
            rng = random.Random(f"policy/decomposed/{setting.seed}/{question.id}")
            return knowing(draw_pool(rng, domains=world.domains), str(path))

        asked += _asked(drawn, world, pool_of)
    return asked


def nothing(setting: Setting) -> list[Asked]:
    """Return questions of a file that nobody in the embedded pool can help with.

    Its lines have `id`, `question`, `split` (test = asked here) and `reply`, the one right answer
    where any general LLM knows it.

    Raises:
        NotRunError: the file is not there.
        ConfigError: a line lacks one of these, or no question is of the test split.
    """
    if not setting.nothing.is_file():
        raise NotRunError(f"{setting.nothing} is not there")
    pool, context = embedded(), RouterContext()
    asked = []
    for number, line in enumerate(setting.nothing.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            if row["split"] == "test":
                gold = (str(row["reply"]),) if row.get("reply") else ()
                asked.append(Asked(Item(row["id"], row["question"], gold, pool, context)))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{setting.nothing}, line {number}: a JSON object with id, question and split is "
                f"needed ({type(error).__name__}: {error})"
            ) from None
    if not asked:
        raise ConfigError(f"{setting.nothing}: no question has the split test")
    return asked[: setting.count]


def weighted(cost_weight: float) -> str:
    """Return the name of the run of the known questions at a cost weight."""
    return "known" if cost_weight == 0.5 else f"weight_{cost_weight:g}"


RUNS: Mapping[str, Callable[[Setting], list[Asked]]] = {
    **{weighted(weight): partial(known, cost_weight=weight) for weight in WEIGHTS},
    "test": test,
    "unseen": unseen,
    "shuffled": shuffled,
    "swapped": swapped,
    "facts": facts,
    "decomposed": decomposed,
    "nothing": nothing,
}
