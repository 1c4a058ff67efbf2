"""Structures drawn from a world: chains of hops, comparisons, differences, pairs, yes/no."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal

from .meaning import Split, is_in, meaning
from .relations import relation_of
from .structure import NO, YES, Ask, Between, Both, Compare, Same, Structure, Term, YesNo, folded
from .world import World, true_answer

DrawnKind = Literal["chain", "compare", "yes_no", "of_three", "between", "both"]

MAX_HOPS = 4
#: So many draws in a row without a new question end the search for more.
PATIENCE = 300


def structures(
    world: World, kind: DrawnKind, count: int, split: Split, rng: random.Random
) -> Iterator[Structure]:
    """Yield structures of one kind and number of hops until there are none left (in sight)."""
    if kind == "chain":
        found = list(chains(world).get(count, ()))
        rng.shuffle(found)
        yield from (chain for chain in found if is_in(split, chain))
        return
    seen: set[str] = set()
    failures = 0
    while failures < PATIENCE:
        drawn = _DRAWS[kind](world, count, rng)
        if drawn is None:
            return
        spelled = meaning(drawn)
        if spelled in seen or not is_in(split, drawn):
            failures += 1
            continue
        seen.add(spelled)
        failures = 0
        yield drawn


def _compare(world: World, count: int, rng: random.Random, number: int = 2) -> Structure | None:
    relations = [name for name in world.relations if relation_of(name).least]
    for _ in range(PATIENCE if relations else 0):
        relation = rng.choice(relations)
        sides = _sides(world, relation, count, rng, number)
        if sides is not None:
            question = Compare(relation, sides, least=rng.random() < 0.5)
            if true_answer(world, question) is not None:
                return question
    return None


def _of_three(world: World, count: int, rng: random.Random) -> Structure | None:
    return _compare(world, count, rng, number=3)


def _yes_no(world: World, count: int, rng: random.Random) -> Structure | None:
    """Return a question whose answer is yes as often as no."""
    wanted = rng.choice((YES, NO))
    relations = [name for name in world.relations if relation_of(name).same]
    if count >= 2 and relations and rng.random() < 0.5:
        for _ in range(PATIENCE):
            relation = rng.choice(relations)
            sides = _sides(world, relation, count, rng)
            if sides is not None:
                same = Same(relation, *sides)
                if true_answer(world, same) == wanted:
                    return same
    found = chains(world).get(count, ())
    if not found:
        return None
    ask = rng.choice(found)
    value = true_answer(world, ask) or ""
    others = [name for name in world.objects(ask.relation) if folded(name) != folded(value)]
    if wanted == NO and others:
        value = rng.choice(others)
    return YesNo(ask, value)


def _between(world: World, count: int, rng: random.Random) -> Structure | None:
    """Return a question for the difference of two numbers of one unit, which is not 0."""
    units: dict[str, list[str]] = {}
    for name in world.relations:
        if relation_of(name).least:
            units.setdefault(relation_of(name).object, []).append(name)
    for _ in range(PATIENCE if units and count >= 2 else 0):
        # By relation, then another of its unit: most are years.
        unit = rng.choice([unit for unit, names in sorted(units.items()) for _ in names])
        first, second = rng.choice(units[unit]), rng.choice(units[unit])
        ours = rng.randint(1, count - 1)
        subjects = terms(world, first).get(ours), terms(world, second).get(count - ours)
        if subjects[0] and subjects[1]:
            between = Between(
                Ask(first, rng.choice(subjects[0])), Ask(second, rng.choice(subjects[1]))
            )
            if true_answer(world, between) not in (None, "0"):
                return between
    return None


def _both(world: World, count: int, rng: random.Random) -> Structure | None:
    for _ in range(PATIENCE if count >= 2 else 0):
        ours = rng.randint(1, count - 1)
        asks = chains(world).get(ours), chains(world).get(count - ours)
        if asks[0] and asks[1]:
            both = Both(rng.choice(asks[0]), rng.choice(asks[1]))
            if true_answer(world, both.first) != true_answer(world, both.second):
                return both
    return None


_DRAWS: dict[str, Callable[[World, int, random.Random], Structure | None]] = {
    "compare": _compare,
    "of_three": _of_three,
    "yes_no": _yes_no,
    "between": _between,
    "both": _both,
}


def _sides(
    world: World, relation: str, count: int, rng: random.Random, number: int = 2
) -> tuple[Term, ...] | None:
    """Return different subjects of a relation that take `count` facts together."""
    if count < number:
        return None
    cuts = [0, *sorted(rng.sample(range(1, count), number - 1)), count]
    known = terms(world, relation)
    pools = [known.get(end - start) for start, end in itertools.pairwise(cuts)]
    if not all(pools):
        return None
    sides = tuple(rng.choice(pool) for pool in pools if pool)
    # Two ways to say the same thing ("the author of Emma", "the author of Persuasion") ask nothing.
    names = {
        folded(side if isinstance(side, str) else true_answer(world, side) or "") for side in sides
    }
    return sides if len(names) == number else None


#: The country of the city where somebody was born: their country of birth, with a hop too many.
_DETOUR = ("city_country", "birth_city")


@lru_cache(maxsize=8)
def chains(world: World) -> dict[int, tuple[Ask, ...]]:
    """Return every chain by its number of hops. No chain comes back to where it has been."""
    found: dict[int, list[Ask]] = {count: [] for count in range(1, MAX_HOPS + 1)}

    def extend(term: Term, subject: str, path: tuple[str, ...]) -> None:
        for fact in world.about(subject):
            if folded(fact.object) in path:
                continue
            if isinstance(term, Ask) and (fact.relation, term.relation) == _DETOUR:
                continue
            ask = Ask(fact.relation, term)
            found[len(path)].append(ask)
            if len(path) < MAX_HOPS:
                extend(ask, fact.object, (*path, folded(fact.object)))

    for subject in dict.fromkeys(fact.subject for fact in world.facts):
        extend(subject, subject, (folded(subject),))
    return {count: tuple(asks) for count, asks in found.items()}


@lru_cache(maxsize=256)
def terms(world: World, relation: str) -> dict[int, tuple[Term, ...]]:
    """Return the terms a relation can be asked of, by the number of hops the whole ask takes."""
    return {
        count: tuple(chain.subject for chain in asks if chain.relation == relation)
        for count, asks in chains(world).items()
    }
