"""Questions that are not what they seem: a detail, a false premise, no answer, no need to ask.

They need the free wordings. The right answer in each case:

- `detail`: the answer, as without the detail.
- `false_premise` ("the French author of Hamlet"): the true answer to the question.
- `unanswerable`: "unknown". A controller that gives up answers `unknown`, and an exact match with
  it pays. So a policy learns to give up before it has spent anything.
- `stated`: the answer in the question itself, without any call.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Literal, NamedTuple

from .draw import fraction
from .drawing import PATIENCE, chains, structures
from .free_wording import FreeWording
from .meaning import Split, is_in, meaning
from .relations import relation_of, relations
from .sentences import capitalized, running
from .structure import Ask, Structure, Term, asks, folded
from .wordings import classes, common_wordings
from .world import Fact, World, true_answer

DistractorKind = Literal["detail", "false_premise", "unanswerable", "stated"]

UNKNOWN_GOLD = ("unknown", "I do not know", "nobody knows")


class Draft(NamedTuple):
    """A question before it is a `Question`."""

    text: str
    gold: tuple[str, ...]
    structure: Structure | None
    """None where it asks for nothing that a world could hold."""
    meaning: str


def distractors(
    world: World,
    kind: DistractorKind,
    count: int,
    split: Split,
    words: FreeWording,
    rng: random.Random,
) -> Iterator[Draft]:
    """Yield questions of one kind with this number of hops, until none is in sight.

    Args:
        world: The true facts.
        kind: The kind of question.
        count: How many hops the question seems to take.
        split: The split of the questions, and of every fact that one states.
        words: Their wording.
        rng: Draws the questions.
    """
    if kind in ("detail", "false_premise"):
        add = _with_detail if kind == "detail" else _with_false_premise
        for ask in structures(world, "chain", count, split, rng):
            draft = isinstance(ask, Ask) and add(world, ask, split, words)
            if draft:
                yield draft
        return
    seen: set[str] = set()
    failures = 0
    draws = _UNANSWERABLE if kind == "unanswerable" else _STATED
    while failures < PATIENCE:
        drawn = rng.choice(draws)(world, count, split, words, rng)
        if drawn is None or drawn.meaning in seen:
            failures += 1
            continue
        seen.add(drawn.meaning)
        failures = 0
        yield drawn


def _with_detail(world: World, ask: Ask, split: Split, words: FreeWording) -> Draft | None:
    common, rng = common_wordings(words.split), words.rng
    sentence = running(rng.choice(common.details))
    if rng.random() < 0.5:
        fact = _beside_the_point(world, ask, split, rng)
        if fact is not None:
            stated = words.statement(Ask(fact.relation, fact.subject), fact.object)
            sentence = words.inserted(common.fact_details, s=stated)
    question = words.typed(ask).plain(ask)
    both = (sentence, question) if rng.random() < 0.7 else (question, sentence)
    return _of_ask(world, ask, words, f"{both[0]} {capitalized(both[1])}")


def _beside_the_point(world: World, ask: Ask, split: Split, rng: random.Random) -> Fact | None:
    """Return a fact beside the point, which gives no fact of the other split away; or None."""
    about = _other_facts(world, ask)
    facts = about if about and rng.random() < 0.7 else world.facts
    fact = rng.choice(facts)
    told = {folded(true_answer(world, hop) or "") for hop in asks(ask)}
    fits = is_in(split, Ask(fact.relation, fact.subject)) and folded(fact.object) not in told
    return fact if fits and fact.relation not in _related(ask) else None


def _with_false_premise(world: World, ask: Ask, split: Split, words: FreeWording) -> Draft | None:
    people = [hop for hop in asks(ask) if relation_of(hop.relation).object == "person"]
    about = _other_facts(world, ask)
    if people and (not about or words.rng.random() < 0.5):
        text = _with_epithet(world, ask, words.rng.choice(people), words)
    elif about:
        fact = words.rng.choice(about)
        others = [name for name in world.objects(fact.relation) if name != fact.object]
        if not others:
            return None
        false = words.statement(Ask(fact.relation, fact.subject), words.rng.choice(others))
        premises = common_wordings(words.split).premises
        text = words.inserted(premises, s=false, q=words.typed(ask).plain(ask, terse=False))
    else:
        return None
    return _of_ask(world, ask, words, text) if text else None


def _with_epithet(world: World, ask: Ask, hop: Ask, words: FreeWording) -> str | None:
    """Return a question in which a person gets an adjective of a country not their own."""
    home = world.lookup(true_answer(world, hop) or "", "birth_country")
    if home is None:
        return None
    demonyms = classes().demonyms
    country = words.rng.choice([name for name in demonyms if name != home.object])
    said = replace(words.typed(ask), epithets={hop: demonyms[country]})
    if hop == ask:
        text = said.sentence(common_wordings(words.split).who_is, {"noun": said.noun(ask)})
    else:
        text = said.plain(ask)
    return text if f"the {demonyms[country]} " in text else None


def _other_facts(world: World, ask: Ask) -> list[Fact]:
    """Return facts about the name that a chain starts from which the chain does not ask for."""
    subject = str(asks(ask)[0].subject)
    return [fact for fact in world.about(subject) if fact.relation not in _related(ask)]


def _related(ask: Ask) -> set[str]:
    """Return the relations of a chain, and those that say something about their answers."""
    found = {hop.relation for hop in asks(ask)}
    if found & _WHERE:
        found |= _WHERE
    return found


_WHERE = {"birth_city", "birth_country", "city_country"}


def _of_ask(world: World, ask: Ask, words: FreeWording, text: str) -> Draft | None:
    gold = true_answer(world, ask)
    return Draft(words.framed(text), (gold,), ask, meaning(ask)) if gold else None


def _unknowable(
    world: World, count: int, split: Split, words: FreeWording, rng: random.Random
) -> Draft | None:
    """Ask for what nobody knows about something, such as a writer's breakfast."""
    kind, forms = rng.choice(sorted(common_wordings(words.split).unanswerable.items()))
    terms = _terms_of(world, kind, count)
    if not terms:
        return None
    term, form = rng.choice(terms), rng.choice(forms)
    key = f"{form} {meaning(term) if isinstance(term, Ask) else folded(term)}"
    if not _drawn_for(split, key) or (isinstance(term, Ask) and not is_in(split, term)):
        return None
    text = words.framed(words.sentence([form], {"x": words.noun(term)}))
    return Draft(text, UNKNOWN_GOLD, None, key)


