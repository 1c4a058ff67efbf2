"""Simulated candidates read English: wordings by hand, typos, distractors, names nobody knows."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from router_r1_graph.simulation import (
    Ask,
    Between,
    Both,
    Compare,
    Same,
    Structure,
    World,
    YesNo,
    generate,
    read_question,
    true_answer,
)
from router_r1_graph.simulation.drawing import chains
from router_r1_graph.simulation.meaning import topic
from router_r1_graph.simulation.structure import Term, folded

WORLD = World.embedded()
ENGLISH = yaml.safe_load((Path(__file__).parent / "data/english.yaml").read_text("utf-8"))
WORDINGS = {
    name: {kind: found[kind] + ENGLISH["kept"][name][kind] for kind in found}
    for name, found in ENGLISH["wordings"].items()
}
DEV = yaml.safe_load((Path(__file__).parent / "data/dev_questions.yaml").read_text("utf-8"))
DEV_WORDINGS = {
    name: {kind: forms.splitlines() for kind, forms in found.items()}
    for name, found in DEV["relations"].items()
}
SUBJECTS = {
    name: [fact.subject for fact in WORLD.facts if fact.relation == name]
    for name in WORLD.relations
}


Forms = dict[str, dict[str, list[str]]]


def noun(term: Term, rng: random.Random, forms: Forms) -> str:
    if isinstance(term, str):
        return term
    nouns = forms[term.relation]["nouns"]
    return rng.choice(nouns).replace("{x}", noun(term.subject, rng, forms))


def term_of(text: str) -> Term:
    """Return the term of `relation(subject)`."""
    found = re.fullmatch(r"([a-z_]+)\((.*)\)", text.strip())
    return Ask(found[1], term_of(found[2])) if found else text.strip()


def structure_of(text: str) -> Structure:
    """Return the structure of what a development question asks, as its file writes it."""
    if found := re.fullmatch(r"(least|most|same) (\w+): (.*)", text):
        sides = tuple(map(term_of, found[3].split(";")))
        if found[1] == "same":
            return Same(found[2], *sides)
        return Compare(found[2], sides, least=found[1] == "least")
    for sign, kind in ((" ~ ", Between), (" & ", Both), (" = ", YesNo)):
        if sign in text:
            first, second = map(term_of, text.split(sign))
            return kind(first, second)  # type: ignore[arg-type]
    asked = term_of(text)
    assert isinstance(asked, Ask)
    return asked


def is_right(text: str, asked: Ask) -> bool:
    """Say whether a text is read as something with the same answer."""
    question = read_question(text)
    answer = question and true_answer(WORLD, question)
    return answer is not None and folded(answer) == folded(true_answer(WORLD, asked) or "")


def misspelled(name: str, rng: random.Random) -> str:
    """Leave out, add, replace or swap a letter; the first one stays."""
    at = rng.randrange(1, len(name) - 1)
    letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
    before, after = name[:at], name[at + 1 :]
    swapped = before + after[0] + name[at] + after[1:]
    return rng.choice(
        [before + after, before + letter + after, before + letter + name[at:], swapped]
    )


@pytest.mark.parametrize(("forms", "floor"), [(WORDINGS, 0.93), (DEV_WORDINGS, 0.94)])
def test_a_question_in_anybodys_words_is_read_over_one_to_four_hops(
    forms: Forms, floor: float
) -> None:
    rng = random.Random(1)
    by_end: dict[tuple[int, str], list[Ask]] = {}
    for hops, found in chains(WORLD).items():
        for chain in found:
            by_end.setdefault((hops, chain.relation), []).append(chain)
    right: Counter[int] = Counter()
    count: Counter[int] = Counter()
    for (hops, relation), found in by_end.items():
        wordings = forms[relation]["questions"]
        for wording in wordings if hops < 3 else rng.sample(wordings, 4):
            asked = rng.choice(found)
            text = wording.replace("{x}", noun(asked.subject, rng, forms))
            count[hops] += 1
            right[hops] += is_right(rng.choice([text, text.lower()]), asked)
    assert {
        hops: right[hops] / count[hops] for hops in count if right[hops] < floor * count[hops]
    } == {}


def test_whole_questions_as_people_type_them_are_read() -> None:
    def is_read(text: str, asked: str | None) -> bool:
        question = read_question(text)
        answer = question and true_answer(WORLD, question)
        truth = asked and true_answer(WORLD, structure_of(asked))
        assert (truth is None) == (asked is None), asked
        return (
            answer == truth if answer is None or truth is None else folded(answer) == folded(truth)
        )

    misread = [text for text, asked in DEV["asked"] if not is_read(text, asked)]
    assert len(misread) < 0.08 * len(DEV["asked"]), misread


def test_names_may_be_misspelled() -> None:
    rng = random.Random(2)
    right = []
    for relation, forms in WORDINGS.items():
        for wording in forms["questions"]:
            subject = rng.choice([name for name in SUBJECTS[relation] if len(name) > 5])
            text = wording.replace("{x}", misspelled(subject, rng))
            right.append(is_right(text, Ask(relation, subject)))
    assert sum(right) > 0.9 * len(right)


@pytest.mark.parametrize(("text", "answer"), ENGLISH["questions"])
def test_a_question_has_its_answer(text: str, answer: str | None) -> None:
    question = read_question(text)
    assert (question and true_answer(WORLD, question)) == answer


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Who penned Zorblax?", Ask("author", "Zorblax")),
        ("Could you tell me who wrote Zorblax Returns, please?", Ask("author", "Zorblax Returns")),
        ("which money do they use in Wakanda", Ask("currency", "Wakanda")),
        ("Where was John Zorblax born?", Ask("birth_country", "John Zorblax")),
        ("What is the mayor of Paris?", Ask("mayor", "Paris")),
    ],
)
def test_a_name_or_relation_that_nobody_knows_is_read_all_the_same(text: str, asked: Ask) -> None:
    assert read_question(text) == asked


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("Of Franz Kafka and Leo Tolstoy, who was outlived by the other?", True),
        ("Who would have more candles on the cake, Leo Tolstoy or Franz Kafka?", True),
        ("Which is the less recent book, Emma or Dracula?", True),
        ("Which of Emma and Dracula is the more ancient?", True),
        ("Sort Psycho and Jaws by release, newest first; which comes first?", False),
        ("Aida, Carmen, Parsifal: whose first night was the latest?", False),
        ("Name the newest film: Psycho, Jaws or Amadeus.", False),
        ("Who outlived the other two, Franz Liszt, Leo Tolstoy or Edvard Munch?", False),
    ],
)
def test_a_comparison_asks_for_the_end_that_its_words_say_together(text: str, least: bool) -> None:
    question = read_question(text)
    assert isinstance(question, Compare)
    assert question.least == least


def test_a_world_of_ones_own_is_read_by_its_own_names_and_relations(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(
        "subject,relation,object,domain\n"
        "water,boiling point,100 C,physics\n"
        "Acme Corp,chief executive,Jane Roe,business\n"
        "Jane Roe,alma mater,Springfield College,business\n"
        "Springfield College,founding year,1901,business\n"
        "Ogdenville University,founding year,1890,business\n"
        "Jane Roe,birth_country,Canada,biography\n",
        "utf-8",
    )
    world = World.from_csv(path)
    chief = Ask("chief_executive", "Acme Corp")
    for text, expected in {
        "what's the boilng point of watr": Ask("boiling_point", "water"),
        "Acme Corp's chief executive is who?": chief,
        "Where does the chief executive of acme corp come from?": Ask("birth_country", chief),
        "which alma mater does Acme Corp's chief executive have": Ask("alma_mater", chief),
        "Which is older by founding year, Springfield College or Ogdenville University?": Compare(
            "founding_year", ("Springfield College", "Ogdenville University"), least=True
        ),
    }.items():
        assert read_question(text, world) == expected


@pytest.mark.long
def test_a_test_question_is_in_training_in_no_wording_and_by_no_detour() -> None:
    train = {topic(q.structure) for q in generate(WORLD, split="train", n=8000, seed=1)}
    test = generate(WORLD, split="test", n=2000, seed=1)
    assert not [q.text for q in test if topic(q.structure) in train]
    assert not [q.text for q in test if "city_country(birth_city" in repr(q.structure)]


def test_no_verb_is_left_over_at_the_end_of_a_nested_question() -> None:
    questions = generate(WORLD, split="test", n=2000, seed=4, hops=[3, 4])
    doubled = ("born lies", "lies flow", "appears was born", "lie lie", "born lie", "is named was")
    assert not [q.text for q in questions if any(words in q.text for words in doubled)]
