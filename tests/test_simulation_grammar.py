"""Questions in words, as structure, and step by step."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_r1_graph.simulation import (
    Ask,
    Between,
    Both,
    Compare,
    Same,
    World,
    YesNo,
    generate,
    hops,
    next_steps,
    phrase,
    read_question,
    relation_domain,
)

WORLD = World.embedded()
HAMLET = Ask("author", "Hamlet")
CURRENCY = Ask("currency", Ask("birth_country", HAMLET))
WAR_AND_PEACE = Ask("author", "War and Peace")


def test_every_question_reads_back_in_every_wording() -> None:
    rng = random.Random(1)
    questions = generate(WORLD, split="all", n=3000, seed=1)
    for question in questions:
        assert read_question(question.text) == question.structure
        for wording in (phrase(question.structure, rng), phrase(question.structure)):
            assert read_question(wording) == question.structure, wording


def test_case_spaces_and_punctuation_do_not_matter() -> None:
    for question in generate(WORLD, split="all", n=500, seed=2):
        text = question.text.rstrip("?.")
        assert phrase(read_question(f"  {text.replace(' ', '   ')} ?? ") or HAMLET) == phrase(
            question.structure
        )
        loud = read_question(text.upper())
        assert loud is not None
        assert phrase(loud).lower() == phrase(question.structure).lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the currency of the country where the author of Hamlet was born?", CURRENCY),
        (
            "Which currency is used in the country where the writer of Hamlet was born?",
            CURRENCY,
        ),
        ("who wrote hamlet", Ask("author", "hamlet")),
        ("Who wrote The Lord of the Rings?", Ask("author", "The Lord of the Rings")),
        ("who wrote the lord of the rings", Ask("author", "the lord of the rings")),
        ("What is the author of Hamlet?", HAMLET),
        ("the author of Hamlet", HAMLET),
        ("Tell me the author of Hamlet.", HAMLET),
        (
            "Is Paris the capital of the country where the author of Hamlet was born?",
            YesNo(Ask("capital", Ask("birth_country", HAMLET)), "Paris"),
        ),
        (
            "Were the author of War and Peace and the author of Hamlet born in the same country?",
            Same("birth_country", WAR_AND_PEACE, HAMLET),
        ),
        (
            "Were Homer and the author of War and Peace born in the same country?",
            Same("birth_country", "Homer", WAR_AND_PEACE),
        ),
        (
            "Who was born earlier, the author of Hamlet or Leo Tolstoy?",
            Compare("birth_year", (HAMLET, "Leo Tolstoy"), least=True),
        ),
        (
            "Who was born first, the author of Hamlet or Homer or Leo Tolstoy?",
            Compare("birth_year", (HAMLET, "Homer", "Leo Tolstoy"), least=True),
        ),
        (
            "what is the difference between the birth year of Homer and "
            "the year in which War and Peace was first published",
            Between(Ask("birth_year", "Homer"), Ask("book_year", "War and Peace")),
        ),
        (
            "Name both the author of War and Peace and the capital of France.",
            Both(WAR_AND_PEACE, Ask("capital", "France")),
        ),
        ("What is the mayor of the capital of France?", Ask("mayor", Ask("capital", "France"))),
    ],
)
def test_known_texts_are_read(text: str, expected: object) -> None:
    assert read_question(text) == expected


@pytest.mark.parametrize(
    "text", ["", "   ", "?", "Hello!", "Hamlet", "Who wrote", "Who wrote ?", "Is the", "or and"]
)
def test_what_is_no_question_is_none(text: str) -> None:
    assert read_question(text) is None


def test_a_very_long_text_is_not_read() -> None:
    assert read_question("the author of " * 100_000) is None
    deep = read_question("the river of " * 40 + "Paris")
    assert deep is not None
    assert hops(deep) == 40


VOCABULARY = (
    "who wrote is was the author of capital country where born in same or and what "
    "which it true that earlier , ? . Hamlet İ ß \n were did"
)

WORDS = st.lists(st.sampled_from(VOCABULARY.split(" ")))


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=80), WORDS.map(" ".join)))
def test_reading_never_raises_and_what_is_read_can_be_said_again(text: str) -> None:
    question = read_question(text)
    if question is not None:
        assert isinstance(phrase(question), str)


def test_a_form_that_can_be_cut_in_two_ways_is_avoided() -> None:
    question = Same("author", "War and Peace", "Pride and Prejudice")
    for seed in range(20):
        assert read_question(phrase(question, random.Random(seed))) == question


def test_wordings_vary_and_the_canonical_one_is_the_shortest() -> None:
    wordings = {phrase(CURRENCY, random.Random(seed)) for seed in range(60)}
    assert len(wordings) > 20
    assert min(map(len, wordings)) >= len(phrase(CURRENCY)) - 10
    assert phrase(HAMLET) == "Who wrote Hamlet?"


def test_a_chain_is_asked_innermost_first() -> None:
    known: dict[Ask, str] = {}
    asked = []
    while isinstance(plan := next_steps(CURRENCY, known), list):
        asked += plan
        for step in plan:
            fact = WORLD.lookup(str(step.subject), step.relation)
            assert fact is not None
            known[step] = fact.object
    assert [step.relation for step in asked] == ["author", "birth_country", "currency"]
    assert plan == "pound sterling"


def test_both_sides_of_a_comparison_are_asked_at_once() -> None:
    question = Compare("birth_year", (HAMLET, WAR_AND_PEACE), least=False)
    known: dict[Ask, str] = {}
    assert next_steps(question, known) == [HAMLET, WAR_AND_PEACE]
    known |= {HAMLET: "William Shakespeare", WAR_AND_PEACE: "Leo Tolstoy"}
    years = [Ask("birth_year", "William Shakespeare"), Ask("birth_year", "Leo Tolstoy")]
    assert next_steps(question, known) == years
    known |= dict(zip(years, ("1564", "born in 1828"), strict=True))
    assert next_steps(question, known) == "Leo Tolstoy"


def test_the_two_sides_may_be_at_different_depths() -> None:
    question = Compare("birth_year", (HAMLET, "Leo Tolstoy"), least=True)
    assert next_steps(question, {}) == [HAMLET, Ask("birth_year", "Leo Tolstoy")]


def test_years_are_compared_as_numbers() -> None:
    known = {
        Ask("birth_year", name): year
        for name, year in zip("ABC", ("1200", "980", "1200"), strict=True)
    }
    a, b, _ = known
    for sides, least, expected in (
        ("AB", True, "B"),
        ("AB", False, "A"),
        ("AC", True, ""),
        ("ABC", True, "B"),
        ("ABC", False, ""),
    ):
        question = Compare("birth_year", tuple(sides), least)
        assert next_steps(question, known) == expected
        assert next_steps(question, {**known, a: "long ago"}) == ""
    assert next_steps(Between(a, b), known) == next_steps(Between(b, a), known) == "220"
    assert next_steps(Between(a, b), {**known, a: "long ago"}) == ""
    assert next_steps(Both(a, b), known) == "1200 and 980"
    assert next_steps(Both(a, b), {b: "980"}) == [a]


def test_yes_no_questions_end_in_yes_or_no() -> None:
    question = YesNo(Ask("capital", "France"), "Paris")
    assert next_steps(question, {Ask("capital", "France"): "paris"}) == "yes"
    assert next_steps(question, {Ask("capital", "France"): "Lyon"}) == "no"
    same = Same("author", "Emma", "Persuasion")
    known = {Ask("author", "Emma"): "Jane Austen", Ask("author", "Persuasion"): "jane austen"}
    assert next_steps(same, known) == "yes"


def test_hops_count_the_facts_it_takes() -> None:
    assert hops(HAMLET) == 1
    assert hops(CURRENCY) == 3
    assert hops(YesNo(CURRENCY, "yen")) == 3
    assert hops(Compare("birth_year", (HAMLET, "Leo Tolstoy"), least=True)) == 3


def test_a_relation_has_a_domain() -> None:
    assert relation_domain("author") == "literature"
    assert relation_domain("mayor") == "other"
