from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_r1_graph.answers import exact_match, f1_score, normalize_answer


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Beatles", "beatles"),
        ("  an   apple\ta  day ", "apple day"),
        ("St. John's", "st johns"),
        ("U.S.A.", "usa"),
        ("1,000", "1000"),
        ("the-end", "theend"),  # punctuation goes first, so the article is no word of its own
        ("Théâtre", "théâtre"),
        ("A", ""),
        ("banana", "banana"),
        ("Österreich", "österreich"),
        ("“quoted”", "“quoted”"),  # only ASCII punctuation, as in SQuAD's script
        ("", ""),
    ],
)
def test_normalisation_is_that_of_squad(text, normal):
    assert normalize_answer(text) == normal


@given(st.text())
def test_a_normal_answer_has_single_spaces_and_none_around_it(text):
    once = normalize_answer(text)
    assert once == once.strip()
    assert "  " not in once


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("The pound sterling.", ["pound sterling"], 1.0),
        ("PARIS", ["London", "paris"], 1.0),
        ("Paris, France", ["Paris"], 0.0),
        ("yes", ["Yes"], 1.0),
        ("no", ["yes"], 0.0),
        ("", ["The"], 0.0),
        ("  ", [""], 0.0),
        ("Paris", [], 0.0),
    ],
)
def test_exact_match_takes_the_best_gold_answer(answer, gold, score):
    assert exact_match(answer, gold) == score


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("pound sterling", ["pound sterling"], 1.0),
        ("the pound", ["pound sterling"], 2 / 3),
        ("William Shakespeare", ["Shakespeare", "Bard of Avon"], 2 / 3),
        ("Paris Paris", ["Paris"], 2 / 3),  # a repeated word counts once
        ("London", ["Paris"], 0.0),
        ("yes", ["yes"], 1.0),
        ("yes it is", ["yes"], 0.0),
        ("yes", ["yes it is"], 0.0),
        ("noanswer", ["no answer"], 0.0),
        ("", ["Paris"], 0.0),
        ("", [""], 0.0),
        ("Paris", [], 0.0),
    ],
)
def test_f1_counts_shared_tokens_and_no_part_of_a_yes_or_no(answer, gold, score):
    assert f1_score(answer, gold) == pytest.approx(score)


@given(st.text(), st.text())
def test_f1_is_symmetric_and_exact_match_implies_it(one, other):
    assert f1_score(one, [other]) == pytest.approx(f1_score(other, [one]))
    assert 0.0 <= f1_score(one, [other]) <= 1.0
    if exact_match(one, [other]) and normalize_answer(one):
        assert f1_score(one, [other]) == 1.0
