"""Questions over a world: chains of one to four hops, comparisons, yes/no questions, and others.

The split is by meaning (`meaning.split_of`). The free wordings of tests never occur in training
either: wordings and names of `wordings="test"` are for `split="test"`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterator, Mapping
from typing import Literal, cast, get_args

from ..errors import ConfigError, did_you_mean
from .distractors import DistractorKind, Draft, distractors
from .drawing import MAX_HOPS, DrawnKind, structures
from .file_questions import drawn_questions
from .free_wording import FreeWording
from .grammar import phrase
from .meaning import Split, meaning
from .noise import USUAL_NOISE, Noise
from .question import Question, QuestionKind
from .reading import read_question
from .structure import Both, Structure, asks
from .structure import hops as count_hops
from .world import World, true_answer

WordingChoice = Literal["known", "train", "test"]

_KIND_WEIGHTS: Mapping[QuestionKind, float] = {"chain": 0.7, "compare": 0.15, "yes_no": 0.15}

#: A mix of all kinds: half of them plain, the others of every other kind.
EVERY_KIND: Mapping[QuestionKind, float] = {
    "chain": 0.4,
    "compare": 0.1,
    "yes_no": 0.1,
    "of_three": 0.06,
    "between": 0.06,
    "both": 0.06,
    "detail": 0.08,
    "false_premise": 0.06,
    "unanswerable": 0.05,
    "stated": 0.03,
}


def generate(
    world: World,
    *,
    split: Split,
    n: int,
    seed: int,
    hops: int | Collection[int] | None = None,
    wordings: WordingChoice = "known",
    kinds: Mapping[QuestionKind, float] | None = None,
    noise: Noise = USUAL_NOISE,
) -> list[Question]:
    """Return n different questions, the same ones for the same arguments.

    Args:
        world: The source of the questions and their gold answers.
        split: About a fifth of all questions are `test`; `all` is both splits.
        n: How many.
        seed: The seed of the draws and wordings.
        hops: The number of hops, or several; 1 to 4 in equal parts when None. A question that
            has no answer, or needs no call, seems to take so many. Of a decomposed file,
            the number of sub-questions; any when None.
        wordings: `known` = the forms that `read_question` reads, `train` and `test` = free
            wordings, with noise. The test wordings are for the test split only.
        kinds: The weights of the kinds; chains, comparisons and yes/no questions when None. See
            `EVERY_KIND`; details, false premises and the like need free wordings.
        noise: Noise on top of free wordings.

    Raises:
        ConfigError: The world has fewer than n such questions, or the choices exclude each other.

    >>> kinds = {"false_premise": 1.0}
    >>> asked = generate(
    ...     World.embedded(), split="test", n=9, seed=0, wordings="test", kinds=kinds
    ... )
    >>> {question.kind for question in asked}
    {'false_premise'}
    """
    if world.asked:
        return drawn_questions(world, split, n, seed, hops)
    weights = _checked(kinds, wordings, split)
    wanted = sorted({hops} if isinstance(hops, int) else set(hops or range(1, MAX_HOPS + 1)))
    rng = random.Random(f"{seed}/{split}/{wanted}")
    words = None
    if wordings != "known":
        words = FreeWording(wordings, random.Random(f"{seed}/{split}/{wordings}"), noise)
    streams: dict[tuple[int, QuestionKind], Iterator[Draft]] = {
        (count, kind): _drafts(world, kind, count, split, words, rng, random.Random(rng.random()))
        for count in wanted
        for kind in weights
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
        open_kinds = [kind for other, kind in streams if other == count]
        kind = rng.choices(open_kinds, [weights[kind] for kind in open_kinds])[0]
        for draft in streams[count, kind]:
            question = _question(world, draft, kind)
            if question.id not in found:
                found[question.id] = question
                break
        else:
            del streams[count, kind]
    questions = list(found.values())
    rng.shuffle(questions)
    return questions


def by_domain(world: World, *, split: Split, n: int, seed: int) -> list[Question]:
    """Return questions about single facts, evenly from all domains.

    Args:
        world: The source of the questions and their gold answers.
        split: As in `generate`.
        n: How many of each domain, or as many as it has.
        seed: The seed of the draws and wordings.
    """
    rng = random.Random(f"{seed}/{split}/by domain")
    found: dict[str, list[Question]] = {domain: [] for domain in world.domains}
    for draft in _drafts(world, "chain", 1, split, None, rng, rng):
        question = _question(world, draft, "chain")
        of_domain = found[question.domains[0]]
        if len(of_domain) < n:
            of_domain.append(question)
    return [question for of_domain in found.values() for question in of_domain]


def _checked(
    kinds: Mapping[QuestionKind, float] | None, wordings: WordingChoice, split: Split
) -> Mapping[QuestionKind, float]:
    """Return the weights of the kinds that are wanted at all."""
    if wordings not in get_args(WordingChoice):
        known = get_args(WordingChoice)
        raise ConfigError(
            f"unknown wordings {wordings!r}{did_you_mean(wordings, known)}; "
            f"they are {', '.join(known)}"
        )
    if wordings == "test" and split != "test":
        raise ConfigError(
            f"test wordings are for the test split, not {split}: they never occur in training; "
            "use train or known"
        )
    weights = {kind: weight for kind, weight in (kinds or _KIND_WEIGHTS).items() if weight}
    for kind, weight in weights.items():
        if kind not in EVERY_KIND:
            raise ConfigError(
                f"unknown kind of question {kind!r}{did_you_mean(kind, tuple(EVERY_KIND))}; "
                f"the kinds are {', '.join(EVERY_KIND)}"
            )
        if not weight > 0:
            raise ConfigError(f"the weight of {kind} is {weight!r}; it is a number of at least 0")
        if wordings == "known" and kind in get_args(DistractorKind):
            raise ConfigError(f"{kind} questions need free wordings: train or test, not known")
    if not weights:
        raise ConfigError("no kind of question has a weight above 0")
    return weights


def _drafts(
    world: World,
    kind: QuestionKind,
    count: int,
    split: Split,
    words: FreeWording | None,
    rng: random.Random,
    drawn_by: random.Random,
) -> Iterator[Draft]:
    """Yield questions of one kind with so many hops; `rng` draws the known wordings."""
    if kind in ("detail", "false_premise", "unanswerable", "stated"):
        assert words is not None  # checked before
        yield from distractors(world, kind, count, split, words, drawn_by)
        return
    for structure in structures(world, cast(DrawnKind, kind), count, split, drawn_by):
        text = phrase(structure, rng) if words is None else words.question(structure)
        gold = true_answer(world, structure)
        # A user's own facts may hold names that read as something else: such a question is left
        # out, where the forms are to be read.
        if gold is not None and (words is not None or read_question(text, world) == structure):
            yield Draft(text, _gold(world, structure, gold), structure, meaning(structure))


def _gold(world: World, structure: Structure, gold: str) -> tuple[str, ...]:
    if not isinstance(structure, Both):
        return (gold,)
    # An exact match leaves other punctuation out, so that these two are all sensible forms.
    both = [true_answer(world, ask) or "" for ask in (structure.first, structure.second)]
    return (gold, ", ".join(both))


def _question(world: World, draft: Draft, kind: QuestionKind) -> Question:
    # Where nobody needs to be asked, the structure says only what it looks like.
    taken = draft.structure if kind not in ("unanswerable", "stated") else None
    return Question(
        id=f"{kind}-{hashlib.sha256(draft.meaning.encode()).hexdigest()[:12]}",
        text=draft.text,
        gold=draft.gold,
        hops=count_hops(taken) if taken else 0,
        kind=kind,
        domains=tuple(world.domain(hop.relation) for hop in asks(taken)) if taken else (),
        structure=draft.structure,
    )