def _invented(
    world: World, count: int, split: Split, words: FreeWording, rng: random.Random
) -> Draft | None:
    """Ask about what does not exist."""
    kind, names = rng.choice(sorted(common_wordings(words.split).invented.items()))
    term: Term = rng.choice(names)
    left = dict(relations())
    for _ in range(count):
        fitting = [name for name, relation in left.items() if relation.subject == kind]
        if not fitting:
            return None
        term = Ask(rng.choice(fitting), term)
        kind = left.pop(term.relation).object
    return _without_answer(world, term, split, words)


def _absurd(
    world: World, count: int, split: Split, words: FreeWording, rng: random.Random
) -> Draft | None:
    """Ask for what such a thing cannot have, such as the capital of helium."""
    asked = rng.choice(world.relations)
    kinds = classes().absurd.get(relation_of(asked).subject)
    names = _terms_of(world, rng.choice(kinds), 1) if kinds and count == 1 else ()
    return _without_answer(world, Ask(asked, rng.choice(names)), split, words) if names else None


def _without_answer(world: World, term: Term, split: Split, words: FreeWording) -> Draft | None:
    if not isinstance(term, Ask) or true_answer(world, term) or not is_in(split, term):
        return None
    return Draft(words.framed(words.plain(term)), UNKNOWN_GOLD, term, meaning(term))


def _told(
    world: World, count: int, split: Split, words: FreeWording, rng: random.Random
) -> Draft | None:
    """Ask for a fact, or two in a row, that the question tells."""
    found = chains(world).get(count, ()) if count <= 2 else ()
    ask = rng.choice(found) if found else None
    if ask is None:
        return None
    facts = []
    for hop in asks(ask):
        subject = hop.subject if isinstance(hop.subject, str) else true_answer(world, hop.subject)
        facts.append(Ask(hop.relation, subject or ""))
    if not all(is_in(split, one) for one in (ask, *facts)):
        return None
    told = [words.statement(fact, true_answer(world, fact) or "") for fact in facts]
    form = "{s}" if len(told) == 1 else "{s}. {then}"
    stated = words.inserted([form], **dict(zip(("s", "then"), told, strict=False)))
    question = words.plain(ask, terse=False)
    text = words.inserted(common_wordings(words.split).stated, s=stated, q=question)
    return _of_ask(world, ask, words, text)


def _own(
    world: World, count: int, split: Split, words: FreeWording, rng: random.Random
) -> Draft | None:
    """Ask for something about the asker that the question tells."""
    common = common_wordings(words.split)
    form, thing = rng.choice(common.own), rng.choice(common.own_things)
    text = running(form).replace("{thing}", thing)
    return Draft(words.framed(text), (thing,), None, text) if _drawn_for(split, text) else None


_Draw = Callable[[World, int, Split, FreeWording, random.Random], Draft | None]
_UNANSWERABLE: tuple[_Draw, ...] = (_unknowable, _invented, _absurd)
_STATED: tuple[_Draw, ...] = (_told, _own)


def _drawn_for(split: Split, text: str) -> bool:
    return split == "all" or (fraction(text) < 0.2) is (split == "test")


@lru_cache(maxsize=512)
def _terms_of(world: World, kind: str, count: int) -> tuple[Term, ...]:
    """Return what is of a type: names for count 1, else chains with one hop less."""
    if count > 1:
        found = chains(world).get(count - 1, ())
        return tuple(chain for chain in found if relation_of(chain.relation).object == kind)
    subjects = (fact.subject for fact in world.facts if relation_of(fact.relation).subject == kind)
    return tuple(dict.fromkeys(subjects))
