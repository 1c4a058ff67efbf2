"""The questions of a decomposed file, as questions over its world."""

from __future__ import annotations

import random
from collections.abc import Collection

from ..errors import ConfigError
from .meaning import Split, split_by
from .question import Question
from .structure import folded
from .world import World


def decomposed_questions(
    world: World, split: Split = "all", hops: int | Collection[int] | None = None
) -> list[Question]:
    """Return the questions of a decomposed file in its order, with the wanted number of parts.

    An answer of several entries is rarely matched exactly: such questions are left out.
    """
    wanted = {hops} if isinstance(hops, int) else hops
    return [
        Question(
            id=asked.id,
            text=asked.question,
            gold=asked.gold,
            hops=len(leaves),
            kind="decomposed",
            domains=tuple(leaf.domain for leaf in leaves),
            structure=asked,
        )
        for asked in world.asked
        for leaves in [list(asked.leaves())]
        if not asked.several
        and split in ("all", asked.split or split_by(folded(asked.question)))
        and (wanted is None or len(leaves) in wanted)
    ]


def drawn_questions(
    world: World, split: Split, n: int, seed: int, hops: int | Collection[int] | None
) -> list[Question]:
    """Return n questions of a decomposed file, drawn by the seed.

    Raises:
        ConfigError: The file has fewer.
    """
    found = decomposed_questions(world, split, hops)
    if len(found) < n:
        several = sum(asked.several for asked in world.asked)
        raise ConfigError(
            f"{n} questions of the {split} split were asked for, but this file has {len(found)}; "
            f"{several} of its {len(world.asked)} have answers of several entries and are left out"
        )
    return random.Random(f"{seed}/{split}").sample(found, n)
