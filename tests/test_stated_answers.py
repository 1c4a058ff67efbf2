"""A gold answer is found whatever joins it to other words, and never in another number."""

import pytest

from router_r1_graph.evaluation.scorers import stated

HELD = [
    *(
        (r"So \boxed{12}", "12"),
        ("x=12", "12"),
        ("It is 12.", "12"),
        ("共12个", "12"),
        ("\uff11\uff12", "12"),
    ),
    *(("1,200 km", "1200"), ("1200", "1,200"), ("$1{,}200.00$", "1200"), (r"\frac{1}{2}", "1/2")),
    *(("Answer:Paris", "Paris"), ("**Answer:**Paris", "Paris"), ("<b>Paris</b>", "Paris")),
    *(('{"answer":"Paris"}', "Paris"), ("Paris/France", "Paris"), ("(Paris)", "Paris")),
    *((r"$\text{Paris}$", "Paris"), ("Paris's mayor", "Paris"), ("New <b>York</b>", "New York")),
    *(("答案是北京。", "北京"), ("答えは東京です。", "東京"), ("서울입니다", "서울")),
    *(("เมืองหลวงคือกรุงเทพครับ", "กรุงเทพ"), ("McDonalds", "McDonald's"), (r"\boxed{Yes}", "yes")),
]
NOT_HELD = [
    *((text, "12") for text in ("12.5", "1,200", "112", "120", "is -12", "12:30", "12/5", "0.12")),
    *(("Parisian", "Paris"), ("不是", "是"), ("答案是上海。", "北京"), ("1914-1918", "1914")),
]


@pytest.mark.parametrize(("reply", "gold"), HELD)
def test_a_gold_answer_is_found_in_any_form(reply, gold):
    assert stated(reply, [gold]) == 1.0


@pytest.mark.parametrize(("reply", "gold"), NOT_HELD)
def test_another_number_or_word_is_not_taken_for_it(reply, gold):
    assert stated(reply, [gold]) == 0.0
