"""Questions over a world: chains of one to four hops, comparisons, and yes/no questions.

The split is by meaning: a stable hash of the structure, never of the wording. A yes/no question is
in the same split as the question about its fact, and all comparisons of the same two things are in
one split. So no test question occurs in training in other words.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ..errors import ConfigError
from .draw import fraction
from .grammar import phrase
from .meaning import meaning, topic
from .reading import read_question
from .relations import relation_of
from .structure import NO, YES, Ask, Compare, Same, Structure, Term, YesNo, asks, folded, next_steps
from .structure import hops as count_hops
from .world import World

Split = Literal["train", "test", "all"]
QuestionKind = Literal["chain", "compare", "yes_no"]

MAX_HOPS = 4
_TEST_SHARE = 0.2
_KIND_WEIGHTS: dict[QuestionKind, float] = {"chain": 0.7, "compare": 0.15, "yes_no": 0.15}
#: So many draws in a row without a new comparison or yes/no question end the search for more.
_PATIENCE = 300


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its gold answers."""

    id: str
    """The same for the same meaning, in every wording, process and seed."""
    text: str
    gold: tuple[str, ...]
    hops: int
    """How many facts the answer takes."""
    kind: QuestionKind
    domains: tuple[str, ...]
    """The domain of each hop, innermost first."""
    structure: Structure


def generate(
    world: World,
    *,
    split: Split,
    n: int,
    seed: int,
    hops: int | Collection[int] | None = None,
) -> list[Question]:
    """Return n different questions, the same ones for the same arguments.

    Args:
        world: Where the questions and their gold answers come from.
        split: About a fifth of all questions are `test`; `all` is both splits.
        n: How many.
        seed: What is drawn, and how it is worded.
        hops: The number of hops, or several; 1 to 4 in equal parts when None.

    Raises:
        ConfigError: The world has fewer than n such questions.
    """
    wanted = sorted({hops} if isinstance(hops, int) else set(hops or range(1, MAX_HOPS + 1)))
    rng = random.Random(f"{seed}/{split}/{wanted}")
    streams: dict[tuple[int, QuestionKind], Iterator[Structure]] = {
        (count, kind): _stream(world, kind, count, split, random.Random(rng.random()))
        for count in wanted
        for kind in _KIND_WEIGHTS
    }
    found: dict[str, Question] = {}
    while len(found) < n:
        # The number of hops in turn, then the kind by weight: an exhausted pair drops out.
        open_counts = sorted({count for count, _ in streams})
        if not open_counts:
            raise ConfigError(
                f"{n} questions of the {split} split with {wanted} hops were asked for, "
                f"but this world has {len(found)}"
            )
        count = open_counts[len(found) % len(open_counts)]
        kinds = [kind for other, kind in streams if other == count]
        kind = rng.choices(kinds, [_KIND_WEIGHTS[kind] for kind in kinds])[0]
        question: Question | None = None
        for structure in streams[count, kind]:
            question = _question(world, structure, kind, rng)
            if question is not None and question.id not in found:
                found[question.id] = question
                break
        else:
            del streams[count, kind]
    questions = list(found.values())
    rng.shuffle(questions)
    return questions


def split_of(question: Structure) -> Split:
    """Return the split a question belongs to."""
    return "test" if fraction(topic(question)) < _TEST_SHARE else "train"


def true_answer(world: World, question: Structure) -> str | None:
    """Return the right answer, or None when the world lacks a fact for it."""
    known: dict[Ask, str] = {}
    while not isinstance(plan := next_steps(question, known), str):
        for step in plan:
            fact = world.lookup(str(step.subject), step.relation)
            if fact is None:
                return None
            known[step] = fact.object
    return plan or None


def _question(
    world: World, structure: Structure, kind: QuestionKind, rng: random.Random
) -> Question | None:
    text = phrase(structure, rng)
    gold = true_answer(world, structure)
    # A user's own facts may hold names that read as something else: such a question is left out.
    if gold is None or read_question(text, world) != structure:
        return None
    return Question(
        id=f"{kind}-{hashlib.sha256(meaning(structure).encode()).hexdigest()[:12]}",
        text=text,
        gold=(gold,),
        hops=count_hops(structure),
        kind=kind,
        domains=tuple(world.domain(hop.relation) for hop in asks(structure)),
        structure=structure,
    )


def _stream(
    world: World, kind: QuestionKind, count: int, split: Split, rng: random.Random
) -> Iterator[Structure]:
    """Yield structures of one kind and number of hops until there are none left (in sight)."""
    if kind == "chain":
        chains = list(_chains(world).get(count, ()))
        rng.shuffle(chains)
        yield from (chain for chain in chains if split in ("all", split_of(chain)))
        return
    seen: set[str] = set()
    failures = 0
    while failures < _PATIENCE:
        drawn = _compare(world, count, rng) if kind == "compare" else _yes_no(world, count, rng)
        if drawn is None:
            return
        spelled = meaning(drawn)
        if spelled in seen or split not in ("all", split_of(drawn)):
            failures += 1
            continue
        seen.add(spelled)
        failures = 0
        yield drawn


def _compare(world: World, count: int, rng: random.Random) -> Structure | None:
    relations = [name for name in world.relations if relation_of(name).least]
    for _ in range(_PATIENCE if relations else 0):
        relation = rng.choice(relations)
        sides = _sides(world, relation, count, rng)
        if sides is not None:
            question = Compare(relation, sides, least=rng.random() < 0.5)
            if true_answer(world, question) is not None:
                return question
    return None


def _yes_no(world: World, count: int, rng: random.Random) -> Structure | None:
    """Return a question whose answer is yes as often as no."""
    wanted = rng.choice((YES, NO))
    relations = [name for name in world.relations if relation_of(name).same]
    if count >= 2 and relations and rng.random() < 0.5:
        for _ in range(_PATIENCE):
            relation = rng.choice(relations)
            sides = _sides(world, relation, count, rng)
            if sides is not None:
                same = Same(relation, *sides)
                if true_answer(world, same) == wanted:
                    return same
    chains = _chains(world).get(count, ())
    if not chains:
        return None
    ask = rng.choice(chains)
    value = true_answer(world, ask) or ""
    others = [name for name in world.objects(ask.relation) if folded(name) != folded(value)]
    if wanted == NO and others:
        value = rng.choice(others)
    return YesNo(ask, value)


def _sides(world: World, relation: str, count: int, rng: random.Random) -> tuple[Term, Term] | None:
    """Return two different subjects of a relation that take `count` facts together."""
    terms = _subjects(world, relation)
    first = rng.randint(1, count - 1) if count >= 2 else 0
    if not terms.get(first) or not terms.get(count - first):
        return None
    a, b = rng.choice(terms[first]), rng.choice(terms[count - first])
    # Two ways to say the same thing ("the author of Emma", "the author of Persuasion") ask nothing.
    ours, theirs = (
        term if isinstance(term, str) else true_answer(world, term) or "" for term in (a, b)
    )
    return None if folded(ours) == folded(theirs) else (a, b)


#: The country of the city where somebody was born: their country of birth, with a hop too many.
_DETOUR = ("city_country", "birth_city")


@lru_cache(maxsize=8)
def _chains(world: World) -> dict[int, tuple[Ask, ...]]:
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
    return {count: tuple(chains) for count, chains in found.items()}


@lru_cache(maxsize=256)
def _subjects(world: World, relation: str) -> dict[int, tuple[Term, ...]]:
    """Return the terms a relation can be asked of, by the number of hops the whole ask takes."""
    return {
        count: tuple(chain.subject for chain in chains if chain.relation == relation)
        for count, chains in _chains(world).items()
    }
